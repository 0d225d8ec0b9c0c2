"""Every error Martlet raises on purpose, in one tree. Foreign errors are translated into these once, at the adapter.

MartletError                     status  code
├── InvalidInput                 400     invalid_input          what the caller sent is malformed; `field` names the place
│   └── Unsupported              501     unsupported            well-formed, but not honoured here; never a silent success
├── MethodNotAllowed             405     method_not_allowed     `methods` are those that the resource takes
├── Unauthenticated              401     unauthenticated
├── AccessDenied                 403     access_denied          names the principal, the action and the resource
├── NotFound                     404     not_found
├── Conflict                     409     conflict               already exists, or changed since it was read
│   └── PreconditionFailed       412     precondition_failed    If-Match or If-None-Match does not hold
├── LimitExceeded                413     limit_exceeded         names the limit, its value and its unit
├── Throttled                    429     throttled              `retry_after_seconds`
├── Overloaded                   503     overloaded             `retry_after_seconds`
├── DeployFailed                 422     deploy_failed          names the step; the previous version still serves
├── SandboxFailed                500     sandbox_failed         the platform could not start or reach a sandbox
├── ServiceError                 any    (the protocol's)       an error of an AWS service, by the name its clients know
├── StoreFailed                  500     store_failed           the store cannot take writes (broken, corrupt, closed)
│   └── StoreFull                507     store_full             no space left; nothing was written, and reads still work
└── StartFailed                  -       start_failed           `martlet up` cannot start: port taken, data in use …
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "Conflict",
    "DeployFailed",
    "InvalidInput",
    "LimitExceeded",
    "MartletError",
    "MethodNotAllowed",
    "NotFound",
    "Overloaded",
    "PreconditionFailed",
    "SandboxFailed",
    "ServiceError",
    "StartFailed",
    "StoreFailed",
    "StoreFull",
    "Throttled",
    "Unauthenticated",
    "Unsupported",
]


class MartletError(Exception):
    """Something went wrong that has a name."""

    http_status = 500
    code = "internal"

    def __init__(self, message: str = "", *, remedy: str = "", **details: object) -> None:
        super().__init__(message or (self.__doc__ or "").strip())
        self.remedy = remedy
        self.details = details

    @property
    def message(self) -> str:
        """One sentence that names the cause."""
        return str(self.args[0])

    def problem(self) -> dict[str, object]:
        """The error as an RFC 9457 problem object."""
        body: dict[str, object] = {
            "type": f"urn:martlet:error:{self.code}",
            "title": (type(self).__doc__ or "").strip().rstrip("."),
            "status": self.http_status,
            "detail": self.message,
        }
        if self.remedy:
            body["remedy"] = self.remedy
        body.update(self.details)
        return body


class InvalidInput(MartletError):
    """The request is malformed."""

    http_status = 400
    code = "invalid_input"


class Unsupported(InvalidInput):
    """Martlet does not support this."""

    http_status = 501
    code = "unsupported"


class MethodNotAllowed(MartletError):
    """The resource does not take this method."""

    http_status = 405
    code = "method_not_allowed"

    def __init__(self, message: str = "", *, methods: tuple[str, ...] = (), **details: object) -> None:
        super().__init__(message, methods=methods, **details)  # type: ignore[arg-type]
        self.methods = methods


class Unauthenticated(MartletError):
    """The request carries no valid credentials."""

    http_status = 401
    code = "unauthenticated"


class AccessDenied(MartletError):
    """The principal may not do this."""

    http_status = 403
    code = "access_denied"


class NotFound(MartletError):
    """There is no such thing."""

    http_status = 404
    code = "not_found"


class Conflict(MartletError):
    """The request conflicts with the present state."""

    http_status = 409
    code = "conflict"


class PreconditionFailed(Conflict):
    """A condition of the request does not hold."""

    http_status = 412  # RFC 9110 section 15.5.13
    code = "precondition_failed"


class LimitExceeded(MartletError):
    """A limit is exceeded."""

    http_status = 413
    code = "limit_exceeded"


class Throttled(MartletError):
    """Too many requests."""

    http_status = 429
    code = "throttled"

    def __init__(self, message: str = "", *, retry_after_seconds: int = 1, **details: object) -> None:
        super().__init__(message, **details)  # type: ignore[arg-type]
        self.retry_after_seconds = retry_after_seconds


class Overloaded(MartletError):
    """The platform is at capacity."""

    http_status = 503
    code = "overloaded"

    def __init__(self, message: str = "", *, retry_after_seconds: int = 1, **details: object) -> None:
        super().__init__(message, **details)  # type: ignore[arg-type]
        self.retry_after_seconds = retry_after_seconds


class DeployFailed(MartletError):
    """The deployment failed; what was deployed before still serves."""

    http_status = 422
    code = "deploy_failed"


class SandboxFailed(MartletError):
    """The sandbox could not be started or reached."""

    code = "sandbox_failed"


class ServiceError(MartletError):
    """An error of an AWS service, in the name and words that its clients know.

    `name` is the one on the wire, e.g. "ResourceNotFoundException"; `members` are further members of the error's shape. The
    protocol takes the HTTP status from the service's model where it has the shape, else `status`.
    """

    code = "service_error"

    def __init__(self, name: str, message: str = "", status: int = 400, **members: object) -> None:
        super().__init__(message)
        self.args = (message,)  # "" stays "": some errors of AWS have no text
        self.name = name
        self.http_status = status
        self.members = members


class StoreFailed(MartletError):
    """The store cannot take this."""

    code = "store_failed"


class StoreFull(StoreFailed):
    """The store has no space left."""

    http_status = 507  # RFC 4918 section 11.5: Insufficient Storage
    code = "store_full"


class StartFailed(MartletError):
    """The platform cannot start."""

    code = "start_failed"
