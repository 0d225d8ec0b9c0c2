"""A GraphQL request as clients write it, whatever it came by."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from martlet.errors import InvalidInput

if TYPE_CHECKING:
    from martlet.protocols.graphql.service import Asking

__all__ = ["asked_of", "decoded"]

_DEPTH: Final = 100  # of a request's JSON
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def decoded(raw: bytes, field: str) -> Any:
    """JSON of a client. Raises `InvalidInput`: no JSON, or nested too deep."""
    depth = 0
    for match in _BRACKETS.finditer(raw):
        sign = match[0]
        depth += (sign in b"[{") - (sign in b"]}")
        if depth > _DEPTH:
            raise InvalidInput(f"the request's {field} is nested deeper than {_DEPTH} levels", field=field)
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the request's {field} is not JSON in UTF-8: {error}", field=field) from None


def asked_of(body: Any) -> Asking:
    """The request that a decoded body is. Raises `Refusal`."""
    from martlet.protocols.graphql.faults import Refusal
    from martlet.protocols.graphql.service import Asking

    if isinstance(body, list):
        raise Refusal(
            [{"message": "batching is not supported: send one operation in a request", "extensions": {"code": "unsupported"}}]
        )
    if not isinstance(body, dict):
        raise Refusal([{"message": "the request is an object with `query`"}])
    found: dict[str, Any] = {}
    for name, kind in (("query", str), ("operationName", str), ("variables", dict), ("extensions", dict)):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, kind):
            raise Refusal([{"message": f"`{name}` of the request must be {'a text' if kind is str else 'an object'}"}])
        found["operation_name" if name == "operationName" else name] = value
    return Asking(**found)
