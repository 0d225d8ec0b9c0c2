"""Schedules: when they are due, `rate(...)`, `at(...)` or AWS's six-field `cron(...)` in an IANA time zone, and the event they
cause.

Sources: EventBridge Scheduler user guide, "Schedule types"; EventBridge user guide, "Cron expressions reference".

Daylight saving, as EventBridge Scheduler has it: a local time that does not exist (clocks go forward) is skipped; a local
time that happens twice (clocks go back) runs once, at its first occurrence. So a cron that runs every few minutes in a
zone with daylight saving rests during the repeated hour; `rate` counts elapsed time and knows no clocks.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from martlet.errors import InvalidInput
from martlet.store import LogEntry
from martlet.triggers.event import Event, event_id

__all__ = ["FIRED", "At", "Cron", "Expression", "Fired", "Rate", "fired_in", "match", "parse"]

FIRED: Final = "schedule.fired"  # topic of the log entries that cause an event

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIT_MS: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_RATE_DAYS_MAX: Final = 3_660
_MONTH_NAMES: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_MONTHS: Final = {name: at for at, name in enumerate(_MONTH_NAMES, 1)}
_DAYS: Final = {name: at for at, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}


class Rate(msgspec.Struct, frozen=True):
    """A fixed interval of elapsed time. A day is 24 hours, also when clocks change."""

    period_ms: int

    def next_after(self, after_ms: int) -> int | None:
        """The next due time after a firing that was due at `after_ms`. Milliseconds since the epoch."""
        return after_ms + self.period_ms

    def following(self, due_ms: int, now_ms: int) -> int | None:
        """The first due time after both `due_ms` (the one that fires now) and `now_ms`; keeps the rhythm of `due_ms`."""
        missed = max(now_ms - due_ms, 0) // self.period_ms
        return due_ms + (missed + 1) * self.period_ms


class Cron(msgspec.Struct, frozen=True):
    """A calendar rule. A day matches by `days` or, when that field is "?", by `weekdays`."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[tuple[str, int], ...] | None  # ("day", 1..31), ("near", 1..31) for nW, ("last", 0), ("last-weekday", 0)
    months: tuple[int, ...]
    weekdays: tuple[tuple[str, int, int], ...] | None  # ("every", 1..7, 0), ("last", 1..7, 0), ("nth", 1..7, 1..5)
    years: tuple[int, ...]
    timezone: str

    def next_after(self, after_ms: int) -> int | None:
        """The first due time strictly after `after_ms`, or None if there is none until the last year."""
        zone = ZoneInfo(self.timezone)
        start = (_EPOCH + timedelta(milliseconds=after_ms)).astimezone(zone).replace(tzinfo=None, fold=0)
        for local in self._candidates(start.replace(second=0, microsecond=0)):
            moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
            if moment.astimezone(zone).replace(tzinfo=None) != local:
                continue  # does not exist: clocks went forward over it
            at_ms = (moment - _EPOCH) // timedelta(milliseconds=1)
            if at_ms > after_ms:
                return at_ms
        return None

    def following(self, due_ms: int, now_ms: int) -> int | None:
        """The first due time after both `due_ms` (the one that fires now) and `now_ms`."""
        return self.next_after(max(due_ms, now_ms))

    def _candidates(self, start: datetime) -> Iterator[datetime]:
        """Matching local times from `start` on, in order, whether or not the zone's clocks show them."""
        for year in self.years:
            if year < start.year:
                continue
            for month in self.months:
                if (year, month) < (start.year, start.month):
                    continue
                for day in self._days_of(year, month):
                    if (year, month, day) < (start.year, start.month, start.day):
                        continue
                    for hour in self.hours:
                        for minute in self.minutes:
                            local = datetime(year, month, day, hour, minute)  # noqa: DTZ001 - a wall-clock reading
                            if local >= start:
                                yield local

    def _days_of(self, year: int, month: int) -> list[int]:
        first_weekday, last = calendar.monthrange(year, month)  # Monday is 0
        sunday_based = (first_weekday + 1) % 7  # of day 1; Sunday is 0
        found: set[int] = set()
        for kind, number in self.days or ():
            found.update(_month_days(kind, number, sunday_based, last))
        for kind, weekday, nth in self.weekdays or ():
            matching = range(1 + (weekday - 1 - sunday_based) % 7, last + 1, 7)
            if kind == "every":
                found.update(matching)
            elif kind == "last":
                found.add(matching[-1])
            elif nth <= len(matching):
                found.add(matching[nth - 1])
        return sorted(found)


