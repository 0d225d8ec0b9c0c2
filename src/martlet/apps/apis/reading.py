"""Reading declarations: a resource's properties one by one, with a refusal by name for each that nobody took."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from martlet.errors import DeployFailed

__all__ = ["V2", "Part", "PartsOfV2", "Place", "Warn", "access_log", "function_of", "service_of", "throttle_numbers", "truth"]

Warn = Callable[[str], None]

V2: Final = "AWS::ApiGatewayV2::"

_FUNCTION: Final = re.compile(r"(?:.*:)?function:([^:/]+(?:\$\{stageVariables\.[^}]+\})?(?::[^/]+)?)")
_INVOCATIONS: Final = re.compile(r"arn:[^:]*:apigateway:[^:]*:lambda:path/[^/]+/functions/(.+)/(invocations|[\w-]+)")
_LOG_GROUP: Final = re.compile(r"arn:[^:]*:logs:[^:]*:[^:]*:log-group:([^:*]+)(?::\*)?")
_SERVICE: Final = re.compile(r"arn:[^:]*:apigateway:[^:]*:([^:]+):((?:path|action)/.*)", re.DOTALL)
_SERVICES: Final = frozenset(("dynamodb", "events", "logs", "s3", "sns", "sqs"))  # those that may be here; the edge knows


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One resource of a template. `id` is its physical id (what `Ref` gives), `properties` are free of intrinsic functions."""

    type: str
    logical_id: str
    id: str
    properties: dict[str, Any]
    line: int | None = None


class Place:
    """An object that is being read, by the name that a message calls it.

    With `warn`, what is not honoured is said there and left out; without, it is a `DeployFailed`.
    """

    def __init__(self, name: str, given: Any, *, warn: Warn | None = None, line: int | None = None) -> None:
        self.name = name
        self.warn = warn
        self.line = line
        if not isinstance(given, dict):
            raise self.wrong("", f"is not an object but {type(given).__name__}")
        self.given: dict[str, Any] = given
        self.taken: set[str] = set()

    @classmethod
    def of(cls, part: Part, warn: Warn | None) -> Place:
        return cls(f"{part.logical_id} ({part.type})", part.properties, warn=warn, line=part.line)

    def inner(self, key: str, given: Any) -> Place:
        """An object within this one."""
        return Place(f"{self.name} {key}", given, warn=self.warn, line=self.line)

    def wrong(self, key: str, why: str) -> DeployFailed:
        """The error for a malformed property."""
        where = f", line {self.line}" if self.line else ""
        return DeployFailed(f"{self.name}{where}: {key}{' ' if key else ''}{why}", resource=self.name, property=key)

    def refuse(self, key: str, why: str = "is not supported yet") -> None:
        """Something well-formed that is not honoured here."""
        error = self.wrong(key, why)
        if self.warn is None:
            raise error
        self.warn(f"{error.message}; it has no effect")

    # reading

    def take(self, key: str, default: Any = None) -> Any:
        self.taken.add(key)
        value = self.given.get(key)
        return default if value is None else value

    def ignore(self, *keys: str) -> None:
        """What changes nothing in what clients see, here as in the real service."""
        self.taken.update(keys)

    def text(self, key: str, default: str = "") -> str:
        value = self.take(key, default)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.wrong(key, "is not text")
        return value

    def choice(self, key: str, known: Iterable[str], default: str) -> str:
        """One of `known`, in any case."""
        value = self.text(key, default).upper()
        if value not in known:
            raise self.wrong(key, f"{value!r} is not one of {', '.join(known)}")
        return value

    def flag(self, key: str) -> bool:
        return truth(self.take(key, False))

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self.take(key, default)
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise self.wrong(key, f"{value!r} is not a number") from None
        if not low <= number <= high:
            raise self.wrong(key, f"is {number}; it must be {low} to {high}")
        return number

    def texts(self, key: str) -> dict[str, str]:
        """An object of texts; numbers and booleans are written out."""
        value = self.take(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "is not an object")
        found = {}
        for name, item in value.items():
            if isinstance(item, bool):
                item = "true" if item else "false"
            if not isinstance(item, (str, int, float)):
                raise self.wrong(f"{key}.{name}", "is not text")
            found[str(name)] = str(item)
        return found

    def listed(self, key: str) -> tuple[str, ...]:
        value = self.take(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "is not a list of texts")
        return tuple(value)

    def not_yet(self, *keys: str) -> None:
        """Properties that ask for something when they are there and not empty or false."""
        for key in keys:
            if self.take(key) not in (None, False, "", [], {}, "false"):
                self.refuse(key)

    def done(self) -> None:
        """Refuse whatever nobody took."""
        for key in self.given:
            if key not in self.taken:
                self.refuse(str(key))


