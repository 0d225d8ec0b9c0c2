"""Durable queues: what a send, and a receive with its delete, cost; in the room, and over HTTP as SQS's JSON.

    python bench/queues.py [--messages 4000] [--clients 16] [--folder .] [--no-http]

Every send is fsynced before it is answered, every receive and every delete too. `depth` is the cost of the same with
a million messages waiting. Over HTTP the clients are in this process and sign with a bearer token: what is measured is the
platform. Put `--folder` on the disk that matters: a tmpfs has no fsync to save.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from martlet.clock import Clock
from martlet.config import Settings
from martlet.queues import Queues
from martlet.queues.queues import Draft
from martlet.server import Server
from martlet.store import Store

BODY = "x" * 200


async def timed(clients: int, count: int, work: Callable[[int], Awaitable[int]]) -> tuple[float, float]:
    """(messages a second, median milliseconds of a call), each of `clients` calling `work(number)` until `count` are done."""
    numbers = iter(range(count))
    took: list[float] = []
    done = 0

    async def client() -> None:
        nonlocal done
        for number in numbers:
            began = time.perf_counter()
            got = await work(number)
            took.append(time.perf_counter() - began)
            if not got:
                return
            done += got

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - began), sorted(took)[len(took) // 2] * 1000


def show(what: str, result: tuple[float, float]) -> None:
    print(f"{what:44} {result[0]:>9,.0f} messages/s   p50 {result[1]:6.2f} ms", flush=True)


async def in_the_room(folder: Path, count: int, clients: int) -> None:
    clock = Clock()
    store = await Store.open(folder, clock=clock)
    room = Queues(store, clock)
    await room.start()
    for name, batch in (("standard", 1), ("standard", 10), ("q.fifo", 1), ("q.fifo", 10)):
        fifo = name.endswith(".fifo")
        await room.create(name, {"FifoQueue": "true"} if fifo else {})

        async def send(number: int, name: str = name, batch: int = batch) -> int:
            drafts = [
                Draft(body=BODY, group=str(number % 64), deduplication_id=f"{batch}-{number}-{at}") for at in range(batch)
            ]
            return len(await room.send(name, drafts))

        async def drain(number: int, name: str = name, batch: int = batch) -> int:
            found = await room.receive(name, batch, wait_ms=0)
            if found:
                await room.acknowledge(name, [one.handle for one in found])
            return len(found)

        show(f"room {name} send, batches of {batch}", await timed(clients, count // batch, send))
        show(f"room {name} receive + delete, {batch} at once", await timed(clients, count // batch, drain))
    await depth(room, count, clients)
    await room.stop()
    await store.close()


async def depth(room: Queues, count: int, clients: int, waiting: int = 1_000_000) -> None:
    await room.create("deep")

    async def send(_: int) -> int:
        return len(await room.send("deep", [Draft(body=BODY)]))

    async def drain(_: int) -> int:
        found = await room.receive("deep", 1, wait_ms=0)
        await room.acknowledge("deep", [one.handle for one in found])
        return len(found)

    async def fill(_: int) -> int:
        return len(await room.send("deep", [Draft(body=BODY)] * 500))

    for there in (1_000, waiting):
        ready = (await room.counts("deep")).ready
        await timed(4, (there - ready) // 500, fill)
        show(f"depth {there:,}: send", await timed(clients, count, send))
        show(f"depth {there:,}: receive + delete", await timed(clients, count, drain))


class Http:
    """A keep-alive connection that speaks SQS's JSON."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"POST / HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, operation: str, request: dict[str, object]) -> dict[str, list[dict[str, str]]]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        body = json.dumps(request).encode()
        head = f"{self._head}content-type: application/x-amz-json-1.0\r\nx-amz-target: AmazonSQS.{operation}\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        assert answer.startswith("http/1.1 200"), answer
        length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
        raw = await reader.readexactly(length)
        found: dict[str, list[dict[str, str]]] = json.loads(raw or b"{}")
        return found


async def over_http(folder: Path, count: int, clients: int) -> None:
    server = Server(Settings(data=str(folder), port=0, sandbox="process", quiet=True))
    await server.start()
    token = json.loads((folder / "credentials.json").read_text())["token"]
    idle = [Http(server.api_port, token) for _ in range(clients)]
    url = "http://127.0.0.1/000000000000/q"
    await idle[0].call("CreateQueue", {"QueueName": "q"})

    async def send(_: int) -> int:
        http = idle.pop()
        await http.call("SendMessage", {"QueueUrl": url, "MessageBody": BODY})
        idle.append(http)
        return 1

    async def send_ten(_: int) -> int:
        http = idle.pop()
        entries = [{"Id": str(at), "MessageBody": BODY} for at in range(10)]
        await http.call("SendMessageBatch", {"QueueUrl": url, "Entries": entries})
        idle.append(http)
        return 10

    async def drain(_: int, most: int = 1) -> int:
        http = idle.pop()
        found = (await http.call("ReceiveMessage", {"QueueUrl": url, "MaxNumberOfMessages": most})).get("Messages", [])
        if len(found) == 1:
            await http.call("DeleteMessage", {"QueueUrl": url, "ReceiptHandle": found[0]["ReceiptHandle"]})
        elif found:
            entries = [{"Id": str(at), "ReceiptHandle": one["ReceiptHandle"]} for at, one in enumerate(found)]
            await http.call("DeleteMessageBatch", {"QueueUrl": url, "Entries": entries})
        idle.append(http)
        return len(found)

    async def drain_ten(number: int) -> int:
        return await drain(number, 10)

    show("http send", await timed(clients, count, send))
    show("http receive + delete", await timed(clients, count, drain))
    show("http send, batches of 10", await timed(clients, count // 10, send_ten))
    show("http receive + delete, 10 at once", await timed(clients, count // 10, drain_ten))
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--no-http", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        uvloop.run(in_the_room(Path(folder) / "store", given.messages, given.clients))
        if not given.no_http:
            uvloop.run(over_http(Path(folder) / "data", given.messages, given.clients))


if __name__ == "__main__":
    main()
