"""What is said of a request's members before their model's constraints; which operations word errors of values in the old way."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.documents.dynamodb.constraints import check_constraints
from martlet.errors import ServiceError
from martlet.protocols.codec.model import load
from martlet.protocols.codec.validate import check

KEY: dict[str, Any] = {"p": {"S": "a"}}
AT_LEAST_1 = "failed to satisfy constraint: Member must have length greater than or equal to 1"
CAPACITY = "Value 'X' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]"
METRICS = (
    "Value 'X' at 'returnItemCollectionMetrics' failed to satisfy constraint: Member must satisfy enum value set: [SIZE, NONE]"
)
RETURNS = "Failed to satisfy constraint: Member must satisfy enum value set: [ALL_OLD, UPDATED_OLD, ALL_NEW, UPDATE_NEW, NONE]"
MAP_KEYS = (
    "Map keys must satisfy constraint: [Member must have length less than or equal to 255, Member must have length greater than "
    "or equal to 3, Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+]"
)
MAP_VALUES = (
    "Map value must satisfy constraint: [Member must have length less than or equal to 25, "
    "Member must have length greater than or equal to 1]"
)
BAD = {"RequestItems": {"bad!name": {"Keys": [KEY]}}}
ECHO = 'Value \'{"bad!name":{"Keys":[{"p":{"S":"a"}}]}}\' at \'requestItems\' failed to satisfy constraint: ' + MAP_KEYS


def said(operation: str, request: dict[str, Any]) -> str:
    """What the whole of both checks says, "" for nothing."""
    model = load("dynamodb")
    assert model is not None
    try:
        check_constraints(operation, request)
        check(model.operations[operation], request)
    except ServiceError as error:
        return error.message if error.name == "ValidationException" else error.name
    return ""


def one(text: str) -> str:
    return f"1 validation error detected: {text}"


@pytest.mark.parametrize(
    ("operation", "request_", "text"),
    [
        ("CreateTable", {}, "The parameter 'TableName' is required but was not present in the request"),
        ("DescribeTable", {}, "The parameter 'TableName' is required but was not present in the request"),
        (
            "CreateTable",
            {"TableName": "ab"},
            one("Value 'ab' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 3"),
        ),
        ("DeleteTable", {"TableName": "ab"}, "TableName must be at least 3 characters long and at most 255 characters long"),
        ("PutItem", {"TableName": "", "Item": KEY, "ReturnValues": "X"}, one(f"Value at 'TableName' {AT_LEAST_1}")),
        (
            "GetItem",
            {"TableName": "ab", "Key": KEY},
            one("Value 'ab' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 3"),
        ),
        (
            "GetItem",
            {"TableName": "a b", "Key": KEY},
            one(
                "Value 'a b' at 'tableName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
            ),
        ),
        (
            "PutItem",
            {
                "TableName": "ttt",
                "Item": KEY,
                "ReturnValues": "X",
                "ReturnConsumedCapacity": "X",
                "ReturnItemCollectionMetrics": "X",
            },
            f"3 validation errors detected: {CAPACITY}; {RETURNS}; {METRICS}",
        ),
        ("UpdateItem", {"TableName": "ttt", "Key": KEY, "ReturnValues": "X", "ReturnConsumedCapacity": "X"}, one(RETURNS)),
        (
            "UpdateItem",
            {"TableName": "", "ReturnConsumedCapacity": "X"},
            (
                f"3 validation errors detected: {CAPACITY}; Value '' at 'tableName' {AT_LEAST_1}; "
                "Value null at 'key' failed to satisfy constraint: Member must not be null"
            ),
        ),
        (
            "DeleteItem",
            {"TableName": "ttt", "Key": KEY, "ConditionalOperator": "XOR"},
            one("Failed to satisfy constraint: Member must satisfy enum value set: [ALL, OR]"),
        ),
        (
            "Query",
            {"TableName": "ttt", "Select": "X", "ConditionalOperator": "XOR"},
            "Failed to satisfy constraint: Member must satisfy enum value set: [ALL, OR]",
        ),
        (
            "Query",
            {"TableName": "ttt", "Limit": 0},
            one("Value at 'Limit' failed to satisfy constraint: Member must have value greater than or equal to 1"),
        ),
        ("BatchGetItem", {"RequestItems": {}}, one(f"Value at 'RequestItems' {AT_LEAST_1}")),
        ("BatchGetItem", {"RequestItems": {"ttt": {"Keys": []}}}, one(f"Value at 'RequestItems.ttt.member.Keys' {AT_LEAST_1}")),
        (
            "BatchGetItem",
            {"RequestItems": {"ttt": {"Keys": [KEY] * 101}}},
            one(
                "Value at 'RequestItems.ttt.member.Keys' failed to satisfy constraint: "
                "Member must have length less than or equal to 100"
            ),
        ),
        ("BatchGetItem", BAD, one(ECHO)),
        ("BatchGetItem", {**BAD, "ReturnConsumedCapacity": "X"}, f"2 validation errors detected: {ECHO}; {CAPACITY}"),
        ("BatchWriteItem", {"RequestItems": {}}, "The requestItems parameter is required for BatchWriteItem"),
        (
            "BatchWriteItem",
            {"RequestItems": {"ttt": []}, "ReturnConsumedCapacity": "X", "ReturnItemCollectionMetrics": "X"},
            f"2 validation errors detected: {CAPACITY}; {METRICS}",
        ),
        (
            "BatchWriteItem",
            {"RequestItems": {"ttt": []}},
            one(f"Value '{{ttt=[]}}' at 'requestItems' failed to satisfy constraint: {MAP_VALUES}"),
        ),
        ("TransactWriteItems", {"TransactItems": []}, one(f"Value '[]' at 'transactItems' {AT_LEAST_1}")),
        (
            "TransactWriteItems",
            {"TransactItems": [{}], "ClientRequestToken": "x" * 37, "ReturnConsumedCapacity": "X"},
            (
                f"2 validation errors detected: Value '{'x' * 37}' at 'clientRequestToken' failed to satisfy constraint: "
                f"Member must have length less than or equal to 36; {CAPACITY}"
            ),
        ),
    ],
)
def test_what_is_said_of_members(operation: str, request_: dict[str, Any], text: str) -> None:
    assert said(operation, request_) == text


def test_a_long_list_is_repeated_in_part() -> None:
    gets = [{"Get": {"TableName": "ttt", "Key": {"p": {"S": "x" * 100}}}}] * 101
    told = said("TransactGetItems", {"TransactItems": gets})
    assert told.startswith("1 validation error detected: Value '[{Get={TableName=ttt, Key={p={S=xxx")
    assert told.endswith(
        "]' at 'transactItems' failed to satisfy constraint: Member must have length less than or equal to 100"
    )
    assert len(told) < 5_000
    told = said("BatchWriteItem", {"RequestItems": {"ttt": [{"DeleteRequest": {"Key": KEY}}] * 26}})
    assert told.startswith(
        "1 validation error detected: Value '{ttt=[WriteRequest(putRequest=null, deleteRequest=DeleteRequest("
    )
    assert told.endswith(f"]}}' at 'requestItems' failed to satisfy constraint: {MAP_VALUES}")


def test_a_batch_is_told_as_the_service_prints_its_own_objects() -> None:
    item = {"p": {"S": "x"}, "m": {"M": {"l": {"L": [{"BOOL": True}]}}}, "b": {"B": b"1"}, "s": {"SS": ["1", "2"]}}
    told = said("BatchWriteItem", {"RequestItems": {"a!b": [{"PutRequest": {"Item": item}}, {"DeleteRequest": {"Key": KEY}}]}})
    head = "1 validation error detected: Value '{a!b=[WriteRequest(putRequest=PutRequest(item={p=AttributeValue(s=x, n=null, "
    assert told.startswith(head)
    assert told.endswith(f"]}}' at 'requestItems' failed to satisfy constraint: {MAP_KEYS}")
    for part in (
        "bOOL=true",
        "sS=[1, 2]",
        "workloadProfileName=null), deleteRequest=null)",
        "WriteRequest(putRequest=null, deleteRequest=DeleteRequest(key={p=AttributeValue(s=a, ",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("operation", "request_", "text"),
    [
        ("PutItem", {"TableName": "ttt", "Item": {**KEY, "n": {"N": ""}}}, one("NUMERIC: ")),
        ("DeleteItem", {"TableName": "ttt", "Key": {"p": {"N": ""}}}, one("NUMERIC: ")),
        ("GetItem", {"TableName": "ttt", "Key": {"p": {"N": ""}}}, "NUMERIC: "),
        ("BatchGetItem", {"RequestItems": {"ttt": {"Keys": [{"p": {"N": ""}}]}}}, "NUMERIC: "),
        ("BatchWriteItem", {"RequestItems": {"ttt": [{"PutRequest": {"Item": {"p": {"N": ""}}}}]}}, "NUMERIC"),
        ("TransactGetItems", {"TransactItems": [{"Get": {"TableName": "ttt", "Key": {"p": {"N": ""}}}}]}, "NUMERIC"),
        (
            "TransactWriteItems",
            {
                "TransactItems": [
                    {
                        "Update": {
                            "TableName": "ttt",
                            "Key": KEY,
                            "UpdateExpression": "SET n = :n",
                            "ExpressionAttributeValues": {":n": {"N": ""}},
                        }
                    }
                ]
            },
            "ExpressionAttributeValues contains invalid value: NUMERIC for key :n",
        ),
        (
            "Query",
            {"TableName": "ttt", "KeyConditionExpression": "p = :n", "ExpressionAttributeValues": {":n": {"N": ""}}},
            "NUMERIC: ",
        ),
        (
            "Scan",
            {"TableName": "ttt", "FilterExpression": "p = :n", "ExpressionAttributeValues": {":n": {"N": ""}}},
            "ExpressionAttributeValues contains invalid value: NUMERIC for key :n",
        ),
        ("ExecuteStatement", {"Statement": "SELECT * FROM ttt WHERE p = ?", "Parameters": [{"N": ""}]}, "NUMERIC"),
        (
            "TransactWriteItems",
            {"TransactItems": [{"Put": {"TableName": "ttt", "Item": {"": KEY["p"]}}}]},
            "Empty attribute name",
        ),
    ],
)
async def test_which_operations_word_values_in_the_old_way(create, refused, operation, request_, text) -> None:
    await create("ttt")
    error = await refused(operation, **request_)
    assert error.message == text.replace("NUMERIC", "The parameter cannot be converted to a numeric value")
