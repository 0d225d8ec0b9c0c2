"""Users, their access keys, and groups: the calls of AWS IAM about them.

Source: IAM API reference, 2010-05-08. A secret is in the answer that makes it and in no other. A name left out of a call means
the caller, where IAM says so.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec

from martlet.auth import documents, managed, people, roles
from martlet.auth.answers import marker, merged, page_of, tags_of
from martlet.auth.people import AccessKey, Group, User
from martlet.auth.policy import authorize
from martlet.errors import ServiceError
from martlet.store import Reader, Store, Tx
from martlet.types import ACCOUNT, Principal

__all__ = ["OF_CALLER", "Users"]

_USERS_MAX: Final = 5_000
_GROUPS_MAX: Final = 300
_KEYS_MAX: Final = 2
_GROUPS_OF_USER_MAX: Final = 10
_ATTACHED_MAX: Final = 10
_CHARACTERS_MAX: Final[dict[type[Group], int]] = {User: 2_048, Group: 5_120}  # of inline policies together

# What may leave out UserName, and means the caller then.
OF_CALLER: Final = frozenset({"GetUser", "CreateAccessKey", "DeleteAccessKey", "ListAccessKeys", "UpdateAccessKey"})


class Caller(Protocol):
    """Who calls, as far as this room needs it."""

    @property
    def principal(self) -> Principal: ...
    @property
    def account(self) -> str: ...


class Users:
    """The part of the service "iam" that knows users and groups."""

    _store: Store

    # --- users

    async def create_user(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name, tags = str(request["UserName"]), tags_of(request)

        def create(tx: Tx) -> User:
            if people.find(tx, User, name) is not None:
                raise ServiceError("EntityAlreadyExists", f"User with name {name} already exists.", 409)
            if sum(1 for _ in people.every(tx, User)) >= _USERS_MAX:
                raise ServiceError("LimitExceeded", f"Cannot exceed quota for UsersPerAccount: {_USERS_MAX}", 409)
            user = User(
                name=name,
                id="AIDA" + roles.random_id(17),
                path=str(request.get("Path", "/")),
                created_at_ms=tx.now_ms,
                tags=tags,
                boundary=managed.checked_boundary(tx, request) if request.get("PermissionsBoundary") else "",
            )
            people.keep(tx, user)
            return user

        return {"User": _user(await self._store.transact(create), caller.account, whole=True)}

    async def get_user(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        if "UserName" not in request and caller.principal.kind == "root":
            made = datetime.fromtimestamp(0, UTC)
            arn = f"arn:aws:iam::{caller.account}:root"
            return {"User": {"Path": "/", "UserName": "root", "UserId": caller.account, "Arn": arn, "CreateDate": made}}
        name = self._named(caller, request, "GetUser")
        return {"User": _user(self._store.read(lambda reader: _need(reader, User, name)), caller.account, whole=True)}

    async def list_users(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self._listed(User, "Users", request, lambda user: _user(user, caller.account))

    async def delete_user(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def delete(tx: Tx) -> None:
            user = _need(tx, User, str(request["UserName"]))
            _check_bare(user)
            if people.keys_of(tx, user.name):
                raise ServiceError("DeleteConflict", "Cannot delete entity, must delete access keys first.", 409)
            if user.groups:
                raise ServiceError("DeleteConflict", "Cannot delete entity, must remove users from group first.", 409)
            people.forget(tx, user)

        await self._store.transact(delete)
        return {}

    async def tag_user(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        added = tags_of(request)
        return await self._change_holder(
            User, request, lambda user: msgspec.structs.replace(user, tags=merged(user.tags, added))
        )

    async def untag_user(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        gone = set(request["TagKeys"])

        def change(user: User) -> User:
            return msgspec.structs.replace(user, tags={key: text for key, text in user.tags.items() if key not in gone})

        return await self._change_holder(User, request, change)

    async def list_user_tags(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        user: User = self._store.read(lambda reader: _need(reader, User, str(request["UserName"])))
        found = (item for item in sorted(user.tags.items()) if item[0] > marker(request))
        return page_of(found, request, "Tags", lambda item: {"Key": item[0], "Value": item[1]}, lambda item: item[0])

    async def put_user_permissions_boundary(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def put(tx: Tx) -> None:
            boundary = managed.checked_boundary(tx, request)
            people.keep(tx, msgspec.structs.replace(_need(tx, User, str(request["UserName"])), boundary=boundary))

        await self._store.transact(put)
        return {}

    async def delete_user_permissions_boundary(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._change_holder(User, request, lambda user: msgspec.structs.replace(user, boundary=""))

    # --- access keys

    async def create_access_key(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name = self._named(caller, request, "CreateAccessKey")
        id, secret = "AKIA" + roles.random_id(16), base64.b64encode(os.urandom(30)).decode()

        def create(tx: Tx) -> dict[str, Any]:
            user = _need(tx, User, name)
            if len(people.keys_of(tx, user.name)) >= _KEYS_MAX:
                raise ServiceError("LimitExceeded", f"Cannot exceed quota for AccessKeysPerUser: {_KEYS_MAX}", 409)
            key = AccessKey(Principal("user", user.name), secret, True, tx.now_ms)
            people.keep_key(tx, id, key)
            return _key(id, key)

        return {"AccessKey": {**await self._store.transact(create), "SecretAccessKey": secret}}

    async def list_access_keys(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name = self._named(caller, request, "ListAccessKeys")

        def page(reader: Reader) -> dict[str, Any]:
            _need(reader, User, name)
            found = (item for item in people.keys_of(reader, name) if item[0] > marker(request))
            return page_of(found, request, "AccessKeyMetadata", lambda item: _key(*item), lambda item: item[0])

        return self._store.read(page)

    async def update_access_key(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name = self._named(caller, request, "UpdateAccessKey")

        def update(tx: Tx) -> None:
            id, key = _need_key(tx, name, request)
            people.keep_key(tx, id, msgspec.structs.replace(key, is_active=request["Status"] == "Active"))

        await self._store.transact(update)
        return {}

    async def delete_access_key(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name = self._named(caller, request, "DeleteAccessKey")
        await self._store.transact(lambda tx: people.forget_key(tx, _need_key(tx, name, request)[0], name))
        return {}

    # --- groups

    async def create_group(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request["GroupName"])

        def create(tx: Tx) -> Group:
            if people.find(tx, Group, name) is not None:
                raise ServiceError("EntityAlreadyExists", f"Group with name {name} already exists.", 409)
            if sum(1 for _ in people.every(tx, Group)) >= _GROUPS_MAX:
                raise ServiceError("LimitExceeded", f"Cannot exceed quota for GroupsPerAccount: {_GROUPS_MAX}", 409)
            path = str(request.get("Path", "/"))
            group = Group(name=name, id="AGPA" + roles.random_id(17), path=path, created_at_ms=tx.now_ms)
            people.keep(tx, group)
            return group

        return {"Group": _group(await self._store.transact(create), caller.account)}

    async def get_group(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def read(reader: Reader) -> dict[str, Any]:
            group = _need(reader, Group, str(request["GroupName"]))
            members = (user for user in people.every(reader, User, marker(request)) if group.name in user.groups)
            page = page_of(members, request, "Users", lambda user: _user(user, caller.account), lambda user: str(user.name))
            return {"Group": _group(group, caller.account), **page}

        return self._store.read(read)

    async def list_groups(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self._listed(Group, "Groups", request, lambda group: _group(group, caller.account))

    async def delete_group(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def delete(tx: Tx) -> None:
            group = _need(tx, Group, str(request["GroupName"]))
            if any(group.name in user.groups for user in people.every(tx, User)):
                raise ServiceError("DeleteConflict", "Cannot delete entity, must remove users from group first.", 409)
            _check_bare(group)
            people.forget(tx, group)

        await self._store.transact(delete)
        return {}

    async def add_user_to_group(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def add(tx: Tx) -> None:
            group, user = _need(tx, Group, str(request["GroupName"])), _need(tx, User, str(request["UserName"]))
            if group.name in user.groups:
                return
            if len(user.groups) >= _GROUPS_OF_USER_MAX:
                raise ServiceError("LimitExceeded", f"Cannot exceed quota for GroupsPerUser: {_GROUPS_OF_USER_MAX}", 409)
            people.keep(tx, msgspec.structs.replace(user, groups=(*user.groups, group.name)))

        await self._store.transact(add)
        return {}

    async def remove_user_from_group(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def remove(tx: Tx) -> None:
            group, user = _need(tx, Group, str(request["GroupName"])), _need(tx, User, str(request["UserName"]))
            people.keep(tx, msgspec.structs.replace(user, groups=tuple(one for one in user.groups if one != group.name)))

        await self._store.transact(remove)
        return {}

    async def list_groups_for_user(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def page(reader: Reader) -> dict[str, Any]:
            user = _need(reader, User, str(request["UserName"]))
            found = (people.find(reader, Group, name) for name in sorted(user.groups) if name > marker(request))
            there = (group for group in found if group is not None)
            return page_of(there, request, "Groups", lambda group: _group(group, caller.account), lambda one: str(one.name))

        return self._store.read(page)

    # --- policies of both

    async def put_user_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._put_policy(User, request)

    async def put_group_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._put_policy(Group, request)

    async def get_user_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self._get_policy(User, request)

    async def get_group_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self._get_policy(Group, request)

    async def delete_user_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._delete_policy(User, request)

    async def delete_group_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._delete_policy(Group, request)

    async def list_user_policies(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self._list_policies(User, request)

    async def list_group_policies(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self._list_policies(Group, request)

    async def attach_user_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._attach(User, request)

    async def attach_group_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._attach(Group, request)

    async def detach_user_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._detach(User, request)

    async def detach_group_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._detach(Group, request)

    async def list_attached_user_policies(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self._list_attached(User, request)

    async def list_attached_group_policies(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self._list_attached(Group, request)

    async def _put_policy(self, kind: type[Group], request: dict[str, Any]) -> dict[str, Any]:
        text = str(request["PolicyDocument"])
        documents.check_permissions(text)

        def change(holder: Group) -> Group:
            inline = {**holder.inline, str(request["PolicyName"]): text}
            most = _CHARACTERS_MAX[kind]
            if sum(len("".join(document.split())) for document in inline.values()) > most:
                message = f"Maximum policy size of {most} bytes exceeded for {kind.__name__.lower()} {holder.name}"
                raise ServiceError("LimitExceeded", message, 409)
            return msgspec.structs.replace(holder, inline=inline)

        return await self._change_holder(kind, request, change)

    def _get_policy(self, kind: type[Group], request: dict[str, Any]) -> dict[str, Any]:
        holder = self._store.read(lambda reader: _holder(reader, kind, request))
        name = _inline_name(holder, request)
        document = quote(holder.inline[name], safe="")
        return {f"{kind.__name__}Name": holder.name, "PolicyName": name, "PolicyDocument": document}

    async def _delete_policy(self, kind: type[Group], request: dict[str, Any]) -> dict[str, Any]:
        def change(holder: Group) -> Group:
            name = _inline_name(holder, request)
            kept = {key: text for key, text in holder.inline.items() if key != name}
            return msgspec.structs.replace(holder, inline=kept)

        return await self._change_holder(kind, request, change)

    def _list_policies(self, kind: type[Group], request: dict[str, Any]) -> dict[str, Any]:
        holder = self._store.read(lambda reader: _holder(reader, kind, request))
        names = (name for name in sorted(holder.inline) if name > marker(request))
        return page_of(names, request, "PolicyNames", str, str)

    async def _attach(self, kind: type[Group], request: dict[str, Any]) -> dict[str, Any]:
        arn = str(request["PolicyArn"])

        def attach(tx: Tx) -> None:
            holder = _holder(tx, kind, request)
            if not managed.attachable(tx, arn):
                raise ServiceError("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.", 404)
            if arn in holder.attached:
                return
            if len(holder.attached) >= _ATTACHED_MAX:
                quota = f"PoliciesPer{kind.__name__}: {_ATTACHED_MAX}"
                raise ServiceError("LimitExceeded", f"Cannot exceed quota for {quota}", 409)
            people.keep(tx, msgspec.structs.replace(holder, attached=(*holder.attached, arn)))

        await self._store.transact(attach)
        return {}

    async def _detach(self, kind: type[Group], request: dict[str, Any]) -> dict[str, Any]:
        arn = str(request["PolicyArn"])

        def change(holder: Group) -> Group:
            if arn not in holder.attached:
                raise managed.not_found(arn)
            return msgspec.structs.replace(holder, attached=tuple(other for other in holder.attached if other != arn))

        return await self._change_holder(kind, request, change)

    def _list_attached(self, kind: type[Group], request: dict[str, Any]) -> dict[str, Any]:
        holder = self._store.read(lambda reader: _holder(reader, kind, request))
        prefix = str(request.get("PathPrefix", "/"))
        found = (arn for arn in sorted(holder.attached) if arn > marker(request) and managed.path_of(arn).startswith(prefix))
        show = lambda arn: {"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn}  # noqa: E731 - of this list only
        return page_of(found, request, "AttachedPolicies", show, str)

    async def _change_holder(
        self, kind: type[Group], request: dict[str, Any], change: Callable[[Any], Group]
    ) -> dict[str, Any]:
        await self._store.transact(lambda tx: people.keep(tx, change(_holder(tx, kind, request))))
        return {}

    def _listed(
        self, kind: type[Group], member: str, request: dict[str, Any], show: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        prefix = str(request.get("PathPrefix", "/"))

        def page(reader: Reader) -> dict[str, Any]:
            found = (one for one in people.every(reader, kind, marker(request)) if one.path.startswith(prefix))
            return page_of(found, request, member, show, lambda one: str(one.name))

        return self._store.read(page)

    def _named(self, caller: Caller, request: dict[str, Any], operation: str) -> str:
        """The user that a request means: the one it names (allowed already, by `permission`) or the caller."""
        if "UserName" in request:
            return str(request["UserName"])
        if caller.principal.kind != "user":
            raise ServiceError("ValidationError", "Must specify userName when calling with non-User credentials")
        authorize(caller.principal, f"iam:{operation}", self.user_arn(caller.principal.name))
        return caller.principal.name

    def user_arn(self, name: str) -> str:
        """A user's ARN; of one that is not there, as if it had no path."""
        user = self._store.read(lambda reader: people.find(reader, User, name))
        return str(user.arn(ACCOUNT)) if user is not None else f"arn:aws:iam::{ACCOUNT}:user/{name}"


