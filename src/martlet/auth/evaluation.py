"""IAM's JSON policies, compiled once and decided in microseconds. Pure.

Sources: IAM user guide, "IAM JSON policy elements: Condition operators", "... Variables and tags", "Policy evaluation logic". A
request is allowed when something allows it and nothing denies it. Documents are checked when they are stored
(`documents.check_permissions`, `check_trust`); what is not understood here (an operator that does not exist) makes a statement
that allows match nothing and one that denies match everything.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import msgspec

__all__ = ["Decision", "Policy", "Request", "compile_policy", "decide", "is_operator"]

Value: TypeAlias = str | bool | int | float
Verdict: TypeAlias = Literal["allow", "deny", "explicit deny"]
# (the request) -> does it hold; None: cannot be told
_Test: TypeAlias = Callable[["Request"], bool | None]

_VARIABLE: Final = re.compile(r"\$\{([^{}]*)\}")
_DEFAULT: Final = re.compile(r"(?P<name>[^,]+?)\s*,\s*'(?P<default>.*)'", re.DOTALL)
_WITH_VARIABLES: Final = "2012-10-17"
_LITERAL_STAR, _LITERAL_MARK = "\ue000", "\ue001"  # what stands for * and ? that are no wildcards
_AS_LITERALS: Final = str.maketrans("*?", _LITERAL_STAR + _LITERAL_MARK)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. `principal` is an ARN or a service ("apigateway.amazonaws.com"); `context` has the condition keys in lower
    case, each with its value or, for a key of many values, a list of them."""

    action: str
    resource: str
    principal: str = ""
    account: str = ""
    context: Mapping[str, Value | Sequence[Value]] = {}

    def values(self, key: str) -> list[str] | None:
        """The values of a condition key as text; None for one that the request does not have."""
        found = self.context.get(key)
        if found is None:
            return None
        return [_text(one) for one in found] if isinstance(found, (list, tuple)) else [_text(found)]


class Statement(msgspec.Struct, frozen=True):
    """One statement. Every part is a test of its own; a part that is not there holds."""

    is_deny: bool
    sid: str
    parts: tuple[_Test, ...]

    def matches(self, request: Request) -> bool:
        for part in self.parts:
            held = part(request)
            if held is None:
                return self.is_deny
            if not held:
                return False
        return True


class Policy(msgspec.Struct, frozen=True):
    """A compiled document."""

    statements: tuple[Statement, ...]


class Decision(msgspec.Struct, frozen=True):
    """`verdict` "deny" means that nothing allows it. `statement` is the Sid, or "statement <n>", of the one that decided."""

    verdict: Verdict
    statement: str = ""

    @property
    def allowed(self) -> bool:
        return self.verdict == "allow"


def decide(
    request: Request,
    identity: Iterable[Policy],
    *,
    resource: Iterable[Policy] = (),
    boundary: Policy | None = None,
    session: Policy | None = None,
) -> Decision:
    """The decision within one account: an explicit deny anywhere wins; else the resource's policy allows by itself; else the
    identity's policies must, and the permissions boundary and the session's policy as well where there are any."""
    own, named = tuple(identity), tuple(resource)
    limits = tuple(limit for limit in (boundary, session) if limit is not None)
    for policy in (*own, *named, *limits):
        for statement in policy.statements:
            if statement.is_deny and statement.matches(request):
                return Decision("explicit deny", statement.sid)
    by_resource = _allowing(named, request)
    if by_resource is not None:
        return Decision("allow", by_resource.sid)
    by_identity = _allowing(own, request)
    if by_identity is None or any(_allowing((limit,), request) is None for limit in limits):
        return Decision("deny")
    return Decision("allow", by_identity.sid)


def _allowing(policies: Iterable[Policy], request: Request) -> Statement | None:
    for policy in policies:
        for statement in policy.statements:
            if not statement.is_deny and statement.matches(request):
                return statement
    return None


# --- compiling


