"""Filter policies of subscriptions: which messages come through. Pure; the pattern language itself is handed in.

Source: SNS developer guide, "Amazon SNS subscription filter policies"; recorded answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from martlet.buses.desk import Matches
from martlet.buses.notices import Notice
from martlet.errors import InvalidInput

__all__ = ["BadPolicy", "check", "compiled"]

_KEYS_MAX: Final = 5
_COMBINATIONS_MAX: Final = 150
_POLICY_BYTES: Final = 262_144


class BadPolicy(Exception):
    """The policy is malformed; the text is the service's, without its prefix."""


def check(text: str, scope: str, compile_pattern: Callable[[str], Matches]) -> Matches | None:
    """The test that a policy states; None for one that lets everything through. Raises `BadPolicy`."""
    if len(text.encode()) > _POLICY_BYTES:
        raise BadPolicy("FilterPolicy: Filter policy is too large")
    try:
        policy = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadPolicy(f"FilterPolicy: failed to parse JSON. {error}") from None
    if not isinstance(policy, dict):
        raise BadPolicy("FilterPolicy: failed to parse JSON. Filter is not an object")
    if not policy:
        return None
    if scope == "MessageAttributes" and any(_nests(rules) for name, rules in policy.items()):
        raise BadPolicy("Filter policy scope MessageAttributes does not support nested filter policy")
    leaves = list(_leaves(policy, 1))
    if len({path for path, _, _ in leaves}) > _KEYS_MAX:
        raise BadPolicy("FilterPolicy: Filter policy can not have more than 5 keys")
    _check_operators(leaves)
    try:
        matches = compile_pattern(text)
    except InvalidInput as error:
        raise BadPolicy(f"FilterPolicy: {error.message}") from None
    if _combinations(policy, 1, body=scope == "MessageBody") > _COMBINATIONS_MAX:
        raise BadPolicy("FilterPolicy: Filter policy is too complex")
    return matches


def compiled(text: str, scope: str, compile_pattern: Callable[[str], Matches]) -> Callable[[Notice], bool] | None:
    """Whether a message comes through, as a function; None: every one does. The policy has been checked."""
    matches = check(text, scope, compile_pattern) if text else None
    if matches is None:
        return None
    if scope == "MessageBody":
        return lambda notice: matches(_body(notice))
    return lambda notice: matches(_attributes(notice))


def _body(notice: Notice) -> Any:
    try:
        return json.loads(notice.message)
    except (ValueError, RecursionError):
        return None


def _attributes(notice: Notice) -> dict[str, Any]:
    return {name: _value(kind, value) for name, (kind, value) in notice.attributes.items()}


def _value(kind: str, value: str) -> Any:
    try:
        if kind.startswith("Number"):
            number = float(value)
            return int(number) if number.is_integer() and abs(number) < 1e15 else number
        if kind == "String.Array":
            found = json.loads(value)
            return found if isinstance(found, list) else value
    except (ValueError, RecursionError):
        pass  # what is no number or list is text
    return value


def _nests(rules: Any) -> bool:
    if isinstance(rules, dict):
        return any(isinstance(one, dict | list) for one in rules.values())
    return False


def _leaves(policy: Mapping[str, Any], depth: int, path: str = "") -> Iterator[tuple[str, list[Any], int]]:
    for name, rules in policy.items():
        where = f"{path}.{name}" if path else name
        if isinstance(rules, dict):
            yield from _leaves(rules, depth + 1, where)
        elif name == "$or" and isinstance(rules, list):
            for one in rules:
                if isinstance(one, dict):
                    yield from _leaves(one, depth, path)
        elif isinstance(rules, list):
            yield where, rules, depth


def _combinations(policy: Mapping[str, Any], depth: int, *, body: bool) -> int:
    total = 1
    for name, rules in policy.items():
        if isinstance(rules, dict):
            total *= _combinations(rules, depth + 1, body=body)
        elif name == "$or" and isinstance(rules, list):
            total *= sum(_combinations(one, depth, body=body) for one in rules if isinstance(one, dict)) or 1
        elif isinstance(rules, list):
            total *= max(len(rules), 1) * (depth if body else 1)
    return total


def _check_operators(leaves: list[tuple[str, list[Any], int]]) -> None:
    """Where topics say less than buses."""
    for _, rules, _ in leaves:
        for rule in rules:
            inner = rule.get("anything-but") if isinstance(rule, dict) else None
            if isinstance(inner, dict):
                name = next(iter(inner), "")
                if name != "prefix":
                    raise BadPolicy(f"FilterPolicy: Unsupported anything-but pattern: {name}")
                if not isinstance(inner["prefix"], str):
                    raise BadPolicy("FilterPolicy: prefix match pattern must be a string")
