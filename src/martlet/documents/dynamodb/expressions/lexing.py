"""From an expression's text to its tokens, and the words of a syntax error.

A token is (kind, text, start, end); kinds are "word", "#", ":", "number", an operator or bracket itself, "?" (a character that
the grammar does not know) and "" (the end).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from martlet.documents.dynamodb.expressions.errors import invalid
from martlet.errors import ServiceError

__all__ = ["BYTES", "KEYWORDS", "Token", "Tokens"]

BYTES: Final = 4_096  # developer guide, "Service quotas": maximum length of an expression string, 4 KB

_TOKEN: Final = re.compile(
    r"[ \t\r\n]*(?:(?P<word>[A-Za-z][A-Za-z0-9_]*)|(?P<name>#[A-Za-z0-9_]+)|(?P<value>:[A-Za-z0-9_]+)|(?P<number>[0-9]+)"
    r"|(?P<sign><>|<=|>=|[=<>(),.\[\]+-])|(?P<unknown>.)|(?P<end>\Z))",
    re.DOTALL,
)
_KINDS: Final = {"word": "word", "name": "#", "value": ":", "number": "number", "unknown": "?", "end": ""}
KEYWORDS: Final = frozenset(("AND", "OR", "NOT", "BETWEEN", "IN"))


class Token(NamedTuple):
    """One token and where it is."""

    kind: str
    text: str
    start: int
    end: int


class Tokens:
    """The tokens of one expression with a position. `expression` is the request's member, which errors name."""

    __slots__ = ("at", "expression", "here", "text", "tokens")

    def __init__(self, expression: str, text: str) -> None:
        self.expression = expression
        self.text = text
        if not text or text.isspace():
            raise self.fail("The expression can not be empty;")
        length = len(text.encode("utf-8", "surrogatepass")) if len(text) > BYTES // 4 else len(text)
        if length > BYTES:
            size = "" if expression == "UpdateExpression" else f" expression size: {length}"
            raise self.fail(f"Expression size has exceeded the maximum allowed size;{size}")
        self.tokens = _split(text)
        self.at = 0
        self.here = self.tokens[0]

    def fail(self, message: str) -> ServiceError:
        """An error about this expression."""
        return invalid(f"Invalid {self.expression}: {message}")

    def unexpected(self) -> ServiceError:
        """The error about the present token, with its neighbours."""
        token = self.here
        first = self.tokens[max(self.at - 1, 0)]
        following = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
        last = following if following.kind else token if token.kind else first
        near = self.text[first.start : max(last.end, first.end)]
        return self.fail(f'Syntax error; token: "{token.text if token.kind else "<EOF>"}", near: "{near}"')

    def next(self) -> Token:
        """The present token; the position moves on."""
        token = self.here
        if token.kind:
            self.at += 1
            self.here = self.tokens[self.at]
        return token

    def take(self, kind: str) -> Token:
        """The present token, which must be of this kind."""
        if self.here.kind != kind:
            raise self.unexpected()
        return self.next()

    def ahead(self) -> str:
        """The kind of the token after the present one."""
        return self.tokens[min(self.at + 1, len(self.tokens) - 1)].kind

    def keyword(self) -> str:
        """The present token in capitals if it is a word, else ''."""
        return self.here.text.upper() if self.here.kind == "word" else ""


def _split(text: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while True:
        found = _TOKEN.match(text, at)
        assert found is not None  # `unknown` and `end` leave nothing out
        kind = found.lastgroup or "end"
        content = found[kind]
        tokens.append(Token(content if kind == "sign" else _KINDS[kind], content, found.start(kind), found.end(kind)))
        if kind == "end":
            return tokens
        at = found.end()