def _need(reader: Reader, kind: type[Group], name: str) -> Any:
    found = people.find(reader, kind, name)
    if found is None:
        raise ServiceError("NoSuchEntity", f"The {kind.__name__.lower()} with name {name} cannot be found.", 404)
    return found


def _holder(reader: Reader, kind: type[Group], request: dict[str, Any]) -> Any:
    return _need(reader, kind, str(request[f"{kind.__name__}Name"]))


def _need_key(reader: Reader, user: str, request: dict[str, Any]) -> tuple[str, AccessKey]:
    _need(reader, User, user)
    wanted = str(request["AccessKeyId"])
    for id, key in people.keys_of(reader, user):
        if id == wanted:
            return id, key
    raise ServiceError("NoSuchEntity", f"The Access Key with id {wanted} cannot be found.", 404)


def _check_bare(holder: Group) -> None:
    if holder.attached:
        raise ServiceError("DeleteConflict", "Cannot delete entity, must detach all policies first.", 409)
    if holder.inline:
        raise ServiceError("DeleteConflict", "Cannot delete entity, must delete policies first.", 409)


def _inline_name(holder: Group, request: dict[str, Any]) -> str:
    name = str(request["PolicyName"])
    if name not in holder.inline:
        kind = type(holder).__name__.lower()
        raise ServiceError("NoSuchEntity", f"The {kind} policy with name {name} cannot be found.", 404)
    return name


