"""Names of functions as callers write them, and the errors about names that lead nowhere.

A function is named "f", "f:live", "000000000000:function:f" or by its ARN, each with or without a qualifier.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from martlet.errors import ServiceError
from martlet.types import ACCOUNT

__all__ = ["Caller", "Name", "conflict", "invalid", "not_found", "parse", "precondition"]

LATEST: Final = "$LATEST"
_PATTERN: Final = re.compile(
    r"(?:arn:(?P<partition>aws[a-zA-Z-]*)?:lambda:)?(?:(?P<region>(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d):)?"
    r"(?:(?P<account>\d{12}):)?(?:function:)?(?P<name>[a-zA-Z0-9-_]+)(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9-_]+))?"
)
_QUALIFIER: Final = re.compile(r"\$LATEST|[a-zA-Z0-9$_-]+")
_TEXT: Final = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
    r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)


class Caller:
    """Who calls, as operations need it; the protocol brings its own. `endpoint` is "http://host:port" of the listener."""

    principal: Any
    region: str
    account: str
    request_id: str
    endpoint: str


class Name(NamedTuple):
    """A function's name and the qualifier that came with it, or ""."""

    name: str
    qualifier: str
    region: str

    @property
    def arn(self) -> str:
        """Without a qualifier."""
        return f"arn:aws:lambda:{self.region}:{ACCOUNT}:function:{self.name}"

    @property
    def qualified(self) -> str:
        """The ARN as it was called: with the qualifier, if there was one."""
        return f"{self.arn}:{self.qualifier}" if self.qualifier else self.arn


def invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValueException", message, 400, Type="User")


def conflict(message: str) -> ServiceError:
    return ServiceError("ResourceConflictException", message, 409, Type="User")


def missing(message: str) -> ServiceError:
    return ServiceError("ResourceNotFoundException", message, 404, Type="User")


def not_found(name: Name, qualifier: str | None = None) -> ServiceError:
    """The function, or its version or alias, does not exist. `qualifier` replaces the one that was asked."""
    shown = name if qualifier is None else name._replace(qualifier=qualifier)
    return missing(f"Function not found: {shown.qualified}")


def no_alias(name: Name) -> ServiceError:
    return missing(f"Cannot find alias arn: {name.qualified}")


def precondition(operation: str = "GetFunction/GetAlias") -> ServiceError:
    text = f"The Revision Id provided does not match the latest Revision Id. Call the {operation} API to retrieve the latest"
    return ServiceError("PreconditionFailedException", f"{text} Revision Id", 412, Type="User")


def unsupported(member: str, why: str = "") -> ServiceError:
    """A setting that would change what the real service does, and that Martlet does not have."""
    return invalid(f"{member} is not supported by Martlet{': ' + why if why else '.'}")


def parse(request: dict[str, Any], region: str, *, member: str = "FunctionName", unqualified: bool = False) -> Name:
    """The name in `request[member]` with the qualifier of either place.

    Raises ServiceError: ValidationException (no name at all), InvalidParameterValueException (two qualifiers that differ),
    ResourceNotFoundException (another region), AccessDeniedException (another account).
    """
    text = request.get(member) or ""
    found = _PATTERN.fullmatch(text)
    if found is None:
        place = member[0].lower() + member[1:]
        raise ServiceError(
            "ValidationException",
            f"1 validation error detected: Value '{text}' at '{place}' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {_TEXT}",
        )
    if found["region"] and found["region"] != region:
        raise missing(f"Functions from '{found['region']}' are not reachable in this region ('{region}')")
    if found["account"] and found["account"] != ACCOUNT:
        raise ServiceError(
            "AccessDeniedException",
            f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform this action on resource: {text} because no "
            "resource-based policy allows the action",
            403,
        )
    own, given = found["qualifier"] or "", request.get("Qualifier") or ""
    if own and given and own != given:
        raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
    if given and not _QUALIFIER.fullmatch(given):
        raise ServiceError(
            "ValidationException",
            f"1 validation error detected: Value '{given}' at 'qualifier' failed to satisfy constraint: "
            r"Member must satisfy regular expression pattern: \$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+",
        )
    name = Name(found["name"], own or given, region)
    if unqualified and name.qualifier:
        raise invalid(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
            "Please specify either a function name or an unqualified function ARN."
        )
    return name


def is_number(qualifier: str) -> bool:
    return qualifier.isascii() and qualifier.isdigit()


_ALIAS: Final = re.compile(r"(?![0-9]+$)[a-zA-Z0-9-_]+")


def is_alias(qualifier: str) -> bool:
    """Whether it can name an alias at all: "valid-with-$" can be asked for, but never exists."""
    return _ALIAS.fullmatch(qualifier) is not None
