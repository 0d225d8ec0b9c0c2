"""Which route of a WebSocket API a message means.

Source: API Gateway developer guide, "Route selection expressions".
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from martlet.errors import InvalidInput

__all__ = ["Selection"]

_REFERENCE: Final = re.compile(r"\$\{request\.body\.([A-Za-z0-9_.$-]+)\}|\$request\.body\.([A-Za-z0-9_.-]*[A-Za-z0-9_-])")


class Selection:
    """A route selection expression: "$request.body.action" or "${request.body.kind}/${request.body.action}"."""

    def __init__(self, text: str) -> None:
        if not _REFERENCE.search(text) or "$" in _REFERENCE.sub("", text):
            raise InvalidInput(f"route selection expression {text!r}: only $request.body.… is supported", field="selection")
        self._text = text

    def key(self, body: str) -> str:
        """The route key that a message asks for; "" for one that is no JSON, or has no such values."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return ""
        missing = False

        def value(found: re.Match[str]) -> str:
            nonlocal missing
            at: Any = document
            for name in (found[1] or found[2]).split("."):
                at = at.get(name) if isinstance(at, dict) else None
            missing = missing or at is None or isinstance(at, dict | list)
            return ("true" if at else "false") if isinstance(at, bool) else str(at)

        key = _REFERENCE.sub(value, self._text)
        return "" if missing else key