class At(msgspec.Struct, frozen=True):
    """One time."""

    at_ms: int

    def next_after(self, after_ms: int) -> int | None:
        """The time itself while it is to come."""
        return self.at_ms if self.at_ms > after_ms else None

    def following(self, due_ms: int, now_ms: int) -> int | None:
        """Nothing follows."""
        return None


Expression = Rate | Cron | At


class Fired(msgspec.Struct, frozen=True):
    """Body (JSON) of a log entry: a schedule was due. `input` is as it was then, whatever is deployed later."""

    app: str
    name: str
    function: str  # full name
    due_ms: int
    region: str
    input: msgspec.Raw  # JSON; null: the "Scheduled Event"
    last: bool = False  # it will not fire again


_DECODER: Final = msgspec.json.Decoder(Fired)


def fired_in(entry: LogEntry) -> Fired:
    """What a log entry of the topic `FIRED` says."""
    return _DECODER.decode(entry.body)


def match(entry: LogEntry) -> Event:
    """The event of a firing. Its id depends on the log entry alone."""
    fired = fired_in(entry)
    id = event_id("schedule", entry.seq, fired.app, fired.name, fired.due_ms)
    payload = fired.input
    if bytes(payload) == b"null":
        payload = msgspec.Raw(msgspec.json.encode(_scheduled_event(id, fired)))
    return Event(id, "schedule", fired.app, fired.name, fired.function, payload)


def _scheduled_event(id: str, fired: Fired) -> dict[str, object]:
    """What EventBridge sends to the target of a schedule rule (EventBridge user guide, "Scheduled Event")."""
    at = (_EPOCH + timedelta(milliseconds=fired.due_ms)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "version": "0",
        "id": id,
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "time": at,
        "region": fired.region,
        "resources": [f"arn:aws:events:{fired.region}:000000000000:rule/{fired.app}-{fired.name}"],
        "detail": {},
    }


@lru_cache(maxsize=4096)
def parse(expression: str, timezone: str = "UTC") -> Expression:
    """The rule that `expression` states. Raises `InvalidInput` naming the field."""
    _check_timezone(timezone)
    matched = re.fullmatch(r"\s*([a-z]+)\s*\((.*)\)\s*", expression, re.ASCII)
    if matched is None or matched[1] not in ("rate", "cron", "at"):
        raise InvalidInput(
            f'schedule expression {expression!r} is none of "rate(...)", "cron(...)" and "at(...)"',
            field="expression",
            remedy='write for example "rate(5 minutes)" or "cron(0 12 * * ? *)"',
        )
    if matched[1] == "at":
        return _parse_at(matched[2], timezone)
    return _parse_rate(matched[2]) if matched[1] == "rate" else _parse_cron(matched[2], timezone)


def _check_timezone(timezone: str) -> None:
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:  # unknown; malformed; a folder such as "America"
        raise InvalidInput(f"time zone {timezone!r} is not in the IANA time zone database", field="timezone") from error


