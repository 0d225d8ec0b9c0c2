"""How events end when their handler did not simply return: Lambda's error objects, from what happened or was said."""

from __future__ import annotations

import base64
import json

from martlet.functions.sandbox import Ended
from martlet.types import Outcome

__all__ = ["AFTER_PRELUDE", "collected_response", "exited", "failed", "platform_error", "timed_out"]

AFTER_PRELUDE = b"\x00" * 8  # between prelude and body of a streamed answer, as in Lambda


def platform_error(error_type: str, message: str) -> Outcome:
    return Outcome(json.dumps({"errorType": error_type, "errorMessage": message}).encode(), "Unhandled", error_type)


def timed_out(request_id: str, seconds: float) -> Outcome:
    message = f"RequestId: {request_id} Error: Task timed out after {seconds:.2f} seconds"
    return platform_error("Sandbox.Timedout", message)


def exited(request_id: str, ended: Ended, violation: str) -> Outcome:
    """Lambda's words for a runtime that ended by itself or was ended."""
    start = f"RequestId: {request_id} Error: "
    if violation:
        return platform_error("Sandbox.Failure", f"{start}the runtime broke the protocol: {violation}")
    if ended.error:
        return platform_error("Sandbox.Failure", f"{start}the sandbox could not start: {ended.error}")
    if ended.out_of_memory:
        return platform_error("Runtime.OutOfMemory", f"{start}Runtime exited with error: signal: killed")
    if ended.signal:
        name = {9: "killed", 11: "segmentation fault", 6: "aborted", 15: "terminated"}.get(ended.signal, str(ended.signal))
        return platform_error("Runtime.ExitError", f"{start}Runtime exited with error: signal: {name}")
    if ended.code:
        return platform_error("Runtime.ExitError", f"{start}Runtime exited with error: exit status {ended.code}")
    return platform_error("Runtime.ExitError", f"{start}Runtime exited without providing a reason")


def failed(payload: bytes) -> Outcome:
    """An error object made in a sandbox: passed on if it has the form of one, its type only if it fits into a log line."""
    try:
        found = json.loads(payload)
        name = found.get("errorType")
    except (ValueError, RecursionError, AttributeError):
        return platform_error("Runtime.Unknown", "the runtime reported an error that is no error object")
    fits = isinstance(name, str) and name.isprintable() and len(name) <= 256
    return Outcome(payload, "Unhandled", name if fits else "Runtime.Unknown")


def collected_response(collected: bytes) -> bytes | None:
    """A streamed answer as one v2 response object, for callers that take no stream. None: its prelude is no JSON object."""
    prelude, _, body = collected.partition(AFTER_PRELUDE)
    try:
        response = json.loads(prelude)
    except (ValueError, RecursionError):
        return None
    if not isinstance(response, dict):
        return None
    response["body"] = base64.b64encode(body).decode()
    response["isBase64Encoded"] = True
    return json.dumps(response).encode()
