"""The steps of a plan that need no store: values within documents. Each does one field of all objects of a level at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from graphql import GraphQLError

from martlet.documents import Document
from martlet.errors import AccessDenied, MartletError, StoreFailed
from martlet.protocols.graphql.faults import Fault

__all__ = ["Constant", "Faults", "Level", "Nested", "Node", "Outs", "Scalar", "ScalarList", "Selection", "System", "missing"]

Outs = list[dict[str, Any] | None]  # an object's answer, in the order of its level; None: it is null
Faults = dict[int, list[Fault]]  # by the object's place in its level; paths begin at the object


class Level:
    """The objects of one level: their values, and their documents where they have them."""

    __slots__ = ("docs", "faults", "outs", "values")

    def __init__(self, values: Sequence[dict[str, Any]], docs: Sequence[Document] = ()) -> None:
        self.values = values
        self.docs = docs
        self.outs: Outs = [{} for _ in values]
        self.faults: Faults = {}

    def fail(self, at: int, node: Node, error: Exception) -> None:
        """The field of the object there is in error: null, or the object is."""
        self.faults.setdefault(at, []).append(((node.key,), error, node.ast))
        self.null(at, node)

    def null(self, at: int, node: Node) -> None:
        out = self.outs[at]
        if out is not None:
            if node.required:
                self.outs[at] = None
            else:
                out[node.key] = None

    def take(self, at: int, node: Node, below: tuple[str | int, ...], found: Any, faults: Sequence[Fault]) -> None:
        """Put in what a lower level answered; `found` None is null."""
        if faults:
            mine = self.faults.setdefault(at, [])
            mine += [((*below, *path), error, where) for path, error, where in faults]
        out = self.outs[at]
        if out is None:
            return
        if found is None:
            if node.required and not faults:
                self.fail(at, node, missing(node))
            else:
                self.null(at, node)
        else:
            out[node.key] = found


class Selection:
    """What is asked of the objects of one type."""

    __slots__ = ("nodes", "type")

    def __init__(self, type: str, nodes: list[Node]) -> None:
        self.type = type
        self.nodes = nodes

    def run(self, run: Any, level: Level) -> Level:
        """Answer for all objects of the level. What a field may raise is its own error; a denied call and a store that fails
        end the request, and so does one whose answer has too many values."""
        run.count(len(level.outs) * len(self.nodes))
        for node in self.nodes:
            try:
                node.run(run, level)
            except (AccessDenied, StoreFailed):
                raise
            except (GraphQLError, MartletError) as error:
                for at, out in enumerate(level.outs):
                    if out is not None:
                        level.fail(at, node, error)
        return level


class Node:
    """One field. `key`: its name in the answer. `required`: it may not be null. `place`: "Post.title"."""

    __slots__ = ("ast", "key", "place", "required")

    def __init__(self, key: str, place: str, required: bool, ast: Any) -> None:
        self.key = key
        self.place = place
        self.required = required
        self.ast = ast

    def run(self, run: Any, level: Level) -> None:
        raise NotImplementedError

    def cost(self, times: int, variables: Any) -> int:
        """Documents that may be read for it, asked `times` times."""
        return 0


class Constant(Node):
    """`__typename`."""

    __slots__ = ("value",)

    def __init__(self, key: str, value: str, ast: Any) -> None:
        super().__init__(key, "", True, ast)
        self.value = value

    def run(self, run: Any, level: Level) -> None:
        for out in level.outs:
            if out is not None:
                out[self.key] = self.value


_SYSTEM: Final[dict[str, Callable[[Document], Any]]] = {
    "id": lambda doc: doc.id if isinstance(doc.id, str) else _compound(doc),
    "_version": lambda doc: doc.version,
    "_ts": lambda doc: doc.stamp,
}


def _compound(doc: Document) -> str:
    raise GraphQLError("the document's id is a compound one, which GraphQL's ID cannot represent")


class System(Node):
    """id, _version and _ts."""

    __slots__ = ("_read",)

    def __init__(self, key: str, name: str, place: str, ast: Any) -> None:
        super().__init__(key, place, True, ast)
        self._read = _SYSTEM[name]

    def run(self, run: Any, level: Level) -> None:
        for at, doc in enumerate(level.docs):
            out = level.outs[at]
            if out is not None:
                try:
                    out[self.key] = self._read(doc)
                except GraphQLError as error:
                    level.fail(at, self, error)


class Scalar(Node):
    """A single value. `exact`: the type of a value that needs no conversion; `convert` raises `GraphQLError`."""

    __slots__ = ("_convert", "_exact", "_name")

    def __init__(
        self, key: str, name: str, place: str, required: bool, exact: type | None, convert: Callable[[Any], Any], ast: Any
    ) -> None:
        super().__init__(key, place, required, ast)
        self._name = name
        self._exact = exact
        self._convert = convert

    def run(self, run: Any, level: Level) -> None:
        key, name, exact, outs = self.key, self._name, self._exact, level.outs
        size = 0
        for at, value in enumerate(level.values):
            out = outs[at]
            if out is None:
                continue
            found = value.get(name)
            if type(found) is exact:
                out[key] = found
                if exact is str:
                    size += len(found)  # type: ignore[arg-type]
            elif found is not None:
                try:
                    shown: Any = self._convert(found)
                    out[key] = shown
                    if isinstance(shown, str):
                        size += len(shown)
                    elif isinstance(shown, msgspec.Raw):
                        size += len(bytes(shown))
                except GraphQLError as error:
                    level.fail(at, self, error)
            elif self.required:
                level.fail(at, self, missing(self))
            else:
                out[key] = None
        run.size += size


class ScalarList(Node):
    """A list of values. Numbers of one are in the path of its errors."""

    __slots__ = ("_convert", "_item_required", "_name")

    def __init__(
        self, key: str, name: str, place: str, required: bool, item_required: bool, convert: Callable[[Any], Any], ast: Any
    ) -> None:
        super().__init__(key, place, required, ast)
        self._name = name
        self._item_required = item_required
        self._convert = convert

    def run(self, run: Any, level: Level) -> None:
        for at, value in enumerate(level.values):
            out = level.outs[at]
            if out is None:
                continue
            found = value.get(self._name)
            if found is None:
                if self.required:
                    level.fail(at, self, missing(self))
                else:
                    out[self.key] = None
            elif isinstance(found, list | frozenset):
                items, faults = self.items(list(found))
                run.size += 8 * len(found) + sum(len(item) for item in items or () if isinstance(item, str))
                level.take(at, self, (self.key,), items, faults)
            else:
                level.fail(at, self, not_a_list(self))

    def items(self, found: list[Any]) -> tuple[list[Any] | None, list[Fault]]:
        items: list[Any] = []
        faults: list[Fault] = []
        for place, item in enumerate(found):
            error: Exception | None = None
            shown = None
            if item is not None:
                try:
                    shown = self._convert(item)
                except GraphQLError as wrong:
                    error = wrong
            elif self._item_required:
                error = missing(self)
            if error is not None:
                faults.append(((place,), error, self.ast))
                if self._item_required:
                    return None, faults
            items.append(shown)
        return items, faults


class Nested(Node):
    """An embedded object, or a list of them."""

    __slots__ = ("_is_list", "_item_required", "_name", "selection")

    def __init__(
        self,
        key: str,
        name: str,
        place: str,
        required: bool,
        is_list: bool,
        item_required: bool,
        selection: Selection,
        ast: Any,
    ) -> None:
        super().__init__(key, place, required, ast)
        self._name = name
        self._is_list = is_list
        self._item_required = item_required
        self.selection = selection

    def run(self, run: Any, level: Level) -> None:
        for at, value in enumerate(level.values):
            if level.outs[at] is None:
                continue
            found = value.get(self._name)
            if found is not None and self._is_list != isinstance(found, list):
                level.fail(at, self, not_a_list(self) if self._is_list else no_object(self))
            elif found is not None and self._is_list:
                self._list(run, level, at, found)
            elif found is not None and not isinstance(found, dict):
                level.fail(at, self, no_object(self))
            else:
                self._one(run, level, at, found)

    def _one(self, run: Any, level: Level, at: int, found: Any) -> None:
        if found is None:
            level.take(at, self, (), None, ())
            return
        inner = self.selection.run(run, Level([found]))
        level.take(at, self, (self.key,), inner.outs[0], inner.faults.get(0, ()))

    def _list(self, run: Any, level: Level, at: int, found: list[Any]) -> None:
        inner = self.selection.run(run, Level([item if isinstance(item, dict) else {} for item in found]))
        items: list[Any] | None = []
        faults: list[Fault] = []
        for place, item in enumerate(found):
            shown = inner.outs[place]
            mine = [((place, *path), error, where) for path, error, where in inner.faults.get(place, ())]
            if not isinstance(item, dict):
                shown, mine = None, []
                if item is not None or self._item_required:
                    mine = [((place,), missing(self) if item is None else no_object(self), self.ast)]
            faults += mine
            if shown is None and self._item_required:
                items = None
                break
            if items is not None:
                items.append(shown)
        level.take(at, self, (self.key,), items, faults)


def missing(node: Node) -> GraphQLError:
    return GraphQLError(f"Cannot return null for non-nullable field {node.place}.")


def not_a_list(node: Node) -> GraphQLError:
    return GraphQLError(f"{node.place} is stored as something that is no list")


def no_object(node: Node) -> GraphQLError:
    return GraphQLError(f"{node.place} is stored as something that is no object")
