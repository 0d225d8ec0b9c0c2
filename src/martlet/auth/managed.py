"""Managed policies: the calls of AWS IAM about them. The role calls are in `identities`, of which this is one half."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec

from martlet.auth import documents, people, roles
from martlet.auth.answers import marker, merged, page_of, tags_of
from martlet.auth.roles import Policy, PolicyVersion
from martlet.errors import ServiceError, Unsupported
from martlet.store import Reader, Store, Tx

__all__ = ["ManagedPolicies", "attachable", "checked_boundary", "not_found", "path_of"]

_POLICIES_MAX: Final = 1_500  # of an account
_VERSIONS_MAX: Final = 5
_CHARACTERS_MAX: Final = 6_144  # of a managed policy, white space left out
_ARN = re.compile(r"arn:aws:iam::(?P<owner>aws|[0-9]{12}):policy(?P<path>/(?:[!-~]*/)?)[A-Za-z0-9_+=,.@-]{1,128}")


class Caller(Protocol):
    """Who calls, as far as this room needs it."""

    @property
    def account(self) -> str: ...


def attachable(reader: Reader, arn: str) -> bool:
    """Whether a policy has that ARN: one of this account, or any of AWS's own by its name."""
    parsed = _ARN.fullmatch(arn)
    if parsed is None:
        return False
    return parsed["owner"] == "aws" or roles.find_policy(reader, arn) is not None


def checked_boundary(reader: Reader, request: dict[str, Any]) -> str:
    """The permissions boundary that a request names: a policy whose document is known here."""
    arn = str(request["PermissionsBoundary"])
    if not attachable(reader, arn):
        raise ServiceError("NoSuchEntity", f"Scope ARN: {arn} does not exist or is not attachable.", 404)
    if roles.managed_text(reader, arn) is None:
        raise Unsupported(f"the permissions boundary {arn} is not supported: Martlet does not have its document")
    return arn


def path_of(arn: str) -> str:
    parsed = _ARN.fullmatch(arn)
    return parsed["path"] if parsed is not None else "/"


def not_found(arn: str) -> ServiceError:
    return ServiceError("NoSuchEntity", f"Policy {arn} was not found.", 404)


