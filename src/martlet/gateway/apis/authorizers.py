"""Lambda authorizers: a function says who may call a route, and its answer is remembered for a while.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import orjson

from martlet.clock import Clock, uuid4_text
from martlet.gateway.apis.backend import Backend
from martlet.gateway.apis.call import Call
from martlet.gateway.apis.events import authorizer_v1, authorizer_v2, token_event
from martlet.gateway.apis.flight import ApiFlight
from martlet.gateway.apis.mapping import request_value
from martlet.gateway.apis.socket_call import SocketCall
from martlet.gateway.apis.tokens import OwnKeys, Tokens
from martlet.gateway.patterns import compile_pattern
from martlet.limits import LIMITS
from martlet.types import ApiAuthorizer, Invocation, Outcome

__all__ = ["Authorizers"]

_SECOND: Final = 1_000_000_000
_EXPLICIT: Final = "User is not authorized to access this resource with an explicit deny"


class _Malformed(Exception):
    """The authorizer's answer is none."""


class Authorizers:
    """Asks authorizers, and remembers what they said by API, authorizer and identity (limit authorizer_cache_entries)."""

    def __init__(
        self, dispatch: Callable[[Invocation], None], clock: Clock, region: str, backend: Backend, own_keys: OwnKeys
    ) -> None:
        self._tokens = Tokens(backend, clock, own_keys)
        self._dispatch = dispatch
        self._clock = clock
        self._region = region
        self._cache: dict[tuple[str, ...], tuple[int, Any]] = {}

    def forget(self) -> None:
        """APIs changed: what was said of the old ones does not hold."""
        self._cache.clear()

    def ask(self, flight: ApiFlight, authorizer: ApiAuthorizer) -> None:
        """Let the flight go on (`authorized`) or answer it (`fail`)."""
        call = flight.call
        identity = [value for source in authorizer.identity if (value := _identity(source, call)) is not None]
        if len(identity) < len(authorizer.identity):
            if authorizer.kind == "JWT":
                flight.challenge("UNAUTHORIZED", "Bearer")
            else:
                flight.fail("UNAUTHORIZED")
            return
        if authorizer.kind == "JWT":
            scheme, _, rest_of = identity[0].partition(" ")
            token = rest_of.strip() if scheme.lower() == "bearer" else identity[0]
            flight.edge.spawn(self._tokens.judge(flight, authorizer, token))
            return
        if authorizer.validation and not compile_pattern(authorizer.validation).fullmatch(identity[0] if identity else ""):
            flight.fail("UNAUTHORIZED")
            return
        rest = flight.api.config.kind == "rest"
        key: tuple[str, ...] | None = None
        if authorizer.ttl_seconds > 0 and (identity or authorizer.kind == "TOKEN"):
            key = (call.api_id, call.stage, authorizer.name, *(() if rest else (flight.plan.route_key,)), *identity)
            known = self._cache.get(key)
            if known is not None and known[0] > self._clock.monotonic_ns():
                self._judge(flight, authorizer, known[1])
                return
        event = self._event(flight, authorizer, identity, rest)
        function = flight.stage.resolve(authorizer.function)

        def done(_: Invocation, outcome: Outcome) -> None:
            flight.land()
            self._answered(flight, authorizer, outcome, key)

        flight.depart()
        self._dispatch(Invocation(function, event, uuid4_text(), done, source="http", trace_id=call.trace))

    def _event(self, flight: ApiFlight, authorizer: ApiAuthorizer, identity: list[str], rest: bool) -> bytes:
        if isinstance(flight.call, SocketCall):
            return flight.call.authorizer_event(self._region)
        if authorizer.kind == "TOKEN":
            return token_event(flight.call, self._region, identity[0] if identity else "")
        if authorizer.payload_format == "2.0":
            return authorizer_v2(flight.call, self._region, flight.plan.route_key, identity)
        return authorizer_v1(flight.call, self._region, None if rest else identity)

    def _answered(self, flight: ApiFlight, authorizer: ApiAuthorizer, outcome: Outcome, key: tuple[str, ...] | None) -> None:
        if flight.exchange.started or not flight.exchange.connected:
            return
        if outcome.refusal is not None or outcome.error:
            flight.fail("UNAUTHORIZED" if _says_unauthorized(outcome) else "AUTHORIZER_FAILURE")
            return
        try:
            answer = orjson.loads(outcome.payload)
        except orjson.JSONDecodeError:
            flight.fail("AUTHORIZER_CONFIGURATION_ERROR")
            return
        if self._judge(flight, authorizer, answer) and key is not None:
            while len(self._cache) >= LIMITS["authorizer_cache_entries"].default:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = (self._clock.monotonic_ns() + authorizer.ttl_seconds * _SECOND, answer)

    def _judge(self, flight: ApiFlight, authorizer: ApiAuthorizer, answer: Any) -> bool:
        """True for an answer in the right form, whatever it says."""
        try:
            if authorizer.simple:
                allowed, context = _simple(answer)
                explicit = False
            else:
                allowed, explicit, context = _by_policy(answer, flight.call.arn(self._region))
        except _Malformed:
            flight.fail("AUTHORIZER_CONFIGURATION_ERROR")
            return False
        if not allowed:
            flight.fail("ACCESS_DENIED", _EXPLICIT if explicit else "")
            return True
        if flight.api.config.kind == "http" and flight.plan.route.integration.payload_format == "2.0":
            flight.authorized({"lambda": context})
        else:
            principal = {"principalId": str(answer["principalId"])} if "principalId" in answer else {}
            flight.authorized({**context, **principal, "integrationLatency": 0})
        return True


