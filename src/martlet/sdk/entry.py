"""The entries of plain handlers: event in, answer out. A signature is analysed when its entry is made, not at import."""

from __future__ import annotations

from martlet.sdk.answer import aencode, encode, problem
from martlet.sdk.errors import HTTPError
from martlet.sdk.request import Request
from martlet.sdk.signature import event_handler, http_handler, is_async

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["event_entry", "http_entry", "raw_entry"]


def http_entry(target: Any, routes: list[tuple[str, str]]) -> Callable[[Any, Any], Any]:
    """The entry of a typed HTTP handler."""
    handler = http_handler(target, routes)

    def entry(event: Any, context: Any) -> Any:
        request = Request(event, context)
        try:
            return encode(target(**handler.bind(request)), request.version)
        except HTTPError as error:
            return problem(error, request.version)

    async def aentry(event: Any, context: Any) -> Any:
        request = Request(event, context)
        try:
            result = target(**handler.bind(request))
            if hasattr(result, "__await__"):  # an async generator is not awaited
                result = await result
            return await aencode(result, request.version)
        except HTTPError as error:
            return problem(error, request.version)

    return aentry if is_async(target) else entry


def event_entry(target: Any) -> Callable[[Any, Any], Any]:
    """The entry of a function for `.invoke` and schedules: `(event, context)`, `(event)` or nothing; result as plain JSON."""
    from martlet.sdk.encode import Unencodable, plain

    arrange = event_handler(target)

    def lowered(result: Any) -> Any:
        try:
            return plain(result)
        except (TypeError, ValueError, RecursionError) as error:
            raise Unencodable(f"Unable to marshal response: {error}") from error

    def entry(event: Any, context: Any) -> Any:
        return lowered(target(*arrange(event, context)))

    async def aentry(event: Any, context: Any) -> Any:
        return lowered(await target(*arrange(event, context)))

    return aentry if is_async(target) else entry


def raw_entry(target: Any) -> Callable[[Any, Any], Any]:
    """The entry of an untouched Lambda handler: what it returns is what the runtime sends."""
    arrange = event_handler(target)

    def entry(event: Any, context: Any) -> Any:
        return target(*arrange(event, context))

    async def aentry(event: Any, context: Any) -> Any:
        return await target(*arrange(event, context))

    return aentry if is_async(target) else entry
