"""AWS::IAM::Role, Policy, RolePolicy and ManagedPolicy: roles of the auth room; they say what a function's code may do."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Protocol

from martlet.apps.stacks.kinds import Kind, Property, fixed, object_of, refused, value
from martlet.apps.stacks.providers.provider import Caller, Context, Physical, _Replace, chosen, generated_name, unknown
from martlet.errors import ServiceError

__all__ = ["Identities", "identity_providers"]

_DOCUMENT = Property(required=True)
_TAGS = value("list", item=object_of({"Key": value(required=True), "Value": value()}))
_NAMES = value("list", item=value())
_NO_USERS = refused("there are no users and groups here yet")


class Identities(Protocol):
    """The operations of IAM that providers call."""

    async def create_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def get_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def update_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def update_assume_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def put_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def list_role_policies(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def attach_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def detach_role_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def list_attached_role_policies(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def put_role_permissions_boundary(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_role_permissions_boundary(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def create_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def get_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def create_policy_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def list_policy_versions(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_policy_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def delete_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...
    async def tag_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]: ...


def identity_providers(identities: Identities) -> list[Any]:
    """The providers of roles and their policies."""
    return [
        RoleProvider(identities),
        InlineProvider(identities, "AWS::IAM::Policy", ("Id",)),
        InlineProvider(identities, "AWS::IAM::RolePolicy", ()),
        ManagedPolicyProvider(identities),
    ]


def _text(document: Any) -> str:
    """A policy document as IAM takes it."""
    return document if isinstance(document, str) else json.dumps(document)


async def _unless_gone(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except ServiceError as error:
        if error.name != "NoSuchEntity":
            raise
        return None


class RoleProvider:
    """AWS::IAM::Role."""

    kind = Kind(
        type="AWS::IAM::Role",
        attributes=("Arn", "RoleId"),
        properties={
            "AssumeRolePolicyDocument": _DOCUMENT,
            "Description": value(),
            "ManagedPolicyArns": _NAMES,
            "MaxSessionDuration": value("integer"),
            "Path": fixed(),
            "PermissionsBoundary": value(),
            "Policies": value("list", item=object_of({"PolicyDocument": _DOCUMENT, "PolicyName": value(required=True)})),
            "RoleName": fixed(),
            "Tags": _TAGS,
        },
    )

    def __init__(self, identities: Identities) -> None:
        self._iam = identities

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("RoleName") or generated_name(context))
        arn = f"arn:aws:iam::{context.account}:role{properties.get('Path') or '/'}{name}"
        return Physical(name, {"Arn": arn, **unknown(context, "RoleId")})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = chosen(properties, "Description", "MaxSessionDuration", "Path", "PermissionsBoundary", "Tags")
        trust = _text(properties["AssumeRolePolicyDocument"])
        try:
            await self._iam.create_role(context.caller, {**request, "RoleName": physical_id, "AssumeRolePolicyDocument": trust})
        except ServiceError as error:
            if error.name != "EntityAlreadyExists" or "RoleName" in properties:
                raise  # a generated name that is there is ours, from before a crash
        await self._set(context, physical_id, {}, properties)
        return await self._physical(context, physical_id)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        described = chosen(new, "Description", "MaxSessionDuration")
        await self._iam.update_role(context.caller, {"RoleName": physical.id, **described})
        trust = {"RoleName": physical.id, "PolicyDocument": _text(new["AssumeRolePolicyDocument"])}
        await self._iam.update_assume_role_policy(context.caller, trust)
        if new.get("PermissionsBoundary"):
            boundary = {"RoleName": physical.id, "PermissionsBoundary": new["PermissionsBoundary"]}
            await self._iam.put_role_permissions_boundary(context.caller, boundary)
        elif old.get("PermissionsBoundary"):
            await self._iam.delete_role_permissions_boundary(context.caller, {"RoleName": physical.id})
        if new.get("Tags"):
            await self._iam.tag_role(context.caller, {"RoleName": physical.id, "Tags": new["Tags"]})
        await self._set(context, physical.id, old, new)
        return await self._physical(context, physical.id)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        name: dict[str, Any] = {"RoleName": physical.id}
        attached = await _unless_gone(self._iam.list_attached_role_policies(context.caller, {**name, "MaxItems": 1000}))
        if attached is None:
            return
        for one in attached["AttachedPolicies"]:
            await _unless_gone(self._iam.detach_role_policy(context.caller, {**name, "PolicyArn": one["PolicyArn"]}))
        inline = await self._iam.list_role_policies(context.caller, {**name, "MaxItems": 1000})
        for policy in inline["PolicyNames"]:
            await _unless_gone(self._iam.delete_role_policy(context.caller, {**name, "PolicyName": policy}))
        await _unless_gone(self._iam.delete_role(context.caller, name))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None if "RoleName" in properties else Physical(physical_id)

    async def _set(self, context: Context, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """The role's own policies and the attached ones; what others put on it stays."""
        inline = {one["PolicyName"]: _text(one["PolicyDocument"]) for one in new.get("Policies") or ()}
        for policy, text in inline.items():
            put = {"RoleName": name, "PolicyName": policy, "PolicyDocument": text}
            await self._iam.put_role_policy(context.caller, put)
        for one in old.get("Policies") or ():
            if one["PolicyName"] not in inline:
                gone = {"RoleName": name, "PolicyName": one["PolicyName"]}
                await _unless_gone(self._iam.delete_role_policy(context.caller, gone))
        attached = list(dict.fromkeys(new.get("ManagedPolicyArns") or ()))
        for arn in attached:
            await self._iam.attach_role_policy(context.caller, {"RoleName": name, "PolicyArn": arn})
        for arn in old.get("ManagedPolicyArns") or ():
            if arn not in attached:
                await _unless_gone(self._iam.detach_role_policy(context.caller, {"RoleName": name, "PolicyArn": arn}))

    async def _physical(self, context: Context, name: str) -> Physical:
        role = (await self._iam.get_role(context.caller, {"RoleName": name}))["Role"]
        return Physical(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})


