"""The filter patterns of CloudWatch Logs: terms, and conditions on JSON. Pure.

Source: CloudWatch Logs user guide, "Filter pattern syntax". Terms: all must be in the message (case counts), "?" before a
term: one of these must be, "-": it must not be; quotes hold a phrase together. `{ $.a.b = "x*" && ($.n > 5 || $.c IS NULL) }`
looks into messages that are JSON objects. Patterns on space-delimited fields ([a, b]) and regular expressions (%…%) are
refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from martlet.errors import ServiceError, Unsupported

__all__ = ["Matches", "compile_pattern"]

Matches = Callable[[str], bool]
_Test = Callable[[Any], bool]

_TERM = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))')
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<selector>\$(?:\.[A-Za-z0-9_-]+|\["(?:[^"\\]|\\.)*"\]|\[[0-9]{1,6}\]|\[\*\])*)
      | (?P<operator>&&|\|\||!=|<=|>=|=|<|>|\(|\))
      | "(?P<quoted>(?:[^"\\]|\\.)*)"
      | (?P<word>[^\s()&|=!<>"]+)
    )""",
    re.VERBOSE,
)
_STEP = re.compile(r'\.([A-Za-z0-9_-]+)|\["((?:[^"\\]|\\.)*)"\]|\[([0-9]+)\]|(\[\*\])')
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_DEPTH_MAX: Final = 32


def compile_pattern(pattern: str) -> Matches:
    """What a message must fulfil. Raises InvalidParameterException for a malformed pattern, `Unsupported` for other kinds."""
    text = pattern.strip()
    if not text:
        return lambda message: True
    if text.startswith("{"):
        return _on_json(text)
    if text.startswith("["):
        raise Unsupported("filter patterns on space-delimited fields ([a, b, ...]) are not supported")
    return _on_terms(text)


def _invalid() -> ServiceError:
    return ServiceError("InvalidParameterException", "Invalid filter pattern")


# --- terms


def _on_terms(text: str) -> Matches:
    required: list[str] = []
    optional: list[str] = []
    excluded: list[str] = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None:
            raise _invalid()
        sign, phrase, word = found.groups()
        if word is not None and len(word) > 1 and word.startswith("%") and word.endswith("%"):
            raise Unsupported("regular expressions (%...%) in filter patterns are not supported")
        term = _unescaped(phrase) if phrase is not None else word
        {"": required, "?": optional, "-": excluded}[sign].append(term)
        at = found.end()
        if text[at:].isspace():
            break
    if optional and (required or excluded):  # as documented: "?" does not count beside other terms
        required, optional = required + optional, []

    def matches(message: str) -> bool:
        return (
            all(term in message for term in required)
            and not any(term in message for term in excluded)
            and (not optional or any(term in message for term in optional))
        )

    return matches


def _unescaped(phrase: str) -> str:
    return re.sub(r"\\(.)", r"\1", phrase)


# --- JSON


def _on_json(text: str) -> Matches:
    if not text.endswith("}"):
        raise _invalid()
    parser = _Parser(text[1:-1])
    test = parser.either(0)
    if parser.tokens:
        raise _invalid()

    def matches(message: str) -> bool:
        if not message.lstrip().startswith("{"):
            return False
        try:
            return test(orjson.loads(message))
        except orjson.JSONDecodeError:
            return False

    return matches


class _Parser:
    """Recursive descent over: either := both ("||" both)*; both := one ("&&" one)*; one := "(" either ")" | condition."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.end() == at:
                raise _invalid()
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind]))
            at = found.end()
        self.tokens.reverse()

    def either(self, depth: int) -> _Test:
        if depth > _DEPTH_MAX:
            raise _invalid()
        tests = [self._both(depth)]
        while self._takes("||"):
            tests.append(self._both(depth))
        return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)

    def _both(self, depth: int) -> _Test:
        tests = [self._one(depth)]
        while self._takes("&&"):
            tests.append(self._one(depth))
        return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)

    def _one(self, depth: int) -> _Test:
        if self._takes("("):
            inner = self.either(depth + 1)
            if not self._takes(")"):
                raise _invalid()
            return inner
        kind, selector = self._next()
        if kind != "selector":
            raise _invalid()
        steps = _steps(selector)
        kind, operator = self._next()
        if kind == "word":
            return self._words(operator.upper(), steps)
        if operator in ("(", ")", "&&", "||"):
            raise _invalid()
        kind, operand = self._next()
        if kind == "operator":
            raise _invalid()
        return _comparison(steps, operator, operand, quoted=kind == "quoted")

    def _words(self, word: str, steps: list[str | int]) -> _Test:
        _, following = self._next()
        second = following.upper()
        if word == "NOT" and second == "EXISTS":
            return lambda value: not _found(value, steps)
        if word == "IS" and second in ("NULL", "TRUE", "FALSE"):
            wanted = {"NULL": None, "TRUE": True, "FALSE": False}[second]
            return lambda value: any(item is wanted for item in _found(value, steps))
        raise _invalid()

    def _takes(self, operator: str) -> bool:
        if self.tokens and self.tokens[-1] == ("operator", operator):
            self.tokens.pop()
            return True
        return False

    def _next(self) -> tuple[str, str]:
        if not self.tokens:
            raise _invalid()
        return self.tokens.pop()


def _steps(selector: str) -> list[str | int]:
    """The way into the value; -1 stands for every element of a list."""
    steps: list[str | int] = []
    for name, quoted, index, every in _STEP.findall(selector[1:]):
        steps.append(name or (-1 if every else int(index) if index else _unescaped(quoted)))
    if not steps:
        raise _invalid()
    return steps


def _found(value: Any, steps: list[str | int]) -> list[Any]:
    values = [value]
    for step in steps:
        inner: list[Any] = []
        for item in values:
            if isinstance(step, str):
                if isinstance(item, dict) and step in item:
                    inner.append(item[step])
            elif isinstance(item, list):
                inner += item if step == -1 else item[step : step + 1]
        values = inner
    return values


def _comparison(steps: list[str | int], operator: str, operand: str, *, quoted: bool) -> _Test:
    number = None if quoted or not _NUMBER.fullmatch(operand) else float(operand)
    if operator in ("=", "!="):
        equal = _equal(_unescaped(operand) if quoted else operand, number)
        if operator == "=":
            return lambda value: any(equal(item) for item in _found(value, steps))
        return lambda value: any(not equal(item) for item in _found(value, steps))
    if number is None:
        raise _invalid()
    limit = number
    compare: dict[str, Callable[[float], bool]] = {
        "<": lambda item: item < limit,
        ">": lambda item: item > limit,
        "<=": lambda item: item <= limit,
        ">=": lambda item: item >= limit,
    }
    test = compare[operator]
    return lambda value: any(_is_number(item) and test(item) for item in _found(value, steps))


def _is_number(item: Any) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool)


def _equal(text: str, number: float | None) -> _Test:
    """A text, where "*" stands for anything; or a number, where there is one."""
    parts = text.split("*")

    def test(item: Any) -> bool:
        if isinstance(item, str):
            return item == text if len(parts) == 1 else _wild_match(parts, item)
        return number is not None and _is_number(item) and item == number

    return test


def _wild_match(parts: list[str], item: str) -> bool:
    """Whether the parts follow each other in `item`, the first at its start and the last at its end; in linear time."""
    first, *middle, last = parts
    if len(item) < len(first) + len(last) or not item.startswith(first) or not item.endswith(last):
        return False
    at, end = len(first), len(item) - len(last)
    for part in middle:
        at = item.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
