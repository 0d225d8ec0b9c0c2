"""The index of rules finds exactly what trying every rule finds."""

from __future__ import annotations

import json
import random
from typing import Any

from martlet.buses.rows import Rule
from martlet.buses.rulebook import Book
from martlet.triggers.patterns import parse_pattern

TARGETS = ({"Id": "t", "Arn": "x"},)


def rule(number: int, pattern: Any) -> Rule:
    return Rule(bus="b", name=f"r{number}", pattern=json.dumps(pattern), targets=TARGETS)


def some(chance: random.Random, *texts: Any) -> list[Any]:
    return [chance.choice(texts) for _ in range(chance.randrange(1, 3))]


def a_pattern(chance: random.Random) -> dict[str, Any]:
    field: dict[str, Any] = {}
    if chance.random() < 0.7:
        field["source"] = some(chance, "a", "b", {"prefix": "a"}, None)
    if chance.random() < 0.5:
        field["detail"] = {"x": some(chance, "p", "q", 1, {"exists": False})}
    if chance.random() < 0.4:
        field["detail"] = {"in": {"y": some(chance, "p", "q")}, "$or": [{"x": ["p"]}, {"z": ["q"]}]}
    if chance.random() < 0.2:
        field["detail.x"] = some(chance, "p")
    if chance.random() < 0.2:
        field["$or"] = [{"source": ["b"]}, {"detail": {"x": ["q"]}}]
    return field or {"source": ["a"]}


def an_event(chance: random.Random) -> dict[str, Any]:
    inner: Any = {"y": chance.choice(["p", "q", 1, ["q", "r"], None])}
    detail = {
        "x": chance.choice(["p", "q", ["p", 1], None, {"p": 1}]),
        "in": chance.choice([inner, [inner, {"y": "p"}], [[inner], [[{"y": "p"}]]], [], 3]),
    }
    if chance.random() < 0.3:
        detail = {"in.y": "p", "z": "q"}
    return {"source": chance.choice(["a", "b", "ab", ["a"], 1]), "detail": detail}


def test_the_index_finds_what_a_search_finds() -> None:
    chance = random.Random(3)
    for _ in range(60):
        rules = [rule(number, a_pattern(chance)) for number in range(20)]
        book = Book(rules, [], parse_pattern)
        for _ in range(20):
            event = an_event(chance)
            wanted = {one.name for one in rules if parse_pattern(one.pattern)(event)}
            found = [one.name for one in book.matching(event)]
            assert sorted(found) == sorted(wanted), (event, found, wanted)


def test_few_of_a_thousand_rules_are_tried() -> None:
    tried = 0

    def counting(text: str) -> Any:
        test = parse_pattern(text)

        def matches(event: Any) -> bool:
            nonlocal tried
            tried += 1
            return test(event)

        return matches

    rules = [
        rule(number, {"source": ["shop"], "detail": {"customer": [f"c{number}"], "sum": [{"numeric": [">", 9]}]}})
        for number in range(1_000)
    ]
    book = Book(rules, [], counting)
    found = [one.name for one in book.matching({"source": "shop", "detail": {"customer": "c5", "sum": 10}})]
    assert (found, tried) == (["r5"], 2)  # the pattern, and before it one of its fields


def test_a_thousand_rules_that_no_text_tells_apart_end_at_one_field() -> None:
    whole = 0

    def counting(text: str) -> Any:
        test = parse_pattern(text)

        def matches(event: Any) -> bool:
            nonlocal whole
            whole += "detail" in event
            return test(event)

        return matches

    def pattern(number: int) -> dict[str, Any]:
        sums = {"sum": [{"numeric": ["=", number]}]}
        return {"source": ["shop"], "detail": sums} if number % 2 else {"$or": [{"detail": sums}, {"source": ["else"]}]}

    book = Book([rule(number, pattern(number)) for number in range(1_000)], [], counting)
    found = [one.name for one in book.matching({"source": "shop", "detail": {"sum": 7}})]
    assert (found, whole) == (["r7"], 1)
    found = [one.name for one in book.matching({"source": "shop", "detail": {"sum": [8, 9]}})]
    assert sorted(found) == ["r8", "r9"]
    assert len(list(book.matching({"source": "else", "detail": {"sum": 7}}))) == 500