def _key(id: str, key: AccessKey) -> dict[str, Any]:
    return {
        "UserName": key.principal.name,
        "AccessKeyId": id,
        "Status": "Active" if key.is_active else "Inactive",
        "CreateDate": datetime.fromtimestamp(key.created_at_ms // 1000, UTC),
    }


def _group(one: Group, account: str) -> dict[str, Any]:
    made = datetime.fromtimestamp(one.created_at_ms // 1000, UTC)
    return {"Path": one.path, "GroupName": one.name, "GroupId": one.id, "Arn": one.arn(account), "CreateDate": made}


def _user(one: User, account: str, *, whole: bool = False) -> dict[str, Any]:
    made = datetime.fromtimestamp(one.created_at_ms // 1000, UTC)
    shown: dict[str, Any] = {
        "Path": one.path,
        "UserName": one.name,
        "UserId": one.id,
        "Arn": one.arn(account),
        "CreateDate": made,
    }
    if whole and one.boundary:
        shown["PermissionsBoundary"] = {
            "PermissionsBoundaryType": "PermissionsBoundaryPolicy",
            "PermissionsBoundaryArn": one.boundary,
        }
    if whole and one.tags:
        shown["Tags"] = [{"Key": key, "Value": text} for key, text in one.tags.items()]
    return shown
