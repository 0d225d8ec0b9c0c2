"""Mutations against a plain model: whatever is written, both sides of every relation, pages and indexes tell the same story."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from martlet.clock import Clock
from martlet.documents import Documents
from martlet.protocols.graphql.importing import put_schema
from martlet.protocols.graphql.service import Asking, Service
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine

SDL = """
type Author @index(name: "byAge", fields: ["-age"]) { name: String! @unique  age: Int  books: [Book!] @relation(onDelete: CASCADE)  desk: Desk }
type Book { title: String!  author: Author!  tags: [Tag!] @relation(onDelete: KEEP) }
type Tag { word: String!  books: [Book!] }
type Desk { place: String  author: Author @relation(onDelete: KEEP) }
"""
AUTHORS, BOOKS, TAGS, DESKS = ([f"{kind}{at}" for at in range(4)] for kind in "abtd")
author, book, tag, desk = map(st.sampled_from, (AUTHORS, BOOKS, TAGS, DESKS))
STEP = st.one_of(
    st.tuples(st.just("author"), author, st.sampled_from(["x", "y", "z"]), st.one_of(st.none(), st.integers(0, 3))),
    st.tuples(st.just("book"), book, author, st.lists(tag, max_size=3, unique=True)),
    st.tuples(st.just("tag"), tag),
    st.tuples(st.just("desk"), desk, st.one_of(st.none(), author)),
    st.tuples(st.just("move"), author, book),
    st.tuples(st.just("label"), tag, book, st.booleans()),
    st.tuples(
        st.just("delete"),
        st.one_of(
            st.tuples(st.just("Author"), author),
            st.tuples(st.just("Book"), book),
            st.tuples(st.just("Tag"), tag),
            st.tuples(st.just("Desk"), desk),
        ),
    ),
)
OPERATION = st.lists(STEP, min_size=1, max_size=3)


class Plain:
    """What there should be."""

    def __init__(self) -> None:
        self.authors: dict[str, dict[str, Any]] = {}
        self.books: dict[str, dict[str, Any]] = {}
        self.tags: set[str] = set()
        self.desks: set[str] = set()
        self.held: dict[str, str] = {}  # author -> desk: of one-to-one the first by the alphabet holds the id

    def copy(self) -> Plain:
        made = Plain()
        made.authors = {id: dict(value) for id, value in self.authors.items()}
        made.books = {id: {**value, "tags": list(value["tags"])} for id, value in self.books.items()}
        made.tags, made.desks, made.held = set(self.tags), set(self.desks), dict(self.held)
        return made

    def apply(self, step: tuple[Any, ...]) -> bool:
        """False: it must be refused."""
        return bool(getattr(self, f"_{step[0]}")(*step[1:]))

    def _author(self, id: str, name: str, age: int | None) -> bool:
        if id in self.authors or any(one["name"] == name for one in self.authors.values()):
            return False
        self.authors[id] = {"name": name, "age": age}
        return True

    def _book(self, id: str, author: str, tags: list[str]) -> bool:
        if id in self.books or author not in self.authors or not self.tags.issuperset(tags):
            return False
        self.books[id] = {"author": author, "tags": list(tags)}
        return True

    def _tag(self, id: str) -> bool:
        if id in self.tags:
            return False
        self.tags.add(id)
        return True

    def _desk(self, id: str, author: str | None) -> bool:
        if id in self.desks or (author is not None and author not in self.authors):
            return False
        self.desks.add(id)
        if author is None:
            return True
        now = self.held.get(author)
        if (now in self.desks and now != id) or any(held == id for other, held in self.held.items() if other != author):
            return False
        self.held[author] = id
        return True

    def _move(self, author: str, book: str) -> bool:
        if author not in self.authors or book not in self.books or not self.tags.issuperset(self.books[book]["tags"]):
            return False
        if author in self.held and self.held[author] not in self.desks:  # kept when its desk was deleted: mended first
            return False
        self.books[book]["author"] = author
        return True

    def _label(self, tag: str, book: str, on: bool) -> bool:
        if tag not in self.tags or book not in self.books:
            return False
        held = self.books[book]["tags"]
        if on:
            held += [tag] if tag not in held else []
        elif tag not in held:
            return False
        else:
            held.remove(tag)
        return self.tags.issuperset(held)

    def _delete(self, what: tuple[str, str]) -> bool:
        kind, id = what
        if kind == "Author" and id in self.authors:
            del self.authors[id]
            self.held.pop(id, None)
            self.books = {key: value for key, value in self.books.items() if value["author"] != id}
        elif kind == "Book":
            self.books.pop(id, None)
        elif kind == "Tag":
            self.tags.discard(id)
        elif kind == "Desk":
            self.desks.discard(id)
        return True


def text_of(at: int, step: tuple[Any, ...]) -> str:
    kind, *rest = step
    if kind == "author":
        age = "" if rest[2] is None else f", age: {rest[2]}"
        return f'm{at}: createAuthor(id: "{rest[0]}", data: {{name: "{rest[1]}"{age}}}) {{ id }}'
    if kind == "book":
        tags = ", ".join(f'"{one}"' for one in rest[2])
        return f'm{at}: createBook(id: "{rest[0]}", data: {{title: "t", author: {{connect: "{rest[1]}"}}, tags: {{connect: [{tags}]}}}}) {{ id }}'
    if kind == "tag":
        return f'm{at}: createTag(id: "{rest[0]}", data: {{word: "w"}}) {{ id }}'
    if kind == "desk":
        author = f', author: {{connect: "{rest[1]}"}}' if rest[1] else ""
        return f'm{at}: createDesk(id: "{rest[0]}", data: {{place: "p"{author}}}) {{ id }}'
    if kind == "move":
        return f'm{at}: partialUpdateAuthor(id: "{rest[0]}", data: {{books: {{connect: ["{rest[1]}"]}}}}) {{ id }}'
    if kind == "label":
        way = "connect" if rest[2] else "disconnect"
        return f'm{at}: partialUpdateTag(id: "{rest[0]}", data: {{books: {{{way}: ["{rest[1]}"]}}}}) {{ id }}'
    return f'm{at}: delete{rest[0][0]}(id: "{rest[0][1]}") {{ id }}'


LOOK = """{
  listAuthor { data { id name age books { data { id } } desk { id } } }
  listBook { data { id author { id } tags { data { id } } } }
  listTag { data { id books { data { id } } } }
  listDesk { data { id author { id } } }
  ages: listAuthorByAge { data { age } }
}"""


def ids(page: dict[str, Any]) -> list[str]:
    return [one["id"] for one in page["data"]]


async def run(operations: list[list[tuple[Any, ...]]]) -> None:
    async def call(database: str, function: str, event: bytes) -> bytes:
        raise AssertionError

    store = Store(MemoryEngine(), clock=Clock())
    try:
        room = Documents(store, Clock())
        with room.redefining():
            await store.transact(lambda tx: put_schema(tx, room, "db", "api", SDL))
        service, plain = Service(room, call), Plain()

        async def ask(text: str) -> dict[str, Any]:
            return await service.run(await service.ready("db", Asking(text)), lambda action, name: None)

        for steps in operations:
            after = plain.copy()
            good = all(after.apply(step) for step in steps)  # up to the first that must be refused
            answer = await ask("mutation { " + " ".join(text_of(at, step) for at, step in enumerate(steps)) + " }")
            assert ("errors" not in answer) == good, (steps, answer)
            plain = after if good else plain
            compare(plain, (await ask(LOOK))["data"])
    finally:
        await store.close()


def compare(plain: Plain, data: dict[str, Any]) -> None:
    assert {one["id"]: (one["name"], one["age"]) for one in data["listAuthor"]["data"]} == {
        id: (value["name"], value["age"]) for id, value in plain.authors.items()
    }
    for one in data["listAuthor"]["data"]:
        assert ids(one["books"]) == sorted(id for id, value in plain.books.items() if value["author"] == one["id"])
        held = plain.held.get(one["id"])
        assert (one["desk"] or {}).get("id") == (held if held in plain.desks else None)
    assert {one["id"]: (one["author"]["id"], ids(one["tags"])) for one in data["listBook"]["data"]} == {
        id: (value["author"], [tag for tag in value["tags"] if tag in plain.tags]) for id, value in plain.books.items()
    }
    for one in data["listTag"]["data"]:
        assert ids(one["books"]) == sorted(id for id, value in plain.books.items() if one["id"] in value["tags"])
    assert {one["id"]: (one["author"] or {}).get("id") for one in data["listDesk"]["data"]} == {
        id: next((author for author, held in plain.held.items() if held == id), None) for id in plain.desks
    }
    ages = [value["age"] for value in plain.authors.values()]
    assert [one["age"] for one in data["ages"]["data"]] == sorted((age for age in ages if age is not None), reverse=True) + [
        None
    ] * ages.count(None)


BEGINNING: list[list[tuple[Any, ...]]] = [
    [("author", id, name, 1) for id, name in zip(AUTHORS[:3], "xyv", strict=True)],
    [("tag", id) for id in TAGS[:3]],
    [("book", id, AUTHORS[at], TAGS[:at]) for at, id in enumerate(BOOKS[:3])],
    [("desk", DESKS[0], AUTHORS[0])],
]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(st.lists(OPERATION, min_size=1, max_size=12))
def test_mutations_against_a_plain_model(operations: list[list[tuple[Any, ...]]]) -> None:
    asyncio.run(run(BEGINNING + operations))
