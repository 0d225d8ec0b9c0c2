"""Making load and measuring answers: `wrk` for rates, raw sockets for latencies.

The clients here are thin on purpose: one `sendall`, one `recv` in the common case. Every answer's status is checked;
an answer that is not whole or not 200 is counted as failed, never dropped.
"""

from __future__ import annotations

import re
import select
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

__all__ = ["Answer", "Connection", "Latencies", "Rate", "at_once", "closed_loop", "fixed_rate", "wrk"]

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_WRK_SCRIPT = Path(__file__).parent / "percentiles.lua"
_WRK_LINE = re.compile(r"^figures (.+)$", re.MULTILINE)


class Latencies:
    """Seconds that answers took, and how many answers were wrong."""

    def __init__(self, seconds: list[float], failed: int = 0) -> None:
        self.seconds = sorted(seconds)
        self.failed = failed

    def quantile_ms(self, share: float) -> float:
        """Nearest rank; infinite without samples, so that a goal on nothing is missed."""
        if not self.seconds:
            return float("inf")
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))] * 1000

    @property
    def p50(self) -> float:
        return self.quantile_ms(0.5)

    @property
    def p95(self) -> float:
        return self.quantile_ms(0.95)

    @property
    def p99(self) -> float:
        return self.quantile_ms(0.99)


class Rate(NamedTuple):
    """What `wrk` saw. `failed` counts answers other than 2xx and 3xx, and connections that broke or timed out."""

    per_second: float
    requests: int
    failed: int
    p50: float
    p95: float
    p99: float


class Answer(NamedTuple):
    """One answer. `first_byte_seconds` counts from just before the request was sent."""

    status: int
    body: bytes
    first_byte_seconds: float


def request_of(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def whole(data: bytes) -> bool:
    """Whether `data` is a whole HTTP/1.1 answer with a length or in chunks."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    if length := _LENGTH.search(head):
        return len(body) >= int(length[1])
    return not _CHUNKED.search(head) or body.endswith(b"0\r\n\r\n")


def status_of(data: bytes) -> int:
    return int(data[9:12]) if data[9:12].isdigit() else 0


class Connection:
    """One keep-alive connection to a loopback port."""

    def __init__(self, port: int, timeout_seconds: float = 60) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def get(self, path: str) -> Answer:
        """Raises `OSError` when the connection breaks or the answer does not come."""
        return self.exchange(request_of(path))

    def exchange(self, request: bytes) -> Answer:
        started = time.perf_counter()
        self.socket.sendall(request)
        data = self.socket.recv(65_536)
        first_byte = time.perf_counter() - started
        while data and not whole(data):
            more = self.socket.recv(65_536)
            if not more:
                break
            data += more
        if not data:
            raise ConnectionResetError("closed without an answer")
        return Answer(status_of(data), data.partition(b"\r\n\r\n")[2], first_byte)


def wrk(port: int, path: str, *, connections: int = 64, seconds: int = 5, threads: int = 1) -> Rate:
    """`connections` clients that each ask again as soon as they are answered."""
    done = subprocess.run(
        ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "--latency"]
        + ["-s", str(_WRK_SCRIPT), f"http://127.0.0.1:{port}{path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return parse_wrk(done.stdout)


def parse_wrk(printed: str) -> Rate:
    """The line that percentiles.lua prints: numbers by name, times in microseconds."""
    line = _WRK_LINE.search(printed)
    if line is None:
        raise ValueError(f"wrk printed no figures: {printed!r}")
    found = {name: float(value) for name, value in (pair.split("=") for pair in line[1].split())}
    failed = sum(int(found[name]) for name in ("connect", "read", "write", "status", "timeout"))
    rate = found["requests"] / (found["duration"] / 1e6)
    return Rate(rate, int(found["requests"]), failed, found["p50"] / 1000, found["p95"] / 1000, found["p99"] / 1000)


def closed_loop(port: int, path: str, count: int) -> Latencies:
    """`count` requests one after another on one connection."""
    seconds, failed = [], 0
    with Connection(port) as connection:
        for _ in range(count):
            answer = connection.get(path)
            seconds.append(answer.first_byte_seconds)
            failed += answer.status != 200
    return Latencies(seconds, failed)


class Arrivals(NamedTuple):
    """Answers of an open loop: (status, when it was due, when the answer was whole), in seconds since the start."""

    answers: list[tuple[int, float, float]]
    unsent: int  # requests that were due while every connection was busy
    lost: int  # connections that broke or did not answer in time

    def latencies(self, status: int = 200) -> Latencies:
        """Of answers with `status`, from when the request was due (so a stall counts against all that it delays)."""
        wrong = sum(found != status for found, _, _ in self.answers)
        taken = [done - due for found, due, done in self.answers if found == status]
        return Latencies(taken, wrong + self.lost + self.unsent)


def fixed_rate(port: int, path: str, rate: float, seconds: float, connections: int = 16, drain_seconds: float = 5) -> Arrivals:
    """`rate` requests a second whatever the answers do, over at most `connections` connections."""
    request = request_of(path)
    poll = select.epoll()
    idle = [_connect(port, poll) for _ in range(connections)]
    busy: dict[int, tuple[socket.socket, float, bytes]] = {}
    answers: list[tuple[int, float, float]] = []
    unsent = lost = sent = 0
    total, start = int(rate * seconds), time.perf_counter()
    while sent + unsent < total or busy:
        now = time.perf_counter() - start
        if now > seconds + drain_seconds:
            break
        while sent + unsent < total and (sent + unsent) / rate <= now:
            if not idle:
                unsent += 1
                continue
            taken = idle.pop()
            busy[taken.fileno()] = (taken, (sent + unsent) / rate, b"")
            taken.send(request)
            sent += 1
        until_next = max(0.0, (sent + unsent) / rate - (time.perf_counter() - start)) if sent + unsent < total else 0.05
        # epoll waits whole milliseconds only; select on the epoll itself waits microseconds
        if not select.select([poll], [], [], until_next)[0]:
            continue
        for number, _ in poll.poll(0):
            if number not in busy:
                poll.unregister(number)  # an idle connection was closed by the server; it fails when it is taken next
                continue
            client, due, data = busy[number]
            try:
                more = client.recv(65_536)
            except OSError:
                more = b""
            data += more
            if more and not whole(data):
                busy[number] = (client, due, data)
                continue
            del busy[number]
            if more:
                answers.append((status_of(data), due, time.perf_counter() - start))
                idle.append(client)
            else:
                lost += 1
                client.close()
                idle.append(_connect(port, poll))
    for client in [*idle, *(entry[0] for entry in busy.values())]:
        client.close()
    poll.close()
    return Arrivals(answers, unsent, lost + len(busy))


def _connect(port: int, poll: select.epoll) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setblocking(False)
    poll.register(client, select.EPOLLIN)
    return client


def at_once(port: int, paths: list[str], seconds: float = 30) -> Latencies:
    """One request for each path, all sent in one go over connections made before; time until each first byte."""
    poll = select.epoll()
    clients = [_connect(port, poll) for _ in paths]
    by_number = {client.fileno(): client for client in clients}
    started = time.perf_counter()
    for client, path in zip(clients, paths, strict=True):
        client.send(request_of(path))
    taken, failed, deadline = [], 0, started + seconds
    while by_number and time.perf_counter() < deadline:
        for number, _ in poll.poll(0.1):
            now = time.perf_counter()
            client = by_number.pop(number)
            poll.unregister(number)
            taken.append(now - started)
            failed += status_of(client.recv(65_536)) != 200
    for client in clients:
        client.close()
    poll.close()
    return Latencies(taken, failed + len(by_number))