@lru_cache(maxsize=1024)
def compile_policy(text: str) -> Policy:
    """A document that was checked before. Raises `ValueError` for one that is no policy at all."""
    document = msgspec.json.decode(text)
    given = document.get("Statement", []) if isinstance(document, dict) else None
    statements = [given] if isinstance(given, dict) else given
    if not isinstance(statements, list) or not all(isinstance(one, dict) for one in statements):
        raise ValueError("this is no policy document")
    with_variables = document.get("Version") == _WITH_VARIABLES
    return Policy(tuple(_statement(one, at, with_variables) for at, one in enumerate(statements, 1)))


def _statement(given: dict[str, Any], number: int, with_variables: bool) -> Statement:
    parts: list[_Test] = []
    for name, test in (("Action", _actions), ("NotAction", _actions)):
        if name in given:
            parts.append(_negated(test(_texts(given[name]))) if name.startswith("Not") else test(_texts(given[name])))
    for name in ("Resource", "NotResource"):
        if name in given:
            found = _resources(_texts(given[name]), with_variables)
            parts.append(_negated(found) if name.startswith("Not") else found)
    for name in ("Principal", "NotPrincipal"):
        if name in given:
            found = _principals(given[name])
            parts.append(_negated(found) if name.startswith("Not") else found)
    for operator, keys in (given.get("Condition") or {}).items():
        for key, values in keys.items():
            parts.append(_condition(str(operator), str(key).lower(), _texts(values), with_variables))
    return Statement(given.get("Effect") == "Deny", str(given.get("Sid") or f"statement {number}"), tuple(parts))


def _texts(value: Any) -> list[str]:
    return [_text(one) for one in value] if isinstance(value, list) else [_text(value)]


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _negated(test: _Test) -> _Test:
    def negated(request: Request) -> bool | None:
        held = test(request)
        return None if held is None else not held

    return negated


def _wild(pattern: str, value: str) -> bool:
    """Whether a pattern with `*` and `?` is the value as a whole, in time proportional to pattern × value."""
    if _LITERAL_STAR in pattern or _LITERAL_MARK in pattern:
        value = value.translate(_AS_LITERALS)
    if "*" not in pattern and "?" not in pattern:
        return pattern == value
    if pattern.endswith("*") and not set(pattern[:-1]) & {"*", "?"}:
        return value.startswith(pattern[:-1])
    at = start = 0
    star = mark = -1
    while start < len(value):
        if at < len(pattern) and (pattern[at] == "?" or (pattern[at] == value[start] and pattern[at] != "*")):
            at, start = at + 1, start + 1
        elif at < len(pattern) and pattern[at] == "*":
            star, mark, at = at, start, at + 1
        elif star >= 0:
            mark += 1
            at, start = star + 1, mark
        else:
            return False
    return all(one == "*" for one in pattern[at:])


def _actions(patterns: list[str]) -> _Test:
    exact, begins, rest = _sorted_out([pattern.lower() for pattern in patterns])

    def test(request: Request) -> bool:
        action = request.action.lower()
        return action in exact or action.startswith(begins) or any(_wild(pattern, action) for pattern in rest)

    return test


def _sorted_out(patterns: list[str]) -> tuple[frozenset[str], tuple[str, ...], tuple[str, ...]]:
    """Most patterns are a text or the beginning of one, and need no more than that: (texts, beginnings, the others). A
    beginning of an ARN must have its last part begun, since a star does not reach over colons before that."""
    exact, begins, rest = [], [], []
    for pattern in patterns:
        star = pattern.find("*")
        plain = "?" not in pattern and "${" not in pattern
        if star < 0 and plain:
            exact.append(pattern)
        elif plain and star == len(pattern) - 1 and (not pattern.startswith("arn:") or pattern.count(":") >= 5):
            begins.append(pattern[:-1])
        else:
            rest.append(pattern)
    return frozenset(exact), tuple(begins), tuple(rest)


_OUR_DOCUMENTS: Final = "arn:martlet:documents:::"  # documents have no region: it may be left out, and so may the account


