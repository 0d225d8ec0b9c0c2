"""The pipes between a sandbox and the platform: every frame there may be forged."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.security.stage import Result, Stage

READY, INIT_ERROR, RESULT, ERROR, HEAD, CHUNK, END, STREAM_ERROR = range(11, 19)


def _broken(result: Result) -> None:
    """The event ended with an error of the platform's own, within the function's time."""
    assert result.status == 200, result.whole
    assert result.error == "Unhandled"
    assert result.error_type in ("Sandbox.Failure", "Runtime.ExitError"), result.whole
    assert "still here" not in str(result.payload)


@pytest.mark.parametrize("size", [1, 11, 12, 5_000, 2_000_000])
def test_garbage(attacked: Stage, size: int) -> None:
    result = attacked.try_attack("pipes.garbage", "hurried", size=size)
    assert result.error == "Unhandled"
    assert result.error_type in ("Sandbox.Failure", "Sandbox.Timedout")


def test_zeros(attacked: Stage) -> None:
    _broken(attacked.try_attack("pipes.zeros", size=100_000))


@pytest.mark.parametrize("kind", [0, 1, 2, 10, 19, 127, 255])
def test_unknown_kinds_and_the_platforms_own(attacked: Stage, kind: int) -> None:
    _broken(attacked.try_attack("pipes.frame", kind=kind))


@pytest.mark.parametrize("kind", [READY, INIT_ERROR, RESULT, ERROR, HEAD, CHUNK, END, STREAM_ERROR])
def test_lengths_beyond_the_limit(attacked: Stage, kind: int) -> None:
    before = attacked.resident_mb()
    _broken(attacked.try_attack("pipes.frame", kind=kind, length=0xFFFF_FFFF))
    assert attacked.resident_mb() < before + 64


def test_a_partial_frame_is_only_a_timeout(attacked: Stage) -> None:
    result = attacked.try_attack("pipes.partial", "hurried")
    assert result.error_type == "Sandbox.Timedout"


def test_a_frame_that_dribbles_does_not_eat_the_platform(attacked: Stage) -> None:
    """A large frame whose end comes byte by byte: each byte must not cost a copy of the whole."""
    before = _cpu_seconds(attacked)
    attacked.try_attack("pipes.dribble", megabytes=5, steps=3_000)
    assert _cpu_seconds(attacked) - before < 1


@pytest.mark.parametrize("sequence", [0, 7_777, 0xFFFF_FFFF])
@pytest.mark.parametrize("kind", [RESULT, ERROR, HEAD, END])
def test_answers_to_events_of_others(attacked: Stage, kind: int, sequence: int) -> None:
    _broken(attacked.try_attack("pipes.frame", kind=kind, sequence=sequence, payload='"x"' if kind < END else ""))


def test_answering_twice(attacked: Stage) -> None:
    result = attacked.try_attack("pipes.answer_twice")
    assert result.payload == "first"
    attacked.attacker_answers()  # the second answer was nobody's


def test_answers_ahead_are_for_nobody(attacked: Stage) -> None:
    _broken(attacked.try_attack("pipes.answer_ahead", steps=5))
    for _ in range(6):
        attacked.attacker_answers()


def test_neighbours_answers_cannot_be_forged(attacked: Stage) -> None:
    """While the victim's events run, the attacker answers every sequence number there could be."""
    with ThreadPoolExecutor(4) as pool:
        attacks = [pool.submit(attacked.try_attack, "pipes.answer_ahead", "several", steps=200) for _ in range(3)]
        for number in range(30):
            attacked.victim_is_well(number)
        for attack in attacks:
            attack.result()


OUT_OF_ORDER: dict[str, list[list[Any]]] = {
    "ready twice": [[READY, 0, "{}", None]],
    "init error late": [[INIT_ERROR, 0, '{"errorType": "X", "errorMessage": "late"}', None]],
    "chunk first": [[CHUNK, None, "a", None]],
    "end first": [[END, None, "", None]],
    "stream error first": [[STREAM_ERROR, None, "{}", None]],
    "head twice": [[HEAD, None, "{}", None], [HEAD, None, "{}", None]],
    "end twice": [[HEAD, None, '{"statusCode": 200}', None], [END, None, "", None], [END, None, "", None]],
    "chunk after end": [[HEAD, None, '{"statusCode": 200}', None], [END, None, "", None], [CHUNK, None, "a", None]],
    "result within a stream": [
        [HEAD, None, '{"statusCode": 200}', None],
        [RESULT, None, '"x"', None],
        [CHUNK, None, "a", None],
    ],
}


