"""Uploads by forms: what the fields say, whether they keep to their policy, what is answered. Pure.

Source: S3 API reference, "POST Object", "POST Policy"; recorded answers.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit
from xml.sax.saxutils import escape

import msgspec

from martlet.errors import ServiceError
from martlet.objects.checksums import ALGORITHMS, member_of
from martlet.objects.desk import OBJECT_BYTES_MAX
from martlet.objects.failures import access_denied, invalid_argument

__all__ = ["Posted", "read"]

Answer = tuple[int, tuple[tuple[str, str], ...], bytes]

_SHOWN: Final = {
    "x-amz-algorithm": "X-Amz-Algorithm",
    "x-amz-credential": "X-Amz-Credential",
    "x-amz-date": "X-Amz-Date",
    "x-amz-signature": "X-Amz-Signature",
    "awsaccesskeyid": "AWSAccessKeyId",
    "signature": "Signature",
}
_FREE: Final = frozenset({"x-amz-signature", "file", "policy", "file.name", "awsaccesskeyid", "signature", "submit"})
_HEADERS: Final = {
    "cache-control": "CacheControl",
    "content-type": "ContentType",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "expires": "Expires",
    "acl": "ACL",
    "x-amz-storage-class": "StorageClass",
    "x-amz-website-redirect-location": "WebsiteRedirectLocation",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-checksum-algorithm": "ChecksumAlgorithm",
    "x-amz-sdk-checksum-algorithm": "ChecksumAlgorithm",
    **{f"x-amz-checksum-{name.lower()}": member_of(name) for name in ALGORITHMS},
}


class Posted(msgspec.Struct):
    """A form. `request`: PutObject's members; `credential` "": nobody signed. The file has `least` to `most` bytes."""

    request: dict[str, Any]
    fields: Mapping[str, str]
    policy: str = ""
    credential: str = ""
    signature: str = ""
    token: str = ""
    least: int = 0
    most: int = OBJECT_BYTES_MAX

    def answer(self, result: Mapping[str, Any], endpoint: str, bucket: str) -> Answer:
        """(status, headers, body) of a form that was taken."""
        key = self.request["Key"]
        location = f"{endpoint}/{bucket}/{quote(key)}"
        target = self.fields.get("success_action_redirect") or self.fields.get("redirect")
        if target:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https") and parts.netloc:
                query = urlencode({"bucket": bucket, "key": key, "etag": result["ETag"]})
                joined = f"{parts.query}&{query}" if parts.query else query
                return 303, (("location", urlunsplit(parts._replace(query=joined))),), b""
        status = self.fields.get("success_action_status", "204")
        if status == "201":
            text = (
                '<?xml version="1.0" encoding="UTF-8"?>\n<PostResponse>'
                f"<Location>{escape(location)}</Location><Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key>"
                f"<ETag>{escape(result['ETag'])}</ETag></PostResponse>"
            )
            return 201, (("location", location), ("content-type", "application/xml")), text.encode()
        return 200 if status == "200" else 204, (("location", location),), b""


def read(fields: Mapping[str, str], now_ms: int, bucket: str) -> Posted:
    """What a form asks for. Raises InvalidArgument, AccessDenied, InvalidPolicyDocument in S3's words."""
    key = fields.get("key")
    if key is None:
        raise _lacks("key")
    key = key.replace("${filename}", fields.get("file.name", "${filename}"))
    if not key:
        raise invalid_argument("User key must have a length greater than 0.", "key", "")
    request: dict[str, Any] = {"Key": key}
    for name, member in _HEADERS.items():
        if name in fields:
            request[member] = fields[name]
    request["Metadata"] = {name[11:]: value for name, value in fields.items() if name.startswith("x-amz-meta-")}
    if "tagging" in fields:
        request["Tagging"] = _tags(fields["tagging"])
    posted = Posted(request, fields)
    if "policy" in fields:
        _check_policy(posted, fields, now_ms, bucket, key)
    return posted


