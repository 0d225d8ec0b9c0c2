"""Stands for somebody else's service, which is down at times."""

import json
import os
from uuid import uuid4

import boto3

dynamodb = boto3.resource("dynamodb")
calls, switches = dynamodb.Table(os.environ["CALLS"]), dynamodb.Table(os.environ["SWITCHES"])


def handler(event, context):
    found = switches.get_item(Key={"name": "provider"}, ConsistentRead=True).get("Item")
    down = found is not None and found["down"]
    calls.put_item(Item={"id": str(uuid4()), "symbol": event["symbol"], "failed": down})
    if down:
        raise ConnectionError("the provider is down")
    return {"symbol": event["symbol"], "cents": 100 * len(event["symbol"])}


def switch(event, context):
    switches.put_item(Item={"name": "provider", "down": bool(json.loads(event["body"]).get("down"))})
    return {"statusCode": 204}
