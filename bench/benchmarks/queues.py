"""Queues over HTTP: what 8 producers and 8 consumers get through, beside moto and ministack; how soon a function runs; what a
million waiting messages cost.

All servers get the same signed requests (Signature Version 4) of SQS's JSON protocol, from threads of this process, for the
same time. Ours is durable: every send, receive and delete is fsynced before it is answered. The peers keep messages in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import uvloop
from tests.running_platform import RunningPlatform

from bench import apps, queues
from bench.context import Context
from bench.load import Connection
from bench.peers import emulators
from bench.table import Row

__all__ = ["run"]

_SECONDS = 10.0  # moto slows down as its queues grow, so a short run would flatter it
_ROUNDS = 3
_PAIRS = 8
_BODY = "x" * 200
_SCOPE = ("us-east-1", "sqs", "aws4_request")
_PACED = 200
_DRAINED = 1_000


class Client:
    """One connection that speaks SQS's JSON, signed."""

    def __init__(self, port: int, key: str, secret: str) -> None:
        self._connection = Connection(port)
        self._host = f"127.0.0.1:{port}"
        self._key = key
        self._moment = time.gmtime()
        date = time.strftime("%Y%m%d", self._moment)
        signing = f"AWS4{secret}".encode()
        for part in (date, *_SCOPE):
            signing = hmac.digest(signing, part.encode(), "sha256")
        self._signing, self._scope = signing, "/".join((date, *_SCOPE))

    def __call__(self, operation: str, **members: Any) -> dict[str, Any]:
        """The answer. Raises `RuntimeError` for any but 200."""
        body = json.dumps(members).encode()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", self._moment)
        signed = f"host:{self._host}\nx-amz-date:{stamp}\nx-amz-target:AmazonSQS.{operation}\n"
        names = "host;x-amz-date;x-amz-target"
        canonical = f"POST\n/\n\n{signed}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{self._scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        proof = hmac.digest(self._signing, text.encode(), "sha256").hex()
        head = (
            f"POST / HTTP/1.1\r\nHost: {self._host}\r\nX-Amz-Date: {stamp}\r\nX-Amz-Target: AmazonSQS.{operation}\r\n"
            f"Authorization: AWS4-HMAC-SHA256 Credential={self._key}/{self._scope}, SignedHeaders={names}, "
            f"Signature={proof}\r\n"
            f"Content-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answer = self._connection.exchange(head.encode() + body)
        if answer.status != 200:
            raise RuntimeError(f"{operation} was answered with {answer.status}: {answer.body[:300]!r}")
        found: dict[str, Any] = json.loads(answer.body) if answer.body else {}
        return found


Connect = Callable[[], Client]


def run(ctx: Context) -> list[Row]:
    with ExitStack() as stack:
        platform = stack.enter_context(ctx.platform(apps.copy("queue", ctx.new_folder("app"))))
        moto, mini = stack.enter_context(emulators.moto()), stack.enter_context(emulators.ministack())
        ours = _ours(platform)
        servers = {
            "martlet": ours,
            "moto": lambda: Client(moto.port, "AKIAIOSFODNN7EXAMPLE", "secret"),
            "ministack": lambda: Client(mini.port, "AKIAIOSFODNN7EXAMPLE", "secret"),
        }
        rows = [*_rates(servers, 1, 25), *_rates(servers, 10, 80)]
        rows += [_invoked(ours()), _drained(ours())]
    return [*rows, *_depth(ctx)]


def _ours(platform: RunningPlatform) -> Connect:
    port, credentials = int(platform.api_url.rpartition(":")[2]), platform.credentials
    return lambda: Client(port, credentials["access_key_id"], credentials["secret_access_key"])


# --- rates


def _rates(servers: dict[str, Connect], batch: int, goal: int) -> list[Row]:
    """Medians of rounds in which the servers take turns."""
    found: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(_ROUNDS):
        for name, connect in servers.items():
            url = connect()("CreateQueue", QueueName=f"rate{batch}-{number}")["QueueUrl"]
            found[name].append(_through(connect, url, batch))
    rate = {name: statistics.median(rates) for name, rates in found.items()}
    figure = f"SQS send + receive + delete, {_PAIRS} + {_PAIRS} clients, " + ("batches of 10" if batch > 1 else "one by one")
    rows = []
    for peer, least in (("moto", goal), ("ministack", 1)):
        ratio = rate["martlet"] / rate[peer]
        measured = f"{rate['martlet']:,.0f} messages/s, {rate[peer]:,.0f}"
        rows.append(Row(figure, f"≥ {least} × {peer}", measured, f"{ratio:.2f} ×", ratio >= least))
    return rows


def _through(connect: Connect, url: str, batch: int) -> float:
    """Messages a second that were sent, received and deleted."""
    until = time.perf_counter() + _SECONDS
    done: list[int] = []
    failures: list[Exception] = []

    def guarded(work: Callable[[Client, str, int, float], int]) -> None:
        try:
            done.append(work(connect(), url, batch, until))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (_produce, _consume) for _ in range(_PAIRS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(done) / (time.perf_counter() - began)


def _produce(client: Client, url: str, batch: int, until: float) -> int:
    entries = [{"Id": str(number), "MessageBody": _BODY} for number in range(batch)]
    while time.perf_counter() < until:
        if batch == 1:
            client("SendMessage", QueueUrl=url, MessageBody=_BODY)
        else:
            client("SendMessageBatch", QueueUrl=url, Entries=entries)
    return 0


def _consume(client: Client, url: str, batch: int, until: float) -> int:
    """How many it received and deleted."""
    done = 0
    while time.perf_counter() < until:
        messages = client("ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=batch).get("Messages", [])
        if len(messages) == 1:
            client("DeleteMessage", QueueUrl=url, ReceiptHandle=messages[0]["ReceiptHandle"])
        elif messages:
            entries = [{"Id": str(number), "ReceiptHandle": one["ReceiptHandle"]} for number, one in enumerate(messages)]
            client("DeleteMessageBatch", QueueUrl=url, Entries=entries)
        done += len(messages)
    return done


# --- functions


def _invoked(client: Client) -> Row:
    """The message says when its sender began; its function, how old it is."""
    timed, ages = (client("GetQueueUrl", QueueName=f"bench-{name}")["QueueUrl"] for name in ("timed", "ages"))
    found: list[float] = []
    for number in range(_PACED + 20):
        client("SendMessage", QueueUrl=timed, MessageBody=str(time.time()))
        messages: list[dict[str, str]] = []
        while not messages:
            messages = client("ReceiveMessage", QueueUrl=ages, WaitTimeSeconds=5).get("Messages", [])
        client("DeleteMessage", QueueUrl=ages, ReceiptHandle=messages[0]["ReceiptHandle"])
        if number >= 20:
            found.append(float(messages[0]["Body"]) * 1000)
    found.sort()
    p50, p95 = found[len(found) // 2], found[int(len(found) * 0.95)]
    return Row("queue send → function invoked", "p50 ≤ 5 ms", f"p50 {p50:.2f} · p95 {p95:.2f} ms", "", p50 <= 5)


def _drained(client: Client) -> Row:
    url = client("GetQueueUrl", QueueName="bench-idle")["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    entries = [{"Id": str(number), "MessageBody": _BODY} for number in range(10)]
    found = []
    for _ in range(5):
        for _ in range(_DRAINED // 10):
            client("SendMessageBatch", QueueUrl=url, Entries=entries)
        began = time.perf_counter()
        while any(
            int(count) for count in client("GetQueueAttributes", QueueUrl=url, AttributeNames=names)["Attributes"].values()
        ):
            pass
        found.append(time.perf_counter() - began)
    took = statistics.median(found)
    figure = f"{_DRAINED:,} messages, batch 10, no-op consumer: drained after the last send"
    return Row(figure, "≤ 0.5 s", f"{took:.2f} s", "", took <= 0.5)


# --- depth


def _depth(ctx: Context) -> list[Row]:
    found = uvloop.run(queues.depths(ctx.new_folder("depth"), 320, 16))
    rows = []
    for what, (shallow, deep) in found.items():
        ratio = shallow / deep
        measured = f"{deep:,.0f} messages/s, {shallow:,.0f}"
        rows.append(Row(f"queue of 10⁶ waiting messages: {what}", "≤ 1.5 × of 10³", measured, f"{ratio:.2f} ×", ratio <= 1.5))
    return rows
