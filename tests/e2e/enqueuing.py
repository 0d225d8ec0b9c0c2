"""Producers and consumers of queues over HTTP, who remember what they were told; and what must hold of it.

Everything runs in one event loop, so that the order of what they saw is the order in which it happened.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.running_platform import RunningPlatform

__all__ = ["Checked", "Fire", "Ledger"]

GROUPS = 16
URL = "http://127.0.0.1/000000000000/enqueues-"
QUEUES = ("jobs", "lines.fifo")
_PATIENCE_SECONDS = 60.0  # without a new message: what has not come by then never will
_CLOCK_SECONDS = 0.002  # the platform's clock counts milliseconds


class Delivery(NamedTuple):
    """One receive of one message: between these moments its lease began."""

    body: str
    asked_at: float
    answered_at: float


class Ledger:
    """What was acknowledged, in both directions."""

    def __init__(self) -> None:
        self.tried: set[str] = set()
        self.sent: set[str] = set()  # acknowledged
        self.missing: set[str] = set()  # of these, what nobody has received yet
        self.delivered: dict[str, list[Delivery]] = defaultdict(list)  # by message id, in the order of answers
        self.bodies: dict[str, set[str]] = defaultdict(set)  # body -> message ids
        self.deleted: dict[str, float] = {}  # message id -> when the delete was acknowledged
        self.late: list[str] = []  # received after that
        self.order: dict[str, list[int]] = defaultdict(list)  # FIFO group -> numbers as they were delivered

    def acknowledge(self, bodies: list[str]) -> None:
        self.sent.update(bodies)
        self.missing.update(body for body in bodies if body not in self.bodies)

    def deliver(self, messages: list[dict[str, Any]], asked_at: float) -> None:
        now = time.time()
        for message in messages:
            id, body = message["MessageId"], message["Body"]
            if id in self.deleted and self.deleted[id] < asked_at:
                self.late.append(body)
            self.delivered[id].append(Delivery(body, asked_at, now))
            self.bodies[body].add(id)
            self.missing.discard(body)
            kind, _, rest = body.partition(":")
            if kind == "line":
                group, number = rest.split(":")
                self.order[group].append(int(number))

    def check(self, lease_seconds: float) -> Checked:
        """`AssertionError` if something was lost, made up, came out of order or came again while it was leased."""
        assert not self.missing, f"{len(self.missing)} lost: {sorted(self.missing)[:5]}"
        assert self.bodies.keys() <= self.tried, "delivered, though nobody sent it"
        assert not self.late, f"received after their delete was acknowledged: {self.late[:5]}"
        twice = {body for body, ids in self.bodies.items() if len(ids) > 1}
        assert all(body.startswith("note:") for body in twice), "one send became several messages"
        again = 0
        for deliveries in self.delivered.values():
            for one, other in itertools.pairwise(deliveries):
                again += 1
                assert other.answered_at >= one.asked_at + lease_seconds - _CLOCK_SECONDS, f"{one} was still leased: {other}"
        for group, numbers in self.order.items():
            most = 0
            for number in numbers:
                assert number <= most + 1, f"group {group}: {number} came before {most + 1}"
                most = max(most, number)
        return Checked(len(self.sent), len(self.tried - self.sent), again, len(twice), Counter(_kind(one) for one in self.sent))


class Checked(NamedTuple):
    """`unsure`: sends without an answer; `again`: deliveries after the first; `relayed_twice`: notes of one transaction that
    their relay sent more than once."""

    acknowledged: int
    unsure: int
    again: int
    relayed_twice: int
    kinds: Counter[str]


def _kind(body: str) -> str:
    return body.partition(":")[0]


class Lost(Exception):
    """The connection broke, or the answer was 5xx: what was asked may have been done."""


class Http:
    """A keep-alive connection; a new one after each failure."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: Any, head: str = "") -> Any:
        try:
            return await self._post(path, json.dumps(body).encode(), head)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            self.close()
            raise Lost from None

    async def sqs(self, operation: str, queue: str, **members: Any) -> dict[str, Any]:
        head = f"content-type: application/x-amz-json-1.0\r\nx-amz-target: AmazonSQS.{operation}\r\n"
        answer: dict[str, Any] = await self.post("/", {"QueueUrl": URL + queue, **members}, head) or {}
        return answer

    async def _post(self, path: str, body: bytes, head: str) -> Any:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        reader, writer = self._streams
        lines = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\nauthorization: Bearer {self._token}\r\n"
        head = head or "content-type: application/json\r\n"
        writer.write(f"{lines}{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        said = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(said.partition("content-length: ")[2].partition("\r\n")[0])
        raw = await reader.readexactly(length)
        if said.startswith("http/1.1 4"):
            raise RuntimeError(f"{path} was refused: {raw.decode()}")
        if not said.startswith("http/1.1 200"):
            raise Lost
        return json.loads(raw) if raw else None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Fire:
    """Sends `count` messages in each way there is and takes them again, while `strike` is called at chosen moments: it kills
    something, and returns the platform that serves then."""

    def __init__(self, platform: RunningPlatform, count: int, lease_seconds: int) -> None:
        self.ledger = Ledger()
        self.platform = platform
        self._lease_seconds = lease_seconds
        self._numbers = itertools.count(1)
        self._api, self._app = (int(url.rpartition(":")[2]) for url in (platform.api_url, platform.app_url))
        self._token = platform.token
        self._up = asyncio.Event()
        self._up.set()
        self._progress = asyncio.Condition()
        self._over = False
        share = {"one": 0.05, "ten": 0.6, "line": 0.25, "code": 0.08, "note": 0.02}
        self.wanted = {kind: max(int(count * part), GROUPS if kind == "line" else 10) for kind, part in share.items()}

    async def run(self, strikes: list[int], strike: Callable[[], RunningPlatform]) -> Ledger:
        """`strikes`: after how many acknowledged messages it strikes, ascending."""
        ten = self.wanted["ten"]
        producers = [
            *(self._produce("one", self.wanted["one"], 1, 4) for _ in range(4)),
            *(self._produce("ten", ten, 10, 6) for _ in range(6)),
            *(self._group(str(group)) for group in range(GROUPS)),
            *(self._produce("code", self.wanted["code"], 50, 2) for _ in range(2)),
            self._produce("note", self.wanted["note"], 20, 1),
        ]
        consumers = [asyncio.create_task(self._consume(queue)) for queue in (*QUEUES, QUEUES[0]) for _ in range(6)]
        sending = asyncio.gather(*producers)
        for count in strikes:
            async with self._progress:
                await self._progress.wait_for(lambda count=count: len(self.ledger.sent) >= count)  # type: ignore[misc]
            self._up.clear()
            self.platform = await asyncio.to_thread(strike)
            self._up.set()
        await sending
        seen, until = -1, 0.0
        while self.ledger.missing or not await self._empty():
            if len(self.ledger.delivered) != seen:
                seen, until = len(self.ledger.delivered), time.monotonic() + _PATIENCE_SECONDS
            if time.monotonic() > until:
                break  # the rest is lost: `check` says so
            async with self._progress:
                await self._progress.wait()
        self._over = True
        await asyncio.gather(*consumers)
        return self.ledger

    async def _told(self, bodies: list[str]) -> None:
        self.ledger.acknowledge(bodies)
        async with self._progress:
            self._progress.notify_all()

    async def _served(self) -> None:
        """After a failure: until it can be tried again."""
        await self._up.wait()
        await asyncio.sleep(0.01)

    async def _produce(self, kind: str, count: int, batch: int, among: int) -> None:
        """Each try has new bodies: what was not acknowledged may be there or not."""
        http = Http(self._app if kind in ("code", "note") else self._api, self._token)
        for _ in range(-(-count // (batch * among))):
            while True:
                bodies = [f"{kind}:{next(self._numbers)}" for _ in range(batch)]
                self.ledger.tried.update(bodies)
                try:
                    await self._told(await self._send(http, kind, bodies))
                    break
                except Lost:
                    await self._served()
        http.close()

    async def _send(self, http: Http, kind: str, bodies: list[str]) -> list[str]:
        """The bodies that were acknowledged."""
        if kind == "one":
            await http.sqs("SendMessage", "jobs", MessageBody=bodies[0])
            return bodies
        if kind == "ten":
            entries = [{"Id": str(at), "MessageBody": body} for at, body in enumerate(bodies)]
            answer = await http.sqs("SendMessageBatch", "jobs", Entries=entries)
            return [bodies[int(one["Id"])] for one in answer["Successful"]]
        await http.post("/jobs" if kind == "code" else "/notes", {"bodies": bodies})
        return bodies

    async def _group(self, group: str) -> None:
        """A FIFO group in its order; what was not acknowledged is sent again under its deduplication ids."""
        http = Http(self._api, self._token)
        for numbers in _tens(self.wanted["line"] // GROUPS):
            entries = [
                {"Id": str(number), "MessageBody": f"line:{group}:{number}", "MessageGroupId": group,
                 "MessageDeduplicationId": f"{group}:{number}"}
                for number in numbers
            ]  # fmt: skip
            bodies = [entry["MessageBody"] for entry in entries]
            self.ledger.tried.update(bodies)
            while True:
                try:
                    await http.sqs("SendMessageBatch", "lines.fifo", Entries=entries)
                    break
                except Lost:
                    await self._served()
            await self._told(bodies)
        http.close()

    async def _consume(self, queue: str) -> None:
        http = Http(self._api, self._token)
        ask = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": 1, "VisibilityTimeout": self._lease_seconds}
        while not self._over:
            asked_at = time.time()
            try:
                found = (await http.sqs("ReceiveMessage", queue, **ask)).get("Messages", [])
                self.ledger.deliver(found, asked_at)
                if found:
                    entries = [{"Id": str(at), "ReceiptHandle": one["ReceiptHandle"]} for at, one in enumerate(found)]
                    answer = await http.sqs("DeleteMessageBatch", queue, Entries=entries)
                    now = time.time()
                    self.ledger.deleted |= {found[int(one["Id"])]["MessageId"]: now for one in answer.get("Successful", ())}
            except Lost:
                await self._served()
            async with self._progress:
                self._progress.notify_all()
        http.close()

    async def _empty(self) -> bool:
        http = Http(self._api, self._token)
        names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
        try:
            found = [await http.sqs("GetQueueAttributes", queue, AttributeNames=names) for queue in QUEUES]
        except Lost:
            return False
        finally:
            http.close()
        return all(count == "0" for one in found for count in one["Attributes"].values())


def _tens(count: int) -> Iterator[range]:
    return (range(first, min(first + 10, count + 1)) for first in range(1, count + 1, 10))
