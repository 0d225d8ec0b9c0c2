"""Forms that upload a file (RFC 7578): the fields before the file, and the file as it comes.

Source: S3 API reference, "POST Object". What follows the file is not read as fields, as with S3.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from martlet.errors import ServiceError
from martlet.protocols.asgi import ClientGone
from martlet.protocols.s3.bodies import incomplete

__all__ = ["Form"]

_BOUNDARY = re.compile(r'multipart/form-data\s*;.*?boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(r'name="((?:[^"\\]|\\.)*)"')
_FILENAME = re.compile(r'filename="((?:[^"\\]|\\.)*)"')
_FIELDS_BYTES: Final = 20_480
_FIELDS_MAX: Final = 200


def _malformed() -> ServiceError:
    return ServiceError("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data.", 400)


class Form:
    """A form read up to its file. `fields`: by lower-case name; "file.name" is the file's own name."""

    def __init__(self, parts: AsyncIterator[bytes], boundary: bytes) -> None:
        self._parts = parts
        self._delimiter = b"\r\n--" + boundary
        self._waiting = b"\r\n"
        self.fields: dict[str, str] = {}

    @classmethod
    async def read(cls, parts: AsyncIterator[bytes], content_type: str, length: int | None) -> Form:
        """Raises PreconditionFailed for what is no form, MalformedPOSTRequest, MissingContentLength."""
        found = _BOUNDARY.match(content_type)
        if found is None:
            text = "At least one of the pre-conditions you specified did not hold"
            condition = "Bucket POST must be of the enclosure-type multipart/form-data"
            raise ServiceError("PreconditionFailed", text, 412, Condition=condition)
        if length is None:
            raise ServiceError("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
        form = cls(parts, found[1].encode())
        await form._until(form._delimiter, _FIELDS_BYTES)
        while True:
            name = await form._head()
            if name == "file":
                return form
            value = await form._until(form._delimiter, _FIELDS_BYTES)
            if len(form.fields) >= _FIELDS_MAX or sum(map(len, form.fields.values())) > _FIELDS_BYTES:
                text = "Your POST request fields preceding the upload file were too large."
                raise ServiceError("MaxPostPreDataLengthExceededError", text, 400)
            form.fields[name] = value.decode("utf-8", "replace")

    async def _head(self) -> str:
        """The name of the part that begins here."""
        line = await self._until(b"\r\n", 256)
        if line.startswith(b"--"):
            raise ServiceError(
                "InvalidArgument",
                "POST requires exactly one file upload per request.",
                400,
                ArgumentName="file",
                ArgumentValue="0",
            )
        head = b""
        while line := await self._until(b"\r\n", 4_096):
            head += line + b"\r\n"
        text = head.decode("utf-8", "replace")
        name, filename = _NAME.search(text), _FILENAME.search(text)
        if name is None:
            raise _malformed()
        if name[1].lower() == "file" and filename is not None:
            self.fields.setdefault("file.name", filename[1].rpartition("/")[2].rpartition("\\")[2])
        return name[1].lower()

    async def _until(self, mark: bytes, most: int) -> bytes:
        while (cut := self._waiting.find(mark)) < 0:
            if len(self._waiting) > most + len(mark):
                text = "Your POST request fields preceding the upload file were too large."
                raise ServiceError("MaxPostPreDataLengthExceededError", text, 400)
            await self._more()
        found, self._waiting = self._waiting[:cut], self._waiting[cut + len(mark) :]
        return found

    async def _more(self) -> None:
        try:
            part = await anext(self._parts, None)
        except ClientGone:
            raise incomplete() from None
        if part is None:
            raise _malformed()
        self._waiting += part

    def file(self, least: int, most: int) -> FormFile:
        """The file's bytes; EntityTooSmall and EntityTooLarge where they are not so many."""
        return FormFile(self, least, most)


class FormFile:
    """The file of a form, as an object's body."""

    def __init__(self, form: Form, least: int, most: int) -> None:
        self._form = form
        self._least = least
        self._most = most
        self.size: int | None = None
        self.trailer_names: Sequence[str] = ()
        self.trailers: Mapping[str, str] = {}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        form = self._form
        mark = form._delimiter
        seen = 0
        while (cut := form._waiting.find(mark)) < 0:
            keep = len(mark) - 1
            piece, form._waiting = form._waiting[:-keep], form._waiting[-keep:]
            seen += len(piece)
            if seen > self._most:
                raise self._too_large(seen)
            if piece:
                yield piece
            await form._more()
        piece, form._waiting = form._waiting[:cut], b""
        seen += len(piece)
        if seen > self._most:
            raise self._too_large(seen)
        if seen < self._least:
            text = "Your proposed upload is smaller than the minimum allowed size"
            raise ServiceError("EntityTooSmall", text, 400, ProposedSize=str(seen), MinSizeAllowed=str(self._least))
        yield piece
        try:
            async for _ in form._parts:
                pass  # what follows the file is none of our concern
        except ClientGone:
            raise incomplete() from None

    def _too_large(self, seen: int) -> ServiceError:
        text = "Your proposed upload exceeds the maximum allowed size"
        return ServiceError("EntityTooLarge", text, 400, ProposedSize=str(seen), MaxSizeAllowed=str(self._most))
