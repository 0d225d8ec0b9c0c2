"""What may be put on a bucket: checked in S3's words, and kept as the API has it. Pure.

Source: S3 API reference, the Put operations of buckets; recorded answers for texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from martlet.clock import uuid4_text
from martlet.errors import ServiceError
from martlet.objects.failures import invalid_argument, invalid_request, malformed_xml, not_implemented

__all__ = [
    "ENCRYPTION",
    "PUBLIC_ACCESS",
    "check_acl_name",
    "cors",
    "encryption",
    "lifecycle",
    "ownership",
    "public_access_block",
    "storage_class",
    "tag_set",
    "tags_of_header",
    "versioning",
    "website",
]

Settings = dict[str, Any]

_TAG_TEXT = re.compile(r"[\w\s.:/=+\-@]*")
_METHODS: Final = ("GET", "PUT", "POST", "DELETE", "HEAD")
STORAGE_CLASSES: Final = (
    *("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE"),
    "GLACIER_IR",
)
PUBLIC_ACCESS: Final = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_OWNERSHIPS: Final = ("BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter")
ENCRYPTION: Final[Settings] = {
    "Rules": [
        {
            "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
            "BucketKeyEnabled": False,
        }
    ]
}


# --- tags


def tag_set(tags: Sequence[Mapping[str, Any]], *, of_object: bool) -> dict[str, str]:
    """A TagSet as a mapping. Raises InvalidTag, BadRequest, MalformedXML."""
    most = 10 if of_object else 50
    if len(tags) > most:
        what = "Object" if of_object else "Bucket"
        raise ServiceError("BadRequest", f"{what} tags cannot be greater than {most}", 400)
    found: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key"), tag.get("Value")
        if key is None or value is None:
            raise malformed_xml()
        if key in found:
            raise ServiceError("InvalidTag", "Cannot provide multiple Tags with the same key", 400, TagKey=key)
        _check_tag(key, value, of_object)
        found[key] = value
    return found


def _check_tag(key: str, value: str, of_object: bool) -> None:
    if key.startswith("aws:"):
        if of_object:
            raise ServiceError("InvalidTag", "Your TagKey cannot be prefixed with aws:", 400, TagKey=key)
        raise ServiceError("InvalidTag", "System tags cannot be added/updated by requester", 400, TagKey=key)
    if not 1 <= len(key) <= 128 or not _TAG_TEXT.fullmatch(key):
        raise ServiceError("InvalidTag", "The TagKey you have provided is invalid", 400, TagKey=key)
    if len(value) > 256 or not _TAG_TEXT.fullmatch(value):
        raise ServiceError("InvalidTag", "The TagValue you have provided is invalid", 400, TagKey=key, TagValue=value)


def tags_of_header(text: str | None) -> dict[str, str]:
    """x-amz-tagging: "a=1&b=2", URL-encoded."""
    if not text:
        return {}
    wrong = invalid_argument(
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name "
        "duplicates.",
        "x-amz-tagging",
        text,
    )
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise wrong from None
    found = dict(pairs)
    if len(found) != len(pairs) or any("," in part or "=" in part for part in found.values() if "," in text):
        raise wrong
    return tag_set([{"Key": key, "Value": value} for key, value in pairs], of_object=True)


# --- small ones


def versioning(configuration: Mapping[str, Any]) -> str:
    status = configuration.get("Status")
    if status is None:
        text = "The Versioning element must be specified"
        raise ServiceError("IllegalVersioningConfigurationException", text, 400)
    if status not in ("Enabled", "Suspended"):
        raise malformed_xml()
    if configuration.get("MFADelete") == "Enabled":
        raise not_implemented("MFA delete")
    return str(status)


def public_access_block(configuration: Mapping[str, Any] | None) -> Settings:
    if not configuration:
        raise malformed_xml()
    return {name: bool(configuration.get(name, False)) for name in PUBLIC_ACCESS}


def ownership(controls: Mapping[str, Any]) -> str:
    rules = controls.get("Rules") or []
    if len(rules) != 1 or rules[0].get("ObjectOwnership") not in _OWNERSHIPS:
        raise malformed_xml()
    return str(rules[0]["ObjectOwnership"])


def ownership_header(value: str | None) -> str:
    if value is None:
        return _OWNERSHIPS[0]
    if value not in _OWNERSHIPS:
        raise invalid_argument(f"Invalid x-amz-object-ownership header: {value}", "x-amz-object-ownership")
    return value


def storage_class(name: str | None) -> str:
    if name is None:
        return "STANDARD"
    if name not in STORAGE_CLASSES:
        text = "The storage class you specified is not valid"
        raise ServiceError("InvalidStorageClass", text, 400, StorageClassRequested=name)
    if name in ("GLACIER", "DEEP_ARCHIVE"):  # nothing restores them here: what is put so could not be read again
        raise not_implemented(f"the storage class {name}")
    return name


def encryption(configuration: Mapping[str, Any]) -> Settings:
    """Only SSE-S3, which is what everything is said to have; keys of KMS are refused by name."""
    rules = configuration.get("Rules") or []
    if len(rules) != 1 or not isinstance(rules[0].get("ApplyServerSideEncryptionByDefault"), dict):
        raise malformed_xml()
    default = rules[0]["ApplyServerSideEncryptionByDefault"]
    algorithm = default.get("SSEAlgorithm")
    if algorithm in ("aws:kms", "aws:kms:dsse"):
        raise not_implemented(f"encryption with {algorithm}")
    if algorithm != "AES256":
        raise malformed_xml()
    if default.get("KMSMasterKeyID") is not None:
        raise invalid_argument(
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
            "ApplyServerSideEncryptionByDefault",
        )
    rule: Settings = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm},
        "BucketKeyEnabled": bool(rules[0].get("BucketKeyEnabled", False)),
    }
    blocked = rules[0].get("BlockedEncryptionTypes")
    if blocked:
        rule["BlockedEncryptionTypes"] = blocked
    return {"Rules": [rule]}


def check_acl_name(name: str | None, *, of_object: bool) -> str:
    """A canned ACL's name."""
    known = ["private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read"]
    known += ["bucket-owner-read", "bucket-owner-full-control"] if of_object else ["log-delivery-write"]
    if name not in known:
        raise invalid_argument("", "x-amz-acl", name)
    return str(name)


