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
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
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
    """One keep-alive connection to a loopback port; a new one after each answer of a server that keeps none alive."""

    def __init__(self, port: int, timeout_seconds: float = 60) -> None:
        self._port, self._timeout_seconds = port, timeout_seconds
        self._closing = False
        self._open()

    def _open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port), self._timeout_seconds)
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
        if self._closing:
            self.socket.close()
            self._open()
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
        self._closing = _CLOSES.search(data.partition(b"\r\n\r\n")[0]) is not None
        return Answer(status_of(data), data.partition(b"\r\n\r\n")[2], first_byte)


def wrk(port: int, path: str, *, connections: int = 64, seconds: int = 5, threads: int = 1) -> Rate:
    """`connections` clients that each ask again as soon as they are answered."""
    options = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(_WRK_SCRIPT)]
    url = f"http://127.0.0.1:{port}{path}"
    done = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=True)
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


class FixedRate:
    """An open loop: `rate` requests a second whatever the answers do, over at most `connections` connections."""

    def __init__(
        self, port: int, path: str, rate: float, seconds: float, connections: int = 16, drain_seconds: float = 5
    ) -> None:
        self._port, self._request, self._rate = port, request_of(path), rate
        self._total, self._end = int(rate * seconds), seconds + drain_seconds
        self._poll = select.epoll()
        self._idle: dict[int, socket.socket] = {}
        self._busy: dict[int, tuple[socket.socket, float, bytes]] = {}
        self._answers: list[tuple[int, float, float]] = []
        self._due = self._unsent = self._lost = 0
        for _ in range(connections):
            self._connect()
        self._started = 0.0

    def run(self) -> Arrivals:
        self._started = time.perf_counter()
        while (self._due < self._total or self._busy) and self._now() < self._end:
            while self._due < self._total and self._due / self._rate <= self._now():
                self._send(self._due / self._rate)
                self._due += 1
            wait = max(0.0, self._due / self._rate - self._now()) if self._due < self._total else 0.05
            if select.select([self._poll], [], [], wait)[0]:  # epoll itself waits whole milliseconds only
                for number, _ in self._poll.poll(0):
                    self._receive(number)
        for client in [*self._idle.values(), *(entry[0] for entry in self._busy.values())]:
            client.close()
        self._poll.close()
        return Arrivals(self._answers, self._unsent, self._lost + len(self._busy))

    def _now(self) -> float:
        return time.perf_counter() - self._started

    def _connect(self) -> None:
        client = _connect(self._port, self._poll)
        self._idle[client.fileno()] = client

    def _send(self, due: float) -> None:
        if not self._idle:
            self._unsent += 1
            return
        number, client = self._idle.popitem()
        self._busy[number] = (client, due, b"")
        try:
            client.send(self._request)
        except OSError:
            self._lose(number)

    def _receive(self, number: int) -> None:
        if number in self._idle:  # the server closed it between two requests, which it may
            self._idle.pop(number).close()
            self._connect()
            return
        client, due, data = self._busy[number]
        try:
            more = client.recv(65_536)
        except OSError:
            more = b""
        if not more:
            self._lose(number)
        elif whole(data + more):
            del self._busy[number]
            self._answers.append((status_of(data + more), due, self._now()))
            self._idle[number] = client
        else:
            self._busy[number] = (client, due, data + more)

    def _lose(self, number: int) -> None:
        self._lost += 1
        self._busy.pop(number)[0].close()
        self._connect()


def fixed_rate(port: int, path: str, rate: float, seconds: float, connections: int = 64) -> Arrivals:
    """What `rate` requests a second for `seconds` came to."""
    return FixedRate(port, path, rate, seconds, connections).run()


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
