"""Policy documents: which are well-formed, whom they trust, what they grant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from martlet.auth.documents import check_permissions, check_trust, trusts
from martlet.errors import ServiceError

ACCOUNT = "000000000000"
ME = f"arn:aws:iam::{ACCOUNT}:root"


def policy(*statements: dict[str, Any], **more: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements), **more})


def allow(**more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "lambda:*", "Resource": "*", **more}


def trust(**more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": ME}, **more}


BAD_PERMISSIONS = [
    "",
    "{",
    "[]",
    "null",
    '"x"',
    "{}",
    "[" * 10_000,
    policy(),
    policy(allow(Effect="Maybe")),
    policy({"Effect": "Allow", "Action": "lambda:*"}),
    policy({"Effect": "Allow", "Resource": "*"}),
    policy({"Action": "lambda:*", "Resource": "*"}),
    policy(allow(Principal="*")),
    policy(allow(Action="lambda")),
    policy(allow(Action=[])),
    policy(allow(Action=[1])),
    policy(allow(NotAction="s3:*")),
    policy(allow(Resource="bucket")),
    policy(allow(Other=1)),
    policy(allow(Condition=[])),
    policy(allow(), Version="2020-01-01"),
    policy(allow(), Other=1),
]


@pytest.mark.parametrize("text", BAD_PERMISSIONS, ids=range(len(BAD_PERMISSIONS)))
def test_malformed_permissions(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        check_permissions(text)
    assert caught.value.name == "MalformedPolicyDocument"


def test_good_permissions() -> None:
    check_permissions(policy(allow()))
    check_permissions(json.dumps({"Statement": allow(Action=["s3:Get*", "*"], Resource=["arn:aws:s3:::b/*", "*"], Sid="x")}))
    check_permissions(policy({"Effect": "Deny", "NotAction": "s3:*", "NotResource": "*", "Condition": {"Bool": {"a": "b"}}}))


BAD_TRUST = [
    policy(allow()),
    policy({"Effect": "Allow", "Action": "sts:AssumeRole"}),
    policy(trust(Principal="me")),
    policy(trust(Principal={})),
    policy(trust(Principal={"Person": "x"})),
    policy(trust(Principal={"AWS": 1})),
    policy(trust(Resource="*")),
]


@pytest.mark.parametrize("text", BAD_TRUST, ids=range(len(BAD_TRUST)))
def test_malformed_trust(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        check_trust(text)
    assert caught.value.name == "MalformedPolicyDocument"


@pytest.mark.parametrize(
    ("text", "trusted"),
    [
        (policy(trust()), True),
        (policy(trust(Principal="*")), True),
        (policy(trust(Principal={"AWS": ACCOUNT})), True),
        (policy(trust(Principal={"AWS": ["arn:aws:iam::111111111111:root", ME]})), True),
        (policy(trust(Action="sts:*")), True),
        (policy(trust(Action="STS:assumerole")), True),
        (policy(trust(Principal={"AWS": "arn:aws:iam::111111111111:root"})), False),
        (policy(trust(Principal={"Service": "lambda.amazonaws.com"})), False),
        (policy(trust(Action="sts:TagSession")), False),
        (policy(trust(), trust(Effect="Deny")), False),
        (policy(trust(), trust(Effect="Deny", Condition={"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}})), False),
        (policy(trust(), {**trust(Effect="Deny"), "Principal": {"Service": "x.amazonaws.com"}}), True),
        (policy(trust(Condition={"Bool": {"aws:MultiFactorAuthPresent": "true"}})), False),
        (policy(trust(Condition={"StringEquals": {"sts:ExternalId": "secret"}})), True),
        (policy(trust(Condition={"StringEquals": {"sts:ExternalId": ["other"]}})), False),
        (policy({"Effect": "Allow", "Action": "sts:AssumeRole", "NotPrincipal": {"AWS": ME}}), False),
    ],
)
def test_whom_a_role_trusts(text: str, trusted: bool) -> None:
    check_trust(text)
    assert trusts(text, ME, ACCOUNT, "sts:AssumeRole", {"sts:externalid": "secret"}).allowed is trusted


BAD_CONDITIONS = [
    {"StringEquals": "x"},
    {"StringEquals": {}},
    {"StringIs": {"a": "b"}},
    {"Bool": {"a": {"b": "c"}}},
    {"x:Bool": {"a": "b"}},
]


@pytest.mark.parametrize("condition", BAD_CONDITIONS, ids=range(len(BAD_CONDITIONS)))
def test_a_condition_that_cannot_be_decided_is_not_kept(condition: object) -> None:
    with pytest.raises(ServiceError) as caught:
        check_permissions(policy(allow(Condition=condition)))
    assert caught.value.name == "MalformedPolicyDocument"
