"""Mutations of documents, within one transaction: create, update, partial update, delete, and what is nested in their input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from martlet.documents import Document, Transaction, values
from martlet.documents.view import read_id
from martlet.errors import Conflict, InvalidInput, NotFound
from martlet.protocols.graphql.model import Entity, Member, Model

__all__ = ["Writer"]


class Writer:
    """`permit` is asked for every collection that is written. Whatever raises undoes the whole transaction."""

    def __init__(self, tx: Transaction, model: Model, permit: Callable[[str, str], None]) -> None:
        self._tx = tx
        self._model = model
        self._permit = permit

    def create(self, entity: Entity, id: str | None, data: Mapping[str, Any], held: Mapping[str, str] | None = None) -> str:
        """A new document; its id. `held`: fields that hold the id of the document around it."""
        self._permit("documents:Put", entity.collection)
        value: dict[str, Any] = {}
        for name, other in (held or {}).items():
            member = _member(entity, name)
            if data.get(name) is not None:
                raise InvalidInput(f"{entity.name}.{name} is what this document is created within: leave it out", field=name)
            value[name] = [other] if member.is_list else other
        self._fill(entity, data, value)
        written = self._tx.put(entity.collection, id, value, expected=None if id is None else 0)
        self._others(entity, data, str(written.id))
        return str(written.id)

    def update(self, entity: Entity, id: str, data: Mapping[str, Any], version: int | None, *, whole: bool) -> str:
        """Change a document. `whole`: values that are not given go; relations that are not named stay, and so do fields that
        the schema does not know. Else: only what is given changes, and null removes."""
        self._permit("documents:Put", entity.collection)
        before = self._there(entity, id)
        value = _object(before)
        if whole:
            for member in entity.members:
                if member.kind in ("scalar", "enum", "embedded") and not member.computed:
                    value.pop(member.name, None)
        self._fill(entity, data, value)
        self._put(entity, before, value, version)
        self._others(entity, data, id)
        return id

    def delete(self, entity: Entity, id: str, version: int | None) -> bool:
        self._permit("documents:Delete", entity.collection)
        return self._tx.delete(entity.collection, id, expected=version)

    def _put(self, entity: Entity, before: Document, value: dict[str, Any], version: int | None = None) -> None:
        self._tx.put(entity.collection, before.id, value, expected=version, expires_at_ms=before.expires_at_ms)

    def _there(self, entity: Entity, id: str) -> Document:
        found = self._tx.get(entity.collection, id)
        if found is None:
            raise NotFound(f"there is no {entity.name} {id[:64]!r}", type=entity.name, id=id[:64])
        return found

    # what the document itself holds

    def _fill(self, entity: Entity, data: Mapping[str, Any], value: dict[str, Any]) -> None:
        for member in entity.members:
            if member.name not in data or member.kind in ("from_one", "from_many"):
                continue
            given = data[member.name]
            if member.kind == "to_one":
                self._refer_one(entity, member, given, value)
            elif member.kind == "to_many":
                self._refer_many(member, given, value)
            elif given is None:
                value.pop(member.name, None)
            else:
                value[member.name] = given

    def _refer_one(self, entity: Entity, member: Member, given: Mapping[str, Any] | None, value: dict[str, Any]) -> None:
        said = _said(member, given)
        if not said:
            return
        if len(said) > 1:
            raise InvalidInput(f"{entity.name}.{member.name}: give one of create, connect, disconnect", field=member.name)
        target = self._model.entities[member.type]
        if "create" in said:
            value[member.name] = self.create(target, None, said["create"])
        elif "connect" in said:
            value[member.name] = said["connect"]
        else:
            value.pop(member.name, None)

    def _refer_many(self, member: Member, given: Mapping[str, Any] | None, value: dict[str, Any]) -> None:
        said = _said(member, given)
        if not said:
            return
        target = self._model.entities[member.type]
        there = value.get(member.name)
        held = dict.fromkeys(there if isinstance(there, list) else ())
        for id in said.get("disconnect", ()):
            if id not in held:
                raise _not_connected(member, id)
            del held[id]
        held.update(dict.fromkeys(said.get("connect", ())))
        for data in said.get("create", ()):
            held[self.create(target, None, data)] = None
        value[member.name] = list(held)

    # what others hold

    def _others(self, entity: Entity, data: Mapping[str, Any], id: str) -> None:
        for member in entity.members:
            if member.kind not in ("from_one", "from_many") or member.name not in data:
                continue
            said = _said(member, data[member.name])
            target = self._model.entities[member.type]
            holder = _member(target, member.by)
            if member.kind == "from_one":
                self._hold_one(entity, member, target, holder, said, id)
                continue
            for other in said.get("disconnect", ()):
                self._let_go(member, target, holder, other, id)
            for other in said.get("connect", ()):
                self._hold(target, holder, other, id)
            for given in said.get("create", ()):
                self.create(target, None, given, {holder.name: id})

    def _hold_one(
        self, entity: Entity, member: Member, target: Entity, holder: Member, said: Mapping[str, Any], id: str
    ) -> None:
        """One to one: nobody is disconnected in passing (the unique index refuses it on the other side, too)."""
        if len(said) > 1:
            raise InvalidInput(f"{member.name}: give one of create, connect, disconnect", field=member.name)
        if "create" in said:
            self.create(target, None, said["create"], {holder.name: id})
        elif "connect" in said:
            now = _object(self._there(target, said["connect"])).get(holder.name)
            if isinstance(now, str) and now != id and self._tx.get(entity.collection, now) is not None:
                raise Conflict(
                    f"{target.name} {said['connect'][:64]!r} has a {holder.name} already: disconnect it first",
                    field=member.name,
                )
            self._hold(target, holder, said["connect"], id)
        elif said:
            for other in self._holding(target, holder, id):
                self._let_go(member, target, holder, other, id)

    def _holding(self, target: Entity, holder: Member, id: str) -> list[str]:
        compiled = self._tx.collection(target.collection)
        index = compiled.by_name.get(f"$ref:{holder.name}") if compiled is not None else None
        if index is None:
            return []
        if index.record.status != "ready":
            raise Conflict(f"references of {target.name}.{holder.name} are being indexed; try again", index=holder.name)
        term = index.term(id, False)
        return [
            str(read_id(entry.id)) for _, entry in self._tx.entries(index, term, term + b"\xff", False) if entry is not None
        ]

    def _hold(self, target: Entity, holder: Member, other: str, id: str) -> None:
        """The other document holds this one's id, from now on."""
        self._permit("documents:Put", target.collection)
        before = self._there(target, other)
        value = _object(before)
        if holder.is_list:
            there = value.get(holder.name)
            value[holder.name] = list(dict.fromkeys([*(there if isinstance(there, list) else ()), id]))
        else:
            value[holder.name] = id
        self._put(target, before, value)

    def _let_go(self, member: Member, target: Entity, holder: Member, other: str, id: str) -> None:
        self._permit("documents:Put", target.collection)
        before = self._there(target, other)
        value = _object(before)
        there = value.get(holder.name)
        if (id not in there) if isinstance(there, list) else there != id:
            raise _not_connected(member, other)
        if isinstance(there, list):
            value[holder.name] = [one for one in there if one != id]
        else:
            del value[holder.name]
        self._put(target, before, value)


def _said(member: Member, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What of {create, connect, disconnect} is really said: nulls and `disconnect: false` are nothing."""
    return {name: value for name, value in (given or {}).items() if value is not None and value is not False}


def _member(entity: Entity, name: str) -> Member:
    found = entity.member(name)
    assert found is not None
    return found


def _object(doc: Document) -> dict[str, Any]:
    value = values.load(doc.value_bytes)
    return value if isinstance(value, dict) else {}


def _not_connected(member: Member, id: str) -> InvalidInput:
    return InvalidInput(f"{member.name}: {id[:64]!r} is not connected", field=member.name, id=id[:64])