class InlineProvider:
    """AWS::IAM::Policy and AWS::IAM::RolePolicy: a policy within one role or several."""

    def __init__(self, identities: Identities, type: str, attributes: tuple[str, ...]) -> None:
        properties = {"PolicyDocument": _DOCUMENT, "PolicyName": fixed(required=True)}
        if type == "AWS::IAM::Policy":
            properties |= {"Groups": _NO_USERS, "Roles": _NAMES, "Users": _NO_USERS}
        else:
            properties["RoleName"] = fixed(required=True)
        self.kind = Kind(type=type, attributes=attributes, properties=properties)
        self._iam = identities

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        return self._physical(generated_name(context, 128))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        await self._put(context, properties)
        return self._physical(physical_id)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        await self._put(context, new)
        await self._remove(context, set(_roles(old)) - set(_roles(new)), old)
        return self._physical(physical.id)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await self._remove(context, _roles(properties), properties)

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return Physical(physical_id)

    async def _put(self, context: Context, properties: Mapping[str, Any]) -> None:
        said = {"PolicyName": properties["PolicyName"], "PolicyDocument": _text(properties["PolicyDocument"])}
        for role in _roles(properties):
            await self._iam.put_role_policy(context.caller, {"RoleName": role, **said})

    async def _remove(self, context: Context, roles: Iterable[str], properties: Mapping[str, Any]) -> None:
        for role in roles:
            gone = {"RoleName": role, "PolicyName": properties["PolicyName"]}
            await _unless_gone(self._iam.delete_role_policy(context.caller, gone))

    def _physical(self, id: str) -> Physical:
        return Physical(id, {"Id": id} if self.kind.attributes else {})


def _roles(properties: Mapping[str, Any]) -> list[str]:
    one = properties.get("RoleName")
    return [str(one)] if one else [str(name) for name in properties.get("Roles") or ()]


class ManagedPolicyProvider:
    """AWS::IAM::ManagedPolicy."""

    kind = Kind(
        type="AWS::IAM::ManagedPolicy",
        attributes=("PolicyArn", "PolicyId"),
        properties={
            "Description": fixed(),
            "Groups": _NO_USERS,
            "ManagedPolicyName": fixed(),
            "Path": fixed(),
            "PolicyDocument": _DOCUMENT,
            "Roles": _NAMES,
            "Tags": _TAGS,
            "Users": _NO_USERS,
        },
    )

    def __init__(self, identities: Identities) -> None:
        self._iam = identities

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = properties.get("ManagedPolicyName") or generated_name(context, 128)
        arn = f"arn:aws:iam::{context.account}:policy{properties.get('Path') or '/'}{name}"
        return Physical(arn, {"PolicyArn": arn, **unknown(context, "PolicyId")})

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        request = chosen(properties, "Description", "Path", "Tags")
        request |= {"PolicyName": physical_id.rpartition("/")[2], "PolicyDocument": _text(properties["PolicyDocument"])}
        try:
            await self._iam.create_policy(context.caller, request)
        except ServiceError as error:
            if error.name != "EntityAlreadyExists" or "ManagedPolicyName" in properties:
                raise
        await self._attach(context, physical_id, _roles(properties))
        return await self._physical(context, physical_id)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        arn = {"PolicyArn": physical.id}
        versions = await self._iam.list_policy_versions(context.caller, arn)
        document = {"PolicyDocument": _text(new["PolicyDocument"]), "SetAsDefault": True}
        for one in versions["Versions"]:
            if not one["IsDefaultVersion"]:
                await self._iam.delete_policy_version(context.caller, {**arn, "VersionId": one["VersionId"]})
        await self._iam.create_policy_version(context.caller, {**arn, **document})
        await self._attach(context, physical.id, _roles(new))
        await self._detach(context, physical.id, set(_roles(old)) - set(_roles(new)))
        return await self._physical(context, physical.id)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        arn = {"PolicyArn": physical.id}
        await self._detach(context, physical.id, _roles(properties))
        versions = await _unless_gone(self._iam.list_policy_versions(context.caller, arn))
        for one in versions["Versions"] if versions else ():
            if not one["IsDefaultVersion"]:
                await _unless_gone(self._iam.delete_policy_version(context.caller, {**arn, "VersionId": one["VersionId"]}))
        await _unless_gone(self._iam.delete_policy(context.caller, arn))

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None if "ManagedPolicyName" in properties else Physical(physical_id)

    async def _attach(self, context: Context, arn: str, roles: Iterable[str]) -> None:
        for role in roles:
            await self._iam.attach_role_policy(context.caller, {"RoleName": role, "PolicyArn": arn})

    async def _detach(self, context: Context, arn: str, roles: Iterable[str]) -> None:
        for role in roles:
            await _unless_gone(self._iam.detach_role_policy(context.caller, {"RoleName": role, "PolicyArn": arn}))

    async def _physical(self, context: Context, arn: str) -> Physical:
        policy = (await self._iam.get_policy(context.caller, {"PolicyArn": arn}))["Policy"]
        return Physical(arn, {"PolicyArn": arn, "PolicyId": policy["PolicyId"]})
