"""Literals of PartiQL as attribute values: numbers, texts, booleans, NULL, lists, maps and bags (which are sets)."""

from __future__ import annotations

from typing import Final

from martlet.documents.dynamodb.expressions import numbers
from martlet.documents.dynamodb.expressions.errors import invalid
from martlet.documents.dynamodb.expressions.values import AV, DEPTH
from martlet.documents.dynamodb.partiql.reading import KEYWORDS, Tokens, malformed
from martlet.errors import ServiceError

__all__ = ["begins", "literal", "signed"]

_INT: Final = 2_147_483_647


def begins(tokens: Tokens) -> bool:
    """Does a literal begin here?"""
    token = tokens.here
    if token.kind == "word":
        return token.text.upper() in ("TRUE", "FALSE", "NULL")
    return token.kind in ("text", "number", "[", "{", "<<", "+", "-")


def literal(tokens: Tokens, path: str = "root", level: int = 1) -> AV:
    """The literal that begins here. `path` is where in the whole value it is: errors say so."""
    token = tokens.here
    if level > DEPTH:
        raise invalid(f"Nesting Levels have exceeded supported limits under {path}")
    if token.kind == "text":
        return {"S": tokens.next().text}
    if token.kind in ("number", "+", "-"):
        return {"N": _canonical(signed(tokens), path)}
    if token.kind == "word" and token.text.upper() in ("TRUE", "FALSE", "NULL"):
        word = tokens.next().text.upper()
        return {"NULL": True} if word == "NULL" else {"BOOL": word == "TRUE"}
    if token.kind == "[":
        return _list(tokens, path, level)
    if token.kind == "{":
        return _map(tokens, path, level)
    if token.kind == "<<":
        return _bag(tokens, path)
    if token.kind == "?":
        raise invalid(f"Unsupported data type: Parameter under key {path} at {tokens.place(token)}")
    if token.kind == "word" and tokens.ahead().kind == "(":
        raise invalid(f"Unsupported data type: {token.text.lower()} under key {path} at {tokens.place(token)}")
    if token.kind == "word" and token.text.upper() in KEYWORDS:
        raise malformed("Unexpected keyword")
    if token.kind in ("word", "quoted"):
        raise invalid(f"Unsupported data type: {token.text} under key {path} at {tokens.place(token)}")
    raise malformed("Unexpected term")


def signed(tokens: Tokens) -> str:
    """A number with its signs, as it is written."""
    negative = False
    while tokens.here.kind in ("+", "-"):
        negative ^= tokens.next().kind == "-"
    if tokens.here.kind != "number":
        raise malformed("Unexpected term")
    text = tokens.next().text
    mantissa, _, exponent = text.lower().partition("e")
    scale = len(mantissa.partition(".")[2]) - (int(exponent) if exponent else 0)
    if exponent and (len(exponent) > 12 or abs(int(exponent)) > _INT or abs(scale) > _INT):
        raise malformed()  # Java's BigDecimal cannot hold it
    return ("-" if negative else "") + text


def _canonical(text: str, path: str) -> str:
    try:
        return numbers.canonical(text)
    except ServiceError as error:
        raise invalid(f"{error.message} under {path}") from None


def _list(tokens: Tokens, path: str, level: int) -> AV:
    tokens.next()
    members: list[AV] = []
    while not tokens.sign("]"):
        if members and not tokens.sign(","):
            raise malformed("Expected comma")
        members.append(literal(tokens, f"{path}[{len(members)}]", level + 1))
    return {"L": members}


def _map(tokens: Tokens, path: str, level: int) -> AV:
    tokens.next()
    members: dict[str, AV] = {}
    while not tokens.sign("}"):
        if members and not tokens.sign(","):
            raise malformed("Expected comma")
        if tokens.here.kind not in ("text", "quoted"):
            raise malformed("Expected string literal")
        name = tokens.next().text
        if not tokens.sign(":"):
            raise malformed("Expected colon")
        members[name] = literal(tokens, f"{path}.{name}", level + 1)
    return {"M": members}


def _bag(tokens: Tokens, path: str) -> AV:
    tokens.next()
    written: list[str] = []
    kinds: set[str] = set()
    while not tokens.sign(">>"):
        if written and not tokens.sign(","):
            raise malformed("Expected comma")
        kind = tokens.here.kind
        if kind == "text":
            kinds.add("SS")
            written.append(tokens.next().text)
        elif kind in ("number", "+", "-"):
            kinds.add("NS")
            written.append(signed(tokens))
        else:
            raise invalid("Unsupported data type in Bag")
    if not written:
        raise invalid("Empty bags are not supported")
    if len(kinds) > 1:
        raise invalid("DynamoDB only supports either numbers or strings in bags")
    kind = kinds.pop()
    members = written if kind == "SS" else [_canonical(member, path) for member in written]
    if len(set(members)) < len(members):
        shown = f"One or more parameter values were invalid: Input collection [{', '.join(written)}] contains duplicates"
        raise invalid(f"{shown}." if kind == "SS" else f"{shown}! under {path}")
    return {kind: members}
