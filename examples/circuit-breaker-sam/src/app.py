"""Quotes from a provider, through a circuit breaker."""

import json
import os

import boto3
from breaker import Breaker, Open

dynamodb = boto3.resource("dynamodb")
functions = boto3.client("lambda")
guard = Breaker(dynamodb.Table(os.environ["BREAKERS"]), "provider", threshold=5, cool_down=1, lease=15)


class ProviderFailed(Exception):
    """The provider answered with an error."""


def quote(event, context):
    try:
        return answer(200, guard.call(lambda: ask(event["pathParameters"]["symbol"])))
    except Open as refused:
        return answer(503, {"detail": str(refused)}, {"retry-after": str(refused.retry_after_seconds)})
    except ProviderFailed as error:
        return answer(502, {"detail": f"the provider failed: {error}"})


def ask(symbol):
    called = functions.invoke(FunctionName=os.environ["PROVIDER"], Payload=json.dumps({"symbol": symbol}))
    result = json.load(called["Payload"])
    if "FunctionError" in called:
        raise ProviderFailed(result["errorMessage"])
    return result


def show(event, context):
    made = [item["failed"] for item in all_of(dynamodb.Table(os.environ["CALLS"]))]
    return answer(200, {**guard.state(), "calls": len(made), "failed_calls": sum(made)})


def all_of(table):
    page = table.scan(ConsistentRead=True)
    yield from page["Items"]
    while "LastEvaluatedKey" in page:
        page = table.scan(ConsistentRead=True, ExclusiveStartKey=page["LastEvaluatedKey"])
        yield from page["Items"]


def answer(status, body, headers=None):
    headers = {"content-type": "application/json", **(headers or {})}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body, default=float)}
