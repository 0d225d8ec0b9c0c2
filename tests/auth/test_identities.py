"""Roles, managed policies and temporary credentials, called as the dispatcher calls them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest

from martlet.auth import Auth, Identities, Sessions, authorize
from martlet.auth.sessions import find_session
from martlet.clock import ManualClock
from martlet.errors import AccessDenied, MartletError, ServiceError, Unauthenticated, Unsupported
from martlet.store import Store
from martlet.types import ACCOUNT, Principal

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}],
    }
)
READ = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "lambda:Get*", "Resource": "*"}]}, indent=1
)
ADMIN = "arn:aws:iam::aws:policy/AdministratorAccess"


@dataclass
class Caller:
    principal: Principal
    account: str = ACCOUNT


ME = Caller(Principal("root", "root"))


@pytest.fixture
def iam(store: Store) -> Identities:
    return Identities(store)


@pytest.fixture
def sts(store: Store, clock: ManualClock) -> Sessions:
    return Sessions(store, clock)


async def refused(call: Any) -> str:
    with pytest.raises(MartletError) as caught:
        await call
    error = caught.value
    return f"{error.name} {error.http_status} {error.message}" if isinstance(error, ServiceError) else type(error).__name__


async def new_role(iam: Identities, name: str = "deployer", **more: Any) -> dict[str, Any]:
    answer = await iam.create_role(ME, {"RoleName": name, "AssumeRolePolicyDocument": TRUST, **more})
    found: dict[str, Any] = answer["Role"]
    return found


# --- roles


async def test_a_role_is_remembered(iam: Identities) -> None:
    made = await new_role(iam, Path="/ci/", Description="d", MaxSessionDuration=7200, Tags=[{"Key": "a", "Value": "b"}])
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/ci/deployer"
    assert made["RoleId"].startswith("AROA")
    assert len(made["RoleId"]) == 21
    found = (await iam.get_role(ME, {"RoleName": "deployer"}))["Role"]
    assert found == {**made, "RoleLastUsed": {}}
    assert json.loads(unquote(found["AssumeRolePolicyDocument"])) == json.loads(TRUST)
    assert found["Tags"] == [{"Key": "a", "Value": "b"}]
    listed = await iam.list_roles(ME, {"PathPrefix": "/ci/"})
    assert [role["RoleName"] for role in listed["Roles"]] == ["deployer"]
    assert "Tags" not in listed["Roles"][0]
    assert (await iam.list_roles(ME, {"PathPrefix": "/other/"}))["Roles"] == []


async def test_a_role_can_be_changed(iam: Identities) -> None:
    await new_role(iam, Description="old")
    other = TRUST.replace("sts:AssumeRole", "sts:*")
    await iam.update_assume_role_policy(ME, {"RoleName": "deployer", "PolicyDocument": other})
    await iam.update_role(ME, {"RoleName": "deployer", "MaxSessionDuration": 3700})
    await iam.tag_role(ME, {"RoleName": "deployer", "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]})
    await iam.untag_role(ME, {"RoleName": "deployer", "TagKeys": ["a", "none"]})
    found = (await iam.get_role(ME, {"RoleName": "deployer"}))["Role"]
    assert unquote(found["AssumeRolePolicyDocument"]) == other
    assert (found["Description"], found["MaxSessionDuration"], found["Tags"]) == (None, 3700, [{"Key": "b", "Value": "2"}])
    assert (await iam.list_role_tags(ME, {"RoleName": "deployer"}))["Tags"] == [{"Key": "b", "Value": "2"}]


async def test_errors_of_roles(iam: Identities) -> None:
    none = "NoSuchEntity 404 The role with name none cannot be found."
    for call in (iam.get_role, iam.delete_role, iam.list_role_policies, iam.list_attached_role_policies, iam.list_role_tags):
        assert await refused(call(ME, {"RoleName": "none"})) == none
    assert await refused(iam.update_assume_role_policy(ME, {"RoleName": "none", "PolicyDocument": TRUST})) == none
    await new_role(iam)
    for name in ("deployer", "DEPLOYER"):
        text = f"EntityAlreadyExists 409 Role with name {name} already exists."
        assert await refused(new_role(iam, name)) == text
    bad = {"RoleName": "bad", "AssumeRolePolicyDocument": READ}
    assert await refused(iam.create_role(ME, bad)) == "MalformedPolicyDocument 400 Has prohibited field Resource"
    none = "arn:aws:iam::aws:policy/ReadOnlyAccess"  # its document is not here, so it cannot be a boundary
    assert await refused(new_role(iam, "bounded", PermissionsBoundary=none)) == "Unsupported"
    assert (await new_role(iam, "bounded", PermissionsBoundary=ADMIN))["PermissionsBoundary"]["PermissionsBoundaryArn"] == ADMIN
    twice = [{"Key": "a", "Value": "1"}, {"Key": "A", "Value": "2"}]
    assert (await refused(new_role(iam, "tagged", Tags=twice))).startswith("InvalidInput 400 Duplicate tag keys")
    many = [{"Key": f"k{n}", "Value": ""} for n in range(50)]
    await iam.tag_role(ME, {"RoleName": "deployer", "Tags": many})
    more = iam.tag_role(ME, {"RoleName": "deployer", "Tags": [{"Key": "more", "Value": ""}]})
    assert (await refused(more)).startswith("LimitExceeded 409")


async def test_a_role_in_use_is_not_deleted(iam: Identities) -> None:
    await new_role(iam)
    inline = {"RoleName": "deployer", "PolicyName": "p", "PolicyDocument": READ}
    await iam.put_role_policy(ME, inline)
    assert await refused(iam.delete_role(ME, inline)) == "DeleteConflict 409 Cannot delete entity, must delete policies first."
    await iam.attach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": ADMIN})
    text = "DeleteConflict 409 Cannot delete entity, must detach all policies first."
    assert await refused(iam.delete_role(ME, inline)) == text
    await iam.detach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": ADMIN})
    await iam.delete_role_policy(ME, inline)
    await iam.delete_role(ME, {"RoleName": "deployer"})
    assert (await iam.list_roles(ME, {}))["Roles"] == []


async def test_inline_policies(iam: Identities) -> None:
    await new_role(iam)
    for name in ("b", "a"):
        await iam.put_role_policy(ME, {"RoleName": "deployer", "PolicyName": name, "PolicyDocument": READ})
    assert (await iam.list_role_policies(ME, {"RoleName": "deployer"}))["PolicyNames"] == ["a", "b"]
    found = await iam.get_role_policy(ME, {"RoleName": "deployer", "PolicyName": "a"})
    assert unquote(found["PolicyDocument"]) == READ  # byte for byte: tools compare it
    text = "NoSuchEntity 404 The role policy with name none cannot be found."
    for call in (iam.get_role_policy, iam.delete_role_policy):
        assert await refused(call(ME, {"RoleName": "deployer", "PolicyName": "none"})) == text
    broken = {"RoleName": "deployer", "PolicyName": "c", "PolicyDocument": TRUST}
    assert (await refused(iam.put_role_policy(ME, broken))).startswith("MalformedPolicyDocument 400")
    long = READ.replace("lambda:Get*", "lambda:" + "G" * 10_300)
    huge = {"RoleName": "deployer", "PolicyName": "c", "PolicyDocument": long}
    assert (await refused(iam.put_role_policy(ME, huge))).startswith("LimitExceeded 409 Maximum policy size of 10240")


# --- managed policies


async def new_policy(iam: Identities, name: str = "read", **more: Any) -> str:
    answer = await iam.create_policy(ME, {"PolicyName": name, "PolicyDocument": READ, **more})
    return str(answer["Policy"]["Arn"])


async def test_a_managed_policy_and_its_versions(iam: Identities) -> None:
    arn = await new_policy(iam, Path="/ci/", Description="d")
    assert arn == f"arn:aws:iam::{ACCOUNT}:policy/ci/read"
    for number in range(2, 6):
        made = await iam.create_policy_version(ME, {"PolicyArn": arn, "PolicyDocument": READ, "SetAsDefault": number == 3})
        assert made["PolicyVersion"]["VersionId"] == f"v{number}"
    limit = "LimitExceeded 409 A managed policy can have up to 5 versions. Before you create a new version, you must delete an"
    assert (await refused(iam.create_policy_version(ME, {"PolicyArn": arn, "PolicyDocument": READ}))).startswith(limit)
    found = (await iam.get_policy(ME, {"PolicyArn": arn}))["Policy"]
    assert (found["DefaultVersionId"], found["AttachmentCount"], found["Description"]) == ("v3", 0, "d")
    versions = (await iam.list_policy_versions(ME, {"PolicyArn": arn, "MaxItems": 3}))["Versions"]
    assert [version["VersionId"] for version in versions] == ["v5", "v4", "v3"]
    rest = await iam.list_policy_versions(ME, {"PolicyArn": arn, "Marker": "v3"})
    assert [version["VersionId"] for version in rest["Versions"]] == ["v2", "v1"]
    assert (await refused(iam.delete_policy_version(ME, {"PolicyArn": arn, "VersionId": "v3"}))).startswith(
        "DeleteConflict 409"
    )
    await iam.delete_policy_version(ME, {"PolicyArn": arn, "VersionId": "v5"})
    made = await iam.create_policy_version(ME, {"PolicyArn": arn, "PolicyDocument": READ})
    assert made["PolicyVersion"]["VersionId"] == "v6"  # no number is given twice
    await iam.set_default_policy_version(ME, {"PolicyArn": arn, "VersionId": "v6"})
    version = (await iam.get_policy_version(ME, {"PolicyArn": arn, "VersionId": "v6"}))["PolicyVersion"]
    assert version["IsDefaultVersion"]
    assert unquote(version["Document"]) == READ
    for name in ("v9", "v0", "x", "v" + "9" * 30):
        assert (await refused(iam.get_policy_version(ME, {"PolicyArn": arn, "VersionId": name}))).startswith("NoSuchEntity 404")
    assert "This policy has more than one version" in await refused(iam.delete_policy(ME, {"PolicyArn": arn}))


async def test_policies_are_attached(iam: Identities) -> None:
    await new_role(iam)
    arn = await new_policy(iam)
    for attached in (arn, arn, ADMIN):
        await iam.attach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": attached})
    found = (await iam.list_attached_role_policies(ME, {"RoleName": "deployer"}))["AttachedPolicies"]
    assert found == [{"PolicyName": "read", "PolicyArn": arn}, {"PolicyName": "AdministratorAccess", "PolicyArn": ADMIN}]
    entities = await iam.list_entities_for_policy(ME, {"PolicyArn": arn})
    assert [role["RoleName"] for role in entities["PolicyRoles"]] == ["deployer"]
    assert (await iam.get_policy(ME, {"PolicyArn": arn}))["Policy"]["AttachmentCount"] == 1
    text = "DeleteConflict 409 Cannot delete a policy attached to entities."
    assert await refused(iam.delete_policy(ME, {"PolicyArn": arn})) == text
    none = f"arn:aws:iam::{ACCOUNT}:policy/none"
    text = f"NoSuchEntity 404 Policy {none} does not exist or is not attachable."
    assert await refused(iam.attach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": none})) == text
    await iam.detach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": arn})
    text = f"NoSuchEntity 404 Policy {arn} was not found."
    assert await refused(iam.detach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": arn})) == text
    await iam.delete_policy(ME, {"PolicyArn": arn})
    assert await refused(iam.get_policy(ME, {"PolicyArn": arn})) == text
    assert await refused(iam.get_policy(ME, {"PolicyArn": ADMIN})) == "Unsupported"
    assert (await refused(new_policy(iam, "read", PolicyDocument=TRUST))).startswith("MalformedPolicyDocument")


async def test_a_policy_is_there_once(iam: Identities) -> None:
    await new_policy(iam)
    text = "EntityAlreadyExists 409 A policy called READ already exists. Duplicate names are not allowed."
    assert await refused(new_policy(iam, "READ")) == text
    ways = [iam.create_role(ME, {"RoleName": "same", "AssumeRolePolicyDocument": TRUST}) for _ in range(5)]
    results = await asyncio.gather(*ways, return_exceptions=True)
    assert sum(isinstance(result, dict) for result in results) == 1


async def test_lists_come_in_pages(iam: Identities) -> None:
    for number in range(7):
        await new_role(iam, f"r{number}")
        await new_policy(iam, f"p{number}")
    for call, member, name in ((iam.list_roles, "Roles", "RoleName"), (iam.list_policies, "Policies", "PolicyName")):
        found: list[str] = []
        request: dict[str, Any] = {"MaxItems": 3}
        while True:
            page = await call(ME, request)
            found += [item[name] for item in page[member]]
            if not page["IsTruncated"]:
                break
            request["Marker"] = page["Marker"]
        assert len(found) == len(set(found)) == 7
    assert await refused(iam.list_policies(ME, {"Scope": "AWS"})) == "Unsupported"
    assert (await iam.list_policies(ME, {"OnlyAttached": True}))["Policies"] == []


# --- temporary credentials


async def test_a_session_of_the_owner(sts: Sessions, store: Store, clock: ManualClock) -> None:
    found = (await sts.get_session_token(ME, {"DurationSeconds": 900}))["Credentials"]
    assert found["AccessKeyId"].startswith("ASIA")
    assert found["Expiration"].timestamp() * 1000 == clock.now_ms() + 900_000
    longest = (await sts.get_session_token(ME, {"DurationSeconds": 129_600}))["Credentials"]
    assert longest["Expiration"].timestamp() * 1000 == clock.now_ms() + 3_600_000  # the root user's: at most an hour
    role = Caller(Principal("role", "assumed-role/r/s"))
    assert (await refused(sts.get_session_token(role, {}))).startswith("AccessDenied 403 Cannot call GetSessionToken")
    assert await refused(sts.get_session_token(ME, {"SerialNumber": "x" * 9, "TokenCode": "123456"})) == "Unsupported"


async def assumed(iam: Identities, sts: Sessions, **more: Any) -> dict[str, Any]:
    arn = f"arn:aws:iam::{ACCOUNT}:role/deployer"
    return await sts.assume_role(ME, {"RoleArn": arn, "RoleSessionName": "ci", **more})


async def test_a_session_of_a_role_may_what_its_policies_grant_now(
    iam: Identities, sts: Sessions, auth: Auth, store: Store, clock: ManualClock
) -> None:
    role = await new_role(iam)
    await iam.put_role_policy(ME, {"RoleName": "deployer", "PolicyName": "p", "PolicyDocument": READ})
    answer = await assumed(iam, sts, SourceIdentity="me")
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/ci"
    assert answer["AssumedRoleUser"] == {"AssumedRoleId": f"{role['RoleId']}:ci", "Arn": arn}
    session = store.read(lambda reader: find_session(reader, answer["Credentials"]["AccessKeyId"]))
    assert session is not None

    def may(action: str) -> bool:
        try:
            authorize(store.read(session.acting), action, "*")
        except AccessDenied:
            return False
        return True

    assert (may("lambda:GetFunction"), may("lambda:DeleteFunction"), may("s3:GetObject")) == (True, False, False)
    await iam.attach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": ADMIN})
    assert may("s3:GetObject")
    await iam.detach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": ADMIN})
    assert not may("s3:GetObject")
    me = await sts.get_caller_identity(Caller(store.read(session.acting)), {})
    assert me == {"UserId": f"{role['RoleId']}:ci", "Account": ACCOUNT, "Arn": arn}
    await iam.delete_role_policy(ME, {"RoleName": "deployer", "PolicyName": "p"})
    await iam.delete_role(ME, {"RoleName": "deployer"})
    await new_role(iam)  # of the same name, but another
    await iam.attach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": ADMIN})
    assert not may("lambda:GetFunction")


async def test_who_may_not_assume_a_role(iam: Identities, sts: Sessions) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:role/deployer"
    text = f"AccessDenied 403 User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: sts:AssumeRole on resource: {arn}"
    assert await refused(assumed(iam, sts)) == text
    service = TRUST.replace(f'{{"AWS": "{ACCOUNT}"}}', '{"Service": "lambda.amazonaws.com"}')
    await iam.create_role(ME, {"RoleName": "deployer", "AssumeRolePolicyDocument": service})
    assert await refused(assumed(iam, sts)) == text
    await iam.update_assume_role_policy(ME, {"RoleName": "deployer", "PolicyDocument": TRUST})
    await assumed(iam, sts)
    for wrong in (f"arn:aws:iam::{ACCOUNT}:role/other/deployer", "arn:aws:iam::111111111111:role/deployer", "deployer" * 3):
        call = sts.assume_role(ME, {"RoleArn": wrong, "RoleSessionName": "ci"})
        assert (await refused(call)).startswith("AccessDenied 403")
    long = "ValidationError 400 The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
    assert await refused(assumed(iam, sts, DurationSeconds=3601)) == long
    for name in ("Tags", "TransitiveTagKeys"):
        with pytest.raises(Unsupported, match=name):
            await assumed(iam, sts, **{name: ["x"]})


async def test_a_deny_a_boundary_and_a_session_policy_each_take_away(iam: Identities, sts: Sessions, store: Store) -> None:
    await new_role(iam)
    read = await new_policy(iam)
    await iam.attach_role_policy(ME, {"RoleName": "deployer", "PolicyArn": ADMIN})
    key = (await assumed(iam, sts))["Credentials"]["AccessKeyId"]
    narrow = (await assumed(iam, sts, Policy=READ))["Credentials"]["AccessKeyId"]
    by_name = (await assumed(iam, sts, PolicyArns=[{"arn": read}]))["Credentials"]["AccessKeyId"]

    def may(key: str, action: str) -> bool:
        session = store.read(lambda reader: find_session(reader, key))
        assert session is not None
        try:
            authorize(store.read(session.acting), action, "*")
        except AccessDenied:
            return False
        return True

    assert [(may(one, "lambda:GetFunction"), may(one, "s3:GetObject")) for one in (key, narrow, by_name)] == [
        (True, True),
        (True, False),
        (True, False),
    ]
    await iam.put_role_permissions_boundary(ME, {"RoleName": "deployer", "PermissionsBoundary": read})
    assert (may(key, "lambda:GetFunction"), may(key, "s3:GetObject")) == (True, False)
    shown = (await iam.get_role(ME, {"RoleName": "deployer"}))["Role"]["PermissionsBoundary"]
    assert shown == {"PermissionsBoundaryType": "PermissionsBoundaryPolicy", "PermissionsBoundaryArn": read}
    assert (await refused(iam.delete_policy(ME, {"PolicyArn": read}))).startswith("DeleteConflict")
    await iam.delete_role_permissions_boundary(ME, {"RoleName": "deployer"})
    assert may(key, "s3:GetObject")
    denies = READ.replace("Allow", "Deny")
    await iam.put_role_policy(ME, {"RoleName": "deployer", "PolicyName": "p", "PolicyDocument": denies})
    assert (may(key, "lambda:GetFunction"), may(key, "s3:GetObject")) == (False, True)


async def test_a_denial_says_who_what_where_and_whether_something_denies_it(
    iam: Identities, sts: Sessions, store: Store
) -> None:
    await new_role(iam)
    await iam.put_role_policy(ME, {"RoleName": "deployer", "PolicyName": "p", "PolicyDocument": READ.replace("Allow", "Deny")})
    key = (await assumed(iam, sts))["Credentials"]["AccessKeyId"]
    session = store.read(lambda reader: find_session(reader, key))
    assert session is not None
    me = f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/ci"
    shop = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:shop"
    for action, resource, named, why in (
        ("lambda:GetFunction", "shop", shop, "with an explicit deny in a policy"),
        ("lambda:InvokeFunction", "shop", shop, "because no identity-based policy allows the lambda:InvokeFunction action"),
        (
            "documents:Get",
            "a/b",
            f"arn:martlet:documents:us-east-1:{ACCOUNT}:a/b",
            "because no identity-based policy allows the documents:Get action",
        ),
    ):
        with pytest.raises(AccessDenied) as caught:
            authorize(store.read(session.acting), action, resource)
        assert caught.value.message == f"User: {me} is not authorized to perform: {action} on resource: {named} {why}"
        assert caught.value.details["explicit"] is why.startswith("with")


async def test_sessions_that_are_over_are_swept_out(sts: Sessions, store: Store, clock: ManualClock) -> None:
    key = (await sts.get_session_token(ME, {}))["Credentials"]["AccessKeyId"]
    clock.advance(3_601)
    await sts.get_session_token(ME, {})
    session = store.read(lambda reader: find_session(reader, key))
    assert session is not None  # still known, so that its owner hears why
    with pytest.raises(Unauthenticated) as caught:
        session.check("wrong", clock.now_ms())
    assert caught.value.details["reason"] == "InvalidToken"
    clock.advance(24 * 3_600)
    await sts.get_session_token(ME, {})
    assert store.read(lambda reader: find_session(reader, key)) is None
