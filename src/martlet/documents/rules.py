"""Row rules: which documents of a collection an end user may read or write, as expressions over `document` and `user`.

    document.owner == user.sub or "admins" in user.groups

What has no rule is denied. `user` has sub, email and groups, and nothing else: a name that it has not would be null, and null
equals a field that a document lacks. Evaluation is total and bounded (see `expressions`); only true lets anybody in."""

from __future__ import annotations

import re
from typing import Any, Final

from martlet.documents.expressions import Expression, compile_expression
from martlet.errors import InvalidInput

__all__ = ["Rules"]

_NAMES: Final = frozenset({"document", "user"})
_LITERAL: Final = re.compile(r"""\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'""")
_USER: Final = re.compile(r"(?<![.\w$])user\b(?:\s*\.\s*(\w+))?")
_MEMBERS: Final = ("sub", "email", "groups")


class Rules:
    """The rules of one collection. Raises `InvalidInput` for one that is none."""

    def __init__(self, read: str = "", write: str = "") -> None:
        self._read = _compiled("read", read)
        self._write = _compiled("write", write)

    def readable(self, document: Any, user: dict[str, Any]) -> bool:
        """Whether a document, as it is, may be read."""
        return self._read is not None and self._read.value({"document": document, "user": user}) is True

    def writable(self, document: Any, user: dict[str, Any]) -> bool:
        """Whether a document may be written: to be asked of what is there and of what would be there, so that nobody takes
        another one's document, or leaves one where it may not be."""
        return self._write is not None and self._write.value({"document": document, "user": user}) is True


def _compiled(kind: str, text: str) -> Expression | None:
    if not text:
        return None
    try:
        found = compile_expression(text)
    except InvalidInput as error:
        raise InvalidInput(f"rule {kind}: {error.message}", remedy=error.remedy) from error
    strange = sorted(found.fields - _NAMES) + [f"${name}" for name in sorted(found.parameters)]
    if strange:
        raise InvalidInput(f"rule {kind}: {strange[0]} is neither document nor user", remedy="write document.field, user.sub")
    if "user" in found.fields:
        for member in _USER.finditer(_LITERAL.sub("", text)):
            if member[1] not in _MEMBERS:
                raise InvalidInput(f"rule {kind}: user has {', '.join(_MEMBERS)}; write user.sub", field="rules")
    return found
