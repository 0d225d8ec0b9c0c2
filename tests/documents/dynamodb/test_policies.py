"""Resource-based policies of tables: revisions, and what they decide together with what the caller's own grants say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from martlet.auth import authorize
from martlet.documents.dynamodb import DynamoDb, Tables
from martlet.errors import AccessDenied, ServiceError
from martlet.types import ACCOUNT, Principal

ARN = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/orders"
ROOT = Principal("root", "", frozenset())
READER = Principal("role", "reader", frozenset())
WRITER = Principal("role", "writer", frozenset({("dynamodb:*", "*")}))


class Caller(msgspec.Struct):
    principal: Principal
    endpoint: str = ""


def policy(effect: str, action: str, principal: Any = "*", resource: str = "*") -> str:
    statement = {"Effect": effect, "Action": action, "Principal": principal, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def of(role: str) -> dict[str, str]:
    return {"AWS": f"arn:aws:iam::{ACCOUNT}:role/{role}"}


@pytest.fixture
def service(tables: Tables) -> DynamoDb:
    return DynamoDb(tables, authorize)


@pytest.fixture
def may(service: DynamoDb):
    def ask(principal: Principal, operation: str, **request: Any) -> bool:
        """As the protocol does: the permission that the service tells is asked for."""
        permission = service.permission(operation, {"TableName": "orders", **request})
        assert permission is not None
        try:
            authorize(principal, *permission)
        except AccessDenied:
            return False
        return True

    return ask


async def test_a_policy_has_revisions(create, call, refused, clock):
    await create("orders")
    text = policy("Allow", "dynamodb:GetItem")
    error = await refused("GetResourcePolicy", ResourceArn=ARN)
    assert (error.name, error.message) == (
        "PolicyNotFoundException",
        f"Resource-based policy not found for the provided ResourceArn: {ARN}",
    )
    first = (await call("PutResourcePolicy", ResourceArn=ARN, Policy=text, ExpectedRevisionId="NO_POLICY"))["RevisionId"]
    assert (await call("PutResourcePolicy", ResourceArn=ARN, Policy=text))["RevisionId"] == first
    assert await call("GetResourcePolicy", ResourceArn=ARN) == {"Policy": text, "RevisionId": first}
    other = policy("Allow", "dynamodb:PutItem")
    second = (await call("PutResourcePolicy", ResourceArn=ARN, Policy=other, ExpectedRevisionId=first))["RevisionId"]
    assert second > first
    head = "Resource-based policy not found for the provided ResourceArn: "
    error = await refused("PutResourcePolicy", ResourceArn=ARN, Policy=text, ExpectedRevisionId=first)
    assert error.message == (
        f"{head}Requested update for policy with revision id {first}, but the policy associated to target table orders has "
        f"revision id {second}."
    )
    error = await refused("PutResourcePolicy", ResourceArn=ARN, Policy=text, ExpectedRevisionId="NO_POLICY")
    assert error.message == (
        f"{head}Requested policy update expecting none to be present for table orders, but a policy exists with revision id "
        f"{second}."
    )
    error = await refused("DeleteResourcePolicy", ResourceArn=ARN, ExpectedRevisionId="unknown")
    assert error.name == "PolicyNotFoundException"
    assert (await call("DeleteResourcePolicy", ResourceArn=ARN, ExpectedRevisionId=second))["RevisionId"] == second
    assert (await refused("GetResourcePolicy", ResourceArn=ARN)).name == "PolicyNotFoundException"
    assert await call("DeleteResourcePolicy", ResourceArn=ARN) == {"RevisionId": None}


@pytest.mark.parametrize(
    ("arn", "text", "name", "message"),
    [
        (
            ARN + "x",
            policy("Allow", "*"),
            "ResourceNotFoundException",
            "Requested resource not found: Table: ordersx not found",
        ),
        (ARN, "{", "ValidationException", "Invalid policy document: This policy contains invalid Json"),
        (ARN, '{"Statement": []}', "ValidationException", "Invalid policy document: Syntax errors in policy."),
        (
            ARN,
            '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}',
            "ValidationException",
            "Invalid policy document: Missing required field Principal",
        ),
        (
            ARN,
            '{"Statement": {"Effect": "Allow", "Action": "*", "Principal": "*"}}',
            "ValidationException",
            "Invalid policy document: Policy statement must contain resources.",
        ),
        (ARN, "x" * 20_481, "ValidationException", "Resource-based policy size exceeds the limit of 20480 bytes"),
        (ARN + "/stream/1", policy("Allow", "*"), "ValidationException", "A resource-based policy of anything but a table"),
    ],
)
async def test_what_is_no_policy_of_a_table(create, refused, arn, text, name, message):
    await create("orders")
    error = await refused("PutResourcePolicy", ResourceArn=arn, Policy=text)
    assert (error.name, error.message.removesuffix(" is not supported by Martlet")) == (name, message)


async def test_a_policy_allows_whom_it_names(create, call, may):
    await create("orders", ResourcePolicy=policy("Allow", "dynamodb:GetItem", of("reader"), ARN))
    assert may(READER, "GetItem")
    assert not may(READER, "PutItem")
    assert not may(READER, "Query", IndexName="by_date")
    assert not may(Principal("role", "other", frozenset()), "GetItem")
    await call("PutResourcePolicy", ResourceArn=ARN, Policy=policy("Allow", "dynamodb:*", {"AWS": ACCOUNT}))
    assert not may(READER, "GetItem")  # what names the account leaves it to the account's own policies
    await call("DeleteResourcePolicy", ResourceArn=ARN)
    assert not may(READER, "GetItem")


async def test_a_policy_denies_everybody_but_root_may_mend_it(create, may):
    await create("orders", ResourcePolicy=policy("Deny", "dynamodb:*"))
    assert not may(WRITER, "PutItem")
    assert not may(ROOT, "PutItem")
    assert not may(WRITER, "DeleteResourcePolicy", ResourceArn=ARN)
    assert may(ROOT, "DeleteResourcePolicy", ResourceArn=ARN)
    assert may(WRITER, "PutItem", TableName="others")


async def test_a_policy_holds_in_batches_transactions_and_statements(create, service):
    await create("orders", ResourcePolicy=policy("Deny", "*", of("writer")))
    key = {"p": {"S": "a"}}
    for method, request in [
        (service.batch_get_item, {"RequestItems": {"orders": {"Keys": [key]}}}),
        (service.batch_write_item, {"RequestItems": {ARN: [{"PutRequest": {"Item": key}}]}}),
        (service.transact_write_items, {"TransactItems": [{"Put": {"TableName": "orders", "Item": key}}]}),
        (service.transact_get_items, {"TransactItems": [{"Get": {"TableName": "orders", "Key": key}}]}),
        (service.execute_statement, {"Statement": "SELECT * FROM orders"}),
    ]:
        with pytest.raises((AccessDenied, ServiceError)) as raised:
            await method(Caller(WRITER), request)
        assert "with an explicit deny in a resource-based policy" in str(raised.value)
        await method(Caller(ROOT), request)


async def test_a_policy_that_is_none_makes_no_table(create, call):
    with pytest.raises(ServiceError) as raised:
        await create("orders", ResourcePolicy="{}")
    assert raised.value.name == "ValidationException"
    assert (await call("ListTables"))["TableNames"] == []