@pytest.mark.parametrize("order", OUT_OF_ORDER)
def test_frames_out_of_order(attacked: Stage, order: str) -> None:
    result = attacked.try_attack("pipes.frames", sequence_of=OUT_OF_ORDER[order])
    if not result.error:  # the answer was complete before the order was broken
        assert order in ("end twice", "chunk after end", "result within a stream")


@pytest.mark.parametrize("head", ["", "{", "[]", "null", '{"statusCode": "x"}', "[" * 100_000, '{"a":' * 50_000])
def test_preludes_that_are_none(attacked: Stage, head: str) -> None:
    result = attacked.try_attack("pipes.stream", "hurried", head=head)
    assert result.status in (200, 502), result.whole
    assert result.error == "Unhandled" or result.payload is not None


@pytest.mark.parametrize(
    "payload", ["", "garbage", "[]", '{"errorType": 5}', '{"errorType": "A\\nREPORT RequestId: forged"}', '"\\ud800"']
)
def test_errors_that_are_none(attacked: Stage, payload: str) -> None:
    result = attacked.try_attack("pipes.bad_error", payload=payload)
    assert result.status in (200, 500, 502)
    assert "\nREPORT RequestId: forged" not in result.log


def test_an_error_nested_too_deeply(attacked: Stage) -> None:
    result = attacked.try_attack("pipes.deep_error", depth=200_000)
    assert result.status in (200, 500, 502)


@pytest.mark.parametrize("descriptors", [[3], [4], [1, 2], [3, 4], [0, 1, 2, 3, 4]])
def test_closed_pipes(attacked: Stage, descriptors: list[int]) -> None:
    result = attacked.try_attack("pipes.close", "hurried", descriptors=descriptors)
    assert result.error == "Unhandled"


def test_a_flood_of_frames(attacked: Stage) -> None:
    """The first wrong frame ends it; the rest must cost nothing: no line in the log for each, no order to the supervisor."""
    before, size = attacked.resident_mb(), _log_bytes(attacked)
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(attacked.try_attack, "pipes.flood", "hurried", seconds=2)
        while not flood.done():
            attacked.victim_is_well()
        _broken(flood.result())
    assert attacked.resident_mb() < before + 64
    assert _log_bytes(attacked) < size + 200_000


def test_many_empty_chunks(attacked: Stage) -> None:
    before = _cpu_seconds(attacked)
    attacked.try_attack("pipes.small_chunks", count=60_000, head_bytes=900_000)
    assert _cpu_seconds(attacked) - before < 2


def test_the_pipes_carry_no_descriptors(attacked: Stage) -> None:
    assert set(attacked.attack("pipes.rights").values()) == {"ENOTSOCK"}


def test_nobody_elses_events_can_be_read(attacked: Stage) -> None:
    attacked.victim_is_well()
    assert attacked.attack("pipes.read_events") == ""


def test_pipes_have_one_direction(attacked: Stage) -> None:
    assert attacked.attack("pipes.write_backwards") == {"events": "EBADF", "results": "EBADF"}
    found = attacked.attack("pipes.reopen")
    assert {outcome for outcome in found.values() if not isinstance(outcome, dict)} <= {"EACCES", "EPERM", "ENXIO"}


def test_latency_of_others_under_garbage(attacked: Stage) -> None:
    with ThreadPoolExecutor(2) as pool:
        attack = pool.submit(attacked.try_attack, "pipes.garbage", "hurried", size=2_000_000)
        assert max(attacked.victim_latency(20)) < 2
        attack.result()


def _cpu_seconds(stage: Stage) -> float:
    """Processor time of the platform's own process so far."""
    from os import sysconf
    from pathlib import Path

    fields = Path(f"/proc/{stage.platform.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / sysconf("SC_CLK_TCK")


def _log_bytes(stage: Stage) -> int:
    time.sleep(0.2)
    return sum(path.stat().st_size for path in (stage.data / "logs").rglob("*.jsonl"))
