"""Canonical events: what each source sends to a function, for `martlet invoke --event KIND`.

The shapes are those of the services' documentation (Lambda developer guide, "Using AWS Lambda with other services"). Values are
made now (times, ids), so that code which looks at them sees what it would see from the source; everything may be replaced by
`--set PATH=VALUE`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from martlet.clock import Clock

__all__ = ["EVENTS", "assign", "event"]

_ACCOUNT, _REGION = "000000000000", "us-east-1"
_JSON_BODY = '{"hello":"world"}'

Event = dict[str, Any]


class _Now:
    """One moment, in the forms that events have it in."""

    def __init__(self) -> None:
        self.ms = Clock().now_ms()
        self.moment = datetime.fromtimestamp(self.ms / 1000, UTC)
        self.iso = self.moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.ms % 1000:03d}Z"
        self.seconds = self.moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.clf = self.moment.strftime("%d/%b/%Y:%H:%M:%S +0000")


def _id() -> str:
    return str(uuid.uuid4())


def _records(record: Event) -> Event:
    return {"Records": [record]}


def _sqs(now: _Now) -> Event:
    return _records(
        {
            "messageId": _id(),
            "receiptHandle": base64.b64encode(uuid.uuid4().bytes * 4).decode(),
            "body": _JSON_BODY,
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": str(now.ms),
                "SenderId": "AIDAMARTLETEXAMPLE",
                "ApproximateFirstReceiveTimestamp": str(now.ms),
            },
            "messageAttributes": {},
            "md5OfBody": hashlib.md5(_JSON_BODY.encode(), usedforsecurity=False).hexdigest(),
            "eventSource": "aws:sqs",
            "eventSourceARN": f"arn:aws:sqs:{_REGION}:{_ACCOUNT}:queue",
            "awsRegion": _REGION,
        }
    )


def _s3(name: str) -> Callable[[_Now], Event]:
    def make(now: _Now) -> Event:
        described: Event = {"key": "folder/picture.png", "sequencer": f"{now.ms:018X}"}
        if name.startswith("ObjectCreated"):
            described = {"key": "folder/picture.png", "size": 1024, "eTag": "0123456789abcdef0123456789abcdef", **described}
        return _records(
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": _REGION,
                "eventTime": now.iso,
                "eventName": name,
                "userIdentity": {"principalId": "EXAMPLE"},
                "requestParameters": {"sourceIPAddress": "127.0.0.1"},
                "responseElements": {"x-amz-request-id": uuid.uuid4().hex[:16].upper(), "x-amz-id-2": uuid.uuid4().hex},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "notification",
                    "bucket": {
                        "name": "bucket",
                        "ownerIdentity": {"principalId": "EXAMPLE"},
                        "arn": "arn:aws:s3:::bucket",
                    },
                    "object": described,
                },
            }
        )

    return make


def _sns(now: _Now) -> Event:
    topic = f"arn:aws:sns:{_REGION}:{_ACCOUNT}:topic"
    return _records(
        {
            "EventVersion": "1.0",
            "EventSubscriptionArn": f"{topic}:{_id()}",
            "EventSource": "aws:sns",
            "Sns": {
                "SignatureVersion": "1",
                "Timestamp": now.iso,
                "Signature": "EXAMPLE",
                "SigningCertUrl": "EXAMPLE",
                "MessageId": _id(),
                "Message": _JSON_BODY,
                "MessageAttributes": {},
                "Type": "Notification",
                "UnsubscribeUrl": "EXAMPLE",
                "TopicArn": topic,
                "Subject": "example",
            },
        }
    )


def _envelope(now: _Now, source: str, kind: str, detail: Any, resources: list[str]) -> Event:
    return {
        "version": "0",
        "id": _id(),
        "detail-type": kind,
        "source": source,
        "account": _ACCOUNT,
        "time": now.seconds,
        "region": _REGION,
        "resources": resources,
        "detail": detail,
    }


def _eventbridge(now: _Now) -> Event:
    return _envelope(now, "example.orders", "OrderPlaced", {"order": "1001", "total": 42}, [])


def _schedule(now: _Now) -> Event:
    return _envelope(now, "aws.events", "Scheduled Event", {}, [f"arn:aws:events:{_REGION}:{_ACCOUNT}:rule/schedule"])


def _scheduler(now: _Now) -> Event:
    arn = f"arn:aws:scheduler:{_REGION}:{_ACCOUNT}:schedule/default/schedule"
    return _envelope(now, "aws.scheduler", "Scheduled Event", "{}", [arn])


def _apigw(now: _Now) -> Event:
    headers = {"Accept": "*/*", "Content-Type": "application/json", "Host": "example.execute-api", "User-Agent": "martlet"}
    identity = dict.fromkeys(
        (
            "accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType",
            "cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "user", "userArn",
        )
    )  # fmt: skip
    return {
        "resource": "/{proxy+}",
        "path": "/hello/world",
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {"a": "1"},
        "multiValueQueryStringParameters": {"a": ["1"]},
        "pathParameters": {"proxy": "hello/world"},
        "stageVariables": None,
        "requestContext": {
            "accountId": _ACCOUNT,
            "apiId": "a1b2c3d4e5",
            "deploymentId": "d1e2f3",
            "domainName": f"a1b2c3d4e5.execute-api.{_REGION}.amazonaws.com",
            "domainPrefix": "a1b2c3d4e5",
            "extendedRequestId": "EXAMPLE=",
            "httpMethod": "POST",
            "identity": {**identity, "sourceIp": "127.0.0.1", "userAgent": "martlet"},
            "path": "/Prod/hello/world",
            "protocol": "HTTP/1.1",
            "requestId": _id(),
            "requestTime": now.clf,
            "requestTimeEpoch": now.ms,
            "resourceId": "r1s2t3",
            "resourcePath": "/{proxy+}",
            "stage": "Prod",
        },
        "body": _JSON_BODY,
        "isBase64Encoded": False,
    }


def _http(now: _Now, route: str, context: Event) -> Event:
    return {
        "version": "2.0",
        "routeKey": route,
        "rawPath": "/hello/world",
        "rawQueryString": "a=1",
        "headers": {
            "accept": "*/*",
            "content-type": "application/json",
            "host": context["domainName"],
            "user-agent": "martlet",
        },
        "queryStringParameters": {"a": "1"},
        "requestContext": {
            **context,
            "http": {
                "method": "POST",
                "path": "/hello/world",
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "martlet",
            },
            "requestId": _id(),
            "routeKey": route,
            "stage": "$default",
            "time": now.clf,
            "timeEpoch": now.ms,
        },
        "body": _JSON_BODY,
        "isBase64Encoded": False,
    }


def _httpapi(now: _Now) -> Event:
    domain = f"a1b2c3d4e5.execute-api.{_REGION}.amazonaws.com"
    context = {"accountId": _ACCOUNT, "apiId": "a1b2c3d4e5", "domainName": domain, "domainPrefix": "a1b2c3d4e5"}
    return {**_http(now, "POST /{proxy+}", context), "pathParameters": {"proxy": "hello/world"}}


def _url(now: _Now) -> Event:
    name = uuid.uuid4().hex
    domain = f"{name}.lambda-url.{_REGION}.on.aws"
    return _http(now, "$default", {"accountId": "anonymous", "apiId": name, "domainName": domain, "domainPrefix": name})


def _dynamodb(now: _Now) -> Event:
    return _records(
        {
            "eventID": uuid.uuid4().hex,
            "eventName": "INSERT",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": _REGION,
            "dynamodb": {
                "ApproximateCreationDateTime": now.ms / 1000,
                "Keys": {"id": {"S": "1001"}},
                "NewImage": {"id": {"S": "1001"}, "total": {"N": "42"}},
                "SequenceNumber": "100000000000000000001",
                "SizeBytes": 26,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
            "eventSourceARN": f"arn:aws:dynamodb:{_REGION}:{_ACCOUNT}:table/orders/stream/2026-01-01T00:00:00.000",
        }
    )


def _kinesis(now: _Now) -> Event:
    sequence = "49590338271490256608559692538361571095921575989136588898"
    return _records(
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": "1",
                "sequenceNumber": sequence,
                "data": base64.b64encode(_JSON_BODY.encode()).decode(),
                "approximateArrivalTimestamp": now.ms / 1000,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"shardId-000000000006:{sequence}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": f"arn:aws:iam::{_ACCOUNT}:role/function",
            "awsRegion": _REGION,
            "eventSourceARN": f"arn:aws:kinesis:{_REGION}:{_ACCOUNT}:stream/stream",
        }
    )


def _logs(now: _Now) -> Event:
    said = {
        "messageType": "DATA_MESSAGE",
        "owner": _ACCOUNT,
        "logGroup": "/aws/lambda/example",
        "logStream": "stream",
        "subscriptionFilters": ["filter"],
        "logEvents": [{"id": "0", "timestamp": now.ms, "message": "hello"}],
    }
    return {"awslogs": {"data": base64.b64encode(gzip.compress(json.dumps(said).encode())).decode()}}


def _cognito(now: _Now) -> Event:
    return {
        "version": "1",
        "region": _REGION,
        "userPoolId": f"{_REGION}_EXAMPLE",
        "userName": "ada",
        "callerContext": {"awsSdkVersion": "aws-sdk-unknown-unknown", "clientId": "client"},
        "triggerSource": "PreSignUp_SignUp",
        "request": {"userAttributes": {"email": "ada@example.com"}, "validationData": None},
        "response": {"autoConfirmUser": False, "autoVerifyEmail": False, "autoVerifyPhone": False},
    }


EVENTS: dict[str, Callable[[_Now], Event]] = {
    "apigw": _apigw,  # API Gateway REST, payload 1.0
    "cognito": _cognito,
    "dynamodb": _dynamodb,
    "eventbridge": _eventbridge,
    "httpapi": _httpapi,  # API Gateway HTTP, payload 2.0
    "kinesis": _kinesis,
    "logs": _logs,
    "s3": _s3("ObjectCreated:Put"),
    "s3-delete": _s3("ObjectRemoved:Delete"),
    "schedule": _schedule,
    "scheduler": _scheduler,
    "sns": _sns,
    "sqs": _sqs,
    "url": _url,  # function URL
}


def event(kind: str) -> Event:
    """The canonical event of `kind`. Raises `KeyError`."""
    return EVENTS[kind](_Now())


def assign(target: Any, text: str) -> None:
    """Replace what "PATH=VALUE" names: "Records.0.body=hello"; VALUE is JSON, else text. Raises `ValueError` with the cause.

    The last member of a path may be new; everything before it must be there. Of a text that is JSON the members can be named
    as well ("Records.0.body.order=7").
    """
    path, separator, value = text.partition("=")
    if not separator or not path:
        raise ValueError(f"{text!r} is not PATH=VALUE")
    try:
        found: Any = json.loads(value)
    except ValueError:
        found = value
    _put(target, path.split("."), found, path)


def _put(target: Any, parts: list[str], value: Any, path: str) -> None:
    first, rest = parts[0], parts[1:]
    key = _key(target, first, path)
    if not rest:
        target[key] = value if not isinstance(target[key] if _has(target, key) else None, str) else _text(value)
        return
    if not _has(target, key):
        raise ValueError(f"the event has no {path}: {first!r} is not there")
    inner = target[key]
    if isinstance(inner, str):
        try:
            parsed = json.loads(inner)
        except ValueError:
            raise ValueError(f"the event has no {path}: {first!r} is a text") from None
        _put(parsed, rest, value, path)
        target[key] = json.dumps(parsed, separators=(",", ":"))
    else:
        _put(inner, rest, value, path)


def _text(value: Any) -> str:
    """A text stays a text: JSON that is put in its place is written out, as a queue's body is."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _has(target: Any, key: Any) -> bool:
    return key in target if isinstance(target, dict) else True


def _key(target: Any, name: str, path: str) -> Any:
    if isinstance(target, dict):
        return name
    if isinstance(target, list):
        if name.isascii() and name.isdigit() and int(name) < len(target):
            return int(name)
        raise ValueError(f"the event has no {path}: there are {len(target)} in the list, {name!r} is none of them")
    raise ValueError(f"the event has no {path}: {name!r} would be inside a {type(target).__name__}")
