"""Orders in a DynamoDB table; its stream runs what is slow."""

import json
import os
import time
from uuid import uuid4

import boto3

dynamodb = boto3.resource("dynamodb")
orders, invoices, totals = (dynamodb.Table(os.environ[name]) for name in ("ORDERS", "INVOICES", "TOTALS"))

BACK_OFFICE_SECONDS = 0.05


def take(event, context):
    order = json.loads(event.get("body") or "null")
    if not is_order(order):
        return answer(422, {"detail": "an order has a customer and a number of cents"})
    id = str(uuid4())
    orders.put_item(Item={"id": id, "customer": order["customer"], "cents": order["cents"]})
    return answer(202, {"id": id})


def process(event, context):
    for record in event["Records"]:
        image = record["dynamodb"]["NewImage"]
        write_invoice(image["id"]["S"], image["customer"]["S"], int(image["cents"]["N"]))


def write_invoice(id, customer, cents):
    """The invoice and the customer's total in one transaction: a record that comes twice, as it may, counts once."""
    if "Item" in invoices.get_item(Key={"id": id}, ConsistentRead=True):
        return
    time.sleep(BACK_OFFICE_SECONDS)  # stands for a slow system: a warehouse, a bank, a model
    invoice = {"id": id, "customer": customer, "cents": cents}
    once = {"TableName": invoices.name, "Item": invoice, "ConditionExpression": "attribute_not_exists(id)"}
    add = {
        "TableName": totals.name,
        "Key": {"customer": customer},
        "UpdateExpression": "ADD cents :cents",
        "ExpressionAttributeValues": {":cents": cents},
    }
    try:
        dynamodb.meta.client.transact_write_items(TransactItems=[{"Put": once}, {"Update": add}])
    except dynamodb.meta.client.exceptions.TransactionCanceledException as error:
        if error.response["CancellationReasons"][0]["Code"] != "ConditionalCheckFailed":  # else it is written already
            raise


def show(event, context):
    key = {"id": event["pathParameters"]["id"]}
    if "Item" not in orders.get_item(Key=key, ConsistentRead=True):
        return answer(404, {"detail": f"there is no order {key['id']}"})
    invoice = invoices.get_item(Key=key, ConsistentRead=True).get("Item")
    if invoice is None:
        return answer(200, {"state": "received"})
    return answer(200, {"state": "done", "invoice": {"customer": invoice["customer"], "cents": int(invoice["cents"])}})


def customer(event, context):
    total = totals.get_item(Key={"customer": event["pathParameters"]["name"]}, ConsistentRead=True).get("Item")
    return answer(200, {"cents": int(total["cents"]) if total else 0})


def is_order(order):
    return (
        isinstance(order, dict)
        and isinstance(order.get("customer"), str)
        and 1 <= len(order["customer"]) <= 100
        and type(order.get("cents")) is int
        and order["cents"] > 0
    )


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
