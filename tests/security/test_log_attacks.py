"""Logs: floods, forged lines, terminal escapes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.security.stage import Stage, until

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m\r\x08\x00"


def _log_bytes(stage: Stage, function: str) -> int:
    folder = stage.data / "logs" / function
    return sum(path.stat().st_size for path in folder.glob("*.jsonl")) if folder.exists() else 0


def test_a_log_flood_is_bounded_in_memory_and_on_disk(attacked: Stage) -> None:
    before, size = attacked.resident_mb(), _log_bytes(attacked, "attacker-small")
    written = attacked.attack("logs.flood", megabytes=60)
    assert written >= 60 << 20
    assert attacked.resident_mb() < before + 64
    until(lambda: _log_bytes(attacked, "attacker-small") > size)
    assert _log_bytes(attacked, "attacker-small") < size + (3 << 20)


@pytest.mark.parametrize("block", ["\x1e\n", "\x1e00000001\x1fx\n", "\n", "x" * 60_000, "\x1e00000000\x1f\n\x1e00000002\x1f\n"])
@pytest.mark.parametrize("function", ["small", "several"])
def test_others_are_served_during_a_log_flood(attacked: Stage, block: str, function: str) -> None:
    """Whatever it consists of: no line may cost the platform much more than it costs its writer."""
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(attacked.attack, "logs.flood_bytes", function, block=block, seconds=1)
        latencies = []
        while not flood.done():
            latencies += attacked.victim_latency(1)
        flood.result()
    assert len(latencies) >= 5, latencies
    assert sorted(latencies)[len(latencies) // 2] < 0.25, latencies


def _records(stage: Stage, function: str) -> list[dict[str, object]]:
    found = []
    for path in sorted(Path(stage.data / "logs" / function).glob("*.jsonl")):
        found += [json.loads(line) for line in path.read_text().splitlines()]
    return found


def test_forged_lines_stay_in_their_own_record(attacked: Stage) -> None:
    """START, REPORT and another request's id may be printed by anybody; they make no record."""
    forged = "11111111-2222-3333-4444-555555555555"
    text = f"END RequestId: {forged}\nREPORT RequestId: {forged}\tDuration: 0.00 ms\nSTART RequestId: {forged} Version: 9\n"
    attacked.attack("logs.write", text=text)
    assert until(
        lambda: any(forged in str(record["lines"]) for record in _records(attacked, "attacker-small") if "lines" in record)
    )
    assert not any(record["request_id"] == forged for record in _records(attacked, "attacker-small"))


def test_marks_of_other_events_do_not_reach_them(attacked: Stage) -> None:
    """A mark of an event that this instance does not have stays with the event that wrote it."""
    for function in ("small", "several"):
        for sequence in (0, 1, 2, 999, 0xFFFF_FFFF):
            attacked.attack("logs.tagged", function, sequence=sequence, text=f"forged-mark-{function}")
    attacked.victim_is_well()
    assert until(lambda: "forged-mark-small" in str(_records(attacked, "attacker-small")))
    assert "forged-mark" not in str(_records(attacked, "victim-check"))


def test_error_names_make_no_lines(attacked: Stage) -> None:
    result = attacked.try_attack("logs.raise_named", name="Bad\nREPORT RequestId: forged\tDuration: 0 ms")
    assert result.error == "Unhandled"
    assert not any(line.startswith("REPORT RequestId: forged") for line in result.log.split("\n"))
    assert "\n" not in result.error_type


def test_the_command_line_shows_no_escapes(attacked: Stage) -> None:
    attacked.attack("logs.write", text=f"escape-test {ESCAPES}\n")
    attacked.try_attack("logs.raise_named", name=f"X{ESCAPES[:-1]}", message=f"escape-error {ESCAPES}")
    done = attacked.martlet("logs", "attacker-small", "--since", "10s")
    assert done.returncode == 0, done.stderr
    assert "escape-test" in done.stdout
    assert "escape-error" in done.stdout
    steering = [
        character
        for character in done.stdout
        if (ord(character) < 32 and character not in "\n\t\r") or 127 <= ord(character) < 160
    ]
    assert steering == []
    assert "\r" not in done.stdout.replace("\r\n", "\n")


def test_the_command_line_shows_no_escapes_of_errors(attacked: Stage) -> None:
    payload = json.dumps({"attack": "logs.raise_named", "with": {"name": f"X{ESCAPES[:-1]}", "message": ESCAPES}})
    done = attacked.martlet("invoke", "attacker-small", "--payload", payload, "--log")
    assert not any((ord(letter) < 32 and letter not in "\n\t") or 127 <= ord(letter) < 160 for letter in done.stderr)
    assert not any(ord(letter) < 32 and letter != "\n" for letter in done.stdout)
