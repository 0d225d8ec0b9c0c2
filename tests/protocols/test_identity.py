"""IAM and STS through boto3: credentials that verify, are refused, and end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.aws_platform import AwsPlatform, aws_platform, called, code_of, failed

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
)
MAY_LIST = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["iam:ListRoles", "logs:*"], "Resource": "*"}]}
)


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[AwsPlatform]:
    async with aws_platform(tmp_path) as found:
        yield found


async def role_credentials(platform: AwsPlatform) -> dict[str, Any]:
    iam = platform.client("iam")
    role = await called(iam.create_role, RoleName="ci", AssumeRolePolicyDocument=TRUST, Tags=[{"Key": "a", "Value": "ü"}])
    assert role["Role"]["AssumeRolePolicyDocument"] == json.loads(TRUST)  # boto3 has decoded it
    await called(iam.put_role_policy, RoleName="ci", PolicyName="p", PolicyDocument=MAY_LIST)
    answer = await called(platform.client("sts").assume_role, RoleArn=role["Role"]["Arn"], RoleSessionName="run-1")
    found: dict[str, Any] = answer["Credentials"]
    return found


async def test_a_role_is_assumed_and_acts_within_its_policies(platform: AwsPlatform) -> None:
    credentials = await role_credentials(platform)
    me = await called(platform.client_of("sts", credentials).get_caller_identity)
    assert me["Arn"] == "arn:aws:sts::000000000000:assumed-role/ci/run-1"
    assert me["UserId"].endswith(":run-1")
    iam = platform.client_of("iam", credentials)
    assert [role["RoleName"] for role in (await called(iam.list_roles))["Roles"]] == ["ci"]
    assert (await called(platform.client_of("logs", credentials).describe_log_groups))["logGroups"] == []
    error = await failed(iam.delete_role, RoleName="ci")
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("AccessDenied", 403)
    assert "is not authorized to perform: iam:DeleteRole" in error["Error"]["Message"]


async def test_temporary_credentials_end(platform: AwsPlatform) -> None:
    credentials = await role_credentials(platform)
    platform.clock.ahead_ms = 10 * 60_000  # within the clock skew that a signature may have
    await called(platform.client_of("iam", credentials).list_roles)
    answer = await called(platform.client("sts").get_session_token, DurationSeconds=900)
    own = answer["Credentials"]
    await called(platform.client_of("iam", own).list_roles)
    platform.clock.ahead_ms = -10 * 60_000
    await called(platform.client_of("iam", own).list_roles)
    platform.clock.ahead_ms = 14 * 60_000
    answer = await called(platform.client("sts").get_session_token, DurationSeconds=900)
    assert await code_of(platform.client("iam", own["AccessKeyId"], "wrong", own["SessionToken"]).list_roles) == (
        "SignatureDoesNotMatch"
    )


async def test_an_expired_token_is_called_expired(platform: AwsPlatform) -> None:
    platform.clock.ahead_ms = -14 * 60_000
    own = (await called(platform.client("sts").get_session_token, DurationSeconds=900))["Credentials"]
    platform.clock.ahead_ms = 2 * 60_000
    error = await failed(platform.client_of("iam", own).list_roles)
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("ExpiredToken", 403)
    assert await code_of(platform.client_of("logs", own).describe_log_groups) == "ExpiredTokenException"
    assert await code_of(platform.client_of("s3", own).list_buckets) == "ExpiredToken"


async def test_a_session_needs_its_own_token(platform: AwsPlatform) -> None:
    own = (await called(platform.client("sts").get_session_token))["Credentials"]
    key, secret = own["AccessKeyId"], own["SecretAccessKey"]
    assert await code_of(platform.client("iam", key, secret).list_roles) == "InvalidClientTokenId"
    assert await code_of(platform.client("iam", key, secret, own["SessionToken"][:-1]).list_roles) == "InvalidClientTokenId"
    assert await code_of(platform.client("s3", key, secret, "x").list_buckets) == "InvalidToken"


async def test_constraints_of_the_model_in_the_words_of_iam(platform: AwsPlatform) -> None:
    error = await failed(platform.client("iam").create_role, RoleName="not a name", AssumeRolePolicyDocument=TRUST)
    assert error["Error"]["Code"] == "ValidationError"
    assert error["Error"]["Message"] == (
        "1 validation error detected: Value 'not a name' at 'roleName' failed to satisfy constraint: Member "
        "must satisfy regular "
        "expression pattern: [\\w+=,.@-]+"
    )


async def test_waiters_and_paginators(platform: AwsPlatform) -> None:
    iam = platform.client("iam")
    for number in range(5):
        await called(iam.create_role, RoleName=f"r{number}", AssumeRolePolicyDocument=TRUST)
    await called(iam.get_waiter("role_exists").wait, RoleName="r1", WaiterConfig={"Delay": 0, "MaxAttempts": 1})
    pages = await called(lambda: list(iam.get_paginator("list_roles").paginate(PaginationConfig={"PageSize": 2})))
    assert [[role["RoleName"] for role in page["Roles"]] for page in pages] == [["r0", "r1"], ["r2", "r3"], ["r4"]]
    assert await code_of(iam.get_role, RoleName="none") == "NoSuchEntity"
