"""Who may do what to a bucket: the caller's own grants, the bucket's policy, its lists, and what public access is blocked.

Source: S3 user guide, "How Amazon S3 authorizes a request", "Blocking public access". An explicit Deny of the bucket's policy
binds everybody, the owner's key too (but not what the owner does to the policy itself).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from martlet.auth.acts import noted
from martlet.errors import AccessDenied
from martlet.objects import acl, policies
from martlet.objects.failures import access_denied
from martlet.objects.names import arn_of
from martlet.objects.rows import Bucket, Version
from martlet.types import ACCOUNT, Principal

__all__ = ["Asker", "blocks", "check", "lists_are_off"]

_OWNERS_ALWAYS: Final = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})


class Asker(msgspec.Struct, frozen=True):
    """Who asks, and the condition keys of the request in lower case."""

    principal: Principal
    context: Mapping[str, str] = {}


def arn_of_principal(principal: Principal) -> str:
    """ "" for the public."""
    if principal.kind == "anonymous":
        return ""
    if principal.kind == "root":
        return f"arn:aws:iam::{ACCOUNT}:root"
    if principal.kind == "role":
        return f"arn:aws:sts::{ACCOUNT}:{principal.name}"
    return f"arn:aws:sts::{ACCOUNT}:assumed-role/{principal.name}/{principal.name}"


def check(
    asker: Asker, action: str, bucket: Bucket | None, name: str, key: str | None, authorize: Any, version: Any = None
) -> None:
    """Return if allowed, else raise AccessDenied. `authorize(principal, action, resource)`: the caller's own grants;
    `version()`: the object's current version, where its list may matter."""
    principal = asker.principal
    resource = arn_of(name, key)
    noted(principal, action, resource)
    settings = bucket.settings if bucket is not None else {}
    decision = _by_policy(settings, asker, action, resource)
    owner = principal.kind == "root"
    if decision == "Deny" and not (owner and action in _OWNERS_ALWAYS):
        raise _denied(principal, action, resource, "with an explicit deny in a resource-based policy")
    if owner or decision == "Allow":
        return
    if principal.kind != "anonymous":
        try:
            authorize(principal, action, resource)
        except AccessDenied:
            pass  # the bucket's lists may still allow it
        else:
            return
    if bucket is not None and not lists_are_off(bucket) and not blocks(bucket, "IgnorePublicAcls"):
        found: Version | None = version() if version is not None else None
        if acl.allows_everybody(
            action, settings.get("acl"), None if found is None else found.acl, signed=principal.kind != "anonymous"
        ):
            return
    raise _denied(principal, action, resource, "because no identity-based policy allows the action")


def _by_policy(settings: Mapping[str, Any], asker: Asker, action: str, resource: str) -> str:
    text = settings.get("policy")
    if not text:
        return ""
    principal = asker.principal
    public = principal.kind == "anonymous"
    decision = policies.decide(
        text,
        arn=arn_of_principal(principal),
        account="" if public else ACCOUNT,
        action=action,
        resource=resource,
        context={"aws:principalarn": arn_of_principal(principal), **asker.context},
        service=principal.name if principal.kind == "service" else "",
    )
    blocked = (settings.get("public_access_block") or {}).get("RestrictPublicBuckets")
    if decision == "Allow" and public and blocked and policies.is_public(text):
        return ""
    return decision


def blocks(bucket: Bucket, name: str) -> bool:
    return bool((bucket.settings.get("public_access_block") or {}).get(name))


def lists_are_off(bucket: Bucket) -> bool:
    return bucket.settings.get("ownership") == "BucketOwnerEnforced"


def _denied(principal: Principal, action: str, resource: str, why: str) -> Exception:
    if principal.kind == "anonymous":
        return access_denied()
    who = arn_of_principal(principal)
    return access_denied(f'User: {who} is not authorized to perform: {action} on resource: "{resource}" {why}')