def _resources(patterns: list[str], with_variables: bool) -> _Test:
    patterns = [pattern.replace(_OUR_DOCUMENTS, "arn:martlet:documents:*:*:", 1) for pattern in patterns]
    exact, begins, rest = _sorted_out(patterns)

    def test(request: Request) -> bool:
        resource = request.resource
        if resource in exact or resource.startswith(begins):
            return True
        for pattern in rest:
            filled = _filled(pattern, request, of_pattern=True) if with_variables else pattern
            if filled is not None and (filled == "*" or _arn_like(filled, request.resource)):
                return True
        return False

    return test


def _arn_like(pattern: str, value: str) -> bool:
    """A pattern of a resource. Wildcards reach over colons only in the last part, as in IAM's ARNs."""
    if not pattern.startswith("arn:"):
        return _wild(pattern, value)
    wanted, found = pattern.split(":", 5), value.split(":", 5)
    if len(wanted) < 6 or len(found) < 6:
        return _wild(pattern, value)
    return all(_wild(one, other) for one, other in zip(wanted, found, strict=True))


def _principals(given: Any) -> _Test:
    if given == "*":
        return lambda request: True
    named = {kind: frozenset(_texts(values)) for kind, values in given.items()} if isinstance(given, dict) else {}
    everyone = any("*" in names for names in named.values())

    def test(request: Request) -> bool:
        if everyone:
            return True
        if not request.principal.startswith("arn:"):
            return request.principal in named.get("Service", ()) or request.principal in named.get("Federated", ())
        names = named.get("AWS", frozenset())
        account = request.account
        if request.principal in names or account in names or f"arn:aws:iam::{account}:root" in names:
            return True
        role = _role_of(request.principal)
        return bool(role) and role in names

    return test


def _role_of(principal: str) -> str:
    """The role's ARN of a session's: "arn:aws:sts::1:assumed-role/name/session" is "arn:aws:iam::1:role/name"."""
    found = re.fullmatch(r"arn:aws:sts::([0-9]+):assumed-role/([^/]+)/.*", principal)
    return f"arn:aws:iam::{found[1]}:role/{found[2]}" if found else ""


# --- variables


def _filled(text: str, request: Request, *, of_pattern: bool) -> str | None:
    """`${key}` replaced by the request's value; None if it has none (or several) and the variable names no default. In a
    pattern neither a value's `*` and `?` nor those that are written `${*}` and `${?}` are wildcards."""
    if "${" not in text:
        return text
    missing = False

    def one(found: re.Match[str]) -> str:
        nonlocal missing
        name = found[1].strip()
        if name in ("*", "?", "$"):
            value = name
        else:
            defaulted = _DEFAULT.fullmatch(name)
            values = request.values((defaulted["name"] if defaulted else name).strip().lower())
            if values is not None and len(values) == 1:
                value = values[0]
            elif values is None and defaulted:
                value = defaulted["default"]
            else:
                missing = True
                return ""
        return value.translate(_AS_LITERALS) if of_pattern else value

    filled = _VARIABLE.sub(one, text)
    return None if missing else filled


# --- conditions

_Compare: TypeAlias = Callable[[str, str], bool | None]  # (wanted, found)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _moment(text: str) -> float | None:
    """Epoch seconds of an ISO 8601 date, or of epoch seconds."""
    number = _number(text)
    if number is not None:
        return number
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _ordered(read: Callable[[str], float | None], holds: Callable[[float, float], bool]) -> _Compare:
    def compare(wanted: str, found: str) -> bool | None:
        one, other = read(wanted), read(found)
        if one is None:
            return None
        return other is not None and holds(other, one)

    return compare


def _in_network(wanted: str, found: str) -> bool | None:
    try:
        network = ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return None
    try:
        return ipaddress.ip_address(found) in network
    except ValueError:
        return False


def _same_bytes(wanted: str, found: str) -> bool | None:
    try:
        return base64.b64decode(wanted, validate=True) == base64.b64decode(found, validate=True)
    except (binascii.Error, ValueError):
        return None


def _same_truth(wanted: str, found: str) -> bool | None:
    return wanted.lower() == found.lower() if wanted.lower() in ("true", "false") else None


