"""Secrets and parameters, called as the dispatcher calls them; and what lies on the disk."""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from martlet.clock import ManualClock
from martlet.errors import AccessDenied, MartletError, ServiceError, StartFailed, StoreFailed, Unsupported
from martlet.secrets import Secrets, Ssm, Vault, key_source
from martlet.store import Store, keys
from martlet.store.engines.memory import MemoryEngine
from martlet.types import ACCOUNT, Principal


@dataclass
class Caller:
    principal: Principal
    account: str = ACCOUNT
    region: str = "us-east-1"


ME = Caller(Principal("root", "root"))
KEY = b"k" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[Store]:
    opened = Store(MemoryEngine(), clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
def secrets(store: Store) -> Secrets:
    return Secrets(store, Vault(store, lambda: [KEY]), os.urandom)


@pytest.fixture
def ssm(store: Store) -> Ssm:
    return Ssm(store, Vault(store, lambda: [KEY]))


async def refused(call: Any) -> str:
    with pytest.raises(MartletError) as caught:
        await call
    error = caught.value
    return f"{error.name} {error.message}".rstrip() if isinstance(error, ServiceError) else type(error).__name__


async def value_of(secrets: Secrets, **more: Any) -> Any:
    found = await secrets.get_secret_value(ME, {"SecretId": "db", **more})
    return found.get("SecretString", found.get("SecretBinary"))


# --- secrets


async def test_versions_and_stages(secrets: Secrets) -> None:
    made = await secrets.create_secret(ME, {"Name": "db", "SecretString": "one", "ClientRequestToken": "1" * 32})
    assert re.fullmatch(rf"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:db-[A-Za-z]{{6}}", made["ARN"])
    put = await secrets.put_secret_value(ME, {"SecretId": "db", "SecretBinary": b"\x00two", "ClientRequestToken": "2" * 32})
    assert put["VersionStages"] == ["AWSCURRENT"]
    assert (await value_of(secrets), await value_of(secrets, VersionStage="AWSPREVIOUS")) == (b"\x00two", "one")
    assert await value_of(secrets, VersionId="1" * 32) == "one"
    move = {"SecretId": "db", "VersionStage": "AWSCURRENT", "RemoveFromVersionId": "2" * 32, "MoveToVersionId": "1" * 32}
    await secrets.update_secret_version_stage(ME, move)
    described = await secrets.describe_secret(ME, {"SecretId": made["ARN"]})
    assert described["VersionIdsToStages"] == {"1" * 32: ["AWSCURRENT"], "2" * 32: ["AWSPREVIOUS"]}
    assert (await secrets.get_secret_value(ME, {"SecretId": made["ARN"][:-7]}))["SecretString"] == "one", "a partial ARN"
    assert (await secrets.list_secrets(ME, {}))["SecretList"][0]["Name"] == "db"


async def test_the_same_token_is_the_same_request(secrets: Secrets) -> None:
    request = {"Name": "db", "SecretString": "one", "ClientRequestToken": "1" * 32}
    await secrets.create_secret(ME, request)
    again = {"SecretId": "db", "SecretString": "one", "ClientRequestToken": "1" * 32}
    assert (await secrets.put_secret_value(ME, again))["VersionId"] == "1" * 32
    assert (await refused(secrets.put_secret_value(ME, {**again, "SecretString": "x"}))).startswith("ResourceExistsException")
    text = "ResourceExistsException The operation failed because the secret db already exists."
    assert await refused(secrets.create_secret(ME, request)) == text


async def test_deleted_restored_and_gone(secrets: Secrets, clock: ManualClock, store: Store) -> None:
    await secrets.create_secret(ME, {"Name": "db", "SecretString": "one"})
    await secrets.delete_secret(ME, {"SecretId": "db", "RecoveryWindowInDays": 7})
    assert (await refused(value_of(secrets))).startswith("InvalidRequestException You can't perform")
    await secrets.restore_secret(ME, {"SecretId": "db"})
    assert await value_of(secrets) == "one"
    await secrets.delete_secret(ME, {"SecretId": "db", "RecoveryWindowInDays": 7})
    clock.advance(7 * 86_400 - 1)
    await secrets.expire()
    await secrets.describe_secret(ME, {"SecretId": "db"})
    clock.advance(2)
    await secrets.expire()
    gone = "ResourceNotFoundException Secrets Manager can't find the specified secret."
    assert await refused(secrets.describe_secret(ME, {"SecretId": "db"})) == gone
    low, high = keys.prefix_range("secrets.value")
    assert store.read(lambda reader: reader.scan(low, high)) == []
    await secrets.create_secret(ME, {"Name": "db", "SecretString": "two"})
    await secrets.delete_secret(ME, {"SecretId": "db", "ForceDeleteWithoutRecovery": True})
    assert await refused(value_of(secrets)) == gone


async def test_what_is_refused(secrets: Secrets) -> None:
    assert (await refused(secrets.create_secret(ME, {"Name": "a b", "SecretString": "x"}))).startswith(
        "InvalidParameterException"
    )
    both = {"Name": "db", "SecretString": "x", "SecretBinary": b"x"}
    assert (await refused(secrets.create_secret(ME, both))).startswith("InvalidParameterException You can't specify both")
    large = {"Name": "db", "SecretString": "x" * 65_537}
    assert (await refused(secrets.create_secret(ME, large))).startswith("InvalidParameterException")
    with pytest.raises(Unsupported, match="AddReplicaRegions"):
        await secrets.create_secret(ME, {"Name": "db", "AddReplicaRegions": [{"Region": "eu-west-1"}]})
    with pytest.raises(Unsupported, match="owning-service"):
        await secrets.list_secrets(ME, {"Filters": [{"Key": "owning-service", "Values": ["x"]}]})


async def test_random_passwords(secrets: Secrets) -> None:
    found = (await secrets.get_random_password(ME, {}))["RandomPassword"]
    assert len(found) == 32
    for kind in (r"[a-z]", r"[A-Z]", r"[0-9]", r"[^A-Za-z0-9]"):
        assert re.search(kind, found)
    plain = {"PasswordLength": 4_096, "ExcludePunctuation": True, "ExcludeCharacters": "0Oo"}
    assert re.fullmatch(r"[A-NP-Za-np-z1-9]{4096}", (await secrets.get_random_password(ME, plain))["RandomPassword"])
    none = {f"Exclude{kind}": True for kind in ("Lowercase", "Uppercase", "Numbers", "Punctuation")}
    assert (await refused(secrets.get_random_password(ME, none))).startswith("InvalidParameterException")


# --- at rest


def stored(store: Store) -> bytes:
    low, high = keys.prefix_range("secrets.value")
    more, most = keys.prefix_range("secrets.parameter.value")
    return b"".join(raw for _, raw in store.read(lambda reader: [*reader.scan(low, high), *reader.scan(more, most)]))


async def test_no_value_lies_open(secrets: Secrets, ssm: Ssm, store: Store) -> None:
    await secrets.create_secret(ME, {"Name": "db", "SecretString": "hunter2hunter2"})
    await ssm.put_parameter(ME, {"Name": "/a/b", "Type": "String", "Value": "hunter2hunter2"})
    assert b"hunter2" not in stored(store)
    assert len(stored(store)) == 2 * (14 + 12 + 16)


async def test_values_cannot_be_exchanged(secrets: Secrets, store: Store) -> None:
    for name in ("db", "other"):
        await secrets.create_secret(ME, {"Name": name, "SecretString": name})
    low, high = keys.prefix_range("secrets.value")
    (first, mine), (second, theirs) = store.read(lambda reader: reader.scan(low, high))

    def swap(tx: Any) -> None:
        tx.put(first, theirs)
        tx.put(second, mine)

    await store.transact(swap)
    with pytest.raises(StoreFailed) as caught:
        await value_of(secrets)
    assert "other" not in str(caught.value)


async def test_rotation_wraps_again_and_a_wrong_key_opens_nothing(secrets: Secrets, store: Store) -> None:
    await secrets.create_secret(ME, {"Name": "db", "SecretString": "one"})
    new = b"n" * 32
    wrong = Secrets(store, Vault(store, lambda: [new]), os.urandom)
    with pytest.raises(StoreFailed, match="not the one"):
        await value_of(wrong)
    rotated = Secrets(store, Vault(store, lambda: [new, KEY]), os.urandom)
    assert await value_of(rotated) == "one"
    assert await value_of(Secrets(store, Vault(store, lambda: [new]), os.urandom)) == "one", "the old key can go"
    with pytest.raises(StoreFailed):
        await value_of(Secrets(store, Vault(store, lambda: [KEY]), os.urandom))


def test_where_keys_come_from(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    made = key_source("", path, {})()
    assert (len(made), len(made[0])) == (1, 32)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key_source("", path, {})() == made
    path.chmod(0o640)
    with pytest.raises(StartFailed, match="can be read by others"):
        key_source(f"file:{path}", path, {})()
    one, two = (base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))
    assert key_source("env:K", path, {"K": f"{one}\n{two}"})() == [b"a" * 32, b"b" * 32]
    assert key_source(f"command:echo {one}", path, {})() == [b"a" * 32]
    for setting, environ in (("env:K", {}), ("env:K", {"K": "c2hvcnQ="}), ("command:false", {}), (f"file:{tmp_path}/none", {})):
        with pytest.raises(StartFailed) as caught:
            key_source(setting, path, environ)()
        assert "c2hvcnQ" not in str(caught.value)
    with pytest.raises(StartFailed):
        key_source("vault:x", path, {})


# --- parameters


async def test_a_parameter_and_its_history(ssm: Ssm) -> None:
    put = {"Name": "/app/url", "Type": "String", "Value": "one"}
    assert await ssm.put_parameter(ME, put) == {"Version": 1, "Tier": "Standard"}
    assert (await refused(ssm.put_parameter(ME, put))).startswith("ParameterAlreadyExists The parameter already exists.")
    await ssm.put_parameter(ME, {"Name": "/app/url", "Value": "two", "Overwrite": True})
    await ssm.label_parameter_version(ME, {"Name": "/app/url", "ParameterVersion": 1, "Labels": ["prod", "1bad", "aws-x"]})
    for name, value in (("/app/url", "two"), ("/app/url:1", "one"), ("/app/url:prod", "one")):
        assert (await ssm.get_parameter(ME, {"Name": name}))["Parameter"]["Value"] == value
    arn = (await ssm.get_parameter(ME, {"Name": "/app/url"}))["Parameter"]["ARN"]
    assert arn == f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/app/url"
    assert (await ssm.get_parameter(ME, {"Name": arn}))["Parameter"]["Version"] == 2
    history = (await ssm.get_parameter_history(ME, {"Name": "/app/url"}))["Parameters"]
    assert [(one["Version"], one["Value"], one["Labels"]) for one in history] == [(1, "one", ["prod"]), (2, "two", [])]
    await ssm.label_parameter_version(ME, {"Name": "/app/url", "Labels": ["prod"]})
    assert (await ssm.get_parameter(ME, {"Name": "/app/url:prod"}))["Parameter"]["Version"] == 2
    await ssm.delete_parameter(ME, {"Name": "/app/url"})
    assert await refused(ssm.get_parameter(ME, {"Name": "/app/url"})) == "ParameterNotFound"


async def test_a_secure_string_is_open_only_when_asked(ssm: Ssm) -> None:
    await ssm.put_parameter(ME, {"Name": "key", "Type": "SecureString", "Value": "hunter2"})
    closed = (await ssm.get_parameter(ME, {"Name": "key"}))["Parameter"]["Value"]
    assert b"hunter2" not in base64.b64decode(closed)
    assert (await ssm.get_parameter(ME, {"Name": "key", "WithDecryption": True}))["Parameter"]["Value"] == "hunter2"
    assert "Value" not in (await ssm.describe_parameters(ME, {}))["Parameters"][0]


async def test_by_path(ssm: Ssm) -> None:
    for name in ("/a/x", "/a/y", "/a/deep/z", "/ab/x"):
        await ssm.put_parameter(ME, {"Name": name, "Type": "String", "Value": name})

    async def names(**more: Any) -> list[str]:
        return [one["Name"] for one in (await ssm.get_parameters_by_path(ME, {"Path": "/a", **more}))["Parameters"]]

    assert await names() == ["/a/x", "/a/y"]
    assert await names(Recursive=True) == ["/a/deep/z", "/a/x", "/a/y"]
    page = await ssm.get_parameters_by_path(ME, {"Path": "/a", "Recursive": True, "MaxResults": 2})
    rest = await ssm.get_parameters_by_path(ME, {"Path": "/a", "Recursive": True, "NextToken": page["NextToken"]})
    assert [one["Name"] for one in rest["Parameters"]] == ["/a/y"]
    found = await ssm.get_parameters(ME, {"Names": ["/a/x", "/none"]})
    assert ([one["Name"] for one in found["Parameters"]], found["InvalidParameters"]) == (["/a/x"], ["/none"])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"Name": "aws/x"}, "ValidationException"),
        ({"Name": "/ssm/x"}, "ValidationException"),
        ({"Name": "a/b"}, "ValidationException"),
        ({"Name": "/" + "a/" * 15 + "b"}, "HierarchyLevelLimitExceededException"),
        ({"Value": "x" * 4_097}, "ValidationException"),
        ({"Type": "Text"}, "ValidationException"),
        ({"AllowedPattern": "[0-9]+"}, "ParameterPatternMismatchException"),
        ({"AllowedPattern": "("}, "InvalidAllowedPatternException"),
        ({"AllowedPattern": "(a+)+$", "Value": "a" * 4_000 + "b"}, "ParameterPatternMismatchException"),
        ({"Policies": "[]" + " "}, "Unsupported"),
    ],
)
async def test_parameters_that_are_refused(ssm: Ssm, change: dict[str, str], error: str) -> None:
    assert (await refused(ssm.put_parameter(ME, {"Name": "x", "Type": "String", "Value": "x", **change}))).startswith(error)


