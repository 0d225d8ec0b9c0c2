"""Readings of sensors in DynamoDB; its streams make windows of a minute, and alerts by SNS."""

import json
import os
import re
from datetime import UTC, datetime
from decimal import Decimal

import boto3
from boto3.dynamodb.conditions import Key

dynamodb = boto3.resource("dynamodb")
readings, windows, notices = (dynamodb.Table(os.environ[name]) for name in ("READINGS", "WINDOWS", "NOTICES"))
sns = boto3.client("sns")

HOT_CELSIUS = 30


def ingest(event, context):
    try:
        batch = [checked(reading) for reading in json.loads(event.get("body") or "null", parse_float=Decimal)]
        if len(batch) > 25:
            raise ValueError("25 readings at most")
    except (TypeError, KeyError, ValueError) as error:
        return answer(422, {"detail": f"readings have a sensor, a time and celsius: {error}"})
    with readings.batch_writer(overwrite_by_pkeys=["sensor", "moment"]) as batched:
        for reading in batch:
            batched.put_item(Item=reading)
    return answer(202, {"stored": len(batch)})


def checked(reading):
    at, celsius = datetime.fromisoformat(reading["at"]), reading["celsius"]
    if not re.fullmatch("[a-z0-9-]{1,40}", reading["sensor"]):
        raise ValueError("the sensor's name")
    if at.tzinfo is None:
        raise ValueError("the time has no zone")
    if type(celsius) not in (int, Decimal) or not -90 <= celsius <= 200:
        raise ValueError("celsius")
    moment = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    return {"sensor": reading["sensor"], "moment": moment, "celsius": celsius}


def aggregate(event, context):
    changed = [record["dynamodb"]["Keys"] for record in event["Records"]]
    for sensor, begins in {(keys["sensor"]["S"], keys["moment"]["S"][:16]) for keys in changed}:
        while not summed_up(sensor, begins):
            pass  # another instance has written this window since we read it


def summed_up(sensor, begins):
    """Make a window anew from its readings; False when somebody else wrote it at the same moment."""
    seen = windows.get_item(Key={"sensor": sensor, "begins": begins}, ConsistentRead=True).get("Item", {"version": 0})
    celsius = [item["celsius"] for item in all_of(readings, Key("sensor").eq(sensor) & Key("moment").begins_with(f"{begins}:"))]
    mean = sum(celsius) / len(celsius)
    window = {"count": len(celsius), "mean": mean, "highest": max(celsius), "hot": mean >= HOT_CELSIUS}
    try:
        windows.put_item(
            Item={"sensor": sensor, "begins": begins, "version": seen["version"] + 1, **window},
            ConditionExpression="attribute_not_exists(sensor) OR version = :seen",
            ExpressionAttributeValues={":seen": seen["version"]},
        )
    except windows.meta.client.exceptions.ConditionalCheckFailedException:
        return False
    return True


def alert(event, context):
    for record in event["Records"]:
        keys = record["dynamodb"]["Keys"]
        sns.publish(
            TopicArn=os.environ["ALERTS"],
            Message=json.dumps({"window": f"{keys['sensor']['S']}/{keys['begins']['S']}"}),
            MessageAttributes={"kind": {"DataType": "String", "StringValue": "hot"}},
        )


def notify(event, context):
    for record in event["Records"]:
        window = json.loads(record["Sns"]["Message"])["window"]
        notices.put_item(Item={"id": window, "text": f"{window} is too hot"})


def show(event, context):
    found = all_of(windows, Key("sensor").eq(event["pathParameters"]["sensor"]))
    shown = ("count", "mean", "highest", "hot")
    return answer(200, {item["begins"]: {name: item[name] for name in shown} for item in found})


def told(event, context):
    return answer(200, {item["id"]: item["text"] for item in all_of(notices)})


def all_of(table, key=None):
    ask, wanted = (table.scan, {}) if key is None else (table.query, {"KeyConditionExpression": key})
    page = ask(ConsistentRead=True, **wanted)
    yield from page["Items"]
    while "LastEvaluatedKey" in page:
        page = ask(ConsistentRead=True, ExclusiveStartKey=page["LastEvaluatedKey"], **wanted)
        yield from page["Items"]


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body, default=float)}
