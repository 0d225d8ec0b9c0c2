"""A handler as it was written for AWS Lambda; it runs unchanged. Every request to the app comes here (route $default)."""

import json


def lambda_handler(event, context):
    name = (event.get("queryStringParameters") or {}).get("name", "world")
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"hello": name, "function": context.function_name, "request": context.aws_request_id}),
    }
