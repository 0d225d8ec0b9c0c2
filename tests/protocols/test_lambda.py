"""The Lambda API as boto3 sees it, and as only a raw request can."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.protocols.fakes import BEARER, CALLER, World, served, version

from martlet.errors import Overloaded, Throttled
from martlet.limits import LIMITS, Limit
from martlet.protocols import app
from martlet.protocols.lambda_operations import operation_name

INVOKE = "/2015-03-31/functions/shop-echo/invocations"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:shop-echo"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def port(world: World) -> Iterator[int]:
    with served(lambda: app(world.rooms)) as (port, _):
        yield port


def aws(port: int, service: str, key: str = "AKID") -> Any:
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
    )


@pytest.fixture
def client(port: int) -> Iterator[Any]:
    client = aws(port, "lambda")
    yield client
    client.close()


@pytest.fixture
def raw(world: World) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app(world.rooms)), base_url="http://test", headers=BEARER)


def invoked(client: Any, **parameters: Any) -> dict[str, Any]:
    """boto3's answer with its payload read: a body left unread keeps its connection out of the pool."""
    answer: dict[str, Any] = client.invoke(**parameters)
    answer["Payload"] = answer["Payload"].read()
    return answer


def failed(call: Any, **parameters: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response: dict[str, Any] = caught.value.response
    return response


def test_invoke(client: Any, world: World) -> None:
    answer = invoked(client, FunctionName="shop-echo", Payload=b'{"a": [1, "\xc3\xa9"]}')
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer
    assert "LogResult" not in answer
    assert answer["Payload"] == b'{"a": [1, "\xc3\xa9"]}'
    assert answer["ResponseMetadata"]["RequestId"] == "11111111-2222-4333-8444-555555555555"
    assert world.functions.calls[0]["source"] == "api"


def test_invoke_without_payload_is_an_empty_object(client: Any) -> None:
    assert invoked(client, FunctionName="shop-echo")["Payload"] == b"{}"


def test_function_error(client: Any) -> None:
    answer = invoked(client, FunctionName="shop-fail")
    assert answer["StatusCode"] == 200
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"])["errorType"] == "ValueError"


def test_log_tail_and_client_context(client: Any, world: World) -> None:
    context = base64.b64encode(b'{"custom": {"a": "b"}}').decode()
    answer = invoked(client, FunctionName="shop-echo", LogType="Tail", ClientContext=context)
    assert base64.b64decode(answer["LogResult"]).startswith(b"START\n")
    assert world.functions.calls[0]["client_context"] == '{"custom": {"a": "b"}}'


def test_dry_run_runs_nothing(client: Any, world: World) -> None:
    answer = invoked(client, FunctionName="shop-echo", InvocationType="DryRun")
    assert answer["StatusCode"] == 204
    assert "ExecutedVersion" not in answer
    assert world.functions.calls == []
    assert (
        failed(client.invoke, FunctionName="shop-none", InvocationType="DryRun")["Error"]["Code"] == "ResourceNotFoundException"
    )


@pytest.mark.parametrize(
    ("name", "qualifier", "executed"),
    [
        ("shop-echo", None, "$LATEST"),
        ("shop-echo", "$LATEST", "$LATEST"),
        ("shop-echo", "3", "3"),
        ("shop-echo:3", None, "3"),
        ("shop-echo:3", "3", "3"),
        (ARN, None, "$LATEST"),
        (f"{ARN}:3", None, "3"),
        ("000000000000:function:shop-echo", None, "$LATEST"),
        ("000000000000:function:shop-echo:$LATEST", None, "$LATEST"),
    ],
)
def test_name_forms(client: Any, name: str, qualifier: str | None, executed: str) -> None:
    more = {"Qualifier": qualifier} if qualifier else {}
    assert invoked(client, FunctionName=name, **more)["ExecutedVersion"] == executed


@pytest.mark.parametrize(
    ("name", "qualifier", "code"),
    [
        ("shop-none", None, "ResourceNotFoundException"),
        ("shop-echo", "2", "ResourceNotFoundException"),
        ("shop-echo", "prod", "ResourceNotFoundException"),
        ("shop-echo:3", "4", "InvalidParameterValueException"),
        (ARN.replace("us-east-1", "eu-west-1"), None, "ResourceNotFoundException"),
        (ARN.replace("000000000000", "123456789012"), None, "ResourceNotFoundException"),
        ("123456789012:function:shop-echo", None, "ResourceNotFoundException"),
        ("not a name", None, "ValidationException"),
        ("arn:aws:s3:::bucket", None, "ValidationException"),
    ],
)
def test_names_that_are_not_there(client: Any, world: World, name: str, qualifier: str | None, code: str) -> None:
    more = {"Qualifier": qualifier} if qualifier else {}
    assert failed(client.invoke, FunctionName=name, **more)["Error"]["Code"] == code
    assert world.functions.calls == []


def test_not_found_text(client: Any) -> None:
    error = failed(client.invoke, FunctionName="shop-none")
    assert error["Error"]["Message"] == "Function not found: arn:aws:lambda:us-east-1:000000000000:function:shop-none"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 404


@pytest.mark.parametrize("payload", [b"{", b"nope", b"{'a': 1}", b'"\xff"', b"NaN", b"1 2", b"[" * 100_000])
def test_bad_json(client: Any, world: World, payload: bytes) -> None:
    error = failed(client.invoke, FunctionName="shop-echo", Payload=payload)
    assert error["Error"]["Code"] == "InvalidRequestContentException"
    prefix = "Could not parse request body into json: Could not parse payload into json: "
    assert error["Error"]["Message"].startswith(prefix)
    assert world.functions.calls == []


def test_too_large(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "payload_bytes", Limit("payload_bytes", 10, "bytes", "test"))
    error = failed(client.invoke, FunctionName="shop-echo", Payload=b'"1234567890"')
    assert error["Error"]["Code"] == "RequestTooLargeException"
    assert error["Error"]["Message"] == "12 byte payload is too large for the RequestResponse invocation type (limit 10 bytes)"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_event_is_refused_by_name(client: Any, world: World) -> None:
    error = failed(client.invoke, FunctionName="shop-echo", InvocationType="Event")
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert "Event" in error["Error"]["Message"]
    assert world.functions.calls == []


def test_throttled(client: Any, world: World) -> None:
    world.functions.refusal = Throttled("reserved concurrency is 0", reason="ReservedFunctionConcurrentInvocationLimitExceeded")
    error = failed(client.invoke, FunctionName="shop-busy")
    assert error["Error"]["Code"] == "TooManyRequestsException"
    assert error["Error"]["Message"] == "Rate Exceeded."
    assert error["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert error["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1"


def test_overloaded(client: Any, world: World) -> None:
    world.functions.refusal = Overloaded("no memory left", retry_after_seconds=7)
    error = failed(client.invoke, FunctionName="shop-busy")
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert error["Error"]["Code"] == "ServiceException"
    assert error["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"


def test_wrong_key(port: int) -> None:
    client = aws(port, "lambda", key="OTHER")
    error = failed(client.invoke, FunctionName="shop-echo")
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("UnrecognizedClientException", 403)
    client.close()


def test_list_functions_by_pages(client: Any, world: World) -> None:
    for number in range(120):
        found = version(f"shop-f{number:03}")
        world.functions.versions[found.name] = found
    pages = list(client.get_paginator("list_functions").paginate())
    names = [function["FunctionName"] for page in pages for function in page["Functions"]]
    assert names == sorted(world.functions.versions)
    assert [len(page["Functions"]) for page in pages] == [50, 50, 24]
    assert len(client.list_functions(MaxItems=2)["Functions"]) == 2
    assert failed(client.list_functions, FunctionVersion="ALL")["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_get_function(client: Any, world: World) -> None:
    found = version("shop-slow", reserved=4, timeout_seconds=1.5, memory_mb=128, description="d")
    world.functions.versions[found.name] = found
    answer = client.get_function(FunctionName="shop-slow")
    assert answer["Concurrency"] == {"ReservedConcurrentExecutions": 4}
    configuration = answer["Configuration"]
    assert (configuration["Timeout"], configuration["MemorySize"], configuration["Version"]) == (2, 128, "$LATEST")
    assert configuration["LastModified"] == "2023-11-14T22:13:20.123+0000"
    assert configuration["FunctionArn"] == found.arn
    assert base64.b64decode(configuration["CodeSha256"]).hex() == found.code
    assert "Role" not in configuration
    only = client.get_function_configuration(FunctionName="shop-slow", Qualifier="3")
    assert (only["Version"], only["FunctionArn"]) == ("3", f"{found.arn}:3")
    client.get_waiter("function_active_v2").wait(FunctionName="shop-slow")


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("delete_function", {"FunctionName": "shop-echo"}),
        ("publish_version", {"FunctionName": "shop-echo"}),
        ("list_layers", {}),
        ("put_function_concurrency", {"FunctionName": "shop-echo", "ReservedConcurrentExecutions": 1}),
        ("invoke_with_response_stream", {"FunctionName": "shop-echo"}),
        ("invoke_async", {"FunctionName": "shop-echo", "InvokeArgs": b"{}"}),
        ("get_layer_version_by_arn", {"Arn": "arn:aws:lambda:us-east-1:000000000000:layer:a:1"}),
        ("list_tags", {"Resource": ARN}),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_lambda_operations_are_refused_by_name(client: Any, operation: str, parameters: dict[str, Any]) -> None:
    error = failed(getattr(client, operation), **parameters)
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert error["Error"]["Code"] == "NotImplementedException"
    assert client.meta.method_to_api_mapping[operation] in error["Error"]["Message"]


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "named"),
    [
        ("dynamodb", "list_tables", {}, "dynamodb:ListTables"),
        ("sqs", "list_queues", {}, "sqs:ListQueues"),
        ("sns", "list_topics", {}, "sns:ListTopics"),
        ("sts", "get_caller_identity", {}, "sts:GetCallerIdentity"),
        ("s3", "put_object", {"Bucket": "b", "Key": "k", "Body": b"x"}, "s3:PutObject"),
        ("s3", "list_buckets", {}, "s3:ListBuckets"),
        ("pipes", "list_pipes", {}, "pipes:ListPipes"),
        ("apigatewayv2", "get_apis", {}, "apigatewayv2:GetApis"),
    ],
)
def test_other_services_are_refused_by_name(
    port: int, service: str, operation: str, parameters: dict[str, Any], named: str
) -> None:
    client = aws(port, service)
    error = failed(getattr(client, operation), **parameters)
    client.close()
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert "NotImplemented" in error["Error"]["Code"]
    assert named in error["Error"]["Message"]


def test_every_operation_of_the_model_has_its_name() -> None:
    """Against botocore's own table of requests."""
    session = boto3.session.Session()
    client = session.client("lambda", region_name="us-east-1")
    client.close()
    model = client.meta.service_model
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        segments = ["x" if part.startswith("{") else part for part in path.split("/")[1:]]
        assert operation_name(http["method"], segments, query) == name
        assert operation_name(http["method"], [*segments, ""], query) == name


async def test_sandbox_principal_stands_for_credentials(world: World) -> None:
    inner = app(world.rooms)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "martlet.context": CALLER}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://test") as client:
        assert (await client.post(INVOKE, json={"a": 1})).json() == {"a": 1}
        denied = await client.post(INVOKE.replace("echo", "fail"), headers=BEARER)
        assert denied.status_code == 403
        assert denied.headers["x-amzn-errortype"] == "AccessDeniedException"
        hidden = await client.post(INVOKE.replace("echo", "none"))
        assert hidden.status_code == 403
        assert (await client.get("/2015-03-31/functions/")).status_code == 403
        assert (await client.get("/2015-03-31/functions/shop-echo")).status_code == 403
    assert world.auth.bodies == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"X-Amz-Invocation-Type": "Later"}, 400, "ValidationException"),
        ({"X-Amz-Log-Type": "All"}, 400, "ValidationException"),
        ({"X-Amz-Client-Context": "%%"}, 400, "InvalidRequestContentException"),
        ({"X-Amz-Client-Context": base64.b64encode(b"[1]").decode()}, 400, "InvalidRequestContentException"),
        (
            {"X-Amz-Client-Context": base64.b64encode(b'{"a":' + b'"' + b"x" * 3_000 + b'"}').decode()},
            400,
            "InvalidRequestContentException",
        ),
        ({"X-Amz-Durable-Execution-Name": "d"}, 501, "NotImplementedException"),
        ({"X-Amz-Tenant-Id": "t"}, 501, "NotImplementedException"),
        ({"Authorization": "Bearer wrong"}, 403, "UnrecognizedClientException"),
        ({"Authorization": ""}, 403, "MissingAuthenticationTokenException"),
    ],
)
async def test_headers(raw: httpx.AsyncClient, world: World, headers: dict[str, str], status: int, code: str) -> None:
    async with raw:
        answer = await raw.post(INVOKE, headers=headers, content=b"{}")
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (status, code)
    assert answer.json()["Type"] in ("User", "Service")
    assert world.functions.calls == []


async def test_unknown_query_and_bad_numbers(raw: httpx.AsyncClient) -> None:
    async with raw:
        for path in (
            f"{INVOKE}?Foo=1",
            f"{INVOKE}?Qualifier=1&Qualifier=1",
            "/2015-03-31/functions/?MaxItems=x",
            "/2015-03-31/functions/?MaxItems=0",
        ):
            answer = await raw.request("GET" if "MaxItems" in path else "POST", path)
            assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException"), path


async def test_chunked_payload_that_grows_too_large(
    raw: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "payload_bytes", Limit("payload_bytes", 10, "bytes", "test"))

    async def parts() -> Any:
        for _ in range(4):
            yield b"[1,2"

    async with raw:
        answer = await raw.post(INVOKE, content=parts())
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (413, "RequestTooLargeException")


async def test_a_fault_inside_is_not_told(raw: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*args: Any, **more: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(world.functions, "invoke", broken)
    async with raw:
        answer = await raw.post(INVOKE)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-amzn-errortype"] == "ServiceException"