def _parse_at(inside: str, timezone: str) -> At:
    """A local time that clocks show twice is its first occurrence; one that they skip is as much later."""
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", inside, re.ASCII):
            raise ValueError("not of this form")
        local = datetime.fromisoformat(inside)
        moment = local.replace(tzinfo=ZoneInfo(timezone), fold=0).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"at({inside}): expected a time such as 2030-01-31T23:59:00", field="at") from error
    return At((moment - _EPOCH) // timedelta(milliseconds=1))


def _parse_rate(inside: str) -> Rate:
    matched = re.fullmatch(r"\s*([0-9]+)\s+([a-z]+)\s*", inside, re.ASCII)
    if matched is None:
        raise InvalidInput(f'rate({inside}): expected a whole number and a unit, as in "5 minutes"', field="rate")
    digits, unit = matched[1], matched[2]
    singular = unit.removesuffix("s")
    if singular not in _UNIT_MS:
        raise InvalidInput(f"rate unit {unit!r}: allowed are minute(s), hour(s) and day(s)", field="rate unit")
    value = int(digits) if len(digits) <= 9 else 10**9
    if value == 0:
        raise InvalidInput("rate value 0: must be at least 1", field="rate value")
    if (value == 1) != (unit == singular):
        right = singular if value == 1 else f"{singular}s"
        raise InvalidInput(f"rate unit {unit!r}: after {digits} write {right!r}", field="rate unit")
    if value * _UNIT_MS[singular] > _RATE_DAYS_MAX * _UNIT_MS["day"]:
        raise InvalidInput(f"rate value {digits}: the longest rate is {_RATE_DAYS_MAX} days", field="rate value")
    return Rate(value * _UNIT_MS[singular])


def _parse_cron(inside: str, timezone: str) -> Cron:
    fields = inside.upper().split()
    if len(fields) != 6:
        raise InvalidInput(
            f"cron({inside}): expected six fields (minutes hours day-of-month month day-of-week year), got {len(fields)}",
            field="cron",
        )
    minutes, hours, days, months, weekdays, years = fields
    if (days == "?") == (weekdays == "?"):
        raise InvalidInput(
            f"cron({inside}): exactly one of day-of-month and day-of-week must be ?",
            field="day-of-month" if days == "?" else "day-of-week",
        )
    rule = Cron(
        minutes=_numbers("minutes", minutes, 0, 59),
        hours=_numbers("hours", hours, 0, 23),
        days=None if days == "?" else _month_day_items(days),
        months=_numbers("month", months, 1, 12, _MONTHS),
        weekdays=None if weekdays == "?" else _weekday_items(weekdays),
        years=_numbers("year", years, 1970, 2199),
        timezone=timezone,
    )
    if rule.next_after(-2 * _UNIT_MS["day"]) is None:
        raise InvalidInput(f"cron({inside}): never happens: no such day in these months and years", field="day-of-month")
    return rule


def _numbers(field: str, text: str, low: int, high: int, names: dict[str, int] | None = None) -> tuple[int, ...]:
    """The values of one field: "*", "a", "a-b", each with "/step", in a comma-separated list."""
    found: set[int] = set()
    for item in text.split(","):
        base, slash, step_text = item.partition("/")
        step = _number(field, step_text, 1, high, {}) if slash else 1
        if base == "*":
            first, last = low, high
        elif "-" in base:
            first_text, _, last_text = base.partition("-")
            first = _number(field, first_text, low, high, names or {})
            last = _number(field, last_text, low, high, names or {})
            if last < first:
                raise InvalidInput(f"cron {field} {item!r}: the range goes backwards", field=field)
        else:
            first = _number(field, base, low, high, names or {})
            last = high if slash else first
        found.update(range(first, last + 1, step))
    return tuple(sorted(found))


def _number(field: str, text: str, low: int, high: int, names: dict[str, int]) -> int:
    if text in names:
        return names[text]
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or not low <= int(text) <= high:
        also = f" or {next(iter(names))}-{list(names)[-1]}" if names else ""
        raise InvalidInput(f"cron {field} {text!r}: allowed is {low}-{high}{also}", field=field)
    return int(text)


def _month_day_items(text: str) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for item in text.split(","):
        if item == "L":
            found.append(("last", 0))
        elif item == "LW":
            found.append(("last-weekday", 0))
        elif item.endswith("W"):
            found.append(("near", _number("day-of-month", item[:-1], 1, 31, {})))
        else:
            found += [("day", number) for number in _numbers("day-of-month", item, 1, 31)]
    return tuple(found)


def _weekday_items(text: str) -> tuple[tuple[str, int, int], ...]:
    found: list[tuple[str, int, int]] = []
    for item in text.split(","):
        if "/" in item:
            raise InvalidInput(f"cron day-of-week {item!r}: steps are not allowed in this field", field="day-of-week")
        if item == "L":
            found.append(("every", 7, 0))  # the last day of the week: Saturday
        elif item.endswith("L"):
            found.append(("last", _number("day-of-week", item[:-1], 1, 7, _DAYS), 0))
        elif "#" in item:
            day, _, nth = item.partition("#")
            found.append(("nth", _number("day-of-week", day, 1, 7, _DAYS), _number("day-of-week", nth, 1, 5, {})))
        else:
            found += [("every", number, 0) for number in _numbers("day-of-week", item, 1, 7, _DAYS)]
    return tuple(found)


def _month_days(kind: str, number: int, sunday_based: int, last: int) -> list[int]:
    """Days of a month that one day-of-month item means. `sunday_based`: weekday of day 1, Sunday is 0."""
    if kind == "last":
        return [last]
    wanted = last if kind == "last-weekday" else number
    if wanted > last:
        return []  # the 31st of a short month, "31W" too: skipped, not moved
    if kind == "day":
        return [wanted]
    weekday = (sunday_based + wanted - 1) % 7
    if weekday == 6:  # Saturday: the Friday before, or the Monday after when the 1st is a Saturday
        return [wanted - 1 if wanted > 1 else wanted + 2]
    if weekday == 0:  # Sunday: the Monday after, or the Friday before when the last day is a Sunday
        return [wanted + 1 if wanted < last else wanted - 2]
    return [wanted]