def _check_policy(posted: Posted, fields: Mapping[str, str], now_ms: int, bucket: str, key: str) -> None:
    if "awsaccesskeyid" in fields or ("signature" in fields and "x-amz-signature" not in fields):
        needed: tuple[str, ...] = ("awsaccesskeyid", "signature")
    else:
        if not any(name in fields for name in _SHOWN):
            raise access_denied()
        needed = ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature")
    for name in needed:
        if name not in fields:
            raise _lacks(_SHOWN[name])
    posted.policy, posted.token = fields["policy"], fields.get("x-amz-security-token", "")
    posted.credential = fields[needed[0] if len(needed) == 2 else "x-amz-credential"]
    posted.signature = fields[needed[-1]]
    try:
        document = json.loads(base64.b64decode(fields["policy"], validate=True))
        expires = datetime.fromisoformat(str(document["expiration"]).replace("Z", "+00:00"))
        conditions = document["conditions"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if expires.timestamp() * 1000 < now_ms:
        raise access_denied("Invalid according to Policy: Policy expired.")
    if not isinstance(conditions, list):
        raise _invalid("Invalid 'conditions' value: must be a List.")
    covered = {name for condition in conditions for name in _check(condition, posted, fields, bucket, key)}
    for name in fields:
        if name not in _FREE and not name.startswith("x-ignore-") and name not in covered:
            raise access_denied(f"Invalid according to Policy: Extra input fields: {name}")


def _check(condition: Any, posted: Posted, fields: Mapping[str, str], bucket: str, key: str) -> list[str]:
    """Hold the form against one condition; the fields that it speaks of."""
    if isinstance(condition, dict):
        if len(condition) != 1:
            raise _invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
        name, value = next(iter(condition.items()))
        shown = ["eq", f"${name}", value]
        return _compare("eq", name, value, shown, fields, bucket, key)
    if not isinstance(condition, list) or len(condition) != 3:
        raise _invalid("Invalid Condition: must be a List of three.")
    operator, name, value = condition
    if operator == "content-length-range":
        try:
            posted.least, posted.most = int(name), min(int(value), OBJECT_BYTES_MAX)
        except (TypeError, ValueError):
            raise access_denied(f"Invalid according to Policy: Policy Condition failed: {_shown(condition)}") from None
        return []
    if str(operator).lower() not in ("eq", "starts-with"):
        raise _invalid(f"Invalid Condition operator {operator}.")
    if not str(name).startswith("$"):
        raise access_denied(f"Invalid according to Policy: Policy Condition failed: {_shown(condition)}")
    return _compare(str(operator).lower(), str(name)[1:], value, condition, fields, bucket, key)


def _compare(
    operator: str, name: str, value: Any, shown: list[Any], fields: Mapping[str, str], bucket: str, key: str
) -> list[str]:
    lowered = name.lower()
    have = bucket if lowered == "bucket" else key if lowered == "key" else fields.get(lowered)
    wanted = str(value)
    if have is not None and operator == "starts-with" and lowered == "content-type":
        met = all(part.strip().startswith(wanted) for part in have.split(","))
    else:
        met = have is not None and (have == wanted if operator == "eq" else have.startswith(wanted))
    if not met:
        raise access_denied(f"Invalid according to Policy: Policy Condition failed: {_shown(shown)}")
    return [lowered]


def _shown(condition: list[Any]) -> str:
    return "[" + ", ".join(json.dumps(str(part), ensure_ascii=False) for part in condition) + "]"


def _tags(text: str) -> str:
    """A Tagging document as the header has it."""
    from xml.parsers import expat

    pairs: list[list[str]] = []
    parser = expat.ParserCreate()
    path: list[str] = []

    def start(name: str, attributes: Any) -> None:
        path.append(name)
        if name == "Tag":
            pairs.append(["", ""])

    def text_of(data: str) -> None:
        if pairs and path and path[-1] in ("Key", "Value"):
            pairs[-1][path[-1] == "Value"] += data

    def refuse(*_: object) -> None:
        raise ServiceError("MalformedXML", "document types are not allowed in XML here", 400)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: path.pop()
    parser.CharacterDataHandler = text_of
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError:
        wrong = "The XML you provided was not well-formed or did not validate against our published schema"
        raise ServiceError("MalformedXML", wrong, 400) from None
    return urlencode([(key, value) for key, value in pairs])


def _lacks(name: str) -> ServiceError:
    text = f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields."
    return ServiceError("InvalidArgument", text, 400, ArgumentName=name, ArgumentValue="")


def _invalid(text: str) -> ServiceError:
    return ServiceError("InvalidPolicyDocument", f"Invalid Policy: {text}", 400)
