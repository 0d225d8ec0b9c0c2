"""JSONPath as API Gateway's `$input.path` and `$input.json` take it (Jayway's dialect). Pure, and bounded by a step count.

`$`, `.name`, `['name']`, `['a','b']`, `[0]`, `[-1]`, `[0,1]`, `[1:3]`, `[*]`, `.*`, `..name`, `[?(@.price < 10 && @.isbn)]`,
`.length()`. A path with a wildcard, a slice, several names, a filter or `..` is indefinite and yields a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from martlet.errors import InvalidInput

__all__ = ["Path", "compile_path"]

_STEPS_AT_MOST: Final = 100_000
_NAME: Final = re.compile(r"[^.\[\]()\s?@'\"*]+")
_QUOTED: Final = re.compile(r"\s*(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\s*")
_INTEGERS: Final = re.compile(r"\s*-?[0-9]{1,9}\s*(?:,\s*-?[0-9]{1,9}\s*)*")
_SLICE: Final = re.compile(r"\s*(-?[0-9]{1,9})?\s*:\s*(-?[0-9]{1,9})?\s*")
_CLAUSE: Final = re.compile(
    r"\s*(!)?\s*@((?:\.[A-Za-z_$][\w$-]*|\['[^']*'\]|\[-?[0-9]{1,9}\])*)\s*"
    r"(?:(==|!=|<=|>=|<|>)\s*('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|-?[0-9]+(?:\.[0-9]+)?|true|false|null))?\s*"
)

Step = Callable[[Any, list[Any], "_Steps"], None]


class _Steps:
    """Work left."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _STEPS_AT_MOST

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise InvalidInput("the JSONPath does too much work on this document", field="path")


class Path:
    """A compiled path. `definite`: it names one place at most."""

    __slots__ = ("_steps", "definite")

    def __init__(self, text: str) -> None:
        self.definite = True
        self._steps: list[Step] = []
        reader = _Reader(text)
        reader.read(self)

    def add(self, step: Step, definite: bool) -> None:
        self._steps.append(step)
        self.definite = self.definite and definite

    def find(self, document: Any) -> tuple[bool, Any]:
        """(found, value). An indefinite path always finds a list, maybe empty. Raises `InvalidInput` for too much work."""
        steps = _Steps()
        values = [document]
        for step in self._steps:
            after: list[Any] = []
            for value in values:
                steps.take(1)
                step(value, after, steps)
            values = after
        if not self.definite:
            return True, values
        return (True, values[0]) if values else (False, None)


@lru_cache(maxsize=1024)
def compile_path(text: str) -> Path:
    """Raises `InvalidInput` for a malformed path."""
    if len(text) > 1_000:
        raise InvalidInput("a JSONPath of more than 1,000 characters", field="path")
    return Path(text)


def _child(name: str) -> Step:
    def step(value: Any, out: list[Any], _: _Steps) -> None:
        if isinstance(value, dict) and name in value:
            out.append(value[name])

    return step


def _children(names: list[str]) -> Step:
    def step(value: Any, out: list[Any], _: _Steps) -> None:
        if isinstance(value, dict):
            out.append({name: value[name] for name in names if name in value})

    return step


def _items(indexes: list[int]) -> Step:
    def step(value: Any, out: list[Any], _: _Steps) -> None:
        if isinstance(value, list):
            out.extend(value[index] for index in indexes if -len(value) <= index < len(value))

    return step


def _sliced(first: int | None, last: int | None) -> Step:
    def step(value: Any, out: list[Any], steps: _Steps) -> None:
        if isinstance(value, list):
            found = value[first:last]
            steps.take(len(found))
            out.extend(found)

    return step


def _every(value: Any, out: list[Any], steps: _Steps) -> None:
    if isinstance(value, (dict, list)):
        steps.take(len(value))
        out.extend(value.values() if isinstance(value, dict) else value)


def _length(value: Any, out: list[Any], _: _Steps) -> None:
    if isinstance(value, (dict, list, str)):
        out.append(len(value))


def _descendants(value: Any, out: list[Any], steps: _Steps) -> None:
    """The value and everything in it, parents first."""
    waiting = [value]
    while waiting:
        steps.take(1)
        current = waiting.pop()
        out.append(current)
        if isinstance(current, dict):
            waiting.extend(reversed(current.values()))
        elif isinstance(current, list):
            waiting.extend(reversed(current))


