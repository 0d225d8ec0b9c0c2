"""Access control lists: canned names, grants of headers and bodies, and what they let the public do. Pure.

Source: S3 user guide, "Access control list (ACL) overview".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from martlet.errors import ServiceError
from martlet.objects.failures import invalid_argument, invalid_request, malformed_xml
from martlet.objects.settings import check_acl_name
from martlet.types import ACCOUNT

__all__ = ["OWNER", "OWNER_ID", "allows_everybody", "canned", "is_public", "of_request", "only_owner"]

OWNER_ID: Final = hashlib.sha256(f"martlet account {ACCOUNT}".encode()).hexdigest()
OWNER: Final = {"ID": OWNER_ID}
_ALL: Final = "http://acs.amazonaws.com/groups/global/AllUsers"
_AUTHENTICATED: Final = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
_LOGS: Final = "http://acs.amazonaws.com/groups/s3/LogDelivery"
_GROUPS: Final = (_ALL, _AUTHENTICATED, _LOGS)
_PERMISSIONS: Final = ("FULL_CONTROL", "WRITE", "WRITE_ACP", "READ", "READ_ACP")
_HEADERS: Final = {
    "GrantFullControl": ("FULL_CONTROL", "x-amz-grant-full-control"),
    "GrantRead": ("READ", "x-amz-grant-read"),
    "GrantReadACP": ("READ_ACP", "x-amz-grant-read-acp"),
    "GrantWrite": ("WRITE", "x-amz-grant-write"),
    "GrantWriteACP": ("WRITE_ACP", "x-amz-grant-write-acp"),
}
_GRANTEE = re.compile(r'\s*([A-Za-z]+)\s*=\s*"?([^",]+)"?\s*')

Acl = dict[str, Any]


def _grant(permission: str, group: str = "") -> dict[str, Any]:
    grantee = {"Type": "Group", "URI": group} if group else {"Type": "CanonicalUser", "ID": OWNER_ID}
    return {"Grantee": grantee, "Permission": permission}


def canned(name: str) -> Acl:
    """The list that a canned name stands for."""
    grants = [_grant("FULL_CONTROL")]
    if name in ("public-read", "public-read-write"):
        grants.append(_grant("READ", _ALL))
    if name == "public-read-write":
        grants.append(_grant("WRITE", _ALL))
    if name == "authenticated-read":
        grants.append(_grant("READ", _AUTHENTICATED))
    if name == "log-delivery-write":
        grants += [_grant("WRITE", _LOGS), _grant("READ_ACP", _LOGS)]
    return {"Owner": OWNER, "Grants": grants}


def of_request(request: Mapping[str, Any], *, of_object: bool) -> Acl | None:
    """The list that a request asks for, by name, headers or body; None if it asks for none."""
    headers = {name: request[name] for name in _HEADERS if request.get(name) is not None}
    name, body = request.get("ACL"), request.get("AccessControlPolicy")
    if name is not None and headers:
        raise invalid_request("Specifying both Canned ACLs and Header Grants is not allowed")
    if (name is not None or headers) and body:
        text = "This request does not support content"
        raise ServiceError("UnexpectedContent", text, 400)
    if name is not None:
        return canned(check_acl_name(name, of_object=of_object))
    if headers:
        return {"Owner": OWNER, "Grants": [one for key, text in headers.items() for one in _header_grants(key, text)]}
    return None if body is None else _checked(body)


def _header_grants(member: str, text: str) -> list[dict[str, Any]]:
    permission, header = _HEADERS[member]
    found = []
    for part in text.split(","):
        match = _GRANTEE.fullmatch(part)
        if match is None or match[1] not in ("id", "uri", "emailAddress"):
            raise invalid_argument("Argument format not recognized", header, text)
        kind, value = match.groups()
        if kind == "emailAddress":
            raise ServiceError("UnresolvableGrantByEmailAddress", "The email address you provided does not match any account.")
        found.append({"Grantee": _grantee(kind, value, kind), "Permission": permission})
    return found


def _grantee(kind: str, value: str, argument: str) -> dict[str, Any]:
    if kind == "uri":
        if value not in _GROUPS:
            raise invalid_argument("Invalid group uri", argument, value)
        return {"Type": "Group", "URI": value}
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise invalid_argument("Invalid id", argument, value)
    return {"Type": "CanonicalUser", "ID": value}


def _checked(body: Mapping[str, Any]) -> Acl:
    wrong = ServiceError("MalformedACLError", malformed_xml().message, 400)
    owner = (body.get("Owner") or {}).get("ID")
    if owner is None or body.get("Grants") is None:
        raise wrong
    if owner != OWNER_ID:
        if not re.fullmatch(r"[0-9a-f]{64}", owner):
            raise invalid_argument("Invalid id", "CanonicalUser/ID", owner)
        raise ServiceError("AccessDenied", "Access Denied", 403)
    grants = []
    for grant in body["Grants"]:
        grantee = grant.get("Grantee") or {}
        if grant.get("Permission") not in _PERMISSIONS:
            raise wrong
        if grantee.get("Type") == "Group" and grantee.get("URI"):
            made = _grantee("uri", grantee["URI"], "Group/URI")
        elif grantee.get("Type") == "CanonicalUser" and grantee.get("ID"):
            made = _grantee("id", grantee["ID"], "CanonicalUser/ID")
        else:
            raise wrong
        grants.append({"Grantee": made, "Permission": grant["Permission"]})
    return {"Owner": OWNER, "Grants": grants}


def only_owner(acl: Acl) -> bool:
    """Whether it grants nothing beyond what the owner has anyway: such lists are taken where lists are switched off."""
    grants = acl["Grants"]
    return len(grants) == 1 and grants[0] == _grant("FULL_CONTROL")


def is_public(acl: Acl | None) -> bool:
    return any(grant["Grantee"].get("URI") in (_ALL, _AUTHENTICATED) for grant in (acl or {}).get("Grants", ()))


# Action → the permission that grants it, on the bucket's list or on the object's.
_ON_BUCKET: Final = {
    "s3:ListBucket": "READ",
    "s3:ListBucketVersions": "READ",
    "s3:ListBucketMultipartUploads": "READ",
    "s3:PutObject": "WRITE",
    "s3:DeleteObject": "WRITE",
    "s3:GetBucketAcl": "READ_ACP",
    "s3:PutBucketAcl": "WRITE_ACP",
}
_ON_OBJECT: Final = {
    "s3:GetObject": "READ",
    "s3:GetObjectVersion": "READ",
    "s3:GetObjectAcl": "READ_ACP",
    "s3:GetObjectVersionAcl": "READ_ACP",
    "s3:PutObjectAcl": "WRITE_ACP",
}


def allows_everybody(action: str, bucket: Acl | None, version: Acl | None, *, signed: bool) -> bool:
    """Whether the lists let anybody do this; `signed`: somebody who has shown who they are."""
    for table, acl in ((_ON_BUCKET, bucket), (_ON_OBJECT, version)):
        needed = table.get(action)
        if needed is not None and _grants(acl, needed, signed):
            return True
    return False


def _grants(acl: Acl | None, permission: str, signed: bool) -> bool:
    groups: Sequence[str] = (_ALL, _AUTHENTICATED) if signed else (_ALL,)
    return any(
        grant["Grantee"].get("URI") in groups and grant["Permission"] in (permission, "FULL_CONTROL")
        for grant in (acl or {}).get("Grants", ())
    )
