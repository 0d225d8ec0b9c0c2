"""Relations: which field of a pair holds the ids, and which one is found through it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from martlet.errors import InvalidInput
from martlet.protocols.graphql.model import Entity, Index, Member

__all__ = ["relate"]

Place = tuple[str, str]  # type, field


def relate(entities: dict[str, Entity], declared: Mapping[Place, tuple[str, str]]) -> dict[str, Entity]:
    """The entities with each relation's two sides told apart. `declared`: name and on delete of each @relation.

    One side holds ids: of one-to-many the one with a single value, of one-to-one the one that must be there, else (as of
    many-to-many) the first by the alphabet, so that the order of definitions does not matter. Raises `InvalidInput`."""
    edges = {
        (entity.name, member.name): member
        for entity in entities.values()
        for member in entity.members
        if member.kind in ("to_one", "to_many")
    }
    changed: dict[Place, Member] = {}
    for place, (_, on_delete) in declared.items():
        if on_delete:
            changed[place] = msgspec.structs.replace(edges[place], on_delete=on_delete)
    for left, right in _pairs(edges, declared):
        holder, other = _sides(left, right, edges)
        on_delete = declared.get(holder, ("", ""))[1] or declared.get(other, ("", ""))[1] or "restrict"
        held = msgspec.structs.replace(edges[holder], on_delete=on_delete)
        if held.kind == "to_one" and edges[other].kind == "to_one" and not held.unique:
            held = msgspec.structs.replace(held, unique=f"unique_{held.name}")
        changed[holder] = held
        kind = "from_one" if edges[other].kind == "to_one" else "from_many"
        if edges[other].unique:
            raise InvalidInput(f"field {'.'.join(other)} cannot be @unique: the other side holds the relation", field=other[1])
        changed[other] = msgspec.structs.replace(edges[other], kind=kind, by=holder[1])
    return {
        name: msgspec.structs.replace(
            entity,
            members=tuple(changed.get((name, member.name), member) for member in entity.members),
            indexes=_indexes(entity, changed),
        )
        for name, entity in entities.items()
    }


def _indexes(entity: Entity, changed: Mapping[Place, Member]) -> tuple[Index, ...]:
    there = {index.name for index in entity.indexes}
    made = [
        Index(member.unique, (member.name,), True)
        for (name, _), member in changed.items()
        if name == entity.name and member.unique and member.unique not in there
    ]
    return (*entity.indexes, *made)


def _pairs(edges: Mapping[Place, Member], declared: Mapping[Place, tuple[str, str]]) -> list[tuple[Place, Place]]:
    named: dict[str, list[Place]] = {}
    loose: dict[tuple[str, str], list[Place]] = {}
    for place, member in edges.items():
        name = declared.get(place, ("", ""))[0]
        if name:
            named.setdefault(name, []).append(place)
        elif place[0] != member.type:  # a type's relation to itself has two sides only by name
            loose.setdefault((place[0], member.type), []).append(place)
    pairs: list[tuple[Place, Place]] = []
    for name, places in named.items():
        if len(places) == 1:
            continue
        if len(places) != 2 or any(edges[one].type != other[0] for one, other in (places, places[::-1])):
            told = ", ".join(".".join(place) for place in places)
            raise InvalidInput(f"the relation {name!r} must have two sides that point at each other, not {told}", field=name)
        pairs.append((places[0], places[1]))
    for (owner, target), places in loose.items():
        back = loose.get((target, owner), [])
        if not back or owner > target:
            continue
        if len(places) > 1 or len(back) > 1:
            told = ", ".join(".".join(place) for place in (*places, *back))
            raise InvalidInput(f"which of these belong together? give them @relation(name: ...): {told}", field=places[0][1])
        pairs.append((places[0], back[0]))
    return pairs


def _sides(left: Place, right: Place, edges: Mapping[Place, Member]) -> tuple[Place, Place]:
    one, other = edges[left], edges[right]
    if one.is_list != other.is_list:
        return (right, left) if one.is_list else (left, right)
    if not one.is_list and one.required and other.required:
        told = f"{'.'.join(left)} and {'.'.join(right)}"
        raise InvalidInput(f"{told} must both be there before the other: one must be nullable", field=left[1])
    if not one.is_list and one.required != other.required:
        return (left, right) if one.required else (right, left)
    return (left, right) if left < right else (right, left)
