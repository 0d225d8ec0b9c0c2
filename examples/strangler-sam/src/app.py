"""What has moved from the legacy server."""

import json


def handler(event, context):
    name = event["pathParameters"]["name"]
    body = {"name": name, "cents": 100 * len(name), "by": "martlet"}
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
