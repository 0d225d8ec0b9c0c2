r"""The models' regular expressions, which are Java's: as RE2's, which take linear time, or else as Python's.

RE2 has no look-around; those few patterns are translated (\p{L} and its kin, nested classes, \z) for Python, which may take
long over a hostile value, so that only short values are matched against them. What cannot be translated is not checked
(None): a service then checks the value by its own rules.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, Final

import re2

__all__ = ["compiled"]

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.never_capture = True  # three times as quick
_SLOW_CHARACTERS_MAX: Final = 2_048
_REMEMBERED_CHARACTERS: Final = 256
_CODE_POINT = re.compile(r"\\u([0-9A-Fa-f]{4})")

_PROPERTY = re.compile(r"\\([pP])(?:\{(\^?)([A-Za-z_=]+)\}|([A-Z]))")
_POSIX: Final = {
    "Alnum": "a-zA-Z0-9",
    "Alpha": "a-zA-Z",
    "ASCII": "\\x00-\\x7f",
    "Blank": " \\t",
    "Cntrl": "\\x00-\\x1f\\x7f",
    "Digit": "0-9",
    "Graph": "\\x21-\\x7e",
    "Lower": "a-z",
    "Print": "\\x20-\\x7e",
    "Punct": "!-/:-@\\[-`{-~",
    "Space": " \\t\\n\\x0b\\f\\r",
    "Upper": "A-Z",
    "XDigit": "0-9a-fA-F",
}
_ALIASES: Final = {"IsAlphabetic": "L", "IsDigit": "Nd", "IsLetter": "L", "Letter": "L", "IsL": "L", "IsN": "N", "IsLatin": "L"}


@cache
def compiled(pattern: str) -> Callable[[str], bool] | None:
    """Whether the whole of a value matches; None if the pattern cannot be had here."""
    try:
        quick = re2.compile(_CODE_POINT.sub(r"\\x{\1}", pattern), _OPTIONS)
        return lambda value: _matches(quick, value) if len(value) <= _REMEMBERED_CHARACTERS else _match(quick, value)
    except re2.error:
        pass  # look-around, or more repetitions than RE2 counts
    try:
        slow = re.compile(_translated(pattern), re.ASCII)  # as in Java, \w and \d are ASCII's
    except (re.error, _Untranslatable, RecursionError, OverflowError):
        return None
    return lambda value: len(value) > _SLOW_CHARACTERS_MAX or slow.fullmatch(value) is not None


def _match(pattern: Any, value: str) -> bool:
    return pattern.fullmatch(value) is not None


_matches = lru_cache(maxsize=4_096)(_match)  # names of functions, queues, tables: the same ones all the time


class _Untranslatable(Exception):
    pass


def _translated(pattern: str) -> str:
    """Walks the pattern once; within a class, properties become ranges and inner brackets are flattened."""
    out: list[str] = []
    at = depth = 0
    while at < len(pattern):
        letter = pattern[at]
        found = _PROPERTY.match(pattern, at)
        if found is not None:
            negative = (found[1] == "P") != (found[2] == "^")
            ranges = _ranges(found[3] or found[4], negative=negative and depth > 0)
            out.append(ranges if depth else f"[{'^' if negative else ''}{ranges}]")
            at = found.end()
            continue
        if letter == "\\" and at + 1 < len(pattern):
            out.append(_escape(pattern[at : at + 2]))
            at += 2
            if depth and pattern[at - 1] in "wWdDsS" and pattern.startswith("-", at) and not pattern.startswith("-]", at):
                out.append("\\-")  # no range can begin with a class
                at += 1
            continue
        if letter == "[":
            depth, text = _opened(pattern, at, depth)
            out.append(text)
        elif letter == "]" and depth:
            depth -= 1
            out.append("" if depth else "]")
        elif depth and pattern.startswith("&&", at):
            raise _Untranslatable  # an intersection of classes
        else:
            out.append(letter)
        at += 1
    return "".join(out)


def _opened(pattern: str, at: int, depth: int) -> tuple[int, str]:
    """A bracket: opens a class; within one it is Java's union, or a bracket that somebody forgot to escape."""
    if depth == 0:
        return 1, "["
    closes = pattern.find("]", at + 1)
    if closes > 0 and pattern.find("]", closes + 1) > 0 and not pattern.startswith("[^", at):
        return depth + 1, ""
    return depth, "\\["


def _escape(pair: str) -> str:
    if pair in ("\\z", "\\Z"):
        return "\\Z"
    if pair == "\\h":
        return " \\t\\xa0"
    if pair[1].isascii() and pair[1].isalpha() and pair[1] not in "AbBdDsSwWnrtfvxuU":
        if pair == "\\e":
            return "\\x1b"
        raise _Untranslatable
    return pair


def _ranges(name: str, *, negative: bool) -> str:
    """A Unicode property, or what it leaves out, as the inside of a class."""
    if name in _POSIX and not negative:
        return _POSIX[name]
    category = _ALIASES.get(name, name)
    found = [text for known, text in _categories().items() if known.startswith(category) != negative]
    if not found or len(found) == len(_categories()):
        raise _Untranslatable
    return "".join(found)


@cache
def _categories() -> dict[str, str]:
    """Every general category as ranges of code points; takes about 0.2 s, once and only if a pattern needs it."""
    starts: dict[str, list[str]] = {}
    category, start = unicodedata.category("\x00"), 0
    for point in range(1, sys.maxunicode + 2):
        now = unicodedata.category(chr(point)) if point <= sys.maxunicode else ""
        if now != category:
            text = f"\\U{start:08x}" if point - 1 == start else f"\\U{start:08x}-\\U{point - 1:08x}"
            starts.setdefault(category, []).append(text)
            category, start = now, point
    return {name: "".join(texts) for name, texts in starts.items()}
