"""Session keys of instances: whose they are, until when, and that nobody makes them but the platform."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import botocore.auth
import botocore.credentials
import pytest
from botocore.awsrequest import AWSRequest

from martlet.auth import Auth, Sessions, function_principal
from martlet.clock import ManualClock
from martlet.errors import Unauthenticated
from martlet.types import FunctionConfig, FunctionVersion, Principal

ROLE = "arn:aws:iam::000000000000:role/service-role/worker"


def _version(name: str = "fn", role: str = ROLE) -> FunctionVersion:
    config = FunctionConfig(name=name, handler="a.b", runtime="python3.11")
    return FunctionVersion(name=name, app="", version=1, config=config, code="c", role=role)


@pytest.fixture
async def ready(auth: Auth, clock: ManualClock, tmp_path: Path) -> Auth:
    clock.advance(time.time() - clock.now_ms() / 1000)  # signatures are made with the time of day
    await auth.ensure_root(tmp_path / "credentials.json")
    auth.acting = lambda function: function_principal(_version()) if function == "fn" else None
    return auth


def _asked(auth: Auth, key: str, secret: str, token: str) -> Principal:
    request = AWSRequest("POST", "http://127.0.0.1/", headers={"Host": "127.0.0.1"}, data=b"Action=GetCallerIdentity")
    told = botocore.credentials.Credentials(key, secret, token)
    botocore.auth.SigV4Auth(told, "sts", "us-east-1").add_auth(request)
    headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
    return auth.authenticate("POST", b"/", b"", headers, b"Action=GetCallerIdentity")


async def test_each_instance_has_keys_of_its_own_that_are_its_functions(ready: Auth) -> None:
    one, two = ready.instances.make("fn"), ready.instances.make("fn")
    assert all(left != right for left, right in zip(one, two, strict=True))
    assert [len(part) for part in one] == [len(part) for part in two] == [20, 40, len(one[2])]
    assert _asked(ready, *one).session == _asked(ready, *two).session == "assumed-role/worker/fn"


async def test_keys_that_are_made_up_mixed_or_of_a_function_that_is_gone_are_refused(ready: Auth) -> None:
    key, secret, token = ready.instances.make("fn")
    other = ready.instances.make("fn")
    forged = "martlet1." + base64.urlsafe_b64encode(b'{"function":"fn","until":9999999999}').decode() + "." + "A" * 40
    for keys, reason in (
        ((key, secret, other[2]), "InvalidToken"),
        ((key, secret, forged), "InvalidToken"),
        ((key, secret, "martlet1."), "InvalidToken"),
        ((key, other[1], token), "SignatureDoesNotMatch"),
        ((key, secret, ""), "InvalidClientTokenId"),
        (ready.instances.make("gone"), "InvalidClientTokenId"),
    ):
        with pytest.raises(Unauthenticated) as caught:
            _asked(ready, *keys)
        assert caught.value.details["reason"] == reason


async def test_they_end_and_outlive_the_platform(ready: Auth, clock: ManualClock, tmp_path: Path) -> None:
    keys = ready.instances.make("fn")
    again = Auth(ready._store, clock)
    await again.ensure_root(tmp_path / "credentials.json")
    again.acting = ready.acting
    assert _asked(again, *keys).name == "fn"
    clock.advance(-12 * 3600 - 1)
    over = again.instances.make("fn")
    clock.advance(12 * 3600 + 1)
    with pytest.raises(Unauthenticated) as caught:
        _asked(again, *over)
    assert caught.value.details["reason"] == "ExpiredToken"


@pytest.mark.parametrize(
    ("name", "role", "arn"),
    [
        ("fn", ROLE, "arn:aws:sts::000000000000:assumed-role/worker/fn"),
        ("f", ROLE, "arn:aws:sts::000000000000:assumed-role/worker/f@lambda_function"),
        ("shop-a", "", "arn:aws:sts::000000000000:assumed-role/shop-a/shop-a"),
    ],
)
async def test_who_a_function_is(auth: Auth, clock: ManualClock, name: str, role: str, arn: str) -> None:
    class Caller:
        principal = function_principal(_version(name, role))
        account = "000000000000"

    found = await Sessions(auth._store, clock).get_caller_identity(Caller(), {})
    assert found["Arn"] == arn
    assert found["UserId"].partition(":")[2] == arn.rpartition("/")[2]
    assert found["UserId"] == (await Sessions(auth._store, clock).get_caller_identity(Caller(), {}))["UserId"]
