"""A debugger's way into a sandbox: a port on this host's loopback, joined to one in the instance's private network.

Nothing can connect into a sandbox, so its own relay (`sandboxes/inside/debug.py`) connects out: to the egress port, where it
says `HELLO` and waits. For each debugger that connects here, one of the waiting connections is used up, and the relay opens the
next. Both ends are the developer's own, but what comes from inside is written by user code: it is passed on, never read.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any, Final

from martlet.errors import Conflict

__all__ = ["INSIDE_PORT", "Session", "told"]

HELLO: Final = b"DEBUG\n"
INSIDE_PORT: Final = 9003
_WAITING_MOST: Final = 8  # connections that the relay may keep waiting
_CHUNK_BYTES: Final = 65_536


class Session:
    """One event under a debugger. `port`: where debuggers connect. `direct`: there is no private network to get into."""

    def __init__(self, direct: bool) -> None:
        self.port = 0
        self.direct = direct
        self._server: asyncio.Server | None = None
        self._waiting: asyncio.Queue[socket.socket] = asyncio.Queue(_WAITING_MOST)
        self._work: set[asyncio.Task[None]] = set()

    async def open(self, port: int) -> None:
        """Listen on 127.0.0.1, on `port` or on a free one for 0. Raises `Conflict` when it is taken."""
        try:
            self._server = await asyncio.start_server(self._on_debugger, "127.0.0.1", port)
        except OSError as error:
            raise Conflict(f"port {port} is taken on this host: {error.strerror}", remedy="choose another: --port N") from error
        self.port = int(self._server.sockets[0].getsockname()[1])
        if self.direct:  # the debugged process listens itself; this only found out which port is free
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def inside(self) -> dict[str, Any]:
        """What the sandbox is told: where its debugger listens, and whether a relay leads there."""
        return {"port": self.port, "relay": False} if self.direct else {"port": INSIDE_PORT, "relay": True}

    def adopt(self, sock: socket.socket, otherwise: Callable[[socket.socket], None]) -> None:
        """A connection to the egress port: the relay's, or one for the egress proxy (`otherwise`)."""
        self._start(self._sort(sock, otherwise))

    async def _sort(self, sock: socket.socket, otherwise: Callable[[socket.socket], None]) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(sock, readable.set)
        try:
            await readable.wait()
        except asyncio.CancelledError:
            sock.close()
            raise
        finally:
            loop.remove_reader(sock)
        try:
            begun = sock.recv(len(HELLO), socket.MSG_PEEK)
        except OSError:
            begun = b""
        if begun != HELLO:
            otherwise(sock)
        elif self._waiting.full():
            sock.close()
        else:
            sock.recv(len(HELLO))
            self._waiting.put_nowait(sock)

    async def _on_debugger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._join(reader, writer))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes between a debugger and the next waiting connection until either side ends."""
        inner: asyncio.StreamWriter | None = None
        try:
            sock = await self._waiting.get()
            from_inside, inner = await asyncio.open_connection(sock=sock)
            inner.write(b"\n")
            await asyncio.gather(_pass(reader, inner), _pass(from_inside, writer))
        except OSError:
            pass  # one of the two has gone; the other is closed below
        finally:
            for end in (writer, inner):
                if end is not None:
                    end.close()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def close(self) -> None:
        """No debugger gets in any more."""
        if self._server is not None:
            self._server.close()
        work = list(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        while not self._waiting.empty():
            self._waiting.get_nowait().close()


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK_BYTES):
        sink.write(data)
        await sink.drain()
    sink.close()


def told(name: str, kind: str, port: int, seconds: int) -> list[str]:
    """Lines for the developer: what to do now."""
    common = {"name": f"Martlet: {name}", "request": "attach", "type": "node" if kind == "node" else "debugpy"}
    if kind == "node":
        own: dict[str, Any] = {
            "address": "127.0.0.1",
            "port": port,
            "localRoot": "${workspaceFolder}",
            "remoteRoot": "/var/task",
        }
    else:
        mapping = {"localRoot": "${workspaceFolder}", "remoteRoot": "/var/task"}
        own = {"connect": {"host": "127.0.0.1", "port": port}, "pathMappings": [mapping]}
    return [
        f"{name} waits for a debugger on 127.0.0.1:{port}; its time limit is lifted for this event (at most {seconds} s)",
        "VS Code: set a breakpoint, put this into .vscode/launch.json (localRoot: the folder of the code), press F5:",
        f"  {json.dumps({**common, **own})}",
        *(["or open chrome://inspect and add that address"] if kind == "node" else []),
    ]
