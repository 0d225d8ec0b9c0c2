"""Object lock: which versions may not be deleted, until when, and who may change that. Pure.

Source: S3 user guide, "Locking objects with Object Lock", "Object Lock considerations"; recorded answers for texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError
from martlet.objects.failures import access_denied, invalid_argument, invalid_request, malformed_xml, not_implemented
from martlet.objects.rows import Bucket, Version

__all__ = [
    "check_delete",
    "check_hold",
    "conditions",
    "configuration",
    "demand_enabled",
    "is_held",
    "of_request",
    "retained",
    "shown",
    "with_default",
]

_DAY_MS: Final = 86_400_000
_MODES: Final = ("GOVERNANCE", "COMPLIANCE")
_STATES: Final = ("ON", "OFF")
_MOST: Final = {"Days": 36_500, "Years": 100}
_PROTECTED: Final = "Access Denied because object protected by object lock."


def configuration(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is put on a bucket. Raises MalformedXML, InvalidArgument."""
    if not given or given.get("ObjectLockEnabled") != "Enabled":
        raise malformed_xml()
    if "Rule" not in given or given["Rule"] is None:
        return {"ObjectLockEnabled": "Enabled"}
    retention = given["Rule"].get("DefaultRetention") or {}
    said = [name for name in _MOST if retention.get(name) is not None]
    if retention.get("Mode") not in _MODES or len(said) != 1:
        raise malformed_xml()
    name, count = said[0], retention[said[0]]
    if count < 1:
        raise invalid_argument("Default retention period must be a positive integer value.", name)
    if count > _MOST[name]:
        raise invalid_argument(f"Default retention period too large. Maximum is {_MOST[name]} {name.lower()}.", name)
    return {
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": retention["Mode"], name: count}},
    }


def demand_enabled(bucket: Bucket) -> None:
    """Raises InvalidRequest where the bucket locks nothing."""
    if "lock" not in bucket.settings:
        raise invalid_request("Bucket is missing Object Lock Configuration")


def of_request(request: Mapping[str, Any], bucket: Bucket, now_ms: int) -> dict[str, Any]:
    """Fields of a version, from the headers of a request that writes one. Raises InvalidArgument, InvalidRequest."""
    if request.get("ObjectLockEventHold") is not None:
        raise not_implemented("event holds of object lock")
    mode, until, status = (request.get(f"ObjectLock{name}") for name in ("Mode", "RetainUntilDate", "LegalHoldStatus"))
    if mode is None and until is None and status is None:
        return {}
    demand_enabled(bucket)
    if (mode is None) != (until is None):
        missing = "mode" if mode is None else "retain-until-date"
        text = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied"
        raise invalid_argument(text, f"x-amz-object-lock-{missing}")
    fields: dict[str, Any] = {}
    if mode is not None and until is not None:
        if mode not in _MODES:
            raise invalid_argument("Unknown wormMode directive.", "x-amz-object-lock-mode", mode)
        fields |= {"mode": mode, "retain_until_ms": _future(until, now_ms, "x-amz-object-lock-retain-until-date")}
    if status is not None:
        if status not in _STATES:
            text = "Legal Hold must be either of 'ON' or 'OFF'"
            raise invalid_argument(text, "x-amz-object-lock-legal-hold", status)
        fields["legal_hold"] = status
    return fields


def _future(until: Any, now_ms: int, name: str) -> int:
    at_ms = int(until.timestamp() * 1000)
    if at_ms <= now_ms:
        raise invalid_argument("The retain until date must be in the future!", name, _iso(at_ms))
    return at_ms


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def conditions(mode: Any, until: Any, status: Any, now_ms: int) -> dict[str, str]:
    """Condition keys of policies (`Desk.allow`'s) that a request which locks has."""
    found = {}
    if mode is not None:
        found["object_lock_mode"] = str(mode)
    if until is not None:
        at_ms = int(until.timestamp() * 1000)
        found["object_lock_retain_until_date"] = _iso(at_ms)
        found["object_lock_remaining_retention_days"] = str(-(-(at_ms - now_ms) // _DAY_MS))
    if status is not None:
        found["object_lock_legal_hold"] = str(status)
    return found


def with_default(bucket: Bucket, version: Version) -> Version:
    """A new version, retained as the bucket says where its request said nothing."""
    retention = ((bucket.settings.get("lock") or {}).get("Rule") or {}).get("DefaultRetention")
    if not retention or version.mode or version.marker:
        return version
    at = datetime.fromtimestamp(version.modified_at_ms / 1000, UTC)
    until_ms = version.modified_at_ms + (retention.get("Days") or 0) * _DAY_MS
    if retention.get("Years"):
        until_ms = _years_after(at, retention["Years"])
    return msgspec.structs.replace(version, mode=retention["Mode"], retain_until_ms=until_ms)


def _years_after(at: datetime, years: int) -> int:
    try:
        later = at.replace(year=at.year + years)
    except ValueError:  # the 29th of February
        later = at.replace(year=at.year + years, month=3, day=1)
    return int(later.timestamp() * 1000)


def is_held(version: Version, now_ms: int) -> bool:
    """Whether object lock keeps it."""
    return version.legal_hold == "ON" or version.retain_until_ms > now_ms


def check_delete(version: Version, now_ms: int, *, bypass: bool) -> None:
    """`bypass`: whoever asks may pass over governance, and does. Raises AccessDenied."""
    if version.legal_hold == "ON" or (version.retain_until_ms > now_ms and not (bypass and version.mode == "GOVERNANCE")):
        raise access_denied(_PROTECTED)


def retained(version: Version, given: Mapping[str, Any] | None, now_ms: int, *, bypass: bool) -> Version:
    """The version with another retention; an empty one takes it away. Raises MalformedXML, InvalidArgument, AccessDenied."""
    mode, until = (given or {}).get("Mode"), (given or {}).get("RetainUntilDate")
    if (mode is None) != (until is None) or (mode is not None and mode not in _MODES):
        raise malformed_xml()
    at_ms = 0
    if until is not None:
        at_ms = int(until.timestamp() * 1000)
        if at_ms <= now_ms:
            # S3 shows the moment as its own servers' clocks have it
            shown = datetime.fromtimestamp(at_ms / 1000 - 8 * 3600, UTC).strftime("%a %b %d %H:%M:%S PST %Y")
            raise invalid_argument("The retain until date must be in the future!", "RetainUntilDate", shown)
    weaker = at_ms < version.retain_until_ms or (mode != version.mode and version.mode != "GOVERNANCE") or mode is None
    if version.retain_until_ms > now_ms:
        changes_mode = mode != version.mode
        if version.mode == "COMPLIANCE" and weaker:
            raise access_denied(_PROTECTED)
        if version.mode == "GOVERNANCE" and (weaker or changes_mode) and not bypass:
            raise access_denied(_PROTECTED)
    return msgspec.structs.replace(version, mode=mode or "", retain_until_ms=at_ms)


def check_hold(given: Mapping[str, Any] | None) -> None:
    """Raises MalformedXML for what is no legal hold."""
    if (given or {}).get("Status") not in _STATES:
        raise malformed_xml()


def no_configuration() -> ServiceError:
    text = "The specified object does not have a ObjectLock configuration"
    return ServiceError("NoSuchObjectLockConfiguration", text, 404)


def shown(version: Version) -> dict[str, Any]:
    """Members of an answer about the version."""
    return {
        "ObjectLockMode": version.mode or None,
        "ObjectLockRetainUntilDate": moment(version.retain_until_ms) if version.mode else None,
        "ObjectLockLegalHoldStatus": version.legal_hold or None,
    }


def moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
