"""A small client of the REST face on one connection: thin, so that many of them load the platform and not themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

__all__ = ["Answer", "Client"]


class Answer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Client:
    """`OSError` and `IncompleteReadError` pass through: whether the request was done is not known then."""

    def __init__(self, port: int, token: str, database: str) -> None:
        self._port = port
        self._head = f"host: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        self._database = database
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`body`: bytes as they are, anything else as JSON. Names of headers have "_" for "-"."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        target = f"{path}{'&' if '?' in path else '?'}app={self._database}"
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"{method} {target} HTTP/1.1\r\n{self._head}{more}content-length: {len(raw)}\r\n\r\n".encode() + raw)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        found = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines if line}
        answer = await reader.readexactly(int(found.get("content-length", 0)))
        if found.get("connection", "") == "close":
            self.close()
        return Answer(int(first.split()[1]), found, answer)

    async def transact(self, operations: list[dict[str, Any]], **headers: str) -> Answer:
        return await self.call("POST", "/v1/transactions", {"operations": operations}, **headers)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
