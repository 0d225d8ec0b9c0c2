"""The errors of Amazon SQS, in its own names and words. Names as the query protocol has them; sources: the API reference of
Amazon SQS, 2012-11-05, and recorded answers."""

from __future__ import annotations

from martlet.errors import ServiceError

__all__ = ["invalid", "invalid_value", "missing", "no_queue", "no_resource", "unknown_attribute"]


def invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValue", message)


def invalid_value(value: object, parameter: str, reason: str) -> ServiceError:
    return invalid(f"Value {value} for parameter {parameter} is invalid. Reason: {reason}")


def missing(parameter: str) -> ServiceError:
    return ServiceError("MissingParameter", f"The request must contain the parameter {parameter}.")


def no_queue() -> ServiceError:
    return ServiceError("QueueDoesNotExist", "The specified queue does not exist.")


def no_resource(parameter: str) -> ServiceError:
    text = f"The resource that you specified for the {parameter} parameter doesn't exist."
    return ServiceError("ResourceNotFoundException", text, 404)


def unknown_attribute(name: str) -> ServiceError:
    return ServiceError("InvalidAttributeName", f"Unknown Attribute {name}.")


def bad_attribute(name: str, reason: str = "") -> ServiceError:
    return ServiceError(
        "InvalidAttributeValue", f"Invalid value for the parameter {name}.{' Reason: ' + reason if reason else ''}"
    )


def bad_handle(handle: str) -> ServiceError:
    return ServiceError("ReceiptHandleIsInvalid", f'The input receipt handle "{handle}" is not a valid receipt handle.')


def expired_handle(handle: str) -> ServiceError:
    return invalid_value(handle, "ReceiptHandle", "The receipt handle has expired.")


def not_hidden(handle: str) -> ServiceError:
    reason = "Message does not exist or is not available for visibility timeout change."
    return invalid_value(handle, "ReceiptHandle", reason)
