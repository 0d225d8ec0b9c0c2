"""One item over DynamoDB's protocol, and one document over REST: durable writes and point reads, beside moto, ministack and
dynalite on LevelDB.

All servers run; rounds take turns; each gets the same requests, signed for it. Martlet checks signatures and syncs each write
before it answers; the peers do neither. Beside each rate stands the server's own processor time for a request, which other work
on the machine changes little.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config

from bench import apps, signed
from bench.context import Context
from bench.load import Connection, Rate
from bench.peers import dynalite, emulators
from bench.peers.server import Server
from bench.processes import cpu_seconds
from bench.table import Row

__all__ = ["run"]

_CLIENTS = 64
_ROUNDS = 3
_SECONDS = 2
_ITEMS = 1_000
_TABLE = "bench"
_ANY_KEY = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "x" * 40}
_PEERS: tuple[Callable[[], Server], ...] = (emulators.moto, dynalite.start, emulators.ministack)

_REST = "martlet, REST"


class _Place(NamedTuple):
    """A server: where, with which key, which process."""

    url: str
    credentials: Mapping[str, Any]
    pid: int


class _Round(NamedTuple):
    rate: Rate
    cpu_us: float  # of the server, for each request


_Rounds = dict[tuple[str, str], list[_Round]]  # (operation, server) -> of each round


def run(ctx: Context) -> list[Row]:
    rounds: _Rounds = {}
    with ExitStack() as stack:
        platform = stack.enter_context(ctx.platform(apps.copy("noop", ctx.new_folder("app"))))
        servers = {"martlet": _Place(platform.api_url, platform.credentials, platform.pid)}
        for start in _PEERS:
            peer = stack.enter_context(start())
            servers[peer.name] = _Place(f"http://127.0.0.1:{peer.port}", _ANY_KEY, peer.pid)
        requests = {name: _requests(place.url, place.credentials) for name, place in servers.items()}
        for place in servers.values():
            _create(place.url, place.credentials)
        servers[_REST] = servers["martlet"]
        requests[_REST] = _rest_requests(platform.api_url, platform.token)
        for name, place in servers.items():
            _fill(place.url, requests[name]["PutItem"])
        for _ in range(_ROUNDS):
            for name, place in servers.items():
                for operation, sent in requests[name].items():
                    found = _measure(ctx.new_folder(name), place, sent)
                    rounds.setdefault((operation, name), []).append(found)
    rows = []
    for own, words in (("martlet", {"PutItem": "durable PutItem", "GetItem": "GetItem"}), (_REST, _REST_WORDS)):
        for operation, least, goals in _GOALS:
            rows.append(_own_row(rounds[operation, own], least, words[operation]))
            rows += [_peer_row(rounds, operation, own, peer, goal) for peer, goal in goals.items()]
    return rows


_GOALS: tuple[tuple[str, int, dict[str, float | None]], ...] = (
    ("PutItem", 6_000, {"moto": 12.0, "dynalite": 1.3, "ministack": None}),
    ("GetItem", 10_000, {"moto": 30.0, "dynalite": 2.0, "ministack": 2.0}),
)
_REST_WORDS = {"PutItem": "durable PUT of a document", "GetItem": "GET of a document"}


def _create(url: str, credentials: Mapping[str, Any]) -> None:
    client = boto3.client(
        "dynamodb",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=credentials["access_key_id"],
        aws_secret_access_key=credentials["secret_access_key"],
        config=Config(retries={"max_attempts": 0}),
    )
    client.create_table(
        TableName=_TABLE,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    until = time.monotonic() + 30
    while client.describe_table(TableName=_TABLE)["Table"]["TableStatus"] != "ACTIVE":
        if time.monotonic() > until:
            raise RuntimeError(f"the table at {url} does not become active")
        time.sleep(0.05)


def _requests(url: str, credentials: Mapping[str, Any]) -> dict[str, list[bytes]]:
    puts, gets = [], []
    for number in range(_ITEMS):
        key = {"id": {"S": f"k{number}"}}
        item = {**key, "name": {"S": "Ann"}, "age": {"N": "31"}, "city": {"S": "Berlin"}, "note": {"S": "x" * 330}}
        puts.append(_request(url, credentials, "PutItem", {"TableName": _TABLE, "Item": item}))
        gets.append(_request(url, credentials, "GetItem", {"TableName": _TABLE, "Key": key}))
    return {"PutItem": puts, "GetItem": gets}


def _rest_requests(url: str, token: str) -> dict[str, list[bytes]]:
    """The same item as a document, under the names of the operations that it is compared with."""
    item = json.dumps({"name": "Ann", "age": 31, "city": "Berlin", "note": "x" * 330}).encode()
    fields = f"Host: {url.removeprefix('http://')}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"

    def sent(method: str, number: int, body: bytes) -> bytes:
        line = f"{method} /v1/documents/bench/k{number}?app=bench HTTP/1.1\r\n"
        return f"{line}{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body

    return {
        "PutItem": [sent("PUT", number, item) for number in range(_ITEMS)],
        "GetItem": [sent("GET", number, b"") for number in range(_ITEMS)],
    }


def _request(url: str, credentials: Mapping[str, Any], operation: str, asked: dict[str, Any]) -> bytes:
    fields = {"X-Amz-Target": f"DynamoDB_20120810.{operation}", "Content-Type": "application/x-amz-json-1.0"}
    return signed.request(url, "/", "dynamodb", credentials, fields, json.dumps(asked).encode())


def _fill(url: str, requests: list[bytes]) -> None:
    """Each request once, so that what is read later is there. On connections of their own: moto closes them."""
    port = int(url.rpartition(":")[2])
    for sent in requests:
        with Connection(port) as connection:
            answer = connection.exchange(sent)
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{url} answered {answer.status}: {answer.body[:200]!r}")


def _measure(folder: Path, place: _Place, requests: list[bytes]) -> _Round:
    before = cpu_seconds(place.pid)
    rate = signed.load(place.url, requests, folder, connections=_CLIENTS, seconds=_SECONDS)
    return _Round(rate, (cpu_seconds(place.pid) - before) / max(1, rate.requests) * 1e6)


def _own_row(found: list[_Round], goal: int, what: str) -> Row:
    columns = zip(*((one.rate.per_second, one.rate.p50, one.rate.p99, one.cpu_us) for one in found), strict=True)
    per_second, p50, p99, cpu_us = map(statistics.median, columns)
    failed = sum(one.rate.failed for one in found)
    return Row(
        f"{what} over HTTP, {_CLIENTS} clients",
        f"≥ {goal:,}/s, 0 failed",
        f"{per_second:,.0f}/s · p50 {p50:.2f} · p99 {p99:.2f} ms · {cpu_us:.0f} µs CPU, {failed} failed",
        "",
        per_second >= goal and not failed,
    )


def _peer_row(rounds: _Rounds, operation: str, name: str, peer: str, goal: float | None) -> Row:
    """Round by round, since rounds take turns."""
    own, others = rounds[operation, name], rounds[operation, peer]
    ratio = statistics.median(one.rate.per_second / two.rate.per_second for one, two in zip(own, others, strict=True))
    per_second = statistics.median(one.rate.per_second for one in others)
    cpu_us = statistics.median(one.cpu_us for one in others)
    failed = sum(one.rate.failed for one in others)
    return Row(
        f"  against {peer}'s {operation}",
        f"≥ {goal:g} × {peer}" if goal else "",
        f"{per_second:,.0f}/s · {cpu_us:,.0f} µs CPU{f', {failed} failed' if failed else ''}",
        f"{ratio:.2f} ×",
        ratio >= goal if goal else None,
    )
