"""The steps of a plan that read the store: documents by id, relations, pages. A level is one read, whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphql import GraphQLError

from martlet.documents import Document
from martlet.protocols.graphql.model import Entity, Index, Member, Root
from martlet.protocols.graphql.nodes import Level, Node, Selection

__all__ = ["Asked", "FindById", "FindUnique", "FromMany", "FromOne", "List", "PageSelection", "ToMany", "ToOne"]

Arguments = Callable[[Any], Mapping[str, Any]]


class ToOne(Node):
    """The document whose id this one holds."""

    __slots__ = ("_name", "_target", "selection")

    def __init__(self, key: str, place: str, member: Member, target: Entity, selection: Selection, ast: Any) -> None:
        super().__init__(key, place, member.required, ast)
        self._name = member.name
        self._target = target
        self.selection = selection

    def run(self, run: Any, level: Level) -> None:
        ids = [value.get(self._name) for value in level.values]
        found = run.fetch(self._target, [id for id in ids if id is not None])
        place_all(run, self, level, [found.get(id) if isinstance(id, str) else None for id in ids])

    def cost(self, times: int, variables: Any) -> int:
        return times + self.selection_cost(times, variables)

    def selection_cost(self, times: int, variables: Any) -> int:
        return sum(node.cost(times, variables) for node in self.selection.nodes)


class FromOne(ToOne):
    """The document that holds this one's id; there is one at most."""

    __slots__ = ("_by",)

    def __init__(self, key: str, place: str, member: Member, target: Entity, selection: Selection, ast: Any) -> None:
        super().__init__(key, place, member, target, selection, ast)
        self._by = member.by

    def run(self, run: Any, level: Level) -> None:
        found = run.referring(self._target, self._by, [doc.id for doc in level.docs], 1)
        place_all(run, self, level, [docs[0] if docs else None for docs in found])


def place_all(run: Any, node: ToOne, level: Level, docs: list[Document | None]) -> None:
    """Answer for each distinct document once, and give it to everyone that leads to it."""
    places: dict[Any, int] = {}
    distinct: list[Document] = []
    for doc in docs:
        if doc is not None and doc.id not in places:
            places[doc.id] = len(distinct)
            distinct.append(doc)
    before = run.size
    inner = run.documents(node.selection, distinct)
    if len(distinct) < len(docs):  # given to several: at most so often as there are objects
        run.size += (run.size - before) * (len(docs) - len(distinct))
    key, faults, outs = (node.key,), inner.faults, inner.outs
    for at, doc in enumerate(docs):
        out = level.outs[at]
        if out is None:
            continue
        if doc is None:
            level.take(at, node, key, None, ())
            continue
        place = places[doc.id]
        answer = outs[place]
        if answer is not None and not faults:
            out[node.key] = answer
        else:
            level.take(at, node, key, answer, faults.get(place, ()))


class PageSelection:
    """What is asked of a page: its documents, its cursors, in the order in which they were asked for."""

    __slots__ = ("parts", "selections")

    def __init__(self, parts: list[tuple[str, str, Any]]) -> None:
        self.parts = parts  # (key, "data" | "after" | "before" | "__typename", selection of data | the type's name)
        self.selections: list[Selection] = [more for _, what, more in parts if what == "data"]

    def cost(self, times: int, variables: Any) -> int:
        return sum(node.cost(times, variables) for selection in self.selections for node in selection.nodes)


class Page:
    """What a list found. `after` and `before` make the cursors; None: there is no such page."""

    __slots__ = ("after", "before", "docs")

    def __init__(
        self, docs: list[Document], after: Callable[[], str] | None = None, before: Callable[[], str] | None = None
    ) -> None:
        self.docs = docs
        self.after = after
        self.before = before


def show_pages(run: Any, node: Node, chosen: PageSelection, level: Level, pages: list[Page | Exception]) -> None:
    """Answer for the documents of all pages of a level together."""
    key, first = (node.key,), []
    docs: list[Document] = []
    for page in pages:
        first.append(len(docs))
        if isinstance(page, Page):
            docs += page.docs
    levels = {id(selection): run.documents(selection, docs) for selection in chosen.selections}
    for at, page in enumerate(pages):
        out = level.outs[at]
        if out is None:
            continue
        if isinstance(page, Exception):
            level.fail(at, node, page)
            continue
        answer: dict[str, Any] | None = {}
        faults: list[Any] = []
        for name, what, more in chosen.parts:
            assert answer is not None
            if what == "data":
                inner = levels[id(more)]
                items = inner.outs[first[at] : first[at] + len(page.docs)]
                if inner.faults:
                    for place in range(len(items)):
                        mine = inner.faults.get(first[at] + place, ())
                        faults += [((name, place, *path), error, where) for path, error, where in mine]
                    if None in items:
                        answer = None
                        break
                answer[name] = items
            elif what == "__typename":
                answer[name] = more
            else:
                made = page.after if what == "after" else page.before
                answer[name] = made() if made is not None else None
        level.take(at, node, key, answer, faults)