async def test_history_is_bounded(ssm: Ssm) -> None:
    for number in range(102):
        await ssm.put_parameter(ME, {"Name": "x", "Type": "String", "Value": str(number), "Overwrite": True})
    newest_first = (await ssm.get_parameter_history(ME, {"Name": "x", "MaxResults": 200}))["Parameters"]
    assert [one["Version"] for one in newest_first][:1] == [3]
    assert len(newest_first) == 100


async def test_reading_another_apps_secret_is_denied(ssm: Ssm, secrets: Secrets) -> None:
    from martlet.auth import authorize
    from martlet.auth.standing import Standing, compiled

    made = await secrets.create_secret(ME, {"Name": "shop/db", "SecretString": "one"})
    text = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["secretsmanager:GetSecretValue","ssm:Get*"],"Resource":'
        '["arn:aws:secretsmanager:*:*:secret:blog/*","arn:aws:ssm:*:*:parameter/blog/*"]}]}'
    )
    blog = Caller(
        Principal("role", "r", standing=Standing(arn="arn:aws:sts::1:assumed-role/blog/f", policies=compiled([text])))
    )
    for wanted in ("shop/db", made["ARN"], made["ARN"][:-7]):
        with pytest.raises(AccessDenied):
            authorize(blog.principal, *secrets.permission("GetSecretValue", {"SecretId": wanted}))
    authorize(blog.principal, *secrets.permission("GetSecretValue", {"SecretId": "blog/none"}))
    assert ssm.permission("GetParameters", {"Names": ["/blog/x", "/shop/x"]}) is None
    for call in (ssm.get_parameters, ssm.delete_parameters):
        with pytest.raises(AccessDenied):
            await call(blog, {"Names": ["/blog/x", "/shop/x"]})
    for name in ("/shop/x", "/blog/../shop/x", "/shop/x:1", f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/shop/x"):
        decided = ssm.permission("GetParameter", {"Name": name})
        assert decided is not None
        if ".." not in name:
            with pytest.raises(AccessDenied):
                authorize(blog.principal, *decided)
