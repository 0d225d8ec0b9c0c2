"""Roles and managed policies: the calls of AWS IAM that deployment tools make. They are remembered, and `sessions` acts by
them.

Source: IAM API reference, 2010-05-08. A parameter that would restrict what a role may do, and that Martlet does not evaluate,
is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec

from martlet.auth import documents, managed, people, roles, users
from martlet.auth.answers import marker, merged, page_of, tags_of
from martlet.auth.roles import Role
from martlet.errors import ServiceError
from martlet.store import Reader, Store, Tx
from martlet.types import ACCOUNT, Principal

__all__ = ["Identities"]

_ROLES_MAX: Final = 1_000  # of an account
_ATTACHED_MAX: Final = 10  # managed policies of a role
_INLINE_CHARACTERS_MAX: Final = 10_240  # of a role's inline policies together, white space left out
_TRUST_CHARACTERS_MAX: Final = 2_048


class Caller(Protocol):
    """Who calls, as far as this room needs it."""

    @property
    def principal(self) -> Principal: ...
    @property
    def account(self) -> str: ...


class Identities(users.Users, managed.ManagedPolicies):
    """The service "iam"."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)

    def permission(self, operation: str, request: dict[str, Any]) -> tuple[str, str] | None:
        """(action, resource) that a caller needs; None for a call about the caller itself, which asks when it knows whom."""
        resource = "*"
        if "UserName" in request:
            resource = self.user_arn(str(request["UserName"]))
        elif operation in users.OF_CALLER:
            return None
        elif "RoleName" in request:
            name = str(request["RoleName"])
            role = self._store.read(lambda reader: roles.find(reader, name))
            resource = role.arn(ACCOUNT) if role is not None else f"arn:aws:iam::{ACCOUNT}:role/{name}"
        elif "GroupName" in request:
            resource = f"arn:aws:iam::{ACCOUNT}:group/{request['GroupName']}"
        elif "PolicyArn" in request:
            resource = str(request["PolicyArn"])
        return f"iam:{operation}", resource

    # --- roles

    async def create_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        trust = str(request["AssumeRolePolicyDocument"])
        _check_trust(trust)
        tags = tags_of(request)
        name = str(request["RoleName"])

        def create(tx: Tx) -> Role:
            if roles.find(tx, name) is not None:
                raise ServiceError("EntityAlreadyExists", f"Role with name {name} already exists.", 409)
            if sum(1 for _ in roles.every_role(tx)) >= _ROLES_MAX:
                raise ServiceError("LimitExceeded", f"Cannot exceed quota for RolesPerAccount: {_ROLES_MAX}", 409)
            role = Role(
                boundary=managed.checked_boundary(tx, request) if request.get("PermissionsBoundary") else "",
                name=name,
                role_id="AROA" + roles.random_id(17),
                path=str(request.get("Path", "/")),
                trust=trust,
                created_at_ms=tx.now_ms,
                description=request.get("Description"),
                session_seconds=int(request.get("MaxSessionDuration", 3_600)),
                tags=tags,
            )
            roles.keep(tx, role)
            return role

        return {"Role": _shown(await self._store.transact(create), caller.account, whole=True)}

    async def get_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        role = self._store.read(lambda reader: need_role(reader, request))
        return {"Role": {**_shown(role, caller.account, whole=True), "RoleLastUsed": {}}}

    async def list_roles(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        prefix = str(request.get("PathPrefix", "/"))

        def page(reader: Reader) -> dict[str, Any]:
            found = (role for role in roles.every_role(reader, marker(request)) if role.path.startswith(prefix))
            return page_of(found, request, "Roles", lambda role: _shown(role, caller.account), lambda role: role.name)

        return self._store.read(page)

    async def update_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def change(role: Role) -> Role:
            seconds = int(request.get("MaxSessionDuration", 3_600))
            return msgspec.structs.replace(role, description=request.get("Description"), session_seconds=seconds)

        await self._change(request, change)
        return {}

    async def update_role_description(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        role = await self._change(request, lambda role: msgspec.structs.replace(role, description=request["Description"]))
        return {"Role": _shown(role, caller.account, whole=True)}

    async def update_assume_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        trust = str(request["PolicyDocument"])
        _check_trust(trust)
        await self._change(request, lambda role: msgspec.structs.replace(role, trust=trust))
        return {}

    async def delete_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def delete(tx: Tx) -> None:
            role = need_role(tx, request)
            if role.attached:
                raise ServiceError("DeleteConflict", "Cannot delete entity, must detach all policies first.", 409)
            if role.inline:
                raise ServiceError("DeleteConflict", "Cannot delete entity, must delete policies first.", 409)
            roles.forget(tx, role)

        await self._store.transact(delete)
        return {}

    async def put_role_permissions_boundary(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def put(tx: Tx) -> None:
            boundary = managed.checked_boundary(tx, request)
            roles.keep(tx, msgspec.structs.replace(need_role(tx, request), boundary=boundary))

        await self._store.transact(put)
        return {}

    async def delete_role_permissions_boundary(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        await self._change(request, lambda role: msgspec.structs.replace(role, boundary=""))
        return {}

    # --- inline policies

    async def put_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        text = str(request["PolicyDocument"])
        documents.check_permissions(text)

        def change(role: Role) -> Role:
            inline = {**role.inline, str(request["PolicyName"]): text}
            if sum(len("".join(document.split())) for document in inline.values()) > _INLINE_CHARACTERS_MAX:
                message = f"Maximum policy size of {_INLINE_CHARACTERS_MAX} bytes exceeded for role {role.name}"
                raise ServiceError("LimitExceeded", message, 409)
            return msgspec.structs.replace(role, inline=inline)

        await self._change(request, change)
        return {}

    async def get_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        role = self._store.read(lambda reader: need_role(reader, request))
        name = _inline_name(role, request)
        return {"RoleName": role.name, "PolicyName": name, "PolicyDocument": quote(role.inline[name], safe="")}

    async def list_role_policies(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        role = self._store.read(lambda reader: need_role(reader, request))
        names = (name for name in sorted(role.inline) if name > marker(request))
        return page_of(names, request, "PolicyNames", str, str)

    async def delete_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def change(role: Role) -> Role:
            name = _inline_name(role, request)
            return msgspec.structs.replace(role, inline={key: text for key, text in role.inline.items() if key != name})

        await self._change(request, change)
        return {}

    # --- attached policies

    async def attach_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        arn = str(request["PolicyArn"])

        def attach(tx: Tx) -> None:
            role = need_role(tx, request)
            if not managed.attachable(tx, arn):
                raise ServiceError("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.", 404)
            if arn not in role.attached:
                if len(role.attached) >= _ATTACHED_MAX:
                    raise ServiceError("LimitExceeded", f"Cannot exceed quota for PoliciesPerRole: {_ATTACHED_MAX}", 409)
                roles.keep(tx, msgspec.structs.replace(role, attached=(*role.attached, arn)))

        await self._store.transact(attach)
        return {}

    async def detach_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        arn = str(request["PolicyArn"])

        def change(role: Role) -> Role:
            if arn not in role.attached:
                raise ServiceError("NoSuchEntity", f"Policy {arn} was not found.", 404)
            return msgspec.structs.replace(role, attached=tuple(other for other in role.attached if other != arn))

        await self._change(request, change)
        return {}

    async def list_attached_role_policies(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        role = self._store.read(lambda reader: need_role(reader, request))
        prefix = str(request.get("PathPrefix", "/"))
        found = (arn for arn in sorted(role.attached) if arn > marker(request) and managed.path_of(arn).startswith(prefix))
        return page_of(found, request, "AttachedPolicies", _attached, str)

    async def list_entities_for_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        arn = str(request["PolicyArn"])
        kind = str(request.get("EntityFilter", ""))

        def page(reader: Reader) -> dict[str, Any]:
            if not managed.attachable(reader, arn):
                raise managed.not_found(arn)
            found: dict[str, Any] = {"PolicyGroups": [], "PolicyUsers": [], "PolicyRoles": [], "IsTruncated": False}
            for user in people.every(reader, people.User) if kind in ("", "User") else ():
                if arn in user.attached:
                    found["PolicyUsers"].append({"UserName": user.name, "UserId": user.id})
            for group in people.every(reader, people.Group) if kind in ("", "Group") else ():
                if arn in group.attached:
                    found["PolicyGroups"].append({"GroupName": group.name, "GroupId": group.id})
            for role in roles.every_role(reader) if kind in ("", "Role") else ():
                if arn in role.attached:
                    found["PolicyRoles"].append({"RoleName": role.name, "RoleId": role.role_id})
            return found

        return self._store.read(page)

    async def list_instance_profiles_for_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """None: there are no instances here. Tools ask before they delete a role."""
        self._store.read(lambda reader: need_role(reader, request))
        return {"InstanceProfiles": [], "IsTruncated": False}

    # --- tags

    async def tag_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        added = tags_of(request)
        await self._change(request, lambda role: msgspec.structs.replace(role, tags=merged(role.tags, added)))
        return {}

    async def untag_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        gone = set(request["TagKeys"])
        await self._change(
            request, lambda role: msgspec.structs.replace(role, tags={k: v for k, v in role.tags.items() if k not in gone})
        )
        return {}

    async def list_role_tags(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        role = self._store.read(lambda reader: need_role(reader, request))
        found = (item for item in sorted(role.tags.items()) if item[0] > marker(request))
        return page_of(found, request, "Tags", lambda item: {"Key": item[0], "Value": item[1]}, lambda item: item[0])

    async def _change(self, request: dict[str, Any], change: Callable[[Role], Role]) -> Role:
        def apply(tx: Tx) -> Role:
            changed = change(need_role(tx, request))
            roles.keep(tx, changed)
            return changed

        return await self._store.transact(apply)


def need_role(reader: Reader, request: dict[str, Any]) -> Role:
    """The role that a request names, else NoSuchEntity."""
    name = str(request["RoleName"])
    role = roles.find(reader, name)
    if role is None:
        raise ServiceError("NoSuchEntity", f"The role with name {name} cannot be found.", 404)
    return role


def _inline_name(role: Role, request: dict[str, Any]) -> str:
    name = str(request["PolicyName"])
    if name not in role.inline:
        raise ServiceError("NoSuchEntity", f"The role policy with name {name} cannot be found.", 404)
    return name


def _check_trust(text: str) -> None:
    documents.check_trust(text)
    size = len("".join(text.split()))
    if size > _TRUST_CHARACTERS_MAX:
        raise ServiceError("LimitExceeded", f"Cannot exceed quota for ACLSizePerRole: {_TRUST_CHARACTERS_MAX}", 409)


def _shown(role: Role, account: str, *, whole: bool = False) -> dict[str, Any]:
    """A role as answers have it; lists leave its tags out."""
    shown: dict[str, Any] = {
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.role_id,
        "Arn": role.arn(account),
        "CreateDate": datetime.fromtimestamp(role.created_at_ms // 1000, UTC),
        "AssumeRolePolicyDocument": quote(role.trust, safe=""),
        "Description": role.description,
        "MaxSessionDuration": role.session_seconds,
    }
    if whole and role.boundary:
        shown["PermissionsBoundary"] = boundary_shown(role.boundary)
    if whole and role.tags:
        shown["Tags"] = [{"Key": key, "Value": value} for key, value in role.tags.items()]
    return shown


def boundary_shown(arn: str) -> dict[str, str]:
    return {"PermissionsBoundaryType": "PermissionsBoundaryPolicy", "PermissionsBoundaryArn": arn}


def _attached(arn: str) -> dict[str, str]:
    return {"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn}
