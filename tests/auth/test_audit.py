"""The audit log: what is in it, that it holds together, and that every change of it is found."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.auth import AuditLog
from martlet.auth.acts import Act
from martlet.auth.audit import Call, Entry, check_chain, is_management
from martlet.clock import ManualClock
from martlet.errors import InvalidInput
from martlet.limits import LIMITS
from martlet.store import Store, Tx, keys
from martlet.types import Principal

ADA = Principal("user", "ada")
BOB = Principal("user", "bob")


def call(action: str = "iam:CreateUser", status: int = 200, who: Principal = ADA, resource: str = "x", **more: str) -> Call:
    acts, denied = (Act(who, action, resource),), status in (401, 403)
    return Call(acts=acts, principal=who, status=status, denied=denied, source_ip="10.0.0.1", **more)  # type: ignore[arg-type]


@pytest.fixture
async def log(store: Store, clock: ManualClock) -> AsyncIterator[AuditLog]:
    made = AuditLog(store, clock)
    made.start()
    yield made
    await made.stop()


async def test_a_change_is_written_before_its_answer_leaves(log: AuditLog, clock: ManualClock) -> None:
    await log.answered(call(request_id="r1", user_agent="aws-cli"))
    (entry,) = log.read()
    assert (entry.number, entry.count, entry.principal, entry.action, entry.resource) == (1, 1, "ada", "iam:CreateUser", "x")
    assert (entry.outcome, entry.status, entry.source_ip, entry.user_agent) == ("done", 200, "10.0.0.1", "aws-cli")
    assert (entry.request_id, entry.at_ms) == ("r1", clock.now_ms())


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "done"), (404, "failed"), (500, "failed"), (403, "denied"), (401, "denied")]
)
async def test_the_outcome_is_that_of_the_answer(log: AuditLog, status: int, outcome: str) -> None:
    await log.answered(call(status=status, error="NoSuchEntity"))
    assert [(entry.outcome, entry.error) for entry in log.read()] == [(outcome, "NoSuchEntity")]


@pytest.mark.parametrize(
    ("action", "management"),
    [
        ("iam:CreateUser", True),
        ("lambda:CreateFunction", True),
        ("lambda:InvokeFunction", False),
        ("s3:CreateBucket", True),
        ("s3:PutBucketPolicy", True),
        ("s3:GetObject", False),
        ("s3:PutObjectTagging", False),
        ("sqs:CreateQueue", True),
        ("sqs:SendMessage", False),
        ("dynamodb:CreateTable", True),
        ("dynamodb:PutItem", False),
        ("documents:Put", False),
        ("documents:Define", True),
        ("secretsmanager:GetSecretValue", True),
        ("apps:Deploy", True),
    ],
)
async def test_calls_that_carry_data_are_noted_only_when_they_are_denied(log: AuditLog, action: str, management: bool) -> None:
    assert is_management(action) is management
    await log.answered(call(action))
    assert len(log.read()) == management
    await log.answered(call(action, status=403))
    assert [entry.outcome for entry in log.read()][-1:] == ["denied"]


async def test_who_nobody_knows_is_noted_with_the_key_that_it_claims(log: AuditLog) -> None:
    await log.answered(
        Call(status=401, denied=True, claimed="key AKIAEXAMPLE", error="InvalidClientTokenId", source_ip="10.0.0.9")
    )
    (entry,) = log.read()
    assert (entry.kind, entry.principal, entry.error) == ("anonymous", "key AKIAEXAMPLE", "InvalidClientTokenId")


async def test_of_several_decisions_the_first_is_the_call_and_of_a_denial_the_last(log: AuditLog) -> None:
    acts = (Act(ADA, "lambda:CreateFunction", "f"), Act(ADA, "iam:PassRole", "role"))
    await log.answered(Call(acts=acts, status=201))
    await log.answered(Call(acts=acts, status=403, denied=True))
    done, denied = log.read()
    assert (done.action, done.also) == ("lambda:CreateFunction", (("iam:PassRole", "role"),))
    assert (denied.action, denied.resource) == ("iam:PassRole", "role")


async def test_what_repeats_is_written_once_and_then_counted(log: AuditLog, clock: ManualClock) -> None:
    for _ in range(1_000):
        await log.answered(call("iam:ListUsers"))
        await log.answered(call(status=403))
    await log.answered(call("iam:ListUsers", who=BOB))
    assert [(entry.principal, entry.outcome, entry.count) for entry in log.read()] == [
        ("ada", "done", 1),
        ("ada", "denied", 1),
        ("bob", "done", 1),
    ]
    clock.advance(61)
    await log.answered(call("iam:ListUsers"))
    assert [(entry.action, entry.count) for entry in log.read()[3:]] == [("iam:ListUsers", 999), ("iam:ListUsers", 1)]
    await log.stop()
    assert sum(entry.count for entry in log.read()) == 2_002
    assert (await log.verify()).why == ""


async def test_a_flood_of_different_denials_takes_bounded_memory(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("martlet.auth.audit._REPEATING_AT_MOST", 10)
    for number in range(100):
        await log.answered(call(status=403, resource=str(number)))
    assert len(log._repeated) == 10
    assert len(log.read()) == 100


async def test_texts_of_strangers_are_cut(log: AuditLog) -> None:
    await log.answered(call(status=403, resource="\ud800" + "x" * 100_000, user_agent="y" * 100_000))
    (entry,) = log.read()
    assert len(entry.resource) == 1_024
    assert len(entry.user_agent) == 256
    assert (await log.verify()).entries == 1


# --- the chain


async def chained(log: AuditLog, count: int) -> list[Entry]:
    for number in range(count):
        await log.answered(call(resource=f"thing {number}"))
    return log.read()


def replaced(store: Store, number: int, entry: Entry | None) -> object:
    def write(tx: Tx) -> None:
        row = keys.encode("audit.entry", number)
        if entry is None:
            tx.delete(row)
        else:
            tx.put(row, msgspec.json.encode(entry))

    return store.transact(write)


async def test_an_untouched_log_holds_together(log: AuditLog) -> None:
    entries = await chained(log, 1_234)
    found = await log.verify()
    assert (found.entries, found.first, found.last, found.why) == (1_234, 1, 1_234, "")
    assert found.digest == entries[-1].digest or found.last == 1_234


@pytest.mark.parametrize("number", [1, 5, 9])
async def test_a_changed_entry_is_found(log: AuditLog, store: Store, number: int) -> None:
    entries = await chained(log, 9)
    await replaced(store, number, msgspec.structs.replace(entries[number - 1], principal="mallory"))  # type: ignore[misc]
    found = await log.verify()
    assert (found.broken_at, found.why) == (number, f"entry {number} was changed")


@pytest.mark.parametrize("number", [1, 5, 9])
async def test_a_missing_entry_is_found(log: AuditLog, store: Store, number: int) -> None:
    await chained(log, 9)
    await replaced(store, number, None)  # type: ignore[misc]
    found = await log.verify()
    assert found.broken_at == number
    assert "missing" in found.why


async def test_old_entries_go_and_the_rest_still_holds_together(log: AuditLog, clock: ManualClock) -> None:
    await chained(log, 1_500)
    clock.advance(LIMITS["audit_days"].default * 86_400 + 1)
    await log.answered(call(resource="new"))
    await log.expire()
    found = await log.verify()
    assert (found.entries, found.first, found.last, found.why) == (1, 1_501, 1_501, "")
    assert [entry.resource for entry in log.read()] == ["new"]


async def test_an_export_is_checked_without_the_platform(log: AuditLog) -> None:
    lines = [json.dumps(msgspec.to_builtins(entry), sort_keys=True).encode() for entry in await chained(log, 20)]
    assert check_chain(lines).entries == 20
    assert check_chain(lines[7:]).entries == 13, "a later part of it, too"
    assert check_chain([]).entries == 0
    for damaged, why in (
        (lines[:4] + lines[5:], "entry 5 is missing"),
        ([*lines[:4], lines[4].replace(b"thing 4", b"thing 5"), *lines[5:]], "entry 5 was changed"),
        ([*lines[:4], lines[5], lines[4], *lines[6:]], "entry 5 is missing"),
    ):
        assert check_chain(damaged).why == why
    with pytest.raises(InvalidInput, match="line 2"):
        check_chain([lines[0], b"{}"])


@given(st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True), st.integers(0, 19))
def test_no_other_order_or_part_from_the_middle_passes(order: list[int], at: int) -> None:
    """Only a run of neighbours, in order, holds together."""
    verdict = check_chain(_LINES[position] for position in order)
    run = all(second == first + 1 for first, second in itertools.pairwise(order))
    assert (verdict.why == "") is run


def _lines() -> list[bytes]:
    from martlet.auth.audit import _NOTHING, _digest

    previous, lines = _NOTHING, []
    for number in range(1, 21):
        entry = Entry(
            number=number, at_ms=0, until_ms=0, count=1, kind="user", principal="ada", action="a:B", resource="é",
            outcome="done", status=200, error="", previous=previous,
        )  # fmt: skip
        entry = msgspec.structs.replace(entry, digest=_digest(entry))
        previous = entry.digest
        lines.append(msgspec.json.encode(entry))
    return lines


_LINES = _lines()


async def test_calls_at_one_time_make_one_chain(log: AuditLog) -> None:
    import asyncio

    await asyncio.gather(*(log.answered(call(resource=str(number))) for number in range(200)))
    entries = log.read(limit=500)
    assert {entry.resource for entry in entries} == {str(number) for number in range(200)}
    assert (await log.verify()).entries == 200
