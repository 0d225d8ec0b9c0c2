"""The errors of DynamoDB, by the names and in the words that its clients know.

Source: Amazon DynamoDB API reference, 2012-08-10, and what the service is known to answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from martlet.errors import ServiceError
from martlet.types import ACCOUNT

__all__ = [
    "condition_failed",
    "detected",
    "in_use",
    "invalid",
    "no_resource",
    "no_table",
    "other_account",
    "unsupported",
    "validation",
]

_DETECTED: Final = "1 validation error detected: "
# Said without the words above, though they are found before a table is looked at.
_BARE: Final = ("Item size", "1 validation error", "Invalid table/index name")


def validation(text: str) -> ServiceError:
    return ServiceError("ValidationException", text)


def invalid(text: str) -> ServiceError:
    return validation(f"One or more parameter values were invalid: {text}")


def unsupported(text: str) -> ServiceError:
    """What DynamoDB has and Martlet does not: refused by name."""
    return validation(f"{text} is not supported by Martlet")


def no_resource() -> ServiceError:
    return ServiceError("ResourceNotFoundException", "Requested resource not found")


def no_table(name: str) -> ServiceError:
    """As the operations on tables themselves say it."""
    return ServiceError("ResourceNotFoundException", f"Requested resource not found: Table: {name} not found")


def other_account(principal: Any, operation: str, arn: str) -> ServiceError:
    """No account but this one is reached from here, and nothing grants what is in another."""
    who = getattr(getattr(principal, "standing", None), "arn", "") or f"arn:aws:iam::{ACCOUNT}:root"
    text = f"User: {who} is not authorized to perform: dynamodb:{operation} on resource: {arn}"
    return ServiceError("AccessDeniedException", text)


def in_use(text: str) -> ServiceError:
    return ServiceError("ResourceInUseException", text)


def condition_failed(item: dict[str, Any] | None) -> ServiceError:
    """`item`: what the caller wants to see of the one that is there."""
    error = ServiceError("ConditionalCheckFailedException", "The conditional request failed")
    if item:
        error.members = {"Item": item}
    return error


@contextmanager
def detected() -> Iterator[None]:
    """What the service finds in a request before it looks at the table is said, by some operations, with a count before."""
    try:
        yield
    except ServiceError as error:
        if error.name != "ValidationException" or error.message.startswith(_BARE):
            raise
        raise validation(_DETECTED + error.message) from error
