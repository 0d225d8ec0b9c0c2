"""Attacks on the Runtime API: user code that is its own runtime, and so may say anything. The platform and others stay well."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.runtimes_room import Room, open_room

pytestmark = pytest.mark.e2e

ATTACKER = r"""#!/usr/bin/python3
import json, os, socket, sys, time
def connect():
    sock = socket.create_connection(("127.0.0.1", 9001)); sock.settimeout(3); return sock
NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n"
def ask(sock, data):
    sock.sendall(data); found = b""
    while b"\r\n\r\n" not in found: found += sock.recv(65536) or sys.exit(1)
    head, _, body = found.partition(b"\r\n\r\n")
    size = int([line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")][0].split(b":")[1])
    while len(body) < size: body += sock.recv(65536)
    return int(head.split()[1]), head, body
def post(sock, id, place, body):
    return ask(sock, b"POST /2018-06-01/runtime/invocation/%b/%b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (id, place, len(body), body))
main = connect(); main.settimeout(None)
while True:
    _, head, body = ask(main, NEXT)
    id = [line.split(b": ")[1] for line in head.split(b"\r\n") if b"Request-Id" in line][0]
    attack = json.loads(body); said = []
    if attack == "garbage":
        for data in (b"\x00" * 4096, b"\r\n" * 9000 + b"x", os.urandom(65536), b"GET " + b"/" * 2000000):
            sock = connect()
            try: sock.sendall(data); sock.shutdown(socket.SHUT_WR); said.append(sock.recv(12).decode("latin-1"))
            except OSError: said.append("")
    elif attack == "headers":
        sock = connect()
        try:
            for n in range(40): sock.sendall(b"GET /2018-06-01/ping HTTP/1.1\r\n" * (not n) + b"X-%d: " % n + b"x" * 100000 + b"\r\n")
        except OSError: pass
        try: said.append(sock.recv(12).decode("latin-1"))
        except OSError: said.append("")
    elif attack == "pipeline":
        sock = connect(); sock.setblocking(False); sent = 0
        try:
            while sent < 1 << 28: sent += sock.send(NEXT * 1000)
        except OSError: pass
        said.append(sent < 1 << 28)
    elif attack == "ids":
        sock = connect()
        for other in (b"x", b"00000000-0000-4000-8000-000000000000", id[:-1], id + b"x", b"..", b"%2e%2e", b"*"):
            said.append(post(sock, other, b"response", b"1")[0])
    elif attack == "pollers":
        for _ in range(20): said.append(ask(connect(), NEXT)[0])
    elif attack == "connections":
        held = []
        try:
            for _ in range(500): held.append(connect())
        except OSError: pass
        said.append(len(held) > 0); held.clear()
    elif attack == "bodies":
        held = []
        for _ in range(100):
            sock = connect(); sock.setblocking(False)
            try:
                sock.send(b"POST /2018-06-01/runtime/invocation/x/response HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n")
                for _ in range(60): sock.send(b"x" * 150000)
            except OSError: pass
            held.append(sock)
        said.append(True); time.sleep(0.5)
    elif attack == "others":
        for path in (b"/v1/apps", b"/2018-06-01/../v1/apps", b"//2018-06-01/runtime/invocation/next"):
            try: said.append(ask(connect(), b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)[0])
            except OSError: said.append(0)
    elif attack == "pipes":
        for fd in set(range(3, 64)) - {main.fileno()}:
            try: os.write(fd, b"\xff" * 64); said.append(fd)
            except OSError: pass
    post(main, id, b"response", json.dumps(said).encode())
"""


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    """With a victim; afterwards it must answer, and the attacker's function, too."""
    async with open_room(tmp_path) as found:
        await found.publish({"app.py": "def handler(event, context):\n    return event"}, "", name="victim")
        await found.publish({"bootstrap": ATTACKER}, "provided.al2023", name="attacker", timeout_seconds=10.0)
        yield found
        assert (await found.invoke(21, "app-victim"))[0] == 21
        for _ in range(5):  # not at once where it harmed itself: a poll that it forgot takes the event of the next one
            if (await found.invoke("nothing", "app-attacker"))[0] == []:
                break
        else:
            raise AssertionError("the attacker's function does not come back")


async def attack(room: Room, name: str) -> list[object]:
    victim = asyncio.create_task(_watch(room))
    answer, outcome, log = await room.invoke(name, "app-attacker")
    victim.cancel()
    assert outcome.error == "", (answer, log)
    return answer  # type: ignore[no-any-return]


async def _watch(room: Room) -> None:
    while True:
        assert (await room.invoke(1, "app-victim"))[0] == 1
        await asyncio.sleep(0.01)


def _resident_mb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20


async def test_garbage(room: Room) -> None:
    said = await attack(room, "garbage")
    assert all(line in ("", "HTTP/1.1 400", "HTTP/1.1 431") for line in said), said


async def test_headers_without_end(room: Room) -> None:
    assert (await attack(room, "headers"))[0] in ("HTTP/1.1 431", "")


async def test_a_pipeline_without_end_is_held_up(room: Room) -> None:
    answer, outcome, _ = await room.invoke("pipeline", "app-attacker")
    if outcome.error:  # answered so often that it is a flood, which ends the attacker
        assert "refused requests to the Runtime API" in answer["errorMessage"]
    else:
        assert answer == [True]


async def test_foreign_request_ids(room: Room) -> None:
    assert set(await attack(room, "ids")) <= {400, 404}


async def test_many_pollers(room: Room) -> None:
    assert await attack(room, "pollers") == [403] * 20


async def test_many_connections(room: Room) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert await attack(room, "connections") == [True]
    await asyncio.sleep(0.2)
    assert len(os.listdir("/proc/self/fd")) < before + 200


async def test_large_bodies_for_no_event_are_not_kept(room: Room) -> None:
    before = _resident_mb()
    assert await attack(room, "bodies") == [True]
    assert _resident_mb() < before + 500


async def test_paths_of_the_platform_stay_the_platforms(room: Room) -> None:
    said = await attack(room, "others")
    assert said[0] == 200  # the stand-in of the platform's own API, which knows its callers
    assert room.private[0].startswith(b"GET /v1/apps ")


async def test_no_descriptor_of_the_launcher_is_left(room: Room) -> None:
    assert await attack(room, "pipes") == []