class Paged(Node):
    """A list, page by page."""

    __slots__ = ("_arguments", "page")

    def __init__(self, key: str, place: str, page: PageSelection, arguments: Arguments, ast: Any) -> None:
        super().__init__(key, place, True, ast)
        self.page = page
        self._arguments = arguments

    def cost(self, times: int, variables: Any) -> int:
        size = self._arguments(variables).get("size")
        each = times * max(size if type(size) is int else 0, 1)
        return each + self.page.cost(each, variables)


class ToMany(Paged):
    """The documents whose ids this one holds."""

    __slots__ = ("_name", "_target")

    def __init__(
        self, key: str, place: str, member: Member, target: Entity, page: PageSelection, arguments: Arguments, ast: Any
    ) -> None:
        super().__init__(key, place, page, arguments, ast)
        self._name = member.name
        self._target = target

    def run(self, run: Any, level: Level) -> None:
        given = self._arguments(run.variables)
        pages = run.pages_of_ids(self._target, self.place, level, self._name, given)
        show_pages(run, self, self.page, level, pages)


class FromMany(Paged):
    """The documents that hold this one's id."""

    __slots__ = ("_by", "_target")

    def __init__(
        self, key: str, place: str, member: Member, target: Entity, page: PageSelection, arguments: Arguments, ast: Any
    ) -> None:
        super().__init__(key, place, page, arguments, ast)
        self._by = member.by
        self._target = target

    def run(self, run: Any, level: Level) -> None:
        given = self._arguments(run.variables)
        pages = run.pages_referring(self._target, self._by, self.place, [doc.id for doc in level.docs], given)
        show_pages(run, self, self.page, level, pages)


class List(Paged):
    """A field of Query that lists documents: all of them, or by an index."""

    __slots__ = ("_entity", "_index")

    def __init__(
        self, key: str, place: str, entity: Entity, index: Index | None, page: PageSelection, arguments: Arguments, ast: Any
    ) -> None:
        super().__init__(key, place, page, arguments, ast)
        self._entity = entity
        self._index = index

    def run(self, run: Any, level: Level) -> None:
        page = run.listed(self._entity, self._index, self.place, self._arguments(run.variables))
        show_pages(run, self, self.page, level, [page])


class FindById(ToOne):
    """A field of Query: one document by its id."""

    __slots__ = ("_arguments",)

    def __init__(self, key: str, place: str, entity: Entity, selection: Selection, arguments: Arguments, ast: Any) -> None:
        Node.__init__(self, key, place, False, ast)
        self._name = ""
        self._target = entity
        self.selection = selection
        self._arguments = arguments

    def run(self, run: Any, level: Level) -> None:
        id = self._arguments(run.variables)["id"]
        place_all(run, self, level, [run.fetch(self._target, [id]).get(id)])


class FindUnique(FindById):
    """A field of Query: one document by the terms of a unique index."""

    __slots__ = ("_index",)

    def __init__(
        self, key: str, place: str, entity: Entity, index: Index, selection: Selection, arguments: Arguments, ast: Any
    ) -> None:
        super().__init__(key, place, entity, selection, arguments, ast)
        self._index = index

    def run(self, run: Any, level: Level) -> None:
        place_all(run, self, level, [run.unique(self._target, self._index, self._arguments(run.variables))])


class Asked(Node):
    """A field that a function answers. It is asked once for all objects of the level, when the snapshot has been read."""

    __slots__ = (
        "_convert",
        "arguments",
        "function",
        "is_list",
        "is_root",
        "item_required",
        "name",
        "on",
        "selection",
        "target",
    )

    def __init__(
        self,
        key: str,
        on: str,
        declared: Member | Root,
        required: bool,
        item_required: bool,
        target: Entity | None,
        selection: Selection | None,
        convert: Callable[[Any], Any] | None,
        arguments: Arguments,
        ast: Any,
    ) -> None:
        super().__init__(key, f"{on}.{declared.name}", required, ast)
        self.on = on
        self.name = declared.name
        self.function = declared.function
        self.is_list = declared.is_list
        self.is_root = isinstance(declared, Root)
        self.item_required = item_required
        self.target = target
        self.selection = selection
        self.arguments = arguments
        self._convert = convert

    def run(self, run: Any, level: Level) -> None:
        for out in level.outs:
            if out is not None:
                out[self.key] = None  # its place; a field of a type may be null, one of the root is looked at again
        run.ask(self, level)

    def cost(self, times: int, variables: Any) -> int:
        inner = self.selection.nodes if self.selection is not None else ()
        return times * 10 + sum(node.cost(times, variables) for node in inner)

    def converted(self, value: Any) -> Any:
        """A value of a scalar or enum. Raises `GraphQLError`."""
        assert self._convert is not None
        try:
            return self._convert(value)
        except TypeError as error:
            raise GraphQLError(f"{self.place}: {error}") from None
