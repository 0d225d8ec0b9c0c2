"""The service's validation error, in one place."""

from __future__ import annotations

from martlet.errors import ServiceError

__all__ = ["invalid"]


def invalid(message: str) -> ServiceError:
    """A ValidationException with the service's own text."""
    return ServiceError("ValidationException", message, 400)
