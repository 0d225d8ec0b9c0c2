"""Users, their keys and groups: signed requests are decided by the policies of the user and of its groups."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from martlet.auth import Auth, Identities, Sessions, authorize, seen_from
from martlet.clock import ManualClock
from martlet.errors import AccessDenied, MartletError, ServiceError, Unauthenticated
from martlet.store import Store
from martlet.types import ACCOUNT, Principal


@dataclass
class Caller:
    principal: Principal
    account: str = ACCOUNT


ROOT = Caller(Principal("root", "root"))


def policy(action: str, resource: str = "*", effect: str = "Allow", **more: Any) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}]}
    )


@pytest.fixture
def iam(store: Store) -> Identities:
    return Identities(store)


@pytest.fixture
def sts(store: Store, clock: ManualClock) -> Sessions:
    return Sessions(store, clock)


def signed(key: dict[str, str], clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    request = AWSRequest(method="GET", url="http://localhost/", headers={"Host": "localhost"})
    told = BotoCredentials(key["AccessKeyId"], key["SecretAccessKey"], key.get("SessionToken"))
    botocore.auth.SigV4Auth(told, "lambda", "us-east-1").add_auth(request)
    return [(name.encode(), value.encode()) for name, value in request.headers.items()]


def may(principal: Principal, action: str, resource: str = "*", context: dict[str, Any] | None = None) -> bool:
    try:
        authorize(principal, action, resource, context)
    except AccessDenied:
        return False
    return True


async def refused(call: Any) -> str:
    with pytest.raises(MartletError) as caught:
        await call
    error = caught.value
    return f"{error.name} {error.http_status} {error.message}" if isinstance(error, ServiceError) else type(error).__name__


async def new_user(iam: Identities, name: str = "ada", text: str = "", **more: Any) -> dict[str, str]:
    """A user with a key; the key."""
    await iam.create_user(ROOT, {"UserName": name, **more})
    if text:
        await iam.put_user_policy(ROOT, {"UserName": name, "PolicyName": "p", "PolicyDocument": text})
    found: dict[str, str] = (await iam.create_access_key(ROOT, {"UserName": name}))["AccessKey"]
    return found


async def test_a_users_key_signs_and_its_policies_decide(
    iam: Identities, auth: Auth, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = policy("s3:GetObject", "arn:aws:s3:::home/${aws:username}/*", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})
    key = await new_user(iam, text=own, Path="/staff/", Tags=[{"Key": "team", "Value": "x"}])
    assert key["AccessKeyId"].startswith("AKIA")
    found = auth.authenticate("GET", b"/", b"", signed(key, clock, monkeypatch), b"")
    assert (found.kind, found.name) == ("user", "ada")
    near, far = seen_from(found, "10.1.2.3"), seen_from(found, "192.0.2.1")
    assert may(near, "s3:GetObject", "arn:aws:s3:::home/ada/x")
    assert not may(near, "s3:GetObject", "arn:aws:s3:::home/bob/x")
    assert not may(far, "s3:GetObject", "arn:aws:s3:::home/ada/x")
    assert not may(found, "s3:GetObject", "arn:aws:s3:::home/ada/x"), "an address that is not known is not in a network"
    with pytest.raises(AccessDenied) as caught:
        authorize(near, "lambda:DeleteFunction", "shop")
    assert str(caught.value).startswith(f"User: arn:aws:iam::{ACCOUNT}:user/staff/ada is not authorized to perform")


async def test_a_secret_is_shown_once(iam: Identities, store: Store) -> None:
    key = await new_user(iam)
    listed = (await iam.list_access_keys(ROOT, {"UserName": "ada"}))["AccessKeyMetadata"]
    assert [(one["AccessKeyId"], one["Status"], set(one)) for one in listed] == [
        (key["AccessKeyId"], "Active", {"UserName", "AccessKeyId", "Status", "CreateDate"})
    ]
    from martlet.auth import people

    stored = people.find_key(store.get(people.key_row(key["AccessKeyId"])))
    assert key["SecretAccessKey"] not in repr(stored)


async def test_a_key_that_is_off_or_gone_opens_nothing(
    iam: Identities, auth: Auth, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await new_user(iam, text=policy("*"))
    headers = signed(key, clock, monkeypatch)
    which = {"UserName": "ada", "AccessKeyId": key["AccessKeyId"]}
    await iam.update_access_key(ROOT, {**which, "Status": "Inactive"})
    with pytest.raises(Unauthenticated) as caught:
        auth.authenticate("GET", b"/", b"", headers, b"")
    assert caught.value.details["reason"] == "InvalidClientTokenId"
    await iam.update_access_key(ROOT, {**which, "Status": "Active"})
    assert may(auth.authenticate("GET", b"/", b"", headers, b""), "s3:GetObject")
    wrong = signed({**key, "SecretAccessKey": "x" * 40}, clock, monkeypatch)
    with pytest.raises(Unauthenticated):
        auth.authenticate("GET", b"/", b"", wrong, b"")
    await iam.delete_access_key(ROOT, which)
    with pytest.raises(Unauthenticated):
        auth.authenticate("GET", b"/", b"", headers, b"")
    assert (await refused(iam.delete_access_key(ROOT, which))).startswith("NoSuchEntity 404 The Access Key with id AKIA")


async def test_users_are_there_once_and_go_bare(iam: Identities) -> None:
    key = await new_user(iam, text=policy("s3:*"))
    assert (
        await refused(iam.create_user(ROOT, {"UserName": "ADA"}))
        == "EntityAlreadyExists 409 User with name ADA already exists."
    )
    await iam.create_access_key(ROOT, {"UserName": "ada"})
    quota = "LimitExceeded 409 Cannot exceed quota for AccessKeysPerUser: 2"
    assert await refused(iam.create_access_key(ROOT, {"UserName": "ada"})) == quota
    first = "DeleteConflict 409 Cannot delete entity, must"
    assert (await refused(iam.delete_user(ROOT, {"UserName": "ada"}))) == f"{first} delete policies first."
    await iam.delete_user_policy(ROOT, {"UserName": "ada", "PolicyName": "p"})
    assert (await refused(iam.delete_user(ROOT, {"UserName": "ada"}))) == f"{first} delete access keys first."
    for one in (await iam.list_access_keys(ROOT, {"UserName": "ada"}))["AccessKeyMetadata"]:
        await iam.delete_access_key(ROOT, {"UserName": "ada", "AccessKeyId": one["AccessKeyId"]})
    await iam.delete_user(ROOT, {"UserName": "ada"})
    gone = "NoSuchEntity 404 The user with name ada cannot be found."
    assert await refused(iam.get_user(ROOT, {"UserName": "ada"})) == gone
    assert await refused(iam.create_access_key(ROOT, {"UserName": "ada"})) == gone
    assert key["UserName"] == "ada"


async def test_a_group_gives_what_its_policies_say(
    iam: Identities, auth: Auth, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await new_user(iam)
    await iam.create_group(ROOT, {"GroupName": "ops"})
    await iam.put_group_policy(ROOT, {"GroupName": "ops", "PolicyName": "p", "PolicyDocument": policy("sqs:*")})
    headers = signed(key, clock, monkeypatch)

    def now(action: str) -> bool:
        return may(auth.authenticate("GET", b"/", b"", headers, b""), action)

    assert not now("sqs:SendMessage")
    await iam.add_user_to_group(ROOT, {"GroupName": "ops", "UserName": "ada"})
    assert now("sqs:SendMessage")
    assert [one["UserName"] for one in (await iam.get_group(ROOT, {"GroupName": "ops"}))["Users"]] == ["ada"]
    assert [one["GroupName"] for one in (await iam.list_groups_for_user(ROOT, {"UserName": "ada"}))["Groups"]] == ["ops"]
    denies = {"UserName": "ada", "PolicyName": "no", "PolicyDocument": policy("sqs:SendMessage", effect="Deny")}
    await iam.put_user_policy(ROOT, denies)
    assert (now("sqs:SendMessage"), now("sqs:ReceiveMessage")) == (False, True)
    assert (await refused(iam.delete_group(ROOT, {"GroupName": "ops"}))).startswith("DeleteConflict")
    await iam.remove_user_from_group(ROOT, {"GroupName": "ops", "UserName": "ada"})
    assert not now("sqs:ReceiveMessage")


async def test_a_user_may_speak_of_itself_only_if_that_is_allowed(
    iam: Identities, sts: Sessions, auth: Auth, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = policy("iam:*AccessKey*", "arn:aws:iam::*:user/${aws:username}")
    key = await new_user(iam, text=own)
    me = Caller(auth.authenticate("GET", b"/", b"", signed(key, clock, monkeypatch), b""))
    assert len((await iam.list_access_keys(me, {}))["AccessKeyMetadata"]) == 1
    assert await refused(iam.get_user(me, {})) == "AccessDenied"
    assert iam.permission("DeleteAccessKey", {"UserName": "bob"}) == ("iam:DeleteAccessKey", f"arn:aws:iam::{ACCOUNT}:user/bob")
    assert not may(me.principal, *iam.permission("DeleteAccessKey", {"UserName": "bob"}))  # type: ignore[misc]
    arn = f"arn:aws:iam::{ACCOUNT}:user/ada"
    identity = await sts.get_caller_identity(me, {})
    assert (identity["Arn"], identity["UserId"][:4]) == (arn, "AIDA")
    key = (await sts.get_session_token(me, {"DurationSeconds": 900}))["Credentials"]
    again = auth.authenticate("GET", b"/", b"", signed(key, clock, monkeypatch), b"")
    assert (await sts.get_caller_identity(Caller(again), {}))["Arn"] == arn
    await iam.delete_user_policy(ROOT, {"UserName": "ada", "PolicyName": "p"})
    for one in (await iam.list_access_keys(ROOT, {"UserName": "ada"}))["AccessKeyMetadata"]:
        await iam.delete_access_key(ROOT, {"UserName": "ada", "AccessKeyId": one["AccessKeyId"]})
    await iam.delete_user(ROOT, {"UserName": "ada"})
    await new_user(iam, text=policy("*"))  # another of the same name
    assert not may(auth.authenticate("GET", b"/", b"", signed(key, clock, monkeypatch), b""), "s3:GetObject")


async def test_whom_a_role_names_needs_no_permission_of_its_own(
    iam: Identities, sts: Sessions, auth: Auth, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await new_user(iam)
    me = Caller(auth.authenticate("GET", b"/", b"", signed(key, clock, monkeypatch), b""))
    role = f"arn:aws:iam::{ACCOUNT}:role/r"

    def trust(who: str) -> str:
        statement = {"Effect": "Allow", "Principal": {"AWS": who}, "Action": "sts:AssumeRole"}
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    request = {"RoleArn": role, "RoleSessionName": "s"}
    await iam.create_role(ROOT, {"RoleName": "r", "AssumeRolePolicyDocument": trust(f"arn:aws:iam::{ACCOUNT}:user/ada")})
    await sts.assume_role(me, request)
    await iam.update_assume_role_policy(ROOT, {"RoleName": "r", "PolicyDocument": trust(ACCOUNT)})
    assert (await refused(sts.assume_role(me, request))).startswith("AccessDenied 403")
    await iam.put_user_policy(ROOT, {"UserName": "ada", "PolicyName": "p", "PolicyDocument": policy("sts:AssumeRole", role)})
    me = Caller(auth.authenticate("GET", b"/", b"", signed(key, clock, monkeypatch), b""))
    await sts.assume_role(me, request)
    await iam.update_assume_role_policy(ROOT, {"RoleName": "r", "PolicyDocument": trust(f"arn:aws:iam::{ACCOUNT}:user/ada")})
    denies = policy("sts:*", effect="Deny")
    await iam.put_user_policy(ROOT, {"UserName": "ada", "PolicyName": "p", "PolicyDocument": denies})
    me = Caller(auth.authenticate("GET", b"/", b"", signed(key, clock, monkeypatch), b""))
    assert (await refused(sts.assume_role(me, request))).startswith("AccessDenied 403")
