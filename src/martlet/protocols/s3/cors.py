"""Cross-origin requests: which rule of a bucket fits, and what browsers are told. Pure.

Source: S3 user guide, "Using cross-origin resource sharing (CORS)"; recorded answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from martlet.errors import ServiceError

__all__ = ["headers_for", "preflight"]

Headers = tuple[tuple[str, str], ...]
_VARY: Final = ("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
_METHODS: Final = ("GET", "PUT", "HEAD", "POST", "DELETE")


def preflight(
    headers: Mapping[str, str], rules: Sequence[Mapping[str, Any]] | None, *, exists: bool, of_object: bool
) -> Headers:
    """What an OPTIONS request is answered with. Raises BadRequest, AccessForbidden."""
    origin, method = headers.get("origin"), headers.get("access-control-request-method")
    if not origin:
        raise ServiceError("BadRequest", "Insufficient information. Origin request header needed.", 400)
    if not exists:
        raise _forbidden("CORSResponse: Bucket not found", "OPTIONS", "BUCKET")
    if not rules:
        raise _forbidden("CORSResponse: CORS is not enabled for this bucket.", method or "OPTIONS", "BUCKET")
    if method not in _METHODS:
        raise ServiceError("BadRequest", f"Invalid Access-Control-Request-Method: {method or 'null'}", 400)
    asked = [name.strip().lower() for name in headers.get("access-control-request-headers", "").split(",") if name.strip()]
    rule = _fitting(rules, origin, str(method), asked)
    if rule is None:
        text = (
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / "
            "Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."
        )
        raise _forbidden(text, str(method), "OBJECT" if of_object else "BUCKET")
    found = list(_told(rule, origin))
    if asked:
        found.append(("access-control-allow-headers", ", ".join(asked)))
    return tuple(found)


def headers_for(headers: Mapping[str, str], method: str, rules: Sequence[Mapping[str, Any]] | None) -> Headers:
    """What is added to the answer of an ordinary request."""
    origin = headers.get("origin")
    if not origin or not rules:
        return ()
    rule = _fitting(rules, origin, headers.get("access-control-request-method") or method, [])
    return () if rule is None else _told(rule, origin)


def _told(rule: Mapping[str, Any], origin: str) -> Headers:
    anybody = "*" in rule["AllowedOrigins"]
    found = [
        ("access-control-allow-origin", "*" if anybody else origin),
        ("access-control-allow-methods", ", ".join(rule["AllowedMethods"])),
    ]
    if rule.get("ExposeHeaders"):
        found.append(("access-control-expose-headers", ", ".join(rule["ExposeHeaders"])))
    if rule.get("MaxAgeSeconds") is not None:
        found.append(("access-control-max-age", str(rule["MaxAgeSeconds"])))
    if not anybody:
        found.append(("access-control-allow-credentials", "true"))
    return (*found, _VARY)


def _fitting(rules: Sequence[Mapping[str, Any]], origin: str, method: str, asked: Sequence[str]) -> Mapping[str, Any] | None:
    for rule in rules:
        if method not in rule["AllowedMethods"] or not any(_fits(one, origin) for one in rule["AllowedOrigins"]):
            continue
        allowed = [name.lower() for name in rule.get("AllowedHeaders") or ()]
        if all(any(_fits(one, name) for one in allowed) for name in asked):
            return rule
    return None


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), text, re.DOTALL) is not None


def _forbidden(text: str, method: str, resource: str) -> ServiceError:
    return ServiceError("AccessForbidden", text, 403, Method=method, ResourceType=resource)
