"""The public edge beside bare uvicorn, in one run: requests a second, latency, CPU a request.

    PYTHONPATH=src python bench/gateway.py [--seconds 5] [--rounds 3] [--connections 64]

Client: Debian's `wrk` (installed with apt-get if missing), pinned to another core than the server. Peer: uvicorn with
uvloop and httptools, a plain ASGI callable that answers `ok`, in a venv of its own under bench/.peers. Ours: `Edge` with a
dispatch that answers in process, so everything but the worker: HTTP, route, throttle, event, answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE / ".peers"
TICK = os.sysconf("SC_CLK_TCK")

HELLO = """
async def app(scope, receive, send):
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
"""

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Cookie: session=0123456789abcdef; theme=dark",
    "Sec-Fetch-Mode: navigate",
)


def serve(kind: str, port: int) -> None:
    """The server process: `http` (the server alone), `edge`, or `full` (edge with a throttle and path parameter)."""
    import uvloop

    from martlet.clock import Clock
    from martlet.gateway.edge import Edge
    from martlet.gateway.http import Exchange, HttpServer
    from martlet.types import Invocation, Outcome, Route, Throttle

    outcome = Outcome(b'{"statusCode":200,"headers":{"content-type":"text/plain"},"body":"ok"}')

    def dispatch(invocation: Invocation) -> None:
        invocation.on_done(invocation, outcome)

    def hello(exchange: Exchange) -> None:
        exchange.respond(200, ((b"content-type", b"text/plain"),), b"ok")

    async def main() -> None:
        clock = Clock()
        handler = hello
        if kind != "http":
            edge = Edge(dispatch, clock=clock)
            throttle = Throttle(rate=1_000_000, burst=1_000_000) if kind == "full" else None
            path = "/hello/{name}" if kind == "full" else "/hello"
            edge.set_routes([("demo", Route(method="GET", path=path, function="hello", throttle=throttle), "demo-hello")])
            handler = edge.handle
        server = HttpServer(handler, clock=clock)
        await server.listen("127.0.0.1", port)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        await server.shutdown(1)

    uvloop.run(main())


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def prepare() -> Path:
    """wrk, and a Python with uvicorn."""
    if shutil.which("wrk") is None:
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], check=True, stdout=subprocess.DEVNULL)
    python = PEERS / "bin" / "python"
    if not python.exists():
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(PEERS)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), "uvicorn", "uvloop", "httptools"], check=True)
    (PEERS / "hello.py").write_text(HELLO)
    return python


def start(kind: str, port: int, python: Path) -> subprocess.Popen[bytes]:
    if kind == "uvicorn":
        flags = "--loop uvloop --http httptools --no-access-log --log-level warning --lifespan off"
        command = [str(python), "-m", "uvicorn", "hello:app", "--port", str(port), *flags.split()]
        process = subprocess.Popen(command, cwd=PEERS)
    else:
        process = subprocess.Popen([sys.executable, __file__, "--serve", kind, "--port", str(port)])
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            break
    os.sched_setaffinity(process.pid, {0})
    return process


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def measure(
    process: subprocess.Popen[bytes], port: int, path: str, args: argparse.Namespace, headers: tuple[str, ...]
) -> tuple[float, ...]:
    """(requests a second, p50 ms, p99 ms, CPU µs a request) of one round."""
    command = ["wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}s", "--latency"]
    for header in headers:
        command += ["-H", header]
    command.append(f"http://127.0.0.1:{port}{path}")
    before = cpu_seconds(process.pid)
    if (os.cpu_count() or 1) > 1:
        command = ["taskset", "-c", "1", *command]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = cpu_seconds(process.pid) - before
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"the run failed:\n{output}")
    count = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec:\s+([0-9.]+)", output)[1])  # type: ignore[index]
    p50, p99 = (milliseconds(re.search(rf"\s{share}%\s+(\S+)", output)[1]) for share in (50, 99))  # type: ignore[index]
    return rate, p50, p99, used / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.port)
        return
    python = prepare()
    kinds = {"uvicorn": "/hello", "http": "/hello", "edge": "/hello", "full": "/hello/you?x=1&y=2"}
    servers = {}
    for kind in kinds:
        port = free_port()
        servers[kind] = (start(kind, port, python), port)
    try:
        for label, headers in (("plain", ()), ("browser headers", BROWSER)):
            rounds: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in kinds}
            for _ in range(args.rounds):  # interleaved: a noisy neighbour hits all alike
                for kind, (process, port) in servers.items():
                    rounds[kind].append(measure(process, port, kinds[kind], args, headers))
            print(f"\n{label}: {args.connections} connections, medians of {args.rounds} × {args.seconds} s")
            print(f"{'server':10} {'req/s':>9} {'× uvicorn':>9} {'p50 ms':>7} {'p99 ms':>7} {'CPU µs/req':>11}")
            base = statistics.median(found[0] for found in rounds["uvicorn"])
            for kind, found in rounds.items():
                rate, p50, p99, cpu = (statistics.median(column) for column in zip(*found, strict=True))
                print(f"{kind:10} {rate:9,.0f} {rate / base:9.2f} {p50:7.2f} {p99:7.2f} {cpu:11.1f}")
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
