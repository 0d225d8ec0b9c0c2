"""Payments through an SQS queue into DynamoDB tables."""

import json
import os
import time
from decimal import Decimal

import boto3

sqs = boto3.client("sqs")
dynamodb = boto3.resource("dynamodb")
payments, accounts = dynamodb.Table(os.environ["PAYMENTS"]), dynamodb.Table(os.environ["ACCOUNTS"])

PARTNER_SECONDS = 0.03


def accept(event, context):
    payment = json.loads(event.get("body") or "null")
    if not is_payment(payment):
        return answer(422, {"detail": "a payment has an event, an account and a number of cents"})
    sent = sqs.send_message(QueueUrl=os.environ["HOOKS"], MessageBody=json.dumps(payment))
    return answer(202, {"message": sent["MessageId"]})


def consume(event, context):
    failed = []
    for record in event["Records"]:
        try:
            credit(json.loads(record["body"]))
        except Exception as error:
            print(f"{record['messageId']}: {error!r}")
            failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}


def credit(payment):
    """Book a payment once, however often it comes."""
    if payment["cents"] <= 0:
        raise ValueError(f"a payment of {payment['cents']} cents")
    started = now()
    time.sleep(PARTNER_SECONDS)  # stands for a system that bears no more than two callers
    once = {
        "TableName": payments.name,
        "Item": {**payment, "started": started, "ended": now()},
        "ConditionExpression": "attribute_not_exists(event)",
    }
    add = {
        "TableName": accounts.name,
        "Key": {"account": payment["account"]},
        "UpdateExpression": "ADD cents :cents",
        "ExpressionAttributeValues": {":cents": payment["cents"]},
    }
    book_once([{"Put": once}, {"Update": add}])


def book_once(items):
    """Do it in one transaction, or nothing when the first of `items` is there already."""
    for _ in range(10):
        try:
            dynamodb.meta.client.transact_write_items(TransactItems=items)
            return
        except dynamodb.meta.client.exceptions.TransactionCanceledException as error:
            codes = [reason["Code"] for reason in error.response["CancellationReasons"]]
            if codes[0] == "ConditionalCheckFailed":
                return
            if "TransactionConflict" not in codes:  # else another one wrote to the same account at this moment
                raise
    raise TimeoutError("too many others write to this account")


def balances(event, context):
    return answer(200, {item["account"]: item["cents"] for item in all_of(accounts)})


def booked(event, context):
    return answer(200, {item.pop("event"): item for item in all_of(payments)})


def all_of(table):
    page = table.scan(ConsistentRead=True)
    yield from page["Items"]
    while "LastEvaluatedKey" in page:
        page = table.scan(ConsistentRead=True, ExclusiveStartKey=page["LastEvaluatedKey"])
        yield from page["Items"]


def is_payment(payment):
    texts = [payment.get("event"), payment.get("account")] if isinstance(payment, dict) else [None]
    return all(isinstance(text, str) and 1 <= len(text) <= 64 for text in texts) and type(payment.get("cents")) is int


def now():
    return Decimal(str(time.time()))


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body, default=float)}
