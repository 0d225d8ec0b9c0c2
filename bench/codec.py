"""What the AWS codec costs a call: routing, decoding, validation and encoding, without HTTP and signature.

    python -m bench.codec

Goal: 15 µs for a small JSON call (decode + validate + encode). Prints the best of several rounds, in microseconds.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

from martlet.protocols.codec import WireRequest, candidates, check, route

SCOPE = "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"
ROUNDS, CALLS = 7, 2_000


def request(service: str, body: bytes = b"", *, method: str = "POST", path: bytes = b"/", **headers: str) -> WireRequest:
    found = {name.replace("_", "-"): value for name, value in headers.items()} | {"authorization": SCOPE.format(service)}
    return WireRequest(method, path, b"", found, body)


CASES: dict[str, tuple[WireRequest, dict[str, Any]]] = {
    "dynamodb GetItem (json 1.0)": (
        request("dynamodb", b'{"TableName":"orders","Key":{"id":{"S":"o-1"}}}', x_amz_target="DynamoDB_20120810.GetItem"),
        {"Item": {"id": {"S": "o-1"}, "total": {"N": "12.5"}, "open": {"BOOL": True}}},
    ),
    "sqs SendMessage (json 1.0)": (
        request("sqs", b'{"QueueUrl":"http://h/0/q","MessageBody":"hello"}', x_amz_target="AmazonSQS.SendMessage"),
        {"MD5OfMessageBody": "5d41402abc4b2a76b9719d911017c592", "MessageId": "219f8380-5770-4cc2-8c3e-5c715e145f5e"},
    ),
    "logs CreateLogGroup (json 1.1)": (
        request("logs", b'{"logGroupName":"/aws/lambda/f"}', x_amz_target="Logs_20140328.CreateLogGroup"),
        {},
    ),
    "lambda Invoke (rest-json)": (
        request(
            "lambda", b'{"a":1}', path=b"/2015-03-31/functions/shop-echo/invocations", x_amz_invocation_type="RequestResponse"
        ),
        {"StatusCode": 200, "ExecutedVersion": "$LATEST", "Payload": b'{"a":1}'},
    ),
    "lambda GetFunctionConfiguration (rest-json)": (
        request("lambda", method="GET", path=b"/2015-03-31/functions/shop-echo/configuration"),
        {"FunctionName": "shop-echo", "Runtime": "python3.12", "MemorySize": 128, "Environment": {"Variables": {"A": "b"}}},
    ),
    "sts GetCallerIdentity (query)": (
        request("sts", b"Action=GetCallerIdentity&Version=2011-06-15", content_type="application/x-www-form-urlencoded"),
        {"UserId": "000000000000", "Account": "000000000000", "Arn": "arn:aws:iam::000000000000:root"},
    ),
    "s3 GetObject (rest-xml)": (
        request("s3", method="GET", path=b"/bucket/a/key"),
        {"Body": b"x" * 100, "ContentLength": 100, "ETag": '"x"', "ContentType": "text/plain"},
    ),
    "cloudwatch DescribeAlarmHistory (cbor)": (
        request(
            "monitoring",
            b"\xa1iAlarmNameaa",
            path=b"/service/GraniteServiceVersion20100801/operation/DescribeAlarmHistory",
            smithy_protocol="rpc-v2-cbor",
        ),
        {"AlarmHistoryItems": [], "NextToken": "n"},
    ),
}


def best(call: Callable[[], object]) -> float:
    """Microseconds a call, in the best of the rounds."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def measured(wire_request: WireRequest, result: dict[str, Any]) -> tuple[float, ...]:
    """Of one call: route, decode, check, encode."""
    routed = route(candidates(wire_request), wire_request)
    operation, wire, labels = routed.operation, routed.wire, routed.labels
    value = wire.decode(operation, wire_request, labels)
    return (
        best(lambda: route(candidates(wire_request), wire_request)),
        best(lambda: wire.decode(operation, wire_request, labels)),
        best(lambda: check(operation, value)),
        best(lambda: wire.encode(operation, result, "request")),
    )


def main() -> None:
    print(f"{'call':<46}{'route':>8}{'decode':>8}{'check':>8}{'encode':>8}{'codec':>8}")
    for name, (wire_request, result) in CASES.items():
        took = measured(wire_request, result)
        print(f"{name:<46}" + "".join(f"{figure:8.1f}" for figure in (*took, sum(took[1:]))))


if __name__ == "__main__":
    main()
