"""Errors of a GraphQL answer: one field's (`Fault`), or the whole request's (`Refusal`)."""

from __future__ import annotations

from typing import Any

from graphql import GraphQLError

from martlet.errors import MartletError

__all__ = ["Fault", "Path", "Refusal", "shown"]

Path = tuple[str | int, ...]
Fault = tuple[Path, Exception, Any]  # where, why, the field's node in the document (or None)


class Refusal(Exception):
    """The request is not executed: `errors` say why."""

    def __init__(self, errors: list[dict[str, Any]], status: int = 400) -> None:
        super().__init__(errors[0]["message"] if errors else "")
        self.errors = errors
        self.status = status

    @classmethod
    def of(cls, error: MartletError) -> Refusal:
        """A request that breaks a rule of ours, by the error's name."""
        return cls([shown(error)], error.http_status)


def shown(error: Exception, path: Path = (), node: Any = None) -> dict[str, Any]:
    """An error as GraphQL's specification has it (section 7.1.2). What Martlet knows of it is in `extensions`."""
    found: dict[str, Any] = {"message": error.message if isinstance(error, MartletError | GraphQLError) else str(error)}
    locations = getattr(error, "locations", None)
    if locations is None and node is not None and node.loc is not None:
        start = node.loc.start_token
        found["locations"] = [{"line": start.line, "column": start.column}]
    elif locations:
        found["locations"] = [{"line": at.line, "column": at.column} for at in locations]
    if path:
        found["path"] = list(path)
    if isinstance(error, MartletError):
        details = {name: value for name, value in error.details.items() if isinstance(value, str | int | float | bool | None)}
        found["extensions"] = {"code": error.code, **({"remedy": error.remedy} if error.remedy else {}), **details}
    return found
