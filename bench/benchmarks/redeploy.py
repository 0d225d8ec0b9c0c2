"""Requests while the app is redeployed again and again: none may fail. A redeploy is done when an answer shows its version."""

from __future__ import annotations

import json
import threading
import time

from bench import apps
from bench.context import Context
from bench.load import Connection, Rate, wrk
from bench.table import Row

__all__ = ["run"]

_REDEPLOYS = 50
_REQUESTS = 100_000
_PATIENCE_SECONDS = 30


def run(ctx: Context) -> list[Row]:
    folder = ctx.new_folder("app")
    with ctx.platform(apps.versioned(folder, 0)) as platform:
        load = _Load(platform.port)
        load.start()
        started = time.perf_counter()
        try:
            for version in range(1, _REDEPLOYS + 1):
                apps.versioned(folder, version)
                _wait_for(platform.port, version)
            taken = time.perf_counter() - started
        finally:
            load.finish()
    requests, failed = sum(one.requests for one in load.rates), sum(one.failed for one in load.rates)
    measured = f"{failed} failed of {requests:,} (a redeploy took {taken / _REDEPLOYS:.2f} s)"
    return [
        Row(
            f"{_REQUESTS:,} requests during {_REDEPLOYS} redeploys",
            "0 failed",
            measured,
            "",
            failed == 0 and requests >= _REQUESTS,
        )
    ]


class _Load(threading.Thread):
    """Sixteen connections that ask all the time, until told to finish and there have been enough requests."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.rates: list[Rate] = []
        self._port = port
        self._enough = threading.Event()

    def run(self) -> None:
        while not self._enough.is_set() or (sum(one.requests for one in self.rates) < _REQUESTS and len(self.rates) < 100):
            self.rates.append(wrk(self._port, "/version", connections=16, seconds=3))

    def finish(self) -> None:
        self._enough.set()
        self.join()


def _wait_for(port: int, version: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with Connection(port) as connection:
        while time.monotonic() < deadline:
            answer = connection.get("/version")
            if answer.status == 200 and json.loads(answer.body)["version"] == version:
                return
            time.sleep(0.01)
    raise RuntimeError(f"version {version} was not served within {_PATIENCE_SECONDS} s of its save")
