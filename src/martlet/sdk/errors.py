"""What can go wrong for user code, by name.

Exception
├── DeclarationError     the app is declared wrongly: raised at deploy, says where and what to write instead
├── HTTPError            raised by a handler: the answer is RFC 9457 problem+json with this status
├── FunctionError        the function called by `.invoke` failed: `error_type`, `message`, `stack` are the callee's
└── PlatformError        the platform refused or could not do what was asked: `status`, `code`, `details`
    ├── InvalidInput     400     ├── Unauthenticated 401   ├── AccessDenied 403   ├── NotFound 404
    ├── Unsupported      501     ├── Conflict        409   ├── LimitExceeded 413  ├── Throttled 429
    ├── Overloaded       503     └── Unavailable       -   no answer came: not in a sandbox, connection lost, timed out
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = [
    "AccessDenied",
    "Conflict",
    "DeclarationError",
    "FunctionError",
    "HTTPError",
    "InvalidInput",
    "LimitExceeded",
    "NotFound",
    "Overloaded",
    "PlatformError",
    "Throttled",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "from_answer",
]


class DeclarationError(Exception):
    """The app is declared wrongly. One line of the message is one mistake: place, what is wrong, what to write."""


class HTTPError(Exception):
    """Ends a request with `status` and a problem+json body that carries `detail` and, beside it, every `extra` member."""

    def __init__(self, status: int, detail: str = "", *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(status, detail)
        if not 400 <= status <= 599:
            raise ValueError(f"HTTPError is for status 400 to 599, got {status}; return a Response for others")
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra


class FunctionError(Exception):
    """The called function failed. It may have had effects before it did."""

    def __init__(self, error_type: str, message: str, stack: list[str] | None = None) -> None:
        super().__init__(f"{error_type}: {message}" if error_type else message)
        self.error_type = error_type
        self.message = message
        self.stack = stack or []


class PlatformError(Exception):
    """The platform answered with an error."""

    status = 500
    code = "internal"

    def __init__(self, message: str, *, status: int = 0, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status or type(self).status
        self.details = details or {}  # the members of the platform's problem object, if it sent one
        retry_after = self.details.get("retry_after_seconds")
        self.retry_after_seconds: float | None = retry_after if isinstance(retry_after, (int, float)) else None


class InvalidInput(PlatformError):
    """The request is malformed."""

    status, code = 400, "invalid_input"


class Unsupported(InvalidInput):
    """Martlet does not support this."""

    status, code = 501, "unsupported"


class Unauthenticated(PlatformError):
    """The call did not come from a sandbox that the platform knows."""

    status, code = 401, "unauthenticated"


class AccessDenied(PlatformError):
    """This function may not do this: declare it with `uses=[...]`."""

    status, code = 403, "access_denied"


class NotFound(PlatformError):
    """There is no such thing."""

    status, code = 404, "not_found"


class Conflict(PlatformError):
    """It changed since it was read, or exists already."""

    status, code = 409, "conflict"


class LimitExceeded(PlatformError):
    """A limit is exceeded; the message says which."""

    status, code = 413, "limit_exceeded"


class Throttled(PlatformError):
    """Too many requests; `retry_after_seconds` may say when to try again."""

    status, code = 429, "throttled"


class Overloaded(PlatformError):
    """The platform is at capacity; `retry_after_seconds` may say when to try again."""

    status, code = 503, "overloaded"


class Unavailable(PlatformError):
    """No answer came. `sent` is False only when it is certain that the platform never saw the request."""

    status, code = 503, "unavailable"

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


_BY_CODE: dict[str, type[PlatformError]] = {
    kind.code: kind
    for kind in (
        InvalidInput,
        Unsupported,
        Unauthenticated,
        AccessDenied,
        NotFound,
        Conflict,
        LimitExceeded,
        Throttled,
        Overloaded,
    )
}
_BY_STATUS = {kind.status: kind for kind in _BY_CODE.values()} | {412: Conflict, 422: InvalidInput}
_BY_LAMBDA_NAME = {  # botocore's service model of Lambda: the errors of Invoke
    "AccessDeniedException": AccessDenied,
    "InvalidParameterValueException": InvalidInput,
    "InvalidRequestContentException": InvalidInput,
    "RequestTooLargeException": LimitExceeded,
    "ResourceConflictException": Conflict,
    "ResourceNotFoundException": NotFound,
    "TooManyRequestsException": Throttled,
}


def from_answer(status: int, headers: Mapping[str, str], body: bytes) -> PlatformError:
    """The error that an HTTP answer names: by its RFC 9457 type, else by Lambda's `x-amzn-errortype`, else by its status."""
    import json

    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": body[:500].decode("utf-8", "replace")}
    code = str(problem.get("type", "")).rpartition(":")[2]
    name = headers.get("x-amzn-errortype", "").partition(":")[0]
    kind = _BY_CODE.get(code) or _BY_LAMBDA_NAME.get(name) or _BY_STATUS.get(status) or PlatformError
    message = problem.get("detail") or problem.get("message") or problem.get("Message") or f"HTTP status {status}"
    retry_after = headers.get("retry-after", "")
    if retry_after.isascii() and retry_after.isdigit():
        problem.setdefault("retry_after_seconds", int(retry_after))
    return kind(str(message), status=status, details=problem)
