"""A user of the platform tries to be more than it is, by what boto3 can send."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.running_platform import RunningPlatform

ACCOUNT = "000000000000"
VALUE = "hunter2-hunter2"
Client = Callable[..., Any]


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: Any, resource: Any = "*") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    running = RunningPlatform(None, tmp_path_factory.mktemp("identities") / "data", "--sandbox", "process")
    yield running
    running.stop()


def client(platform: RunningPlatform, service: str, key: dict[str, str] | None = None) -> Any:
    if key is None:
        owner = json.loads((platform.data / "credentials.json").read_text())
        key = {"AccessKeyId": owner["access_key_id"], "SecretAccessKey": owner["secret_access_key"]}
    return boto3.client(
        service,
        endpoint_url=platform.api_url,
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key.get("SessionToken"),
        config=Config(retries={"total_max_attempts": 1}),
    )


def user(platform: RunningPlatform, name: str, text: str) -> dict[str, str]:
    iam = client(platform, "iam")
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=text)
    found: dict[str, str] = iam.create_access_key(UserName=name)["AccessKey"]
    return found


def refused(call: Callable[..., Any], **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    assert VALUE not in str(caught.value.response)
    return f"{error['Code']}: {error['Message']}"


def archive() -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as packed:
        packed.writestr("m.py", "def f(event, context):\n    return 1\n")
    return body.getvalue()


def test_secrets_of_another_app_stay_its_own(platform: RunningPlatform) -> None:
    owner = client(platform, "secretsmanager")
    arn = owner.create_secret(Name="shop/db", SecretString=VALUE)["ARN"]
    client(platform, "ssm").put_parameter(Name="/shop/key", Type="SecureString", Value=VALUE)
    own = policy(
        allow("secretsmanager:*", "arn:aws:secretsmanager:*:*:secret:blog/*"),
        allow("ssm:*", "arn:aws:ssm:*:*:parameter/blog*"),
    )
    key = user(platform, "blog", own)
    secrets, parameters = client(platform, "secretsmanager", key), client(platform, "ssm", key)
    for wanted in ("shop/db", arn, arn[:-7]):
        told = refused(secrets.get_secret_value, SecretId=wanted)
        assert told.startswith(
            "AccessDeniedException: User: arn:aws:iam::000000000000:user/blog is not authorized to perform: "
        )
    assert refused(secrets.list_secrets).startswith("AccessDenied")
    assert refused(parameters.get_parameter, Name="/shop/key", WithDecryption=True).startswith("AccessDenied")
    assert refused(parameters.get_parameters, Names=["/blog/x", "/shop/key"]).startswith("AccessDenied")
    assert refused(parameters.get_parameters_by_path, Path="/", Recursive=True).startswith("AccessDenied")
    secrets.create_secret(Name="blog/db", SecretString="mine")
    assert secrets.get_secret_value(SecretId="blog/db")["SecretString"] == "mine"
    parameters.put_parameter(Name="/blog/key", Type="SecureString", Value="mine")
    found = parameters.get_parameters_by_path(Path="/blog", WithDecryption=True)["Parameters"]
    assert [one["Value"] for one in found] == ["mine"]
    assert client(platform, "secretsmanager").get_secret_value(SecretId=arn)["SecretString"] == VALUE


def test_no_secret_lies_open_in_the_data_folder(platform: RunningPlatform) -> None:
    owner = client(platform, "secretsmanager")
    owner.create_secret(Name="disk", SecretString="a-very-plain-text")
    files = [path for path in platform.data.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"a-very-plain-text" in path.read_bytes()]
    assert (platform.data / "secret.key").stat().st_mode & 0o777 == 0o600
    assert b"a-very-plain-text" not in Path(platform.output).read_bytes()


def test_a_role_that_may_not_be_passed_is_not(platform: RunningPlatform) -> None:
    iam = client(platform, "iam")
    trust = policy({"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"})
    for name in ("admin", "small"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
    only = allow("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/small")
    key = user(platform, "deployer", policy(allow("lambda:*"), only))
    functions = client(platform, "lambda", key)
    request = {"Runtime": "python3.11", "Handler": "m.f", "Code": {"ZipFile": archive()}}
    admin = f"arn:aws:iam::{ACCOUNT}:role/admin"
    told = refused(functions.create_function, FunctionName="f", Role=admin, **request)
    assert told.startswith("AccessDeniedException")
    assert f"iam:PassRole on resource: {admin}" in told
    functions.create_function(FunctionName="f", Role=admin.replace("admin", "small"), **request)
    told = refused(functions.update_function_configuration, FunctionName="f", Role=admin)
    assert f"iam:PassRole on resource: {admin}" in told


def test_a_user_cannot_make_itself_more(platform: RunningPlatform) -> None:
    key = user(platform, "small", policy(allow("iam:*AccessKey*", "arn:aws:iam::*:user/${aws:username}"), allow("iam:GetUser")))
    iam = client(platform, "iam", key)
    assert [one["AccessKeyId"] for one in iam.list_access_keys()["AccessKeyMetadata"]] == [key["AccessKeyId"]]
    everything = policy(allow("*"))
    for call, request in (
        (iam.put_user_policy, {"UserName": "small", "PolicyName": "x", "PolicyDocument": everything}),
        (iam.attach_user_policy, {"UserName": "small", "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}),
        (iam.create_access_key, {"UserName": "blog"}),
        (iam.create_user, {"UserName": "other"}),
        (iam.create_role, {"RoleName": "r", "AssumeRolePolicyDocument": everything}),
    ):
        assert refused(call, **request).startswith("AccessDenied")
    session = client(platform, "sts", key).get_session_token(DurationSeconds=900)["Credentials"]
    assert client(platform, "sts", session).get_caller_identity()["Arn"].endswith(":user/small")
    assert refused(client(platform, "iam", session).create_user, UserName="other").startswith("AccessDenied")
    altered = {**session, "SessionToken": session["SessionToken"][:-4] + "AAAA"}
    assert refused(client(platform, "iam", altered).get_user).startswith("InvalidClientTokenId")


def test_an_explicit_deny_wins_and_is_said(platform: RunningPlatform) -> None:
    text = policy(allow("*"), {"Effect": "Deny", "Action": "sqs:*", "NotResource": f"arn:aws:sqs:*:{ACCOUNT}:mine-*"})
    queues = client(platform, "sqs", user(platform, "most", text))
    queues.create_queue(QueueName="mine-a")
    assert "explicit deny" in refused(queues.create_queue, QueueName="theirs")


@pytest.mark.parametrize(
    "document",
    [
        "{" * 5_000,
        '{"Statement":' * 5_000,
        policy({"Effect": "Allow", "Action": ["a:" + "*a" * 2_000], "Resource": "*"}),
        policy({**allow("s3:*"), "Condition": {"StringLike": {"aws:username": ["*a" * 3_000]}}}),
        policy(*[allow("s3:*")] * 2_000),
        policy({**allow("s3:*"), "Condition": {"Regex": {"a": "(a+)+$"}}}),
    ],
    ids=["braces", "nested", "stars", "long", "many", "regex"],
)
def test_policy_bombs_are_not_kept(platform: RunningPlatform, document: str) -> None:
    iam = client(platform, "iam")
    iam.create_user(UserName="bomb")
    told = refused(iam.put_user_policy, UserName="bomb", PolicyName="b", PolicyDocument=document)
    assert told.startswith(("MalformedPolicyDocument", "LimitExceeded", "ValidationError"))
    iam.delete_user(UserName="bomb")
