"""Documents are parsed and validated once, and what is kept of them is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.protocols.graphql.conftest import BLOG

from martlet.protocols.graphql import preparing
from martlet.protocols.graphql.faults import Refusal
from martlet.protocols.graphql.importing import check_model
from martlet.protocols.graphql.preparing import Cache
from martlet.protocols.graphql.schema import make_schema

MODEL = check_model({"api": BLOG})
SCHEMA, _ = make_schema(MODEL)


def prepared(cache: Cache, text: str, owner: int = 1) -> preparing.Prepared:
    return cache.prepared(owner, SCHEMA, MODEL, text, True)


def test_a_document_is_prepared_once_and_planned_once_for_its_conditions() -> None:
    cache = Cache()
    text = "query ($x: Boolean!) { listTag { after data @skip(if: $x) { id } } }"
    first = prepared(cache, text)
    assert prepared(cache, text) is first
    assert cache.made == 1
    operation = first.operation(None)
    with_data, without = first.plan(operation, {"x": False}), first.plan(operation, {"x": True})
    assert first.plan(operation, {"x": False}) is with_data
    assert without is not with_data
    assert prepared(cache, text, owner=2) is not first  # another schema's


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_ROOM", 1_000)
    cache = Cache()
    texts = [f"{{ a{n}: __typename }} # {'x' * 80}" for n in range(50)]
    for text in texts:
        prepared(cache, text)
    prepared(cache, texts[-1])
    assert cache.made == 50
    prepared(cache, texts[0])
    assert cache.made == 51  # it had to go
    assert cache._size <= 1_000
    large = "{ __typename } #" + "x" * 20_000
    prepared(cache, large)
    prepared(cache, large)
    assert cache.made == 53  # too large to be kept at all
    cache.forget(1)
    assert (cache._size, len(cache._kept)) == (0, 0)


def test_wrong_documents_are_not_kept() -> None:
    cache = Cache()
    for _ in range(2):
        with pytest.raises(Refusal, match="Cannot query field"):
            prepared(cache, "{ nope }")
    assert len(cache._kept) == 0


def test_brackets_in_texts_and_comments_do_not_count() -> None:
    cache = Cache()
    deep = "{" * 500
    prepared(cache, f'{{ findTagByID(id: "{deep}") {{ id }} }} # {deep}')
    prepared(cache, f'{{ findTagByID(id: """ " {deep} \\""" """) {{ id }} }}')


def test_the_documented_schema_is_one() -> None:
    text = (Path(__file__).parents[3] / "docs/how-to/graphql.md").read_text()
    sdl = text.partition("```graphql\n")[2].partition("```")[0]
    model = check_model({"docs": sdl})
    api = make_schema(model)[1]
    for field in ("findAuthorByEmail(", "listBookByGenre(", "partialUpdateBook(", "bookChanged("):
        assert field in api