def truth(value: Any) -> bool:
    """A boolean, or its text as templates' parameters give it."""
    return value is True or (isinstance(value, str) and value.lower() == "true")


def function_of(place: Place, key: str, uri: str) -> str:
    """ "name" or "name:qualifier" from an integration's URI or a function's ARN; "" for another service, refused by name."""
    found = _INVOCATIONS.fullmatch(uri)
    if found is not None:
        if found[2] != "invocations":
            place.refuse(key, f"asks for {found[2]}, which is not supported yet")
        uri = found[1]
    else:
        service = _SERVICE.fullmatch(uri)
        if service is not None:
            place.refuse(key, f"calls the service {service[1]!r}: integrations with it are not supported yet")
            return ""
    target = _FUNCTION.fullmatch(uri)
    if target is not None:
        return target[1]
    if re.fullmatch(r"[A-Za-z0-9_$.{}-]+(?::[A-Za-z0-9_$.{}-]+)?", uri) and not uri.startswith("http"):
        return uri
    raise place.wrong(key, f"{uri[:200]!r} names no function")


def service_of(place: Place, key: str, uri: str) -> tuple[str, str]:
    """(service, "path/…" or "action/…") of an integration's URI with a service of the platform; ("", "") for any other URI."""
    found = _SERVICE.fullmatch(uri)
    if found is None or found[1] == "lambda" or found[1] not in _SERVICES:
        return "", ""
    return found[1], found[2]


def throttle_numbers(place: Place) -> tuple[float, int] | None:
    """(rate, burst) of throttling settings; the account's default stands for one that is missing."""
    rate, burst = place.take("ThrottlingRateLimit"), place.take("ThrottlingBurstLimit")
    if rate is None and burst is None:
        return None
    try:
        return float(10_000 if rate is None else rate), int(5_000 if burst is None else burst)
    except (TypeError, ValueError):
        raise place.wrong("ThrottlingRateLimit", "and ThrottlingBurstLimit must be numbers") from None


def access_log(place: Place, key: str) -> tuple[str, str]:
    """(log group, format) of a stage's access log; ("", "") for none."""
    given = place.take(key)
    if given is None:
        return "", ""
    inner = place.inner(key, given)
    arn, form = inner.text("DestinationArn"), inner.text("Format")
    inner.done()
    if not arn:
        raise inner.wrong("DestinationArn", "is missing")
    group = _LOG_GROUP.fullmatch(arn)
    if group is None:
        place.refuse(key, f"DestinationArn {arn!r} is not a log group's")
        return "", ""
    if not form or "\n" in form.rstrip("\n"):
        raise inner.wrong("Format", "must be one line; a line break may only end it")
    return group[1], form


class PartsOfV2:
    """The resources of one API of AWS::ApiGatewayV2. Raises `DeployFailed` where there is not one of type Api."""

    def __init__(self, parts: list[Part], app: str, warn: Warn | None) -> None:
        self.parts = parts
        self.app = app
        self.warn = warn
        apis = self._all("Api")
        if len(apis) != 1:
            raise DeployFailed(f"{len(apis)} resources of type {V2}Api where one is wanted")
        self.part = apis[0]

    def _all(self, kind: str) -> list[Part]:
        return [part for part in self.parts if part.type == V2 + kind]

    def _refuse_others(self, known: frozenset[str]) -> None:
        for part in self.parts:
            if part.type.removeprefix(V2) not in known:
                Place.of(part, self.warn).refuse("", "is not supported yet")
