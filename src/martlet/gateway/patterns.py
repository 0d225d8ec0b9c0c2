"""Regular expressions that strangers wrote, matched in linear time.

Models, selection patterns and templates bring patterns of their own, and clients bring the text. A backtracking matcher
would let one request stop the event loop, so all of them run on RE2, whose time is linear in the text. RE2 has no
look-around and no back-references; those that stand at the beginning of a pattern, where password rules and "anything
but" have them, are taken apart into matches of their own. What remains is refused by name when the API is deployed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import re2

from martlet.errors import InvalidInput

__all__ = ["Pattern", "compile_pattern", "replace_all", "split_all"]

_PATTERN_CHARACTERS: Final = 2_000
_OPTIONS: Final = re2.Options()
_OPTIONS.max_mem = 1 << 20
_OPTIONS.log_errors = False
_LOOK: Final = ("(?=", "(?!")
_GROUP: Final = re.compile(r"\\(.)|\$(\d|\{\w+\})", re.DOTALL)


class Pattern:
    """A compiled pattern: each of `ahead` is (pattern, wanted), tried where the text begins."""

    __slots__ = ("_ahead", "_anchored", "_rest", "text")

    def __init__(self, text: str) -> None:
        if len(text) > _PATTERN_CHARACTERS:
            raise InvalidInput(f"a pattern of {len(text)} characters; at most {_PATTERN_CHARACTERS}", field="pattern")
        self.text = text
        anchored = text.startswith("^")
        at = 1 if anchored else 0
        self._ahead: list[tuple[Any, bool]] = []
        while text.startswith(_LOOK, at):
            end = _closing(text, at)
            self._ahead.append((_compiled(text[at + 3 : end]), text[at + 2] == "="))
            at = end + 1
        self._anchored = anchored
        self._rest = _compiled(text[at:])

    def fullmatch(self, subject: str) -> bool:
        """Java's `matches`: the whole text."""
        return self._looks(subject) and self._rest.fullmatch(subject) is not None

    def search(self, subject: str) -> bool:
        """Anywhere in the text. A pattern that begins with look-ahead but not with "^" is tried at the beginning only."""
        if self._ahead or self._anchored:
            return self._looks(subject) and self._rest.match(subject) is not None
        return self._rest.search(subject) is not None

    def _looks(self, subject: str) -> bool:
        return all((pattern.match(subject) is not None) is wanted for pattern, wanted in self._ahead)


def _closing(text: str, at: int) -> int:
    """Where the bracket that opens at `at` closes."""
    depth, escaped, in_class = 0, False, False
    for index in range(at, len(text)):
        character = text[index]
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if not depth:
                return index
    raise InvalidInput(f"pattern {text[:200]!r}: a bracket is not closed", field="pattern")


def _compiled(text: str) -> Any:
    try:
        return re2.compile(text, _OPTIONS)
    except re2.error as error:
        why = error.args[0].decode("utf-8", "replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise InvalidInput(
            f"pattern {text[:200]!r}: {why}",
            remedy="look-around is possible only at the beginning of a pattern, back-references not at all",
            field="pattern",
        ) from None


@lru_cache(maxsize=1024)
def compile_pattern(text: str) -> Pattern:
    """Raises `InvalidInput` for a malformed pattern and for one that cannot be matched in linear time."""
    return Pattern(text)


@lru_cache(maxsize=1024)
def _plain(text: str) -> Any:
    if len(text) > _PATTERN_CHARACTERS:
        raise InvalidInput(f"a pattern of {len(text)} characters; at most {_PATTERN_CHARACTERS}", field="pattern")
    return _compiled(text)


def replace_all(pattern: str, replacement: str, subject: str, charge: Callable[[int], None], room: int, count: int = 0) -> str:
    """Java's `replaceAll` ($1 is a group, a backslash makes literal). `charge` is called for each match. Raises `InvalidInput`,
    also when the result is longer than `room`."""
    found, at, size = [], 0, 0
    for number, match in enumerate(_plain(pattern).finditer(subject)):
        if count and number == count:
            break
        charge(1)
        made = _expanded(replacement, match)
        found += [subject[at : match.start()], made]
        size += match.start() - at + len(made)
        if size > room:
            raise InvalidInput("a replacement makes too much text")
        at = match.end()
    return "".join([*found, subject[at:]])


def _expanded(replacement: str, match: Any) -> str:
    if "\\" not in replacement and "$" not in replacement:
        return replacement

    def one(found: re.Match[str]) -> str:
        if found[1] is not None:
            return found[1]
        name = found[2].strip("{}")
        try:
            return match.group(int(name) if name.isdigit() else name) or ""
        except (IndexError, re2.error):
            raise InvalidInput(f"a replacement names group {name!r}, which the pattern has not", field="pattern") from None

    return _GROUP.sub(one, replacement)


def split_all(pattern: str, subject: str, charge: Callable[[int], None]) -> list[str]:
    """Java's `split`: without empty texts at the end. `charge` is called for each match."""
    parts, at = [], 0
    for match in _plain(pattern).finditer(subject):
        charge(1)
        if match.end() == match.start():
            if 0 < match.start() < len(subject):
                parts.append(subject[at : match.start()])
                at = match.start()
            continue
        if match.end() > 0 and not (match.start() == 0 and match.end() == 0):
            parts.append(subject[at : match.start()])
            at = match.end()
    parts.append(subject[at:])
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return parts
