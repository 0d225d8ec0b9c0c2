"""JSON logs: which of the platform's records a level lets through, and which of a function's lines."""

from __future__ import annotations

import json

import pytest

from martlet.functions.log_formats import at_level
from martlet.functions.logs import LogRecord


def _record(system: str, status: str = "", init_us: int | None = None) -> LogRecord:
    return LogRecord(
        "f", 1, "id", 1_700_000_000_123, init_us=init_us, duration_us=2_345, memory_mb=128, peak_mb=31, status=status,
        error_type="Boom" if status == "error" else "", lines=b"hello\n", qualifier="$LATEST", system=system,
    )  # fmt: skip


def _types(record: LogRecord) -> list[str]:
    return [json.loads(line)["type"].removeprefix("platform.") for line in record.render() if line != "hello"]


def test_a_run_in_json() -> None:
    start, line, report = _record("INFO", init_us=1_500).render()
    assert json.loads(start) == {
        "time": "2023-11-14T22:13:20.123Z",
        "type": "platform.start",
        "record": {"requestId": "id", "version": "$LATEST"},
    }
    assert line == "hello"
    metrics = {"durationMs": 2.345, "billedDurationMs": 3, "memorySizeMB": 128, "maxMemoryUsedMB": 31, "initDurationMs": 1.5}
    assert json.loads(report) == {
        "time": "2023-11-14T22:13:20.126Z",
        "type": "platform.report",
        "record": {"requestId": "id", "metrics": metrics, "status": "success"},
    }


@pytest.mark.parametrize(
    ("record", "types"),
    [
        (_record("DEBUG"), ["start", "runtimeDone", "report"]),
        (_record("DEBUG", init_us=1), ["initStart", "initRuntimeDone", "initReport", "start", "runtimeDone", "report"]),
        (_record("INFO", "error"), ["start", "runtimeDone", "report"]),
        (_record("WARN"), []),
        (_record("WARN", "timeout"), ["runtimeDone", "report"]),
    ],
)
def test_what_the_platform_says_at_each_level(record: LogRecord, types: list[str]) -> None:
    assert _types(record) == types


def test_a_failure_names_its_error() -> None:
    found = json.loads(_record("WARN", "error").render()[-1])["record"]
    assert (found["status"], found["errorType"]) == ("error", "Boom")


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ('{"level": "DEBUG", "timestamp": "2024-11-02T16:51:31.587199Z"}', "DEBUG"),
        ('{"level": "warning", "time": "2024-11-02T16:51:31+01:00"}', "WARN"),
        ('{"level": "FATAL", "timestamp": "2024-11-02T16:51:31Z"}', "FATAL"),
        ('{"level": "DEBUG", "timestamp": "2024-11-02 16:51"}', "INFO"),
        ('{"level": "DEBUG"}', "INFO"),
        ('{"level": {"a": 1}, "timestamp": "2024-11-02T16:51:31Z"}', "INFO"),
        ('{"level": "ERROR"', "INFO"),
        ("plain", "INFO"),
        ("", "INFO"),
    ],
)
def test_the_level_of_a_line(line: str, level: str) -> None:
    levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
    kept = [least for least in levels if at_level(f"{line}\n".encode(), least)]
    assert kept == levels[: levels.index(level) + 1]


def test_lines_keep_their_order_and_their_bytes() -> None:
    lines = b'one\n{"level":"ERROR","timestamp":"2024-11-02T16:51:31Z"}\n\xff\n'
    assert at_level(lines, "INFO") == lines
    assert at_level(lines, "ERROR") == lines.split(b"\n")[1] + b"\n"
