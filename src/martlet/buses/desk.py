"""What the groups of operations of a service work with: the store, the clock, names in ARNs, pages."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from martlet.buses.rows import Bus, Tables
from martlet.clock import Clock
from martlet.errors import InvalidInput, ServiceError
from martlet.store import Store, Tx
from martlet.types import ACCOUNT, ScheduleConfig

__all__ = [
    "DEFAULT",
    "Authorize",
    "BusDesk",
    "Desk",
    "Matches",
    "Request",
    "Timetable",
    "at",
    "check_target_permission",
    "invalid",
    "merged_tags",
    "no_such",
    "page",
    "permit_all",
    "tag_list",
]

T = TypeVar("T")
Request = dict[str, Any]
Matches = Callable[[Any], bool]

DEFAULT: Final = "default"
_BUS_ARN = re.compile(r"arn:aws[a-z-]*:events:(?P<region>[a-z0-9-]*):(?P<account>[0-9]{12})?:event-bus/(?P<name>.+)")
_TAGS_MAX: Final = 50
_PAGE: Final = 100


Authorize = Callable[..., None]  # (principal, action, resource, condition keys of the request)

_ACTIONS: Final = {"sqs": "sqs:SendMessage", "sns": "sns:Publish", "events": "events:PutEvents", "logs": "logs:PutLogEvents"}


def permit_all(principal: Any, action: str, resource: str, context: Mapping[str, Any] | None = None) -> None:
    """For who asks elsewhere."""


def check_target_permission(authorize: Authorize, caller: Any, arn: str) -> None:
    """Who makes the platform send something somewhere must be allowed to send it there. What a function takes is decided by
    its own resource policy. Raises `AccessDenied`."""
    service = arn.split(":")[2] if arn.count(":") >= 5 else ""
    if service in _ACTIONS and ":api-destination/" not in arn:
        authorize(caller.principal, _ACTIONS[service], arn)


class Timetable(Protocol):
    """Schedules by owner and name, as the triggers keep them; `put` and `remove` write within the caller's transaction."""

    def check(self, expression: str, timezone: str = ...) -> None: ...
    def put(self, tx: Tx, app: str, config: ScheduleConfig, function: str) -> None: ...
    def remove(self, tx: Tx, app: str, name: str) -> None: ...


class Desk:
    """The common part. `compile_pattern` makes a test of an event pattern or raises `InvalidInput`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        region: str,
        compile_pattern: Callable[[str], Matches],
        authorize: Authorize = permit_all,
    ) -> None:
        self._store = store
        self._clock = clock
        self.region = region
        self._compile = compile_pattern
        self._authorize = authorize

    async def _write(self, fn: Callable[[Tables], T]) -> T:
        return await self._store.transact(lambda tx: fn(Tables(tx)))

    def _read(self, fn: Callable[[Tables], T]) -> T:
        return self._store.read(lambda reader: fn(Tables(reader)))


class BusDesk(Desk):
    """What the operations of "events" and "scheduler" work with."""

    def __init__(self, *arguments: Any, timetable: Timetable, **options: Any) -> None:
        """See `Desk.__init__`."""
        super().__init__(*arguments, **options)
        self._timetable = timetable

    def _arn(self, kind: str, *names: str) -> str:
        return f"arn:aws:events:{self.region}:{ACCOUNT}:{kind}/{'/'.join(names)}"

    def _rule_arn(self, bus: str, name: str) -> str:
        return self._arn("rule", name) if bus == DEFAULT else self._arn("rule", bus, name)

    def _bus_name(self, reference: Any) -> str:
        """The name of a bus that is given by name or ARN; "" for a bus that cannot be here."""
        if not reference:
            return DEFAULT
        found = _BUS_ARN.fullmatch(str(reference))
        if found is None:
            return str(reference)
        here = found["region"] == self.region and found["account"] == ACCOUNT
        return found["name"] if here else ""

    def _bus(self, tables: Tables, reference: Any) -> Bus:
        """The bus. Raises `ServiceError` ResourceNotFoundException."""
        name = self._bus_name(reference)
        found = tables.get(Bus, name) if name else None
        if found is None:
            raise no_such(f"Event bus {name or str(reference).rpartition('event-bus/')[2]} does not exist.")
        return found

    def _check_pattern(self, text: str) -> Matches:
        """The test that a pattern states. Raises `ServiceError` InvalidEventPatternException."""
        try:
            return self._compile(text)
        except InvalidInput as error:
            raise ServiceError(
                "InvalidEventPatternException", f"Event pattern is not valid. Reason: {error.message}", 400
            ) from error


def at(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def invalid(message: str) -> ServiceError:
    return ServiceError("ValidationException", message, 400)


def no_such(message: str) -> ServiceError:
    return ServiceError("ResourceNotFoundException", message, 400)


def page(items: Iterable[tuple[str, T]], request: Mapping[str, Any], limit: str = "Limit") -> tuple[list[T], dict[str, str]]:
    """One page of (place, item) in their order, and {"NextToken"} if more follow. Raises `ServiceError`."""
    most = int(request.get(limit) or _PAGE)
    after = ""
    if request.get("NextToken"):
        try:
            after = base64.urlsafe_b64decode(str(request["NextToken"]).encode()).decode()
        except (binascii.Error, ValueError):
            raise invalid("Parameter NextToken is not valid.") from None
    left = [(place, item) for place, item in items if place > after]
    shown = [item for _, item in left[:most]]
    if len(left) <= most:
        return shown, {}
    return shown, {"NextToken": base64.urlsafe_b64encode(left[most - 1][0].encode()).decode()}


def merged_tags(tags: Mapping[str, str], added: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    found = dict(tags) | {str(one["Key"]): str(one.get("Value", "")) for one in added or ()}
    if len(found) > _TAGS_MAX:
        raise ServiceError("LimitExceededException", "The requested resource exceeds the maximum number allowed.", 400)
    return found


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