def _says_unauthorized(outcome: Outcome) -> bool:
    """A function that fails with exactly this message means 401."""
    if outcome.refusal is not None:
        return False
    try:
        error = orjson.loads(outcome.payload)
    except orjson.JSONDecodeError:
        return False
    return isinstance(error, dict) and error.get("errorMessage") == "Unauthorized"


def _identity(source: str, call: Call) -> str | None:
    """The value of an identity source, "method.request.header.X" or "$request.header.X"; empty is none."""
    expression = source
    if source.startswith("$"):
        name = source[1:]
        expression = f"method.{name}" if name.startswith("request.") else name
    values = request_value(expression, call)
    return values[-1] if values and values[-1] else None


def _simple(answer: Any) -> tuple[bool, dict[str, Any]]:
    if not isinstance(answer, dict) or not isinstance(answer.get("isAuthorized"), bool):
        raise _Malformed
    context = answer.get("context") or {}
    if not isinstance(context, dict):
        raise _Malformed
    return answer["isAuthorized"], context


def _by_policy(answer: Any, arn: str) -> tuple[bool, bool, dict[str, Any]]:
    """(allowed, denied explicitly, context)."""
    if not isinstance(answer, dict) or not isinstance(answer.get("principalId"), (str, int)):
        raise _Malformed
    policy, context = answer.get("policyDocument"), answer.get("context") or {}
    if not isinstance(policy, dict) or not isinstance(context, dict):
        raise _Malformed
    if any(isinstance(value, (dict, list)) for value in context.values()):
        raise _Malformed
    statements = policy.get("Statement")
    allowed = denied = False
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            raise _Malformed
        if statement.get("Condition") or "NotAction" in statement or "NotResource" in statement:
            raise _Malformed  # not honoured: never taken for a yes
        if _matches(statement.get("Action"), "execute-api:Invoke", True) and _matches(statement.get("Resource"), arn, False):
            allowed = allowed or statement["Effect"] == "Allow"
            denied = denied or statement["Effect"] == "Deny"
    texts = {name: _context_text(value) for name, value in context.items() if value is not None}
    return allowed and not denied, denied, texts


def _context_text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _matches(patterns: Any, value: str, any_case: bool) -> bool:
    found = patterns if isinstance(patterns, list) else [patterns]
    if not all(isinstance(pattern, str) for pattern in found):
        raise _Malformed
    if any_case:
        return any(_wild(pattern.lower(), value.lower()) for pattern in found)
    return any(_wild(pattern, value) for pattern in found)


@lru_cache(maxsize=4096)
def _wild(pattern: str, value: str) -> bool:
    """`*` and `?`. Each star takes as little as it can, so the time is linear in pattern times value."""
    parts = [re.compile(re.escape(part).replace(r"\?", "."), re.DOTALL) for part in pattern.split("*")]
    first = parts[0].match(value)
    if first is None:
        return False
    if len(parts) == 1:
        return first.end() == len(value)
    at = first.end()
    for part in parts[1:-1]:
        found = part.search(value, at)
        if found is None:
            return False
        at = found.end()
    size = len(pattern.rpartition("*")[2])
    return len(value) - size >= at and parts[-1].fullmatch(value, len(value) - size) is not None