class ManagedPolicies:
    """The half of the service "iam" that knows managed policies."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        text = _checked(request)
        name = str(request["PolicyName"])
        tags = tags_of(request)

        def create(tx: Tx) -> Policy:
            if roles.policy_named(tx, name) is not None:
                message = f"A policy called {name} already exists. Duplicate names are not allowed."
                raise ServiceError("EntityAlreadyExists", message, 409)
            if sum(1 for _ in roles.every_policy(tx)) >= _POLICIES_MAX:
                raise ServiceError("LimitExceeded", f"Cannot exceed quota for PoliciesPerAccount: {_POLICIES_MAX}", 409)
            policy = Policy(
                name=name,
                policy_id="ANPA" + roles.random_id(17),
                path=str(request.get("Path", "/")),
                created_at_ms=tx.now_ms,
                updated_at_ms=tx.now_ms,
                versions=(PolicyVersion(number=1, text=text, created_at_ms=tx.now_ms),),
                description=request.get("Description"),
                tags=tags,
            )
            roles.keep_policy(tx, policy)
            return policy

        shown = _shown(await self._store.transact(create), caller.account, 0)
        shown.pop("Description")  # the real answer does not repeat it
        return {"Policy": {**shown, "Tags": _tag_list(tags) or None}}

    async def get_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def read(reader: Reader) -> dict[str, Any]:
            policy = _need(reader, request)
            shown = _shown(policy, caller.account, _attachments(reader, policy.arn(caller.account)))
            return {"Policy": {**shown, "Tags": _tag_list(policy.tags)}}

        return self._store.read(read)

    async def list_policies(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("Scope", "All") == "AWS":
            raise Unsupported("ListPolicies: AWS's own policies are not kept here; Scope must be Local or All")
        if request.get("PolicyUsageFilter") == "PermissionsBoundary":
            return {"Policies": [], "IsTruncated": False}
        prefix, attached_only = str(request.get("PathPrefix", "/")), bool(request.get("OnlyAttached"))

        def read(reader: Reader) -> dict[str, Any]:
            counts = _all_attachments(reader)
            found = (
                _shown(policy, caller.account, counts.get(policy.arn(caller.account), 0))
                for policy in roles.every_policy(reader, marker(request))
                if policy.path.startswith(prefix)
            )
            wanted = (item for item in found if item["AttachmentCount"] or not attached_only)
            page = page_of(wanted, request, "Policies", dict, lambda item: str(item["PolicyName"]))
            for item in page["Policies"]:
                item.pop("Description")  # lists leave it out
            return page

        return self._store.read(read)

    async def delete_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def delete(tx: Tx) -> None:
            policy = _need(tx, request)
            arn = str(request["PolicyArn"])
            if _attachments(tx, arn) or _is_boundary(tx, arn):
                raise ServiceError("DeleteConflict", "Cannot delete a policy attached to entities.", 409)
            if len(policy.versions) > 1:
                raise ServiceError("DeleteConflict", _MORE_VERSIONS, 409)
            roles.forget_policy(tx, policy)

        await self._store.transact(delete)
        return {}

    # --- versions

    async def create_policy_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        text = _checked(request)

        def create(tx: Tx) -> dict[str, Any]:
            policy = _need(tx, request)
            if len(policy.versions) >= _VERSIONS_MAX:
                message = (
                    f"A managed policy can have up to {_VERSIONS_MAX} versions. Before you create a new version, you must "
                    "delete an existing version."
                )
                raise ServiceError("LimitExceeded", message, 409)
            version = PolicyVersion(number=policy.last + 1, text=text, created_at_ms=tx.now_ms)
            changed = msgspec.structs.replace(
                policy,
                versions=(*policy.versions, version),
                last=version.number,
                default=version.number if request.get("SetAsDefault") else policy.default,
                updated_at_ms=tx.now_ms,
            )
            roles.keep_policy(tx, changed)
            return {"PolicyVersion": _version(version, changed)}

        return await self._store.transact(create)

    async def get_policy_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        policy = self._store.read(lambda reader: _need(reader, request))
        version = _need_version(policy, request)
        return {"PolicyVersion": {**_version(version, policy), "Document": quote(version.text, safe="")}}

    async def list_policy_versions(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        policy = self._store.read(lambda reader: _need(reader, request))
        after = marker(request)
        before = int(after[1:]) if re.fullmatch(r"v[1-9][0-9]{0,8}", after) else policy.last + 1
        newest_first = (version for version in reversed(policy.versions) if version.number < before)
        return page_of(
            newest_first, request, "Versions", lambda version: _version(version, policy), lambda version: f"v{version.number}"
        )

    async def delete_policy_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def change(policy: Policy) -> Policy:
            version = _need_version(policy, request)
            if version.number == policy.default:
                raise ServiceError("DeleteConflict", "Cannot delete the default version of a policy.", 409)
            return msgspec.structs.replace(policy, versions=tuple(one for one in policy.versions if one is not version))

        await self._change_policy(request, change)
        return {}

    async def set_default_policy_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        await self._change_policy(
            request, lambda policy: msgspec.structs.replace(policy, default=_need_version(policy, request).number)
        )
        return {}

    # --- tags

    async def tag_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        added = tags_of(request)

        await self._change_policy(request, lambda policy: msgspec.structs.replace(policy, tags=merged(policy.tags, added)))
        return {}

    async def untag_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        gone = set(request["TagKeys"])
        await self._change_policy(
            request,
            lambda policy: msgspec.structs.replace(policy, tags={k: v for k, v in policy.tags.items() if k not in gone}),
        )
        return {}

    async def list_policy_tags(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        policy = self._store.read(lambda reader: _need(reader, request))
        found = (tag for tag in _tag_list(dict(sorted(policy.tags.items()))) if tag["Key"] > marker(request))
        return page_of(found, request, "Tags", dict, lambda tag: tag["Key"])

    async def _change_policy(self, request: dict[str, Any], change: Callable[[Policy], Policy]) -> None:
        def apply(tx: Tx) -> None:
            changed = change(_need(tx, request))
            roles.keep_policy(tx, msgspec.structs.replace(changed, updated_at_ms=tx.now_ms))

        await self._store.transact(apply)


_MORE_VERSIONS: Final = (
    "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default "
    "version is deleted with the policy."
)


def _checked(request: dict[str, Any]) -> str:
    text = str(request["PolicyDocument"])
    documents.check_permissions(text)
    if len("".join(text.split())) > _CHARACTERS_MAX:
        raise ServiceError("LimitExceeded", f"Cannot exceed quota for PolicySize: {_CHARACTERS_MAX}", 409)
    return text


def _need(reader: Reader, request: dict[str, Any]) -> Policy:
    arn = str(request["PolicyArn"])
    policy = roles.find_policy(reader, arn)
    if policy is not None:
        return policy
    if arn.startswith("arn:aws:iam::aws:policy/"):
        raise Unsupported(f"{arn} can be attached, but AWS's own policies are not kept here")
    raise not_found(arn)


def _need_version(policy: Policy, request: dict[str, Any]) -> PolicyVersion:
    text = str(request["VersionId"])
    found = policy.version(int(text[1:])) if re.fullmatch(r"v[1-9][0-9]{0,8}", text) else None
    if found is None:
        message = f"Policy {request['PolicyArn']} version {text} does not exist or is not attachable."
        raise ServiceError("NoSuchEntity", message, 404)
    return found


def _attachments(reader: Reader, arn: str) -> int:
    return _all_attachments(reader).get(arn, 0)


def _holders(reader: Reader) -> Iterator[roles.Role | people.Group]:
    yield from roles.every_role(reader)
    yield from people.every(reader, people.User)
    yield from people.every(reader, people.Group)


def _is_boundary(reader: Reader, arn: str) -> bool:
    return any(getattr(holder, "boundary", "") == arn for holder in _holders(reader))


def _all_attachments(reader: Reader) -> dict[str, int]:
    counts: dict[str, int] = {}
    for holder in _holders(reader):
        for arn in holder.attached:
            counts[arn] = counts.get(arn, 0) + 1
    return counts


def _shown(policy: Policy, account: str, attachments: int) -> dict[str, Any]:
    return {
        "PolicyName": policy.name,
        "PolicyId": policy.policy_id,
        "Arn": policy.arn(account),
        "Path": policy.path,
        "DefaultVersionId": f"v{policy.default}",
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "Description": policy.description,
        "CreateDate": datetime.fromtimestamp(policy.created_at_ms // 1000, UTC),
        "UpdateDate": datetime.fromtimestamp(policy.updated_at_ms // 1000, UTC),
    }


def _version(version: PolicyVersion, policy: Policy) -> dict[str, Any]:
    return {
        "VersionId": f"v{version.number}",
        "IsDefaultVersion": version.number == policy.default,
        "CreateDate": datetime.fromtimestamp(version.created_at_ms // 1000, UTC),
    }


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
