"""What a deployment changes of collections, by name."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.apps.plan import AppRecord, PutCollection, PutQueues, plan, teardown
from martlet.types import AppGraph, ChangesConfig, CollectionDeclaration, FunctionConfig

BY_N = {"terms": [{"path": "n"}]}


def graph(settings: dict[str, Any] | None, used: bool = True, **more: Any) -> AppGraph:
    function = FunctionConfig(name="f", handler="app:f", documents=("orders",) if used else ())
    declared = (CollectionDeclaration(name="orders", settings=settings),) if settings is not None else ()
    return AppGraph(functions=(function,), collections=declared, **more)


def record(of: AppGraph) -> AppRecord:
    return AppRecord(
        name="shop", revision=1, code="c", layer="", module="app", graph=of, versions=(), created_at_ms=0, updated_at_ms=0
    )


def changes(before: dict[str, Any] | None, after: dict[str, Any] | None, used: bool = True) -> list[tuple[str, ...]]:
    steps = plan("shop", record(graph(before)), {}, graph(after, used), "c", "")
    return [step.changes for step in steps if isinstance(step, PutCollection)]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, {"indexes": {"n": BY_N}}, ["new", "+ index n"]),
        ({"indexes": {"n": BY_N}}, {"indexes": {"m": BY_N}}, ["+ index m", "- index n: its entries are removed"]),
        ({"indexes": {"n": BY_N}}, {"indexes": {"n": {**BY_N, "unique": True}}}, ["~ index n"]),
        ({}, {"schema": {"fields": {"a": {"type": "int"}}}}, ["+ field a"]),
        ({"schema": {"checks": [{"name": "c", "expression": "a > 0"}]}}, {}, ["- check c: no longer checked"]),
        ({}, {"schema": {"additional": False}}, ["other fields are refused"]),
        ({}, {"history_seconds": 60}, ["history_seconds 86400 → 60: older versions are removed"]),
        ({"history_seconds": 60}, {"history_seconds": 600}, ["history_seconds 60 → 600"]),
        ({}, {"ttl_field": "until"}, ["ttl_field '' → 'until': documents past their time are removed"]),
        ({"ttl_field": "until"}, {}, ["ttl_field 'until' → ''"]),
        ({}, {"changes": "new_and_old"}, ["changes 'new' → 'new_and_old'"]),
    ],
)
def test_every_difference_has_its_name(before: dict[str, Any] | None, after: dict[str, Any], told: list[str]) -> None:
    assert changes(before, after) == [tuple(told)]


def test_what_is_as_it_was_is_no_step() -> None:
    assert changes({"indexes": {"n": BY_N}}, {"indexes": {"n": BY_N}}) == []


def test_a_collection_that_says_nothing_more_loses_what_it_said() -> None:
    assert changes({"indexes": {"n": BY_N}}, None) == [("- index n: its entries are removed",)]


def test_a_collection_that_is_gone_stays_as_it_is() -> None:
    assert changes({"indexes": {"n": BY_N}}, None, used=False) == []


def test_triggers_come_with_the_queues_and_go_with_the_app() -> None:
    follows = ChangesConfig(collection="orders", function="f")
    before = record(graph({}, changes=(follows,)))
    (step,) = [step for step in plan("shop", None, {}, before.graph, "c", "") if isinstance(step, PutQueues)]
    assert step.changes == (follows,)
    assert "changes of orders → f" in step.text()
    assert any(isinstance(step, PutQueues) and not step.changes for step in teardown(before, {}))
