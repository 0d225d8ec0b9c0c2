"""Logs in JSON: the platform's records, and which lines a level lets through. Pure.

Source: Lambda developer guide, "Log-level filtering" and "Lambda Telemetry API event schema".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

__all__ = ["at_level", "error_line", "platform_records"]

_LEVELS: Final = {"TRACE": 0, "DEBUG": 1, "INFO": 2, "WARN": 3, "WARNING": 3, "ERROR": 4, "FATAL": 5, "CRITICAL": 5}
_STAMPS: Final = ("timestamp", "time", "@timestamp", "Timestamp", "ts")  # as the managed runtimes and their libraries call it
_encode = msgspec.json.Encoder().encode


class _Record(Protocol):
    @property
    def request_id(self) -> str: ...
    @property
    def started_at_ms(self) -> int: ...
    @property
    def ended_at_ms(self) -> int: ...
    @property
    def init_us(self) -> int | None: ...
    @property
    def duration_us(self) -> int: ...
    @property
    def memory_mb(self) -> int: ...
    @property
    def peak_mb(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def error_type(self) -> str: ...
    @property
    def system(self) -> str: ...


def platform_records(record: _Record, version: str) -> tuple[list[str], list[str]]:
    """What the platform says before and after a run, as JSON: start and report for INFO, more for DEBUG, failures for WARN."""
    least = _LEVELS.get(record.system, _LEVELS["INFO"])
    status = record.status or "success"
    failed: dict[str, Any] = {"errorType": record.error_type} if record.error_type and status != "timeout" else {}
    done = "DEBUG" if status == "success" else "WARN"
    report = "INFO" if status == "success" else "WARN"
    began, ended = _stamp(record.started_at_ms), _stamp(record.ended_at_ms)
    id = {"requestId": record.request_id}
    opening: list[tuple[str, str, str, dict[str, Any]]] = []
    metrics: dict[str, Any] = {
        "durationMs": _milliseconds(record.duration_us),
        "billedDurationMs": -(-record.duration_us // 1000),
        "memorySizeMB": record.memory_mb,
        "maxMemoryUsedMB": record.peak_mb,
    }
    if record.init_us is not None:
        init = {"initializationType": "on-demand", "phase": "init"}
        took = {"durationMs": _milliseconds(record.init_us)}
        metrics["initDurationMs"] = took["durationMs"]
        opening = [
            ("DEBUG", began, "initStart", init),
            ("DEBUG", began, "initRuntimeDone", {**init, "status": "success"}),
            ("DEBUG", began, "initReport", {**init, "status": "success", "metrics": took}),
        ]
    opening.append(("INFO", began, "start", {**id, "version": version}))
    closing = [
        (done, ended, "runtimeDone", {**id, "status": status, **failed, "metrics": {"durationMs": metrics["durationMs"]}}),
        (report, ended, "report", {**id, "metrics": metrics, "status": status, **failed}),
    ]
    return _shown(opening, least), _shown(closing, least)


def _shown(records: list[tuple[str, str, str, dict[str, Any]]], least: int) -> list[str]:
    return [
        _encode({"time": at, "type": f"platform.{kind}", "record": record}).decode()
        for level, at, kind, record in records
        if _LEVELS[level] >= least
    ]


def _milliseconds(microseconds: int) -> float:
    return round(microseconds / 1000, 3)


def _stamp(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def at_level(lines: bytes, level: str) -> bytes:
    """The lines that an application log level lets through. INFO is one without a level or a time."""
    least = _LEVELS.get(level, _LEVELS["INFO"])
    if least == 0 or not lines:
        return lines
    kept = [line for line in lines.removesuffix(b"\n").split(b"\n") if _level(line) >= least]
    return b"".join(line + b"\n" for line in kept)


def _level(line: bytes) -> int:
    if not line.lstrip().startswith(b"{"):
        return _LEVELS["INFO"]
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return _LEVELS["INFO"]
    told = _LEVELS.get(str(found.get("level", "")).upper())
    stamp = next((found[name] for name in _STAMPS if name in found), None)
    return told if told is not None and _is_time(stamp) else _LEVELS["INFO"]


def _is_time(value: Any) -> bool:
    """RFC 3339, with its offset."""
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def error_line(at_ms: int, request_id: str, error_type: str, message: str) -> bytes:
    """An end that the function could not write into its log itself."""
    told = {"timestamp": _stamp(at_ms), "level": "ERROR", "requestId": request_id}
    return bytes(_encode({**told, "errorType": error_type, "errorMessage": message})) + b"\n"
