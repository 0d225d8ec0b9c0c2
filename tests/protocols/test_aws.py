"""The dispatcher of AWS's services, as boto3 and as raw requests see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.protocols.aws_platform import AwsPlatform, aws_platform, called, code_of, failed

from martlet.errors import AccessDenied, Conflict, LimitExceeded, NotFound, Overloaded, ServiceError, Throttled
from martlet.protocols import codec
from martlet.protocols.asgi import Request
from martlet.protocols.aws import is_aws, wire_request
from martlet.protocols.codec import Caller


class Queues:
    """A service "sqs" that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Caller, dict[str, Any]]] = []
        self.error: Exception | None = None

    async def send_message(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((caller, request))
        if self.error is not None:
            raise self.error
        return {"MessageId": "m-1", "MD5OfMessageBody": "0" * 32, "SequenceNumber": None, "Unknown": 1}

    async def get_queue_url(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        raise ServiceError("QueueDoesNotExist", "The specified queue does not exist.")


class Lambda:
    """A service "lambda" with a stream, a blob and a constraint."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def invoke(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        if request["FunctionName"] == "busy":
            raise Throttled("no room", retry_after_seconds=7)
        if request["FunctionName"] == "typed":
            raise ServiceError("TooManyRequestsException", "Rate Exceeded.", 429, Reason="CallerRateLimitExceeded")
        return {
            "StatusCode": 200,
            "Payload": request.get("Payload", b"{}"),
            "ExecutedVersion": "$LATEST",
            "ResponseMetadata": {"RequestId": "the-invocation"},
        }

    async def invoke_with_response_stream(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        async def events() -> AsyncIterator[dict[str, Any]]:
            yield {"PayloadChunk": {"Payload": b"one"}}
            await asyncio.sleep(0)
            yield {"PayloadChunk": {"Payload": b"two"}}
            yield {"InvokeComplete": {"ErrorCode": "Unhandled", "ErrorDetails": "it broke"}}

        return {"StatusCode": 200, "EventStream": events()}

    async def delete_function(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return {"StatusCode": 204}

    async def tag_resource(self, caller: Caller, request: dict[str, Any]) -> None:
        self.asked.append(request)

    async def list_functions(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return {"Functions": [object()]}  # nothing that a wire could carry

    async def get_function(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        raise ServiceError("ResourceNotFoundException", f"Function not found: {request['FunctionName']}", 404)


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[AwsPlatform]:
    async with aws_platform(tmp_path, **{"sqs": Queues(), "lambda": Lambda()}) as found:
        yield found


def queues(platform: AwsPlatform) -> Queues:
    found = platform.services["sqs"]
    assert isinstance(found, Queues)
    return found


URL = "http://127.0.0.1/000000000000/q"


# --- the way through


async def test_an_operation_gets_its_caller_and_its_request(platform: AwsPlatform) -> None:
    sqs = platform.client("sqs")
    attributes = {"a": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}}
    answer = await called(sqs.send_message, QueueUrl=URL, MessageBody="é", DelaySeconds=3, MessageAttributes=attributes)
    assert answer["MessageId"] == "m-1"
    assert "SequenceNumber" not in answer
    caller, request = queues(platform).asked[0]
    assert request == {"QueueUrl": URL, "MessageBody": "é", "DelaySeconds": 3, "MessageAttributes": attributes}
    assert caller.principal.kind == "root"
    assert caller.endpoint == f"http://127.0.0.1:{platform.port}"
    assert caller.source_ip == "127.0.0.1"
    assert answer["ResponseMetadata"]["RequestId"] == caller.request_id


async def test_lambda_answers_with_the_id_of_the_invocation(platform: AwsPlatform) -> None:
    answer = await called(platform.client("lambda").invoke, FunctionName="f", Payload=b'{"a":1}')
    assert answer["ResponseMetadata"]["RequestId"] == "the-invocation"
    assert await asyncio.to_thread(answer["Payload"].read) == b'{"a":1}'


async def test_an_event_stream_comes_event_by_event(platform: AwsPlatform) -> None:
    answer = await called(platform.client("lambda").invoke_with_response_stream, FunctionName="f")
    events = await asyncio.to_thread(lambda: list(answer["EventStream"]))
    assert events == [
        {"PayloadChunk": {"Payload": b"one"}},
        {"PayloadChunk": {"Payload": b"two"}},
        {"InvokeComplete": {"ErrorCode": "Unhandled", "ErrorDetails": "it broke"}},
    ]


async def test_an_answer_without_a_body(platform: AwsPlatform) -> None:
    client = platform.client("lambda")
    assert (await called(client.delete_function, FunctionName="f"))["ResponseMetadata"]["HTTPStatusCode"] == 204
    arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
    answer = await called(client.tag_resource, Resource=arn, Tags={"a": "b"})
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204


# --- what is not there


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "named"),
    [
        ("sqs", "list_queues", {}, "sqs:ListQueues"),
        ("dynamodb", "list_tables", {}, "dynamodb:ListTables"),
        ("sns", "list_topics", {}, "sns:ListTopics"),
        ("iam", "list_mfa_devices", {}, "iam:ListMFADevices"),
        ("s3", "list_buckets", {}, "s3:ListBuckets"),
        ("cloudwatch", "list_dashboards", {}, "cloudwatch:ListDashboards"),
        ("ec2", "describe_regions", {}, "ec2:DescribeRegions"),
        ("lambda", "list_layers", {}, "lambda:ListLayers"),
        ("apigatewayv2", "get_apis", {}, "apigatewayv2:GetApis"),
        ("stepfunctions", "list_state_machines", {}, "stepfunctions:ListStateMachines"),
        ("rds", "describe_db_instances", {}, "rds:DescribeDBInstances"),
    ],
)
async def test_what_is_not_there_is_named(
    platform: AwsPlatform, service: str, operation: str, parameters: dict[str, Any], named: str
) -> None:
    error = await failed(getattr(platform.client(service), operation), **parameters)
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert error["Error"]["Code"] in ("NotImplementedException", "NotImplemented")
    assert named in error["Error"]["Message"]


async def test_nothing_is_told_to_who_is_not_known(platform: AwsPlatform) -> None:
    assert await code_of(platform.client("dynamodb", "AKIDAKIDAKIDAKIDAKID").list_tables) == "UnrecognizedClientException"


def signed(
    platform: AwsPlatform, service: str, *, method: str = "POST", path: str = "/", body: bytes = b"", **headers: str
) -> tuple[str, dict[str, str]]:
    url = f"http://127.0.0.1:{platform.port}{path}"
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest(method, url, data=body, headers=given)
    keys = Credentials(platform.root.access_key_id, platform.root.secret_access_key)
    SigV4Auth(keys, service, "us-east-1").add_auth(request)
    return url, dict(request.headers)


async def sent(platform: AwsPlatform, service: str, body: bytes = b"", **more: str) -> httpx.Response:
    method, path = more.pop("method", "POST"), more.pop("path", "/")
    url, headers = signed(platform, service, method=method, path=path, body=body, **more)
    async with httpx.AsyncClient() as client:
        return await client.request(method, url, content=body, headers=headers)


FORM = "application/x-www-form-urlencoded"


async def test_unknown_operations_have_the_names_that_aws_gives_them(platform: AwsPlatform) -> None:
    answer = await sent(platform, "sqs", b"{}", x_amz_target="AmazonSQS.Nothing", content_type="application/x-amz-json-1.0")
    assert (answer.status_code, answer.json()["__type"]) == (400, "com.amazon.coral.service#UnknownOperationException")
    answer = await sent(platform, "sqs", b"{}", x_amz_target="DynamoDB_20120810.ListTables")
    assert answer.json()["__type"] == "com.amazon.coral.service#UnknownOperationException"
    answer = await sent(platform, "lambda", path="/2015-03-31/nothing")
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")
    answer = await sent(platform, "iam", b"Action=Nothing&Version=2010-05-08", content_type=FORM)
    assert (answer.status_code, "<Code>InvalidAction</Code>" in answer.text) == (400, True)
    assert "Could not find operation Nothing for version 2010-05-08" in answer.text
    answer = await sent(platform, "iam", b"Version=2010-05-08", content_type=FORM)
    assert "<Code>MissingAction</Code>" in answer.text
    answer = await sent(platform, "no-such-service", b"")
    assert answer.status_code == 501
    assert "no-such-service" in answer.json()["message"]
    answer = await sent(platform, "../etc/passwd", b"")
    assert answer.status_code in (400, 404)


async def test_the_service_is_the_signatures_never_the_targets(platform: AwsPlatform) -> None:
    answer = await sent(platform, "sts", b"Action=ListRoles&Version=2010-05-08", content_type=FORM)
    assert "<Code>InvalidAction</Code>" in answer.text  # sts has none; that iam has one does not matter


# --- who asks


async def test_wrong_credentials_in_every_way(platform: AwsPlatform) -> None:
    key, secret = platform.root.access_key_id, platform.root.secret_access_key
    wrong = platform.client("sqs", key, secret[:-1] + "x")
    error = await failed(wrong.send_message, QueueUrl=URL, MessageBody="x")
    assert error["Error"]["Code"] == "InvalidSignatureException"
    assert "The request signature we calculated does not match the signature you provided." in error["Error"]["Message"]
    assert "The Canonical String for this request should have been\n'POST\n/\n" in error["Error"]["Message"]
    assert "The String-to-Sign should have been\n'AWS4-HMAC-SHA256\n" in error["Error"]["Message"]
    assert secret not in str(error)
    assert await code_of(platform.client("iam", key, secret + "x").list_roles) == "SignatureDoesNotMatch"
    assert await code_of(platform.client("s3", key, secret + "x").list_buckets) == "SignatureDoesNotMatch"
    assert await code_of(platform.client("iam", "AKIDAKIDAKIDAKIDAKID").list_roles) == "InvalidClientTokenId"
    assert await code_of(platform.client("s3", "AKIDAKIDAKIDAKIDAKID").list_buckets) == "InvalidAccessKeyId"
    assert await code_of(platform.client("sqs", key, secret, "made-up").list_queues) == "UnrecognizedClientException"
    assert await code_of(platform.client("iam", key, secret, "made-up").list_roles) == "InvalidClientTokenId"
    assert queues(platform).asked == []


async def test_clocks_that_differ_too_much(platform: AwsPlatform) -> None:
    for ahead_ms, text in ((16 * 60_000, "Signature expired: "), (-16 * 60_000, "Signature not yet current: ")):
        platform.clock.ahead_ms = ahead_ms
        error = await failed(platform.client("sqs").list_queues)
        assert error["Error"]["Code"] == "InvalidSignatureException"
        assert error["Error"]["Message"].startswith(text)
        error = await failed(platform.client("iam").list_roles)
        assert error["Error"]["Code"] == "SignatureDoesNotMatch"
        assert await code_of(platform.client("s3").list_buckets) == "RequestTimeTooSkewed"


async def test_without_credentials(platform: AwsPlatform) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{platform.port}") as client:
        answer = await client.post("/", content=b"{}", headers={"x-amz-target": "AmazonSQS.SendMessage"})
        assert answer.json()["__type"] == "com.amazon.coral.service#MissingAuthenticationTokenException"
        answer = await client.post("/", data={"Action": "ListRoles", "Version": "2010-05-08"})
        assert (answer.status_code, "<Code>MissingAuthenticationToken</Code>" in answer.text) == (403, True)
        answer = await client.get("/2015-03-31/functions/f")
        assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")
        answer = await client.get("/2015-03-31/functions/f", headers={"authorization": "AWS4-HMAC-SHA256 nonsense"})
        assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "IncompleteSignatureException")


async def test_a_presigned_call_and_its_end(platform: AwsPlatform) -> None:
    url = f"http://127.0.0.1:{platform.port}/?Action=GetCallerIdentity&Version=2011-06-15"
    keys = Credentials(platform.root.access_key_id, platform.root.secret_access_key)
    request = AWSRequest("GET", url)
    SigV4QueryAuth(keys, "sts", "us-east-1", expires=60).add_auth(request)
    async with httpx.AsyncClient() as client:
        answer = await client.get(request.url)
        assert answer.status_code == 200
        assert "<Account>000000000000</Account>" in answer.text
        changed = request.url.replace("GetCallerIdentity", "GetSessionToken")
        assert "<Code>SignatureDoesNotMatch</Code>" in (await client.get(changed)).text
        platform.clock.ahead_ms = 61_000
        answer = await client.get(request.url)
        assert (answer.status_code, "<Code>RequestExpired</Code>" in answer.text) == (400, True)


async def test_a_presigned_call_with_a_session(platform: AwsPlatform) -> None:
    own = (await called(platform.client("sts").get_session_token))["Credentials"]
    for token, status in ((own["SessionToken"], 200), (own["SessionToken"][1:], 403)):
        request = AWSRequest("GET", f"http://127.0.0.1:{platform.port}/?Action=GetCallerIdentity&Version=2011-06-15")
        SigV4QueryAuth(Credentials(own["AccessKeyId"], own["SecretAccessKey"], token), "sts", "us-east-1").add_auth(request)
        async with httpx.AsyncClient() as client:
            assert (await client.get(request.url)).status_code == status


async def test_strangers_do_not_make_us_read_models(platform: AwsPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = codec.load

    def load(name: str) -> Any:
        read.append(name)
        return whole(name)

    monkeypatch.setattr(codec, "load", load)
    for service in ("rds", "ec2", "glue"):
        assert await code_of(platform.client(service, "AKIDAKIDAKIDAKIDAKID")._make_api_call, **FIRST[service]) in (
            "InvalidClientTokenId",
            "UnrecognizedClientException",
        )
    assert read == []


FIRST = {
    "rds": {"operation_name": "DescribeDBInstances", "api_params": {}},
    "ec2": {"operation_name": "DescribeRegions", "api_params": {}},
    "glue": {"operation_name": "GetJobs", "api_params": {}},
}


# --- errors of a service


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (ServiceError("QueueDoesNotExist", "no queue"), "AWS.SimpleQueueService.NonExistentQueue", 400),
        (NotFound("no such thing"), "ResourceNotFoundException", 400),
        (Conflict("it is there"), "ConflictException", 400),
        (AccessDenied("no", principal="p", action="a", resource="r"), "AccessDeniedException", 400),
        (LimitExceeded("too large"), "RequestEntityTooLargeException", 400),
        (Throttled("slower"), "ThrottlingException", 400),
        (Overloaded("full"), "ServiceUnavailableException", 503),
        (RuntimeError("a secret of the house"), "InternalFailure", 500),
    ],
)
async def test_every_error_has_the_protocols_form(
    platform: AwsPlatform, error: Exception, code: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    queues(platform).error = error
    found = await failed(platform.client("sqs").send_message, QueueUrl=URL, MessageBody="x")
    assert (found["Error"]["Code"], found["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert "secret" not in str(found)
    assert ("failed" in caplog.text) is (status == 500)


async def test_lambdas_errors_have_their_type_and_reason(platform: AwsPlatform) -> None:
    client = platform.client("lambda")
    error = await failed(client.invoke, FunctionName="busy")
    assert error["Error"]["Code"] == "TooManyRequestsException"
    assert error["Type"] == "User"
    assert error["Reason"] == "ConcurrentInvocationLimitExceeded"
    assert error["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    error = await failed(client.invoke, FunctionName="typed")
    assert error["Reason"] == "CallerRateLimitExceeded"
    error = await failed(client.get_function, FunctionName="none")
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert error["Error"]["Message"] == "Function not found: none"
    assert (await failed(client.list_functions))["ResponseMetadata"]["HTTPStatusCode"] == 500


async def test_the_models_constraints_come_before_the_service(platform: AwsPlatform) -> None:
    client = platform.client("lambda", parameter_validation=False)
    error = await failed(client.invoke, FunctionName="f!", InvocationType="Now")
    assert error["Error"]["Code"] == "ValidationException"
    assert error["Error"]["Message"].startswith("2 validation errors detected: Value 'f!' at 'functionName' failed to satisfy ")
    assert error["Error"]["Message"].endswith(
        "Value 'Now' at 'invocationType' failed to satisfy constraint: Member must satisfy enum value set: "
        "[Event, RequestResponse, DryRun]"
    )


@pytest.mark.parametrize("service", ["sqs", "lambda", "iam"])
async def test_a_request_that_is_too_large(platform: AwsPlatform, service: str) -> None:
    most = 70_167_211 if service == "lambda" else 16_777_216
    async with httpx.AsyncClient(timeout=30) as client:
        headers = {"authorization": f"AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/{service}/aws4_request"}
        body = b"x" * (most + 1)
        answer = await client.post(f"http://127.0.0.1:{platform.port}/", content=body, headers=headers)
    assert answer.status_code == 413


async def test_a_session_of_boto3_itself(platform: AwsPlatform) -> None:
    """The default chain's way: AWS_ENDPOINT_URL and credentials from the session."""
    session = boto3.session.Session(platform.root.access_key_id, platform.root.secret_access_key, region_name="us-east-1")
    client = session.client("sts", endpoint_url=f"http://127.0.0.1:{platform.port}")
    platform.clients.append(client)
    assert (await called(client.get_caller_identity))["Arn"] == "arn:aws:iam::000000000000:root"
    assert json.dumps(await called(client.get_caller_identity), default=str)


def test_connections_of_websocket_apis_are_found_behind_a_stage_and_by_their_signature_only() -> None:
    def seen(path: str, service: str) -> tuple[bytes, bool]:
        authorization = f"AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/{service}/aws4_request, x".encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "headers": [(b"authorization", authorization)],
        }

        async def receive() -> Any:
            raise AssertionError("the body is not read for this")

        request = Request(scope, receive)
        return wire_request(request).path, is_aws(request)

    for path in ("/@connections/a%3D", "/prod/@connections/a%3D", "/_api/ws12345678/prod/@connections/a%3D"):
        assert seen(path, "execute-api") == (b"/@connections/a%3D", True)
    assert seen("/bucket/@connections/a", "s3") == (b"/bucket/@connections/a", True)
    assert seen("/v1/apps", "execute-api") == (b"/v1/apps", False)
    assert seen("/v1/x/@connections/a", "execute-api") == (b"/v1/x/@connections/a", False)