_EQUAL: Final[Callable[[float, float], bool]] = lambda found, wanted: found == wanted  # noqa: E731 - a table's entry
_LESS: Final[Callable[[float, float], bool]] = lambda found, wanted: found < wanted  # noqa: E731
_AT_MOST: Final[Callable[[float, float], bool]] = lambda found, wanted: found <= wanted  # noqa: E731

# operator -> (compare, negated): a negated one holds when none of the wanted values does
_OPERATORS: Final[dict[str, tuple[_Compare, bool]]] = {
    "StringEquals": (lambda wanted, found: wanted == found, False),
    "StringNotEquals": (lambda wanted, found: wanted == found, True),
    "StringEqualsIgnoreCase": (lambda wanted, found: wanted.lower() == found.lower(), False),
    "StringNotEqualsIgnoreCase": (lambda wanted, found: wanted.lower() == found.lower(), True),
    "StringLike": (_wild, False),
    "StringNotLike": (_wild, True),
    "NumericEquals": (_ordered(_number, _EQUAL), False),
    "NumericNotEquals": (_ordered(_number, _EQUAL), True),
    "NumericLessThan": (_ordered(_number, _LESS), False),
    "NumericLessThanEquals": (_ordered(_number, _AT_MOST), False),
    "NumericGreaterThan": (_ordered(_number, lambda found, wanted: found > wanted), False),
    "NumericGreaterThanEquals": (_ordered(_number, lambda found, wanted: found >= wanted), False),
    "DateEquals": (_ordered(_moment, _EQUAL), False),
    "DateNotEquals": (_ordered(_moment, _EQUAL), True),
    "DateLessThan": (_ordered(_moment, _LESS), False),
    "DateLessThanEquals": (_ordered(_moment, _AT_MOST), False),
    "DateGreaterThan": (_ordered(_moment, lambda found, wanted: found > wanted), False),
    "DateGreaterThanEquals": (_ordered(_moment, lambda found, wanted: found >= wanted), False),
    "Bool": (_same_truth, False),
    "BinaryEquals": (_same_bytes, False),
    "IpAddress": (_in_network, False),
    "NotIpAddress": (_in_network, True),
    "ArnEquals": (_arn_like, False),
    "ArnLike": (_arn_like, False),
    "ArnNotEquals": (_arn_like, True),
    "ArnNotLike": (_arn_like, True),
}


def is_operator(operator: str) -> bool:
    """Whether there is such a condition operator, "ForAnyValue:StringLikeIfExists" and the like included."""
    quantifier, _, rest = operator.rpartition(":")
    name = rest.removesuffix("IfExists")
    return quantifier in ("", "ForAllValues", "ForAnyValue") and (name in _OPERATORS or rest == "Null")


def _condition(operator: str, key: str, wanted: list[str], with_variables: bool) -> _Test:
    quantifier, _, rest = operator.rpartition(":")
    if_exists = rest.endswith("IfExists")
    name = rest.removesuffix("IfExists")
    if name == "Null" and not quantifier:
        absent = [one.lower() for one in wanted]
        return lambda request: ("true" if request.values(key) is None else "false") in absent
    known = _OPERATORS.get(name)
    if known is None or quantifier not in ("", "ForAllValues", "ForAnyValue"):
        return lambda request: None
    compare, negated = known

    def one(request: Request, found: str) -> bool | None:
        """Whether one value of the request is right."""
        equal: bool | None = False
        for text in wanted:
            filled = _filled(text, request, of_pattern=compare in (_wild, _arn_like)) if with_variables else text
            if filled is None:
                continue
            held = compare(filled, found)
            if held is None:
                equal = None
            elif held:
                equal = True
                break
        return None if equal is None else equal != negated

    def test(request: Request) -> bool | None:
        values = request.values(key)
        if values is None:
            if quantifier == "ForAllValues" or if_exists:
                return True
            return negated and not quantifier
        held = [one(request, found) for found in values]
        if None in held:
            return None
        return any(held) if quantifier == "ForAnyValue" else all(held)

    return test
