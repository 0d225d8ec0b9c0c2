"""The document database: durable writes and point reads through HTTP on both engines, a transaction with three indexes in
process, a change that runs a function.

PostgreSQL is a server that is started for it on the same two cores, with fsync on. Both engines take turns, and the
ratio is the median of the rounds'.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvloop
from tests.postgres_server import PostgresServer, new_folder

from bench import changes, http_documents
from bench.context import Context
from bench.documents import INDEXES, body, opened, rate
from bench.table import Row
from martlet.clock import Clock
from martlet.documents import CollectionConfig, Documents

__all__ = ["run"]

_CLIENTS = 64
_ROUNDS = 5
_REQUESTS = 3_000
_INSERTS = 5_000
_CHANGES = 200
_ENGINES = ("embedded", "PostgreSQL")

_Rounds = dict[tuple[str, str], list[float]]  # (what, engine) -> operations a second, round by round


def run(ctx: Context) -> list[Row]:
    home = new_folder()
    server = PostgresServer(home / "data")
    server.start()
    try:
        over_http = _over_http(ctx, server)
        inside = _inside(server)
    finally:
        server.stop()
        shutil.rmtree(home)
    folder = ctx.new_folder("changes")
    folder.mkdir(parents=True)
    late = uvloop.run(changes.measure(folder, _CHANGES, "isolated")).late_ms
    p50 = statistics.median(late)
    return [
        _rate_row(over_http, "PUT", "durable documents written through HTTP", 6_000),
        _ratio_row(over_http, "PUT", "the same on PostgreSQL", 0.8),
        _rate_row(over_http, "GET", "documents read through HTTP", 10_000),
        _ratio_row(over_http, "GET", "the same on PostgreSQL", None),
        _rate_row(inside, "insert", "in process: insert, unique and 2 other indexes, log", 14_000),
        _ratio_row(inside, "insert", "the same on PostgreSQL", None, 14_000),
        Row(
            "a change → its function begins",
            "p50 ≤ 3 ms",
            f"p50 {p50:.2f} · p95 {late[len(late) * 95 // 100]:.2f} ms",
            "",
            p50 <= 3,
        ),
    ]


def _over_http(ctx: Context, server: PostgresServer) -> _Rounds:
    found: _Rounds = {}
    with ExitStack() as stack:
        stores = {"embedded": "", "PostgreSQL": server.url(schema="http")}
        platforms = {}
        for engine, store in stores.items():
            platforms[engine] = http_documents.Platform(ctx.new_folder(engine), store)
            stack.callback(platforms[engine].stop)
        for turn in range(_ROUNDS):
            for method in ("PUT", "GET"):
                for engine, platform in platforms.items():
                    per_second, _ = uvloop.run(http_documents.load(platform, method, _REQUESTS, _CLIENTS, turn))
                    found.setdefault((method, engine), []).append(per_second)
    return found


def _inside(server: PostgresServer) -> _Rounds:
    found: _Rounds = {}
    for turn in range(_ROUNDS):
        with tempfile.TemporaryDirectory(dir=Path()) as folder:  # not in memory, as /tmp may be
            for engine, address in (("embedded", ""), ("PostgreSQL", server.url(schema=f"inside{turn}"))):
                found.setdefault(("insert", engine), []).append(uvloop.run(_inserts(Path(folder) / "store", address)))
    return found


async def _inserts(folder: Path, address: str) -> float:
    store = await opened(folder, address)
    room = Documents(store, Clock())
    await room.define_collection("d", "c", CollectionConfig(indexes=INDEXES))
    per_second, _ = await rate(_INSERTS, _CLIENTS, lambda n: room.put("d", "c", f"k{n}", body(n, "Berlin")))
    await store.close()
    return per_second


def _rate_row(rounds: _Rounds, what: str, name: str, goal: int) -> Row:
    per_second = statistics.median(rounds[what, "embedded"])
    return Row(f"{name}, {_CLIENTS} clients", f"≥ {goal:,}/s", f"{per_second:,.0f}/s", "", per_second >= goal)


def _ratio_row(rounds: _Rounds, what: str, name: str, goal: float | None, least: int | None = None) -> Row:
    own, other = rounds[what, "embedded"], rounds[what, "PostgreSQL"]
    ratio = statistics.median(two / one for one, two in zip(own, other, strict=True))
    per_second = statistics.median(other)
    wanted = f"≥ {goal:g} × embedded" if goal else f"≥ {least:,}/s" if least else ""
    met = ratio >= goal if goal else per_second >= least if least else None
    return Row(name, wanted, f"{per_second:,.0f}/s", f"{ratio:.2f} × embedded", met)
