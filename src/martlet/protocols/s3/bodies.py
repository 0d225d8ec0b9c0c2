"""Bodies of objects as they come in: plain, or aws-chunked with or without signatures and trailers.

Source: S3 API reference, "Authenticating Requests: transferring payload in multiple chunks", "… with trailing headers". What is
wrong is said by raising in the middle of the stream; what was read before is then thrown away by who reads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Protocol

from martlet.errors import ServiceError
from martlet.protocols.asgi import ClientGone

__all__ = ["Signer", "body_of", "decoded_encoding"]

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;chunk-signature=([0-9a-f]{64}))?")
_TRAILER: Final = re.compile(rb"([A-Za-z0-9-]{1,128}) *: *([ -~]{0,512})")
_LINE_BYTES: Final = 1_024
_TRAILERS_MAX: Final = 16
_SIGNATURE: Final = "x-amz-trailer-signature"


class Signer(Protocol):
    """Checks chunks' signatures, in their order."""

    def check(self, digest: str, signature: str) -> bool: ...
    def check_trailer(self, digest: str, signature: str) -> bool: ...


def incomplete() -> ServiceError:
    text = "You did not provide the number of bytes specified by the Content-Length HTTP header"
    return ServiceError("IncompleteBody", text, 400)


def _malformed(text: str = "The request body is not well-formed aws-chunked") -> ServiceError:
    return ServiceError("IncompleteBody", text, 400)


def _forged() -> ServiceError:
    text = "The request signature we calculated does not match the signature you provided. Check your key and signing method."
    return ServiceError("SignatureDoesNotMatch", text, 403)


def body_of(
    parts: AsyncIterator[bytes], headers: Mapping[str, str], payload: str, signer: Signer | None
) -> PlainBody | ChunkedBody:
    """The body of a request whose `payload` is what its signature says of it. Raises MissingContentLength."""
    length = headers.get("content-length", "")
    decoded = headers.get("x-amz-decoded-content-length", "")
    if payload.startswith("STREAMING-"):
        if not decoded.isdigit() or len(decoded) > 15:
            raise ServiceError("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
        names = tuple(name.strip().lower() for name in headers.get("x-amz-trailer", "").split(",") if name.strip())
        return ChunkedBody(parts, int(decoded), signer, names if payload.endswith("TRAILER") else ())
    if not length and "transfer-encoding" in headers:
        raise ServiceError("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
    return PlainBody(parts, int(length or 0), payload)


def decoded_encoding(text: str) -> str:
    """Content-Encoding as the object has it: aws-chunked is not part of it."""
    codings = [coding.strip() for coding in text.split(",")]
    return ", ".join(coding for coding in codings if coding and coding.lower() != "aws-chunked")


class PlainBody:
    """A body as it is; its SHA-256 is `payload`, where that is one."""

    def __init__(self, parts: AsyncIterator[bytes], size: int, payload: str = "") -> None:
        self._parts = parts
        self._payload = payload if len(payload) == 64 else ""
        self.size: int | None = size
        self.trailer_names: Sequence[str] = ()
        self.trailers: Mapping[str, str] = {}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        running: Any = hashlib.sha256() if self._payload else None
        seen = 0
        try:
            async for part in self._parts:
                seen += len(part)
                if running is not None:
                    running.update(part)
                yield part
        except ClientGone:
            raise incomplete() from None
        if seen != self.size:
            raise incomplete()
        if running is not None and running.hexdigest() != self._payload:
            raise ServiceError(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                400,
                ClientComputedContentSHA256=self._payload,
                S3ComputedContentSHA256=running.hexdigest(),
            )


class ChunkedBody:
    """aws-chunked. `signer` None: chunks carry no signatures. `names`: the trailers that were announced."""

    def __init__(self, parts: AsyncIterator[bytes], size: int, signer: Signer | None, names: Sequence[str]) -> None:
        self._parts = parts
        self._signer = signer
        self._waiting = b""
        self.size: int | None = size
        self.trailer_names = names
        self.trailers: dict[str, str] = {}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        while True:
            size, signature = await self._head()
            running = hashlib.sha256()
            left = size
            while left:
                data = await self._some(left)
                left -= len(data)
                seen += len(data)
                if seen > (self.size or 0):
                    raise incomplete()
                running.update(data) if self._signer is not None else None
                yield data
            if self._signer is not None and not self._signer.check(running.hexdigest(), signature):
                raise _forged()
            if not size:
                break
            if await self._line() != b"":
                raise _malformed()
        if seen != self.size:
            raise incomplete()
        await self._end()

    async def _head(self) -> tuple[int, str]:
        match = _SIZE.fullmatch(await self._line())
        if match is None or (self._signer is not None and match[2] is None):
            raise _malformed()
        return int(match[1], 16), (match[2] or b"").decode()

    async def _end(self) -> None:
        """The trailers and their signature, up to the empty line that ends the body; nothing follows it."""
        signature, canonical = "", ""
        while True:
            line = await self._line(at_end=True)
            if not line:
                break
            match = _TRAILER.fullmatch(line.rstrip(b"\n"))
            if match is None or len(self.trailers) >= _TRAILERS_MAX:
                raise ServiceError("MalformedTrailerError", "The request contained trailing data that was not well-formed", 400)
            name, value = match[1].decode().lower(), match[2].decode().strip()
            if name == _SIGNATURE:
                signature = value
            elif name not in self.trailer_names or name in self.trailers:
                raise ServiceError("MalformedTrailerError", "The request contained trailing data that was not well-formed", 400)
            else:
                self.trailers[name] = value
                canonical += f"{name}:{value}\n"
        if self._signer is not None and self.trailer_names:
            digest = hashlib.sha256(canonical.encode()).hexdigest()
            if not self._signer.check_trailer(digest, signature):
                raise _forged()
        async for rest in self._parts:
            if rest.strip(b"\r\n"):
                raise _malformed()

    async def _some(self, most: int) -> bytes:
        """At least one byte, at most so many."""
        if not self._waiting and not await self._more():
            raise incomplete()
        data, self._waiting = self._waiting[:most], self._waiting[most:]
        return data

    async def _line(self, *, at_end: bool = False) -> bytes:
        """A line without its CRLF. `at_end`: the end of the body is an empty line too."""
        while (cut := self._waiting.find(b"\r\n")) < 0:
            if len(self._waiting) > _LINE_BYTES:
                raise _malformed()
            if not await self._more():
                if at_end and not self._waiting.strip():
                    return b""
                raise incomplete()
        if cut > _LINE_BYTES:
            raise _malformed()
        line, self._waiting = self._waiting[:cut], self._waiting[cut + 2 :]
        return line

    async def _more(self) -> bool:
        try:
            part = await anext(self._parts, None)
        except ClientGone:
            raise incomplete() from None
        if part is None:
            return False
        self._waiting += part
        return True
