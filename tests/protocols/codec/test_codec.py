"""Models, routes, constraints, event streams and errors of the codec, one by one."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import botocore.eventstream
import pytest
from botocore import xform_name
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.protocols.codec.generated import ours

from martlet.errors import NotFound, ServiceError, Throttled, Unauthenticated
from martlet.protocols.codec import Malformed, WireRequest, answer, candidates, check, load, method_name, route, wire_for
from martlet.protocols.codec.eventstream import Message, decode_messages, encode_message
from martlet.protocols.codec.patterns import compiled
from martlet.protocols.codec.route import signed_service, trie_of
from martlet.protocols.codec.validate import problems

# --- models


def test_botocore_is_data_only() -> None:
    code = "import sys; from martlet.protocols import aws, codec; codec.load('lambda'); print('botocore' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize(
    "service", ["lambda", "s3", "iam", "sts", "sqs", "dynamodb", "ec2", "logs", "cloudformation", "cloudwatch"]
)
def test_methods_have_boto3s_names(service: str) -> None:
    for name in ours(service).operations:
        assert method_name(name) == xform_name(name)


@pytest.mark.parametrize("name", ["", "..", "../botocore", "no-such", "a" * 65, "s3/2006-03-01", "S3"])
def test_there_is_no_such_model(name: str) -> None:
    assert load(name) is None


# --- routes


def to_s3(method: str, path: str, query: str = "", **headers: str) -> str:
    given_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    found = trie_of(ours("s3")).find(WireRequest(method, path.encode(), query.encode(), given_headers))
    if found is None:
        return "none"
    operation, labels = found
    return f"{operation.name} {json.dumps(labels)}" if labels else operation.name


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "operation"),
    [
        ("GET", "/", "", {}, "ListBuckets"),
        ("GET", "/b", "", {}, 'ListObjects {"Bucket": "b"}'),
        ("GET", "/b/", "list-type=2&prefix=x", {}, 'ListObjectsV2 {"Bucket": "b"}'),
        ("GET", "/b", "location", {}, 'GetBucketLocation {"Bucket": "b"}'),
        ("GET", "/b", "location=", {}, 'GetBucketLocation {"Bucket": "b"}'),
        ("PUT", "/b/a/b%2Fc/", "", {}, 'PutObject {"Bucket": "b", "Key": "a/b/c/"}'),
        ("GET", "/b//k", "", {}, 'GetObject {"Bucket": "b", "Key": "/k"}'),
        ("PUT", "/b/k", "partNumber=1&uploadId=u", {}, 'UploadPart {"Bucket": "b", "Key": "k"}'),
        ("PUT", "/b/k", "", {"x_amz_copy_source": "a/b"}, 'CopyObject {"Bucket": "b", "Key": "k"}'),
        ("PUT", "/b/k", "partNumber=1&uploadId=u", {"x_amz_copy_source": "a/b"}, 'UploadPartCopy {"Bucket": "b", "Key": "k"}'),
        ("GET", "/b/k", "uploadId=u", {}, 'ListParts {"Bucket": "b", "Key": "k"}'),
        ("GET", "/b/k", "tagging", {}, 'GetObjectTagging {"Bucket": "b", "Key": "k"}'),
        ("DELETE", "/b/k", "uploadId=u", {}, 'AbortMultipartUpload {"Bucket": "b", "Key": "k"}'),
        ("POST", "/b", "delete", {}, 'DeleteObjects {"Bucket": "b"}'),
        ("GET", "/b", "lifecycle", {}, 'GetBucketLifecycleConfiguration {"Bucket": "b"}'),
        ("GET", "/k", "", {"host": "bucket.s3.us-east-1.amazonaws.com"}, 'GetObject {"Bucket": "bucket", "Key": "k"}'),
        ("GET", "/", "", {"host": "bucket.localhost:8701"}, 'ListObjects {"Bucket": "bucket"}'),
        ("GET", "/b", "", {"host": "s3.localhost:8701"}, 'ListObjects {"Bucket": "b"}'),
        ("PATCH", "/b/k", "", {}, "none"),
    ],
)
def test_s3_requests_that_differ_in_little(method: str, path: str, query: str, headers: dict[str, str], operation: str) -> None:
    assert to_s3(method, path, query, **headers) == operation


@pytest.mark.parametrize(
    ("method", "path", "query", "operation"),
    [
        ("GET", "/2015-03-31/functions", "", "ListFunctions"),
        ("GET", "/2015-03-31/functions/", "", "ListFunctions"),
        ("GET", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A0%3Afunction%3Af", "", "GetFunction"),
        ("GET", "/2018-10-31/layers", "", "ListLayers"),
        ("GET", "/2018-10-31/layers", "find=LayerVersion&Arn=a", "GetLayerVersionByArn"),
        ("POST", "/2014-11-13/functions/f/invoke-async/", "", "InvokeAsync"),
        ("POST", "/2014-11-13/functions/f/invoke-async", "", "InvokeAsync"),
        ("GET", "/2015-03-31/functions//configuration", "", "none"),
        ("GET", "/2015-03-31", "", "none"),
        ("POST", "/2025-12-01/durable-executions/a%2Fb%2Fc/checkpoint", "", "CheckpointDurableExecution"),
    ],
)
def test_lambda_paths(method: str, path: str, query: str, operation: str) -> None:
    found = trie_of(ours("lambda")).find(WireRequest(method, path.encode(), query.encode()))
    assert (found[0].name if found else "none") == operation


def test_a_slash_in_a_label_stays_there() -> None:
    found = trie_of(ours("lambda")).find(WireRequest("POST", b"/2025-12-01/durable-executions/a%2Fb/checkpoint"))
    assert found is not None
    assert found[1] == {"DurableExecutionArn": "a/b"}


def test_the_scope_tells_the_service() -> None:
    scope = "AWS4-HMAC-SHA256 Credential=A/B/20260101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"
    assert signed_service(WireRequest("POST", headers={"authorization": scope})) == "dynamodb"
    assert candidates(WireRequest("POST", headers={"authorization": scope})) == ("dynamodb", "dynamodbstreams")
    other_order = "AWS4-HMAC-SHA256 SignedHeaders=host, Signature=0, Credential=A/20260101/eu-west-1/sqs/aws4_request"
    assert signed_service(WireRequest("POST", headers={"authorization": other_order})) == "sqs"
    query = b"X-Amz-Credential=AK%2F20260101%2Fus-east-1%2Fs3%2Faws4_request"
    assert candidates(WireRequest("GET", query=query)) == ("s3",)
    assert candidates(WireRequest("POST", headers={"x-amz-target": "AmazonSQS.X"})) == ("sqs",)
    assert candidates(WireRequest("GET", b"/v1/apps")) == ()
    target = {"authorization": scope, "x-amz-target": "DynamoDBStreams_20120810.ListStreams"}
    found = route(("dynamodb", "dynamodbstreams"), WireRequest("POST", headers=target))
    assert found.operation.service.name == "dynamodbstreams"


def test_the_answer_whose_root_is_a_text() -> None:
    operation = ours("s3").operations["GetBucketLocation"]
    body = wire_for(operation.service).encode(operation, {"LocationConstraint": "eu-west-1"}).body
    root = '<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">eu-west-1</LocationConstraint>'
    assert body == f'<?xml version="1.0" encoding="UTF-8"?>\n{root}'.encode()


# --- constraints


def complaint(service: str, operation: str, **params: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        check(ours(service).operations[operation], params)
    return f"{caught.value.name}: {caught.value.message}"


MUST = "failed to satisfy constraint: Member must"


@pytest.mark.parametrize(
    ("service", "operation", "params", "text"),
    [
        (
            "dynamodb",
            "DescribeTable",
            {},
            f"ValidationException: 1 validation error detected: Value null at 'tableName' {MUST} not be null",
        ),
        (
            "lambda",
            "UpdateFunctionConfiguration",
            {"FunctionName": "f", "MemorySize": 64},
            (
                f"ValidationException: 1 validation error detected: Value '64' at 'memorySize' {MUST} have value "
                f"greater than or "
                "equal to 128"
            ),
        ),
        (
            "lambda",
            "UpdateFunctionConfiguration",
            {"FunctionName": "f", "EphemeralStorage": {"Size": 511}},
            (
                f"ValidationException: 1 validation error detected: Value '511' at 'ephemeralStorage.size' {MUST} "
                f"have value greater "
                "than or equal to 512"
            ),
        ),
        (
            "lambda",
            "CreateFunctionUrlConfig",
            {"FunctionName": "f", "AuthType": "NONE", "Cors": {"AllowMethods": ["GET", "OPTIONS"]}},
            (
                "ValidationException: 1 validation error detected: Value '[GET, OPTIONS]' at 'cors.allowMethods' "
                "failed to satisfy "
                "constraint: Member must satisfy constraint: [Member must have length less than or equal to 6, "
                "Member must have "
                "length greater than or equal to 0, Member must satisfy regular expression pattern: .*, Member must "
                "not be null]"
            ),
        ),
        (
            "lambda",
            "UpdateAlias",
            {"FunctionName": "f", "Name": "a", "RoutingConfig": {"AdditionalVersionWeights": {"$LATEST": 0.1}}},
            (
                "ValidationException: 1 validation error detected: Value '{$LATEST=0.1}' at "
                "'routingConfig.additionalVersionWeights' "
                "failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than "
                "or equal to "
                "1024, Member must have length greater than or equal to 1, Member must satisfy regular expression "
                "pattern: [0-9]+]"
            ),
        ),
        (
            "sts",
            "GetAccessKeyInfo",
            {"AccessKeyId": "AKIA-012"},
            (
                f"ValidationError: 2 validation errors detected: Value 'AKIA-012' at 'accessKeyId' {MUST} satisfy regular "
                f"expression pattern: [\\w]*; Value 'AKIA-012' at 'accessKeyId' {MUST} have length greater than or equal to 16"
            ),
        ),
        (
            "logs",
            "PutLogEvents",
            {"logGroupName": "g", "logStreamName": "s", "logEvents": [{"timestamp": 1}]},
            (
                f"InvalidParameterException: 1 validation error detected: Value null at 'logEvents.1.member.message' "
                f"{MUST} not be "
                "null"
            ),
        ),
        (
            "dynamodb",
            "BatchGetItem",
            {"RequestItems": {"Orders": {}}},
            (
                f"ValidationException: 1 validation error detected: Value null at 'requestItems.Orders.member.keys' "
                f"{MUST} not be "
                "null"
            ),
        ),
        (
            "lambda",
            "CreateFunction",
            {"FunctionName": "f", "Role": "arn:aws:iam::123456789012:role/r", "Code": {}, "Architectures": ["foo"]},
            (
                "ValidationException: 1 validation error detected: Value '[foo]' at 'architectures' failed to "
                "satisfy constraint: "
                "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"
            ),
        ),
        (
            "events",
            "PutRule",
            {"Name": "a b"},
            (
                f"ValidationException: 1 validation error detected: Value 'a b' at 'name' {MUST} satisfy regular expression "
                "pattern: [\\.\\-_A-Za-z0-9]+"
            ),
        ),
    ],
)
def test_the_words_of_the_services(service: str, operation: str, params: dict[str, Any], text: str) -> None:
    assert complaint(service, operation, **params) == text


def test_what_a_service_checks_itself_is_left_to_it() -> None:
    check(ours("s3").operations["PutObject"], {})
    check(ours("sqs").operations["SendMessage"], {})
    good = {"FunctionName": "f", "Role": "arn:aws:iam::123456789012:role/r", "Code": {}, "Runtime": "python9"}
    check(ours("lambda").operations["CreateFunction"], good)


def test_secrets_are_not_repeated() -> None:
    text = complaint("secretsmanager", "CreateSecret", Name="n", SecretString="s" * 70_000, ClientRequestToken="x" * 32)
    assert "sss" not in text
    assert "Value at 'secretString' failed" in text


def test_shapes_that_hold_themselves() -> None:
    value: dict[str, Any] = {"S": "x"}
    for _ in range(20):
        value = {"L": [value]}
    check(ours("dynamodb").operations["PutItem"], {"TableName": "table", "Item": {"a": value}})
    assert problems(ours("dynamodb").operations["PutItem"].input, {"TableName": "", "Item": {"a": value}})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", "é 雪 9", "a\nb"),
        (r"[\w+=,.@-]+", "a@b", "é"),
        (r"[\P{C}\n]+", "a\n", "\x00"),
        (r"\p{Alnum}+", "aZ9", "é"),
        (r"[\w-_]+", "a-_", "!"),
        (r"^[^\p{Cntrl}]+$", "a b", "a\x07"),
        (r"[a-z[0-9]]+\z(?!x)", "a1", "A"),
        (r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)", "a-1", "12"),
        (r"[\u0009\u000A\u000D\u0020-\u00FF]+", "a\t", "雪"),
    ],
)
def test_javas_patterns(pattern: str, good: str, bad: str) -> None:
    found = compiled(pattern)
    assert found is not None
    assert found(good)
    assert not found(bad)


def test_a_pattern_that_python_cannot_have_is_not_checked() -> None:
    assert compiled(r"[\p{Print}&&[^|:/]]+") is None
    assert compiled("(") is None


def test_patterns_take_linear_time_or_are_spared_long_values() -> None:
    linear = compiled(r"(a+)+b")
    assert linear is not None
    assert not linear("a" * 100_000)
    looks_around = compiled(r"(?!x)[a-z]+")
    assert looks_around is not None
    assert not looks_around("A" * 2_048)
    assert looks_around("A" * 2_049)  # the service will say


def test_what_is_wrong_is_told_in_the_services_order_whatever_the_requests() -> None:
    shape = ours("dynamodb").operations["PutItem"].input
    wrong = {"ReturnValues": "X", "ReturnConsumedCapacity": "Y", "TableName": "a b"}
    found = problems(shape, wrong)
    assert len(found) == 4
    assert found == problems(shape, dict(reversed(wrong.items())))
    paths = [text.partition(" at '")[2].partition("'")[0] for text in found]
    assert paths == ["returnConsumedCapacity", "tableName", "item", "returnValues"]


# --- event streams


@settings(max_examples=60, deadline=None)
@given(
    headers=st.dictionaries(
        st.text("abc:-", min_size=1, max_size=10),
        st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.binary(max_size=20)
        | st.text(max_size=10)
        | st.uuids()
        | st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
        max_size=5,
    ),
    payload=st.binary(max_size=50),
    cut=st.integers(0, 200),
)
def test_messages_of_event_streams(headers: dict[str, Any], payload: bytes, cut: int) -> None:
    message = Message(headers, payload)
    data = encode_message(message)
    assert decode_messages(data + data[:cut])[0][0] == message
    assert decode_messages(data[: min(cut, len(data) - 1)])[0] == []
    theirs = botocore.eventstream.EventStreamBuffer()
    theirs.add_data(data)
    found = next(iter(theirs))
    assert found.payload == payload
    assert set(found.headers) == set(headers)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=60), at=st.integers(0, 30), bit=st.integers(0, 7))
def test_messages_that_are_damaged(data: bytes, at: int, bit: int) -> None:
    whole = bytearray(encode_message(Message({"a": "b", "n": 1}, b"payload")))
    whole[at] ^= 1 << bit
    for damaged in (bytes(whole), data):
        try:
            assert decode_messages(damaged)[0] == []
        except Malformed:
            pass  # noticed


def test_a_header_of_every_type() -> None:
    headers = {"y": True, "n": False, "i": 7, "l": 1 << 40, "b": b"x", "s": "é", "u": UUID(int=5)}
    assert decode_messages(encode_message(Message(headers)))[0] == [Message(headers)]


# --- errors


def error_of(service: str, error: Any, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = WireRequest("POST", headers={name.replace("_", "-"): value for name, value in headers.items()})
    found = answer(error, wire_for(ours(service)), None, request, "the-id")
    assert isinstance(found.body, bytes)
    return found.status, dict(found.headers), found.body


def test_lambdas_errors() -> None:
    status, headers, body = error_of("lambda", ServiceError("ResourceNotFoundException", "no f", 400))
    assert (status, headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")  # the status is the shape's
    assert json.loads(body) == {"Type": "User", "Message": "no f"}  # and so is the member's name
    status, headers, body = error_of("lambda", ServiceError("ValidationException", "1 validation error", 400))
    assert (status, json.loads(body)) == (400, {"message": "1 validation error"})  # this one has no Type
    status, headers, body = error_of(
        "lambda", ServiceError("TooManyRequestsException", "x", 429, retryAfterSeconds="9", Reason="R")
    )
    assert (status, headers["retry-after"], json.loads(body)["Reason"]) == (429, "9", "R")


def test_json_errors_have_a_namespace_where_the_service_has_one() -> None:
    _, headers, body = error_of("dynamodb", ServiceError("ResourceNotFoundException", "no t"))
    assert json.loads(body)["__type"] == "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"
    assert "x-amz-crc32" in headers
    _, _, body = error_of("dynamodb", ServiceError("ValidationException", "bad"))
    assert json.loads(body)["__type"] == "com.amazon.coral.validate#ValidationException"
    _, headers, body = error_of("sqs", ServiceError("QueueDoesNotExist", "no q"))
    assert json.loads(body)["__type"] == "com.amazonaws.sqs#QueueDoesNotExist"
    assert headers["x-amzn-query-error"] == "AWS.SimpleQueueService.NonExistentQueue;Sender"
    _, _, body = error_of("logs", ServiceError("ResourceNotFoundException", "The specified log group does not exist."))
    expected = {"__type": "ResourceNotFoundException", "message": "The specified log group does not exist."}
    assert json.loads(body) == expected


def test_xml_errors() -> None:
    status, _, body = error_of("iam", ServiceError("NoSuchEntity", "no <role>"))
    assert status == 404
    assert b"<Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>no &lt;role&gt;</Message></Error>" in body
    assert b"<RequestId>the-id</RequestId></ErrorResponse>" in body
    status, headers, body = error_of("s3", ServiceError("NoSuchKey", "no key", 404, Key="a&b"))
    assert (status, headers["x-amz-request-id"]) == (404, "the-id")
    assert b"<Error><Code>NoSuchKey</Code><Message>no key</Message><Key>a&amp;b</Key><RequestId>the-id</RequestId>" in body
    _, _, body = error_of("ec2", ServiceError("InvalidInstanceID.Malformed", "bad id"))
    assert b"<Response><Errors><Error><Code>InvalidInstanceID.Malformed</Code>" in body
    assert b"<RequestID>the-id</RequestID>" in body


@pytest.mark.parametrize(
    ("service", "reason", "status", "code"),
    [
        ("lambda", "InvalidClientTokenId", 403, "UnrecognizedClientException"),
        ("dynamodb", "InvalidClientTokenId", 400, "UnrecognizedClientException"),
        ("iam", "InvalidClientTokenId", 403, "InvalidClientTokenId"),
        ("s3", "InvalidClientTokenId", 403, "InvalidAccessKeyId"),
        ("lambda", "ExpiredToken", 403, "ExpiredTokenException"),
        ("sts", "ExpiredToken", 403, "ExpiredToken"),
        ("s3", "InvalidToken", 400, "InvalidToken"),
        ("lambda", "something new", 403, "UnrecognizedClientException"),
    ],
)
def test_credentials_that_do_not_hold(service: str, reason: str, status: int, code: str) -> None:
    found, _, body = error_of(service, Unauthenticated("x", reason=reason))
    assert found == status
    assert code in body.decode() or service == "lambda"


def test_other_errors_have_the_services_names() -> None:
    assert error_of("lambda", Throttled("x"))[1]["x-amzn-errortype"] == "TooManyRequestsException"
    assert error_of("scheduler", Throttled("x", retry_after_seconds=3))[1]["retry-after"] == "3"
    assert b"<Code>NoSuchEntity</Code>" in error_of("iam", NotFound("x"))[2]
    assert b"<Code>NoSuchKey</Code>" in error_of("s3", NotFound("x"))[2]
