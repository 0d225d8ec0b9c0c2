"""JSONPath in Jayway's dialect."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.errors import InvalidInput
from martlet.gateway.jsonpath import compile_path

STORE = {
    "book": [
        {"title": "A", "price": 8, "tags": ["x"]},
        {"title": "B", "price": 12, "isbn": "1"},
        {"title": "C", "price": 20, "isbn": "2", "sold": True},
    ],
    "a.b": {"c d": 1},
    "deep": {"book": "inner"},
    "none": None,
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", STORE),
        ("$.book[0].title", "A"),
        ("$['book'][1]['title']", "B"),
        ('$["a.b"]["c d"]', 1),
        ("book[0].price", 8),
        ("$.book[-1].title", "C"),
        ("$.book[*].title", ["A", "B", "C"]),
        ("$.book[0,2].title", ["A", "C"]),
        ("$.book[1:].title", ["B", "C"]),
        ("$.book[:2].title", ["A", "B"]),
        ("$.book[?(@.isbn)].title", ["B", "C"]),
        ("$.book[?(!@.isbn)].title", ["A"]),
        ("$.book[?(@.price < 10 || @.sold == true)].title", ["A", "C"]),
        ("$.book[?(@.price >= 12 && @.title != 'C')].title", ["B"]),
        ("$.book[?(@['title'] == \"A\")].price", [8]),
        ("$..title", ["A", "B", "C"]),
        ("$..book[0].title", ["A"]),
        ("$.book.length()", 3),
        ("$.book[0]['title','price']", [{"title": "A", "price": 8}]),
        ("$.book[9:]", []),
        ("$.deep.*", ["inner"]),
        ("$.none", None),
    ],
)
def test_paths(path: str, found: Any) -> None:
    assert compile_path(path).find(STORE) == (True, found)


@pytest.mark.parametrize("path", ["$.nothing", "$.book[9]", "$.book.title", "$.none.deeper", "$.deep[0]"])
def test_what_is_not_there(path: str) -> None:
    assert compile_path(path).find(STORE) == (False, None)


@pytest.mark.parametrize(
    "path",
    ["$.", "$[", "$['a'", "$.book[?(@.title =~ /x/)]", "$.book[?(1)]", "$x", "$.a.evil()", "$.book[a]", "$" + "[0]" * 900],
)
def test_malformed_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        compile_path(path)


def test_a_path_that_multiplies_is_bounded() -> None:
    document: Any = [1]
    for _ in range(12):
        document = [document, document, document, document]
    with pytest.raises(InvalidInput, match="too much work"):
        compile_path("$..*..*").find(document)
