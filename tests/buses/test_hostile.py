"""Hostile input: patterns, templates and requests of every shape are answered, and nothing crashes on them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests.queues.service import CALLER

from martlet.buses import inputs
from martlet.buses.filters import BadPolicy, check
from martlet.buses.rows import Rule
from martlet.buses.rulebook import Book
from martlet.errors import MartletError
from martlet.triggers.patterns import InvalidPattern, compile_pattern, parse_pattern

from .test_scheduler import Stage

WORDS: list[Any] = [
    *("prefix", "suffix", "anything-but", "numeric", "exists", "cidr", "wildcard", "$or", "equals-ignore-case", "a", "a.b", ""),
    *("*" * 5, ">", "<=", "10.0.0.0/8", 0, -1, 1e308, True, False, None, "\ud800", "x" * 100),
]


def anything(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random()
    if depth > 4 or kind < 0.35:
        return chance.choice(WORDS)
    if kind < 0.65:
        return [anything(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {str(chance.choice(WORDS)): anything(chance, depth + 1) for _ in range(chance.randrange(4))}


def test_every_pattern_is_compiled_or_refused() -> None:
    chance = random.Random(5)
    for _ in range(3_000):
        pattern, event = anything(chance), anything(chance)
        try:
            matches = compile_pattern(pattern)
        except InvalidPattern:
            continue
        assert matches(event) in (True, False)


def test_every_filter_is_compiled_or_refused() -> None:
    chance = random.Random(6)
    for _ in range(1_000):
        try:
            matches = check(json.dumps(anything(chance)), chance.choice(["MessageAttributes", "MessageBody"]), parse_pattern)
        except BadPolicy:
            continue
        if matches is not None:
            assert matches(anything(chance)) in (True, False)


def test_every_template_is_filled_or_dropped() -> None:
    chance = random.Random(7)
    parts = ['"', "<a>", "<b", "{", "}", "<aws.events.event>", "\\", "[", ":", "x"]
    event = {"detail": {"a": 'q"\\'}, "detail-type": "d"}
    for _ in range(2_000):
        template = "".join(chance.choice(parts) for _ in range(8))
        path = "$" + "".join(chance.choice([".detail", ".a", "[0]", "[*]", "..", "['a']", "[-9]"]) for _ in range(3))
        target = {"InputTransformer": {"InputPathsMap": {"a": path}, "InputTemplate": template}}
        try:
            assert isinstance(inputs.given(target, event, json.dumps(event), "r", "arn", "now"), str)
        except inputs.Undeliverable:
            continue


@pytest.mark.parametrize("service", ["events", "scheduler", "sns"])
async def test_every_request_is_answered_or_refused(service: str) -> None:
    stage = Stage()
    await stage.open()
    chance = random.Random(service)
    room: Any = getattr(stage, service)
    try:
        if service == "sns":
            calls: list[tuple[str, dict[str, Any]]] = [
                (name, {
                    "TopicArn": chance.choice(["", "x", "a:b:c:d:e:f", "arn:aws:sns:us-east-1:000000000000:t"]),
                    "Name": str(chance.choice(WORDS)), "Message": str(chance.choice(WORDS)), "Protocol": "sqs",
                    "Endpoint": str(chance.choice(WORDS)), "SubscriptionArn": ":".join("abcdefg"[: chance.randrange(8)]),
                    "Token": str(chance.choice(WORDS)), "AttributeName": chance.choice(["FilterPolicy", "Policy", "x"]),
                    "AttributeValue": json.dumps(anything(chance)),
                    "PublishBatchRequestEntries": [{"Id": str(chance.choice(WORDS)), "Message": "m"}],
                })
                for name in ("create_topic", "publish", "subscribe", "unsubscribe", "confirm_subscription", "publish_batch",
                             "set_topic_attributes", "set_subscription_attributes", "get_topic_attributes")
                for _ in range(30)
            ]  # fmt: skip
        elif service == "events":
            calls = [
                (name, {
                    "Name": "r", "Rule": "r", "EventPattern": json.dumps(anything(chance)),
                    "Event": json.dumps(anything(chance)),
                    "Targets": [{"Id": "t", "Arn": str(chance.choice(WORDS)), "Input": str(chance.choice(WORDS))}],
                    "Entries": [{"Source": "s", "DetailType": "d", "Detail": json.dumps(anything(chance))}],
                    "EventBusName": str(chance.choice(WORDS)), "Policy": json.dumps(anything(chance)),
                })
                for name in ("put_rule", "put_targets", "put_events", "test_event_pattern", "put_permission", "list_rules")
                for _ in range(40)
            ]  # fmt: skip
        else:
            calls = [
                ("create_schedule", {
                    "Name": "s", "ScheduleExpression": str(chance.choice(["at()", "rate(9)", "cron(* * * * * *)", "x" * 300])),
                    "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": {"Arn": str(chance.choice(WORDS)), "RoleArn": "r"},
                })
                for _ in range(60)
            ]  # fmt: skip
        for name, request in calls:
            try:
                await getattr(room, name)(CALLER, request)
            except MartletError:
                continue
        await stage.triggers.run_due()
    finally:
        await stage.queues.stop()
        await stage.store.close()


def test_arrays_in_arrays_are_gone_through_however_deep() -> None:
    patterns = [
        *('{"a": ["x"]}', '{"a": {"b": ["x"]}}', '{"a": [{"prefix": "x"}]}', '{"a": {"b": [{"exists": false}]}}'),
        *('{"a.b": ["x"]}', '{"a": {"b.c": ["x"]}}', '{"$or": [{"a": ["x"]}, {"b": ["y"]}]}'),
    ]
    rules = [Rule(bus="b", name=str(at), pattern=text, targets=({"Id": "t"},)) for at, text in enumerate(patterns)]
    book = Book(rules, [], parse_pattern)
    for inside in ("", '"x"', '{"b": "x"}', '{"b": [[["x"]]]}', '{"b.c": "x"}'):
        for depth in (1, 10, 900):
            event = json.loads(f'{{"a": {"[" * depth}{inside}{"]" * depth}}}')
            wanted = {rule.name for rule in rules if parse_pattern(rule.pattern)(event)}
            assert {rule.name for rule in book.matching(event)} == wanted
            shallow = json.loads(f'{{"a": [{inside}]}}')
            assert wanted == {rule.name for rule in rules if parse_pattern(rule.pattern)(shallow)}


def test_names_of_many_dots() -> None:
    with pytest.raises(InvalidPattern, match="dots"):
        compile_pattern({".".join("a" * 102): ["x"]})
    deep: Any = "x"
    for _ in range(100):
        deep = {"a": deep, "b": {}}
    assert compile_pattern({".".join("a" * 100): ["x"]})(deep)
    assert compile_pattern({".".join("a" * 100): ["x"]})({".".join("a" * 50): {".".join("a" * 50): "x"}})
