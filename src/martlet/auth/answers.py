"""What the calls of IAM share: tags as requests have them, and lists that come in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from martlet.errors import ServiceError

__all__ = ["marker", "merged", "page_of", "tags_of"]

T = TypeVar("T")

_TAGS_MAX: Final = 50
_PAGE: Final = 100


def tags_of(request: dict[str, Any]) -> dict[str, str]:
    """A request's tags; a key must not come twice, in whatever case."""
    found = {str(tag["Key"]): str(tag["Value"]) for tag in request.get("Tags", ())}
    if len({key.lower() for key in found}) != len(request.get("Tags", ())):
        raise ServiceError("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.", 400)
    return found


def merged(tags: dict[str, str], added: dict[str, str]) -> dict[str, str]:
    found = {**tags, **added}
    if len(found) > _TAGS_MAX:
        raise ServiceError("LimitExceeded", f"Cannot exceed quota for TagsPerResource: {_TAGS_MAX}", 409)
    return found


def marker(request: dict[str, Any]) -> str:
    """What the last page ended with."""
    return str(request.get("Marker", ""))


def page_of(
    found: Iterable[T], request: dict[str, Any], member: str, show: Callable[[T], Any], name: Callable[[T], str]
) -> dict[str, Any]:
    """One page of a list: MaxItems of what is found, and how to go on."""
    most = int(request.get("MaxItems", _PAGE))
    page: list[T] = []
    for item in found:
        if len(page) == most:
            return {member: [show(one) for one in page], "IsTruncated": True, "Marker": name(page[-1])}
        page.append(item)
    return {member: [show(one) for one in page], "IsTruncated": False}
