"""The service's validation errors, in one place.

The service has two layers that check values: a newer one, behind PutItem, UpdateItem, DeleteItem, GetItem, BatchGetItem and
Query, and an older one behind the others, which words some errors differently (observed in several regions in 2026)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from martlet.errors import ServiceError

__all__ = ["TwiceWorded", "invalid", "older_words"]


def invalid(message: str) -> ServiceError:
    """A ValidationException with the service's own text."""
    return ServiceError("ValidationException", message, 400)


class TwiceWorded(ServiceError):
    """A ValidationException that the older layer says in the words `older`."""

    def __init__(self, message: str, older: str) -> None:
        super().__init__("ValidationException", message, 400)
        self.older = older


@contextmanager
def older_words() -> Iterator[None]:
    """What is checked in here is an operation of the older layer."""
    try:
        yield
    except TwiceWorded as error:
        raise invalid(error.older) from error
