"""From a statement's text to its tokens, and the words of what is wrong with one.

Words of errors and the order in which they come are the service's, as it is recorded; where PartiQL's own specification says
more than DynamoDB takes, DynamoDB decides.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from martlet.documents.dynamodb.expressions.errors import invalid
from martlet.errors import ServiceError

__all__ = ["CHARACTERS", "KEYWORDS", "OPERATORS", "Token", "Tokens", "malformed"]

CHARACTERS: Final = 8_192  # API reference, ExecuteStatement: length of Statement

_TOKEN: Final = re.compile(
    r"""(?P<blank>(?:[ \t\r\n\f]+|--[^\n]*|/\*.*?\*/)+)|(?P<word>[A-Za-z_$][A-Za-z0-9_$]*)|"(?P<quoted>(?:[^"]|"")*)\""""
    r"""|'(?P<text>(?:[^']|'')*)'|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"""
    r"""|(?P<sign><<|>>|<>|<=|>=|!=|\|\||[-=<>(),.\[\]{}:;?*+/%])""",
    re.DOTALL,
)
_WORDS: Final = """
ALL AND ANY AS ASC BETWEEN BY CASE CAST CREATE CROSS DELETE DESC DISTINCT DROP ELSE END ESCAPE EXCEPT EXISTS FALSE
FROM FULL GROUP HAVING IN INNER INSERT INTERSECT INTO IS JOIN LEFT LIKE LIMIT MISSING NATURAL NOT NULL ON OR ORDER
OUTER PIVOT REMOVE RIGHT SELECT SET SOME THEN TRUE UNION UNPIVOT UPDATE VALUE VALUES WHEN WHERE WITH
"""
KEYWORDS: Final = frozenset(_WORDS.split())
"""Words that stand for no attribute unless they are quoted."""
OPERATORS: Final = frozenset(("IS", "LIKE", "IN", "BETWEEN", "AND", "OR", "UNION", "INTERSECT", "EXCEPT"))


class Token(NamedTuple):
    """`kind`: word, quoted, text, number, a sign itself, or "" (the end). `at` is its offset, `length` its characters."""

    kind: str
    text: str
    at: int
    length: int


class Tokens:
    """The tokens of a statement with a position."""

    __slots__ = ("at", "here", "text", "tokens")

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _split(text)
        self.at = 0
        self.here = self.tokens[0]

    def next(self) -> Token:
        """The present token; the position moves on."""
        token = self.here
        if token.kind:
            self.at += 1
            self.here = self.tokens[self.at]
        return token

    def ahead(self) -> Token:
        """The token after the present one."""
        return self.tokens[min(self.at + 1, len(self.tokens) - 1)]

    def word(self) -> str:
        """The present token in capitals if it is an unquoted word, else ""."""
        return self.here.text.upper() if self.here.kind == "word" else ""

    def keyword(self, word: str) -> bool:
        """Is this word here? Then the position moves on."""
        if self.word() != word:
            return False
        self.next()
        return True

    def sign(self, sign: str) -> bool:
        """Is this sign here? Then the position moves on."""
        if self.here.kind != sign:
            return False
        self.next()
        return True

    def place(self, token: Token) -> str:
        """Where a token is, as the service writes it: "line:column:length", from 1."""
        line = self.text.count("\n", 0, token.at) + 1
        return f"{line}:{token.at - self.text.rfind(chr(10), 0, token.at)}:{token.length}"


def malformed(detail: str = "") -> ServiceError:
    """The error about a statement that cannot be read."""
    return invalid(f"Statement wasn't well formed, can't be processed: {detail}")


def _split(text: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise malformed()
        kind = str(found.lastgroup)
        content = found[kind]
        at = found.end()
        if kind == "blank":
            continue
        if text.startswith("/*", found.start()):
            raise malformed()
        if kind in ("quoted", "text"):
            mark = '"' if kind == "quoted" else "'"
            content = content.replace(mark + mark, mark)
        tokens.append(Token(content if kind == "sign" else kind, content, found.start(), found.end() - found.start()))
    tokens.append(Token("", "", len(text), 0))
    return tokens
