"""A WebSocket client that speaks bytes (RFC 6455), so that a test can say what no library would."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, NamedTuple

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "KEY",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "Socket",
    "close_body",
    "frame",
    "handshake",
    "open_socket",
]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3, whose answer is known
_PATIENCE = 20.0


class Frame(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def code(self) -> int:
        """Of a close frame; 1005 for none."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005

    @property
    def reason(self) -> str:
        return self.payload[2:].decode()


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0, length: int = -1
) -> bytes:
    """A client's frame. `length` is what its head says, where that is to be a lie."""
    said = len(payload) if length < 0 else length
    first, mask = (0x80 if fin else 0) | reserved << 4 | opcode, 0x80 if masked else 0
    if said < 126:
        head = struct.pack("!BB", first, mask | said)
    elif said < 65_536:
        head = struct.pack("!BBH", first, mask | 126, said)
    else:
        head = struct.pack("!BBQ", first, mask | 127, said)
    if not masked:
        return head + payload
    key = b"\x11\x22\x33\x44"
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def close_body(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


def handshake(path: str = "/", host: str = "a", *, method: str = "GET", version: str = "1.1", **headers: str | None) -> bytes:
    """The opening request; a header given as None is left out, `_` in its name stands for `-`."""
    given: dict[str, str | None] = {
        "host": host,
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
        **{name.replace("_", "-").lower(): value for name, value in headers.items()},
    }
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in given.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Socket:
    """The client's end of a connection, after whatever answer there was to the handshake."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, headers: dict[str, str]
    ) -> None:
        self.reader, self.writer = reader, writer
        self.status, self.headers = status, headers

    def send(self, opcode: int, payload: bytes = b"", **more: Any) -> None:
        self.writer.write(frame(opcode, payload, **more))

    def say(self, value: Any) -> None:
        """A text frame: a str as it is, anything else as JSON."""
        self.send(TEXT, (value if isinstance(value, str) else json.dumps(value)).encode())

    async def read(self) -> Frame:
        """The next frame. Raises `IncompleteReadError` at the end."""
        async with asyncio.timeout(_PATIENCE):
            first, second = await self.reader.readexactly(2)
            assert not second & 0x80, "a server's frames are not masked"
            length = second & 0x7F
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8), "big")
            return Frame(first & 0x0F, await self.reader.readexactly(length), bool(first & 0x80))

    async def text(self) -> str:
        found = await self.read()
        assert found.opcode == TEXT, found
        return found.payload.decode()

    async def json(self) -> Any:
        return json.loads(await self.text())

    async def ended(self) -> bytes:
        """What comes until the server's end of the connection."""
        async with asyncio.timeout(_PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass  # the server was faster

    async def __aenter__(self) -> Socket:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def open_socket(port: int, request: bytes | None = None, *, ahead: bytes = b"", limit: int = 1 << 22) -> Socket:
    """Connect and shake hands; `ahead` is sent together with the request. The status may be any."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    writer.write((request or handshake()) + ahead)
    async with asyncio.timeout(_PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Socket(reader, writer, int(first.split(" ")[1]), headers)