# --- CORS


def cors(configuration: Mapping[str, Any] | None) -> list[Settings]:
    rules = (configuration or {}).get("CORSRules")
    if not rules or len(rules) > 100:
        raise malformed_xml()
    for rule in rules:
        if not rule.get("AllowedMethods") or not rule.get("AllowedOrigins"):
            raise malformed_xml()
        for method in rule["AllowedMethods"]:
            if method not in _METHODS:
                raise invalid_request(f"Found unsupported HTTP method in CORS config. Unsupported method is {method}")
        for origin in rule["AllowedOrigins"]:
            if origin.count("*") > 1:
                raise invalid_request(f'AllowedOrigin "{origin}" can not have more than one wildcard.')
        for header in rule.get("AllowedHeaders") or ():
            if header.count("*") > 1:
                raise invalid_request(f'AllowedHeader "{header}" can not have more than one wildcard.')
        for header in rule.get("ExposeHeaders") or ():
            if "*" in header:
                text = f'ExposeHeader "{header}" contains wildcard. We currently do not support wildcard for ExposeHeader.'
                raise invalid_request(text)
    return [dict(rule) for rule in rules]


# --- lifecycle


def lifecycle(configuration: Mapping[str, Any] | None) -> list[Settings]:
    """The rules. Transitions are kept and have no effect, as storage has one class here: they are refused by name."""
    rules = (configuration or {}).get("Rules")
    if not rules or len(rules) > 1_000:
        raise malformed_xml()
    found = [_rule(rule) for rule in rules]
    ids = [rule["ID"] for rule in found]
    if len(set(ids)) != len(ids):
        text = "Rule ID must be unique. Found same ID for more than one rule"
        raise invalid_argument(text)
    return found


def _rule(rule: Mapping[str, Any]) -> Settings:
    made = dict(rule)
    made["ID"] = rule.get("ID") or uuid4_text()
    if len(made["ID"]) > 255:
        raise invalid_argument("ID length should not exceed allowed limit of 255")
    if rule.get("Status") not in ("Enabled", "Disabled"):
        raise malformed_xml()
    if ("Filter" in rule) == (rule.get("Prefix") is not None):
        raise malformed_xml()
    if rule.get("Transitions") or rule.get("NoncurrentVersionTransitions"):
        raise not_implemented("transition to another storage class")
    actions = [rule.get(name) for name in ("Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")]
    if all(action is None for action in actions):
        text = "At least one action needs to be specified in a rule."
        raise invalid_request(text)
    if rule.get("Filter"):
        made["Filter"] = _filter(rule["Filter"])
    if rule.get("Expiration") is not None:
        made["Expiration"] = _expiration(rule["Expiration"], made)
    days = (rule.get("NoncurrentVersionExpiration") or {}).get("NoncurrentDays")
    if rule.get("NoncurrentVersionExpiration") is not None and days is None:
        raise malformed_xml()
    if days is not None and days < 1:
        text = "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer"
        raise invalid_argument(text)
    abort = rule.get("AbortIncompleteMultipartUpload")
    if abort is not None and (abort.get("DaysAfterInitiation") or 0) < 1:
        text = "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer"
        raise invalid_argument(text)
    return made


def _filter(given: Mapping[str, Any]) -> Settings:
    if len(given) > 1:
        raise malformed_xml()
    both = given.get("And")
    if both is not None and sum(len(value) if isinstance(value, list) else 1 for value in both.values()) < 2:
        raise malformed_xml()
    tags = [given["Tag"]] if "Tag" in given else list((both or {}).get("Tags") or ())
    keys = [tag.get("Key") for tag in tags]
    if len(set(keys)) != len(keys):
        raise invalid_request("Duplicate Tag Keys are not allowed.")
    return dict(given)


def _expiration(given: Mapping[str, Any], rule: Settings) -> Settings:
    said = [name for name in ("Days", "Date", "ExpiredObjectDeleteMarker") if given.get(name) is not None]
    if len(said) != 1:
        raise malformed_xml()
    if "Days" in said and given["Days"] < 1:
        raise invalid_argument("'Days' for Expiration action must be a positive integer")
    if "ExpiredObjectDeleteMarker" in said:
        filtered = rule.get("Filter") or {}
        if "Tag" in filtered or (filtered.get("And") or {}).get("Tags"):
            raise malformed_xml()
        return {"ExpiredObjectDeleteMarker": bool(given["ExpiredObjectDeleteMarker"])}
    if "Date" in said:
        at = given["Date"]
        if isinstance(at, datetime):
            if (at.hour, at.minute, at.second, at.microsecond) != (0, 0, 0, 0):
                shown = at.strftime("%Y-%m-%dT%H:%M:%SZ")
                raise invalid_argument("'Date' must be at midnight GMT", "Date", shown)
            return {"Date": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")}
    return {said[0]: given[said[0]]}


# --- website (kept and described; nothing is served by it)


def website(configuration: Mapping[str, Any]) -> Settings:
    raise not_implemented("a website of a bucket")
