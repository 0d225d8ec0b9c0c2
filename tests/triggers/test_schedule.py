"""When schedules are due. Plain cases are compared with `cronsim`, the rest with hand-made calendars."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.errors import InvalidInput
from martlet.triggers.kinds.schedule import Cron, Rate, parse


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def texts(expression: str, start: str, count: int, zone: str = "UTC") -> list[str]:
    rule, at, found = parse(expression, zone), ms(start, zone), []
    for _ in range(count):
        due = rule.next_after(at)
        if due is None:
            break
        at = due
        found.append(datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %z"))
    return found


@pytest.mark.parametrize(
    ("text", "period_ms"),
    [("rate(1 minute)", 60_000), ("rate(5 minutes)", 300_000), ("rate(1 hour)", 3_600_000), ("rate( 2  days )", 172_800_000)],
)
def test_rate(text: str, period_ms: int) -> None:
    assert parse(text) == Rate(period_ms)
    assert parse(text).next_after(1_000) == 1_000 + period_ms


def test_a_late_rate_fires_once_and_keeps_its_rhythm() -> None:
    rule = parse("rate(5 minutes)")
    assert rule.following(0, 0) == 300_000
    assert rule.following(0, 299_999) == 300_000
    assert rule.following(0, 300_000) == 600_000
    assert rule.following(0, 3_650_000) == 3_900_000
    assert rule.following(600_000, 0) == 900_000  # the wall clock went back


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("rate(1 minutes)", "rate unit"),
        ("rate(2 minute)", "rate unit"),
        ("rate(0 minutes)", "rate value"),
        ("rate(-1 minutes)", "rate"),
        ("rate(5)", "rate"),
        ("rate(5 seconds)", "rate unit"),
        ("rate(5 weeks)", "rate unit"),
        ("rate(1.5 hours)", "rate"),
        ("rate(99999999999999999999999 days)", "rate value"),
        ("rate(٥ minutes)", "rate"),
        ("5 minutes", "expression"),
        ("", "expression"),
        ("cron 0 12 * * ? *", "expression"),
        ("cron(0 12 * * ?)", "cron"),
        ("cron(0 12 * * ? * *)", "cron"),
        ("cron(0 12 * * * *)", "day-of-week"),
        ("cron(0 12 ? * ? *)", "day-of-month"),
        ("cron(60 12 * * ? *)", "minutes"),
        ("cron(-1 12 * * ? *)", "minutes"),
        ("cron(*/0 12 * * ? *)", "minutes"),
        ("cron(5-1 12 * * ? *)", "minutes"),
        ("cron(1,,2 12 * * ? *)", "minutes"),
        ("cron(? 12 * * ? *)", "minutes"),
        ("cron(0 24 * * ? *)", "hours"),
        ("cron(0 L * * ? *)", "hours"),
        ("cron(0 0 32 * ? *)", "day-of-month"),
        ("cron(0 0 0 * ? *)", "day-of-month"),
        ("cron(0 0 L-3 * ? *)", "day-of-month"),
        ("cron(0 0 32W * ? *)", "day-of-month"),
        ("cron(0 0 W * ? *)", "day-of-month"),
        ("cron(0 0 1 13 ? *)", "month"),
        ("cron(0 0 1 JANUARY ? *)", "month"),
        ("cron(0 0 ? * 0 *)", "day-of-week"),
        ("cron(0 0 ? * 8 *)", "day-of-week"),
        ("cron(0 0 ? * MON#6 *)", "day-of-week"),
        ("cron(0 0 ? * MON#0 *)", "day-of-week"),
        ("cron(0 0 ? * FRI-MON *)", "day-of-week"),
        ("cron(0 0 ? * 2/2 *)", "day-of-week"),
        ("cron(0 0 1 1 ? 1969)", "year"),
        ("cron(0 0 1 1 ? 2200)", "year"),
        ("cron(0 0 30 2 ? *)", "day-of-month"),
        ("cron(0 0 29 2 ? 2023)", "day-of-month"),
    ],
)
def test_a_wrong_expression_is_an_error_that_names_the_field(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert caught.value.details["field"] == field


def test_one_time_schedules_are_due_once() -> None:
    rule = parse("at(2030-01-01T00:00:00)", "Europe/Paris")
    at_ms = int(datetime(2029, 12, 31, 23, tzinfo=ZoneInfo("UTC")).timestamp() * 1000)
    assert rule.next_after(at_ms - 1) == at_ms
    assert rule.next_after(at_ms) is None
    assert rule.following(at_ms, at_ms) is None


@pytest.mark.parametrize("inside", ["2021-12-31", "2021-12-31T23:59:59Z", "", "2021-13-01T00:00:00", "0000-01-01T00:00:00"])
def test_a_wrong_time_is_an_error(inside: str) -> None:
    with pytest.raises(InvalidInput):
        parse(f"at({inside})")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "America", "../../etc/passwd", "/etc/passwd", "UTC\0"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse("rate(1 minute)", zone)
    assert caught.value.details["field"] == "timezone"


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("cron(0 12 * * ? *)", "2024-02-28 12:00", ["2024-02-29 12:00", "2024-03-01 12:00"]),
        ("cron(15 10 ? * 6L *)", "2024-01-01", ["2024-01-26 10:15", "2024-02-23 10:15", "2024-03-29 10:15"]),
        ("cron(0 0 L * ? *)", "2024-01-31 00:00", ["2024-02-29 00:00", "2024-03-31 00:00"]),
        ("cron(0 0 LW * ? *)", "2024-03-01", ["2024-03-29 00:00", "2024-04-30 00:00"]),
        ("cron(0 9 3W * ? *)", "2024-02-01", ["2024-02-02 09:00", "2024-03-04 09:00", "2024-04-03 09:00"]),
        ("cron(0 9 1W 6 ? *)", "2024-01-01", ["2024-06-03 09:00"]),  # Saturday the 1st: not in May
        ("cron(0 9 31W 3 ? 2024)", "2024-01-01", ["2024-03-29 09:00"]),  # Sunday the 31st: not in April
        ("cron(0 9 31W * ? *)", "2024-03-31", ["2024-05-31 09:00"]),  # April has no 31st
        ("cron(0 9 ? * 3#2 *)", "2024-01-01", ["2024-01-09 09:00", "2024-02-13 09:00"]),  # second Tuesday
        ("cron(0 9 ? * MON#5 *)", "2024-01-01", ["2024-01-29 09:00", "2024-04-29 09:00"]),
        ("cron(0 9 ? * L *)", "2024-01-01", ["2024-01-06 09:00"]),
        ("cron(0/20 9 1,15 JAN-feb ? 2024)", "2024-02-15 09:10", ["2024-02-15 09:20", "2024-02-15 09:40"]),
        ("cron(0 0 29 2 ? *)", "2096-03-01", ["2104-02-29 00:00"]),  # 2100 is no leap year
        ("cron(0 0 1 1 ? 2199)", "2199-01-01", []),
        ("cron(10-20/5 8-9 ? * SUN,3 2024/2)", "2024-12-31 09:20", ["2026-01-04 08:10", "2026-01-04 08:15"]),
    ],
)
def test_calendar(expression: str, start: str, expected: list[str]) -> None:
    found = texts(expression, start, max(len(expected), 1))
    assert [text.removesuffix(" +0000") for text in found] == expected


def test_a_local_time_that_does_not_exist_is_skipped() -> None:
    found = texts("cron(30 2 * * ? *)", "2024-03-09 00:00", 3, "America/New_York")
    assert found == ["2024-03-09 02:30 -0500", "2024-03-11 02:30 -0400", "2024-03-12 02:30 -0400"]


def test_a_local_time_that_happens_twice_runs_once() -> None:
    found = texts("cron(30 1 * * ? *)", "2024-11-02 12:00", 2, "America/New_York")
    assert found == ["2024-11-03 01:30 -0400", "2024-11-04 01:30 -0500"]
    frequent = texts("cron(0/30 * * * ? *)", "2024-11-03 00:31", 4, "America/New_York")
    assert frequent == [
        "2024-11-03 01:00 -0400",
        "2024-11-03 01:30 -0400",
        "2024-11-03 02:00 -0500",
        "2024-11-03 02:30 -0500",
    ]


def test_a_whole_day_that_does_not_exist_is_skipped() -> None:
    found = texts("cron(0 12 * * ? *)", "2011-12-29 13:00", 1, "Pacific/Apia")
    assert found == ["2011-12-31 12:00 +1400"]


def test_in_the_second_half_of_a_repeated_hour_the_next_one_is_after_it() -> None:
    second = datetime(2024, 11, 3, 1, 10, fold=1, tzinfo=ZoneInfo("America/New_York"))
    due = parse("cron(0/5 * * * ? *)", "America/New_York").next_after(int(second.timestamp() * 1000))
    assert due == ms("2024-11-03 07:00")


numbers = st.integers


@st.composite
def plain_crons(draw: st.DrawFn) -> tuple[str, str]:
    """The same rule twice: in AWS's fields and in cronsim's five."""

    def field(low: int, high: int) -> str:
        kind = draw(st.sampled_from(["*", "value", "list", "range", "step", "range-step"]))
        first = draw(numbers(low, high))
        last = draw(numbers(min(first + 1, high), high))
        if first == last and kind == "range-step":  # cronsim reads "5-5/2" as "5/2"
            kind = "value"
        step = draw(numbers(1, max(high // 2, 1)))
        return {
            "*": "*",
            "value": f"{first}",
            "list": f"{first},{last}",
            "range": f"{first}-{last}",
            "step": f"*/{step}",
            "range-step": f"{first}-{last}/{step}",
        }[kind]

    minutes, hours, months = field(0, 59), field(0, 23), field(1, 12)
    if draw(st.booleans()):
        day = draw(st.sampled_from(["*", "L", "LW", "1", "15", "28", "1-7", "10,20", "*/3"]))
        return f"cron({minutes} {hours} {day} {months} ? *)", f"{minutes} {hours} {day} {months} *"
    weekday = draw(numbers(0, 6))
    suffix = draw(st.sampled_from(["", "#1", "#3", "L"]))
    return (
        f"cron({minutes} {hours} ? {months} {weekday + 1}{suffix} *)",
        f"{minutes} {hours} * {months} {weekday}{suffix}",
    )


@settings(max_examples=150, deadline=None)
@given(plain_crons(), st.integers(ms("2000-01-01"), ms("2090-01-01")))
def test_agrees_with_cronsim_on_what_both_can_say(pair: tuple[str, str], start_ms: int) -> None:
    ours, theirs = pair
    start = datetime.fromtimestamp(start_ms / 1000, UTC)
    oracle = CronSim(theirs, start)
    rule, at = parse(ours), start_ms
    assert isinstance(rule, Cron)
    for _ in range(4):
        expected = next(oracle)
        due = rule.next_after(at)
        assert due == int(expected.timestamp() * 1000)
        at = due


ZONES = ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata", "Pacific/Apia"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ZONES), st.integers(0, 59), st.integers(0, 23), st.integers(ms("2005-01-01"), ms("2035-01-01")))
def test_in_any_zone_a_daily_time_fires_once_a_local_day_in_order(zone: str, minute: int, hour: int, start_ms: int) -> None:
    rule, at, days = parse(f"cron({minute} {hour} * * ? *)", zone), start_ms, []
    for _ in range(5):
        due = rule.next_after(at)
        assert due is not None
        assert due > at
        assert rule.next_after(due - 1) == due
        local = datetime.fromtimestamp(due / 1000, ZoneInfo(zone))
        assert (local.hour, local.minute) == (hour, minute)
        days.append(local.date())
        at = due
    for before, after in pairwise(days):
        assert timedelta(days=1) <= after - before <= timedelta(days=2)
