"""Asynchronous events and `kill -9`: what was acknowledged runs, and nothing runs twice but what was running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.system.asynchronous_platform import CONCURRENCY

PLATFORM = Path(__file__).with_name("asynchronous_platform.py")
SOURCES = Path(__file__).resolve().parents[2] / "src"


def start(data: Path, ran: Path, what: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    return subprocess.Popen([sys.executable, str(PLATFORM), str(data), str(ran), what], stdout=subprocess.PIPE, env=environment)


@pytest.mark.timeout(120)
def test_a_killed_platform_loses_no_acknowledged_event_and_repeats_only_what_ran(tmp_path: Path) -> None:
    data, ran = tmp_path / "data", tmp_path / "ran"
    with start(data, ran, "send") as sender:
        assert sender.stdout is not None
        acknowledged = [sender.stdout.readline().decode().strip() for _ in range(400)]
        sender.send_signal(signal.SIGKILL)
        rest = sender.stdout.read().decode()
    acknowledged += [line for line in rest.split("\n")[:-1] if len(line) == 36]
    before = Counter(ran.read_text().split())
    assert len(acknowledged) > len(before) + 50, "some were waiting when it was killed"
    with start(data, ran, "drain") as drainer:
        found, _ = drainer.communicate(timeout=90)
    assert found == b"drained\n"
    times = Counter(ran.read_text().split())
    assert set(acknowledged) <= set(times)
    repeated = [id for id, count in times.items() if count > 1]
    assert len(repeated) <= CONCURRENCY
    assert all(count <= 2 for count in times.values())
