"""Runtime identifiers: which the Lambda API knows, which it takes for new functions, and in what words it refuses others."""

from __future__ import annotations

from typing import Final

from martlet.functions.control.names import invalid

__all__ = ["check_runtime"]

# As the service names them in its own error, in its own order.
# fmt: off
SUPPORTED: Final = (
    "nodejs20.x", "python3.14", "provided.al2023", "python3.12", "python3.13", "nodejs24.x", "nodejs22.x", "java25",
    "python3.10", "python3.11", "java21", "ruby3.3", "ruby3.4", "ruby3.2", "python3.8", "python3.9", "java17", "nodejs16.x",
    "dotnet10", "dotnet8", "java11", "dotnet6", "nodejs18.x", "provided.al2", "java8.al2",
)
DEPRECATED: Final = frozenset((
    "nodejs", "nodejs4.3", "nodejs4.3-edge", "nodejs6.10", "nodejs8.10", "nodejs10.x", "nodejs12.x", "nodejs14.x", "java8",
    "python2.7", "python3.6", "python3.7", "dotnetcore1.0", "dotnetcore2.0", "dotnetcore2.1", "dotnetcore3.1", "go1.x",
    "ruby2.5", "ruby2.7", "provided",
))
# fmt: on
INTERPRETED: Final = ("python", "nodejs", "ruby", "java", "dotnet")  # whose code does not depend on the processor


def check_runtime(runtime: str) -> None:
    """Raises ServiceError in the service's words for identifiers that it does not take."""
    if runtime in SUPPORTED:
        return
    if runtime in DEPRECATED:
        raise invalid(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        )
    raise invalid(
        f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
        f"[{', '.join(SUPPORTED)}] or be a valid ARN"
    )