def _filtered(test: Callable[[Any], bool]) -> Step:
    def step(value: Any, out: list[Any], steps: _Steps) -> None:
        candidates = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
        steps.take(4 * len(candidates))
        out.extend(candidate for candidate in candidates if test(candidate))

    return step


class _Reader:
    """Reads a path from its text."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.at = 0

    def fail(self) -> InvalidInput:
        return InvalidInput(
            f"{self.text[:200]!r} is not a JSONPath that is understood here (character {self.at})", field="path"
        )

    def read(self, path: Path) -> None:
        text = self.text
        if not text.startswith("$"):  # Jayway reads "name" as "$.name"
            text = self.text = f"${text}" if text.startswith("[") else f"$.{text}"
        self.at = 1
        while self.at < len(text):
            if text.startswith("..", self.at):
                path.add(_descendants, False)
                self.at += 1 if text.startswith("[", self.at + 2) else 2
                if text.startswith(".", self.at):
                    self.at += 1
                if not text.startswith("[", self.at):
                    self._named(path)
            elif text[self.at] == ".":
                self.at += 1
                self._named(path)
            elif text[self.at] == "[":
                self._bracket(path)
            else:
                raise self.fail()

    def _named(self, path: Path) -> None:
        if self.text.startswith("*", self.at):
            self.at += 1
            path.add(_every, False)
            return
        found = _NAME.match(self.text, self.at)
        if found is None:
            raise self.fail()
        self.at = found.end()
        if self.text.startswith("()", self.at):
            if found[0] not in ("length", "size"):
                raise self.fail()
            self.at += 2
            path.add(_length, True)
        else:
            path.add(_child(found[0]), True)

    def _bracket(self, path: Path) -> None:
        text = self.text
        start = self.at + 1
        if text.startswith("?(", start):
            end = text.find(")]", start)
            if end < 0:
                raise self.fail()
            path.add(_filtered(_condition(text[start + 2 : end])), False)
            self.at = end + 2
            return
        if text.startswith("*]", start):
            self.at = start + 2
            path.add(_every, False)
            return
        names: list[str] = []
        at = start
        while (quoted := _QUOTED.match(text, at)) is not None:
            raw = quoted[1] if quoted[1] is not None else quoted[2]
            names.append(re.sub(r"\\(.)", r"\1", raw))
            at = quoted.end()
            if not text.startswith(",", at):
                break
            at += 1
        if names:
            path.add(_child(names[0]) if len(names) == 1 else _children(names), len(names) == 1)
        elif (sliced := _SLICE.match(text, start)) is not None:
            at = sliced.end()
            path.add(_sliced(int(sliced[1]) if sliced[1] else None, int(sliced[2]) if sliced[2] else None), False)
        elif (integers := _INTEGERS.match(text, start)) is not None:
            at = integers.end()
            indexes = [int(part) for part in integers[0].split(",")]
            path.add(_items(indexes), len(indexes) == 1)
        if at == start or not text.startswith("]", at):
            raise self.fail()
        self.at = at + 1


def _condition(text: str) -> Callable[[Any], bool]:
    """`@.a == 'x' && @.b || !@.c`, without brackets."""
    alternatives = [[_clause(part) for part in group.split("&&")] for group in text.split("||")]

    def test(value: Any) -> bool:
        return any(all(clause(value) for clause in group) for group in alternatives)

    return test


def _clause(text: str) -> Callable[[Any], bool]:
    found = _CLAUSE.fullmatch(text)
    if found is None:
        raise InvalidInput(f"filter {text[:200]!r} is not understood here", field="path")
    negated, place, operator, literal = found.groups()
    path = Path("$" + place)
    wanted = _literal(literal) if operator else None

    def test(value: Any) -> bool:
        present, actual = path.find(value)
        if not operator:
            return present is not bool(negated)
        return present and _compared(operator, actual, wanted)

    return test


def _literal(text: str) -> Any:
    if text[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    known = {"true": True, "false": False, "null": None}
    return known[text] if text in known else float(text) if "." in text else int(text[:64])


def _compared(operator: str, left: Any, right: Any) -> bool:
    if operator in ("==", "!="):
        same = left == right and isinstance(left, bool) is isinstance(right, bool)
        return same is (operator == "==")
    numbers = all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in (left, right))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return False
    return bool({"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[operator])
