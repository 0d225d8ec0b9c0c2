"""A handler's world is AWS Lambda's: context, errors, log lines, limits, so that Lambda code runs unmodified."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import boto3
import botocore.config
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import EXAMPLES, Api, RunningPlatform, eventually

pytestmark = pytest.mark.e2e
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture
def api(everything: RunningPlatform) -> Api:
    return Api(everything)


def lambda_client(platform: RunningPlatform) -> Any:
    return boto3.client(
        "lambda",
        endpoint_url=platform.api_url,
        region_name=platform.endpoint["region"],
        aws_access_key_id=platform.credentials["access_key_id"],
        aws_secret_access_key=platform.credentials["secret_access_key"],
        config=botocore.config.Config(retries={"max_attempts": 0}, read_timeout=60),
    )


# --- events, context, environment


def test_the_event_arrives_and_the_result_returns_as_they_are(api: Api) -> None:
    event = {
        "text": "Zürich 東京 ☃ \U0001f600",
        "numbers": [0, -1, 1.5, 1e300, 2**63],
        "none": None,
        "empty": {},
        "deep": [[[]]],
    }
    assert api.invoke("all-echo", event)["payload"] == event


def test_the_context_says_what_lambdas_says(api: Api, everything: RunningPlatform) -> None:
    client_context = {"custom": {"a": "1"}, "env": {"b": "2"}, "client": {"app_title": "t"}}
    answer = lambda_client(everything).invoke(
        FunctionName="all-context_of", ClientContext=base64.b64encode(json.dumps(client_context).encode()).decode()
    )
    context = json.loads(answer["Payload"].read())
    remaining = context.pop("remaining")
    assert 0 < remaining <= 7_000
    assert re.fullmatch(UUID, context["aws_request_id"])
    assert context["aws_request_id"] == answer["ResponseMetadata"]["RequestId"]
    assert context.pop("function_version") == "$LATEST"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", context.pop("log_stream_name"))
    context.pop("aws_request_id")
    trace = r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0;Lineage=[0-9a-f]{8}:1"
    assert re.fullmatch(trace, context.pop("trace"))
    assert context == {
        "function_name": "all-context_of",
        "invoked_function_arn": "arn:aws:lambda:us-east-1:000000000000:function:all-context_of",
        "memory_limit_in_mb": "192",
        "log_group_name": "/aws/lambda/all-context_of",
        "identity": None,
        "client": {"custom": {"a": "1"}, "env": {"b": "2"}, "app": "t"},
    }


def test_the_environment_is_lambdas_and_the_apps_own(api: Api) -> None:
    found = api.invoke("all-environment")["payload"]
    assert found["GREETING"] == "grüezi"
    expected = {
        "AWS_LAMBDA_FUNCTION_NAME": "all-environment",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/all-environment",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "LAMBDA_TASK_ROOT": "/var/task",
        "TZ": ":UTC",
        "LANG": "en_US.UTF-8",
    }
    assert expected.items() <= found.items()
    assert not [name for name in found if name.startswith("PYTEST") or name == "MARTLET_PORT"], "nothing of the host's"


# --- function errors


def test_an_exception_is_lambdas_error_object(api: Api) -> None:
    found = api.invoke("all-fails", {"reason": "Käse"}, log=True)
    assert (found["error"], found["error_type"]) == ("Unhandled", "Rejected")
    payload = found["payload"]
    assert list(payload) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert (payload["errorMessage"], payload["errorType"], payload["requestId"]) == ("Käse", "Rejected", found["request_id"])
    assert re.fullmatch(r'  File "/var/task/app.py", line \d+, in fails\n    deeper\(.*\)\n', payload["stackTrace"][0])
    assert re.fullmatch(
        r'  File "/var/task/app.py", line \d+, in deeper\n    raise Rejected\(reason\)\n', payload["stackTrace"][1]
    )
    assert len(payload["stackTrace"]) == 2, "none of the platform's own frames"
    record = next(line for line in found["log"].split("\n") if line.startswith("[ERROR]"))
    assert record.startswith("[ERROR] Rejected: Käse\rTraceback (most recent call last):\r\xa0\xa0File "), "one event"


def test_an_init_error_has_no_request_id_and_the_next_start_is_tried_afresh(api: Api) -> None:
    assert api.invoke("all-breaks")["payload"] == "ready"
    try:
        throw_switch(api, "broken")
        assert api.invoke("all-breaks")["payload"] == "ready", "a loaded instance does not notice"
        api.invoke("all-breaks", {"leave": True})
        for _ in range(2):
            found = api.invoke("all-breaks")
            assert (found["error"], found["error_type"]) == ("Unhandled", "RuntimeError")
            assert found["payload"]["errorMessage"] == "the switch is broken"
            assert found["payload"]["requestId"] == ""
            assert any("app.py" in line for line in found["payload"]["stackTrace"])
    finally:
        throw_switch(api, "whole")
    assert api.invoke("all-breaks")["payload"] == "ready"


def throw_switch(api: Api, state: str) -> None:
    answer = api.request("PUT", "/v1/documents/gates/switch", params={"app": "all"}, content=json.dumps(state).encode())
    assert answer.status_code in (201, 204)


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("_exit", 0, "Runtime exited without providing a reason"),
        ("_exit", 127, "Runtime exited with error: exit status 127"),
        ("exit", 0, "Runtime exited without providing a reason"),
        ("exit", 3, "Runtime exited with error: exit status 3"),
        ("fault", 0, "Runtime exited with error: signal: segmentation fault"),
    ],
)
def test_a_handler_that_ends_its_process(api: Api, how: str, code: int, message: str) -> None:
    found = api.invoke("all-leaves", {"how": how, "code": code}, log=True)
    assert found["error"] == "Unhandled"
    assert found["payload"] == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {found['request_id']} Error: {message}",
    }
    assert "leaving\n" in found["log"], "what it printed before is kept"
    assert f"[ERROR] Runtime.ExitError: RequestId: {found['request_id']} Error: {message}\n" in found["log"]
    assert "Status: error\tError Type: Runtime.ExitError" in found["log"]
    assert api.invoke("all-leaves", {"how": "stay"})["payload"] == "stayed", "the next event gets a new process"


def test_a_timeout_ends_the_whole_tree_and_says_so(api: Api) -> None:
    found = api.invoke("all-sleeps", {"seconds": 60, "child": True}, log=True)
    assert (found["error"], found["error_type"]) == ("Unhandled", "Sandbox.Timedout")
    assert found["payload"] == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {found['request_id']} Error: Task timed out after 1.00 seconds",
    }
    assert "going to sleep\n" in found["log"]
    assert "Error: Task timed out after 1.00 seconds\n" in found["log"], "the log says why, also to who called over HTTP"
    assert re.search(r"REPORT RequestId: .*\tStatus: timeout\t$", found["log"], re.MULTILINE)
    assert api.invoke("all-sleeps", {"seconds": 0})["payload"] == "slept"


def test_too_much_memory_is_reported_as_such(api: Api) -> None:
    found = api.invoke("all-eats", {"megabytes": 200}, log=True)
    assert found["error_type"] == "Runtime.OutOfMemory"
    assert (
        found["payload"]["errorMessage"] == f"RequestId: {found['request_id']} Error: Runtime exited with error: signal: killed"
    )
    assert "Error Type: Runtime.OutOfMemory" in found["log"]
    assert found["peak_mb"] > 60
    assert api.invoke("all-eats", {"megabytes": 20})["payload"] == 20 << 20


# --- results


@pytest.mark.parametrize("what", ["bytes", "object", "nan", "infinity", "loop", "surrogate"])
def test_what_json_cannot_hold_is_a_marshal_error(api: Api, what: str) -> None:
    found = api.invoke("all-returns", {"what": what})
    assert (found["error"], found["error_type"]) == ("Unhandled", "Runtime.MarshalError")
    assert found["payload"]["errorMessage"].startswith("Unable to marshal response: ")
    assert found["payload"]["requestId"] == found["request_id"]
    assert api.invoke("all-returns", {"what": "none"})["payload"] is None, "the instance serves on"


@pytest.mark.parametrize(
    ("what", "result"),
    [
        ("text", "Zürich 東京 ☃"),
        ("none", None),
        ("keys", {"1": "a", "null": "b", "false": "c"}),
        ("set", [1]),
        ("datetime", "2026-01-01T00:00:00+00:00"),
    ],
)
def test_what_json_can_hold(api: Api, what: str, result: object) -> None:
    found = api.invoke("all-returns", {"what": what})
    assert (found["payload"], found["error"]) == (result, "")


def test_six_megabytes_both_ways(api: Api) -> None:
    most = 6_291_456
    text = b'"' + b"x" * (most - 2) + b'"'
    assert len(api.invoke("all-echo", raw=text)["payload"]) == most - 2
    refused = api.request("POST", "/v1/functions/all-echo/invocations", content=text + b" ")
    assert refused.status_code == 413
    assert "limit payload_bytes is 6291456 bytes, got 6291457" in refused.json()["detail"]
    assert len(api.invoke("all-returns", {"what": "large", "size": most + 98})["payload"]) == most + 98
    found = api.invoke("all-returns", {"what": "large", "size": most + 99})
    assert found["error_type"] == "Function.ResponseSizeTooLarge"
    assert found["payload"] == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    }


# --- the log


def test_the_log_of_an_invocation(api: Api) -> None:
    found = api.invoke("all-writes", log=True)
    id = found["request_id"]
    lines = found["log"].rstrip("\n").split("\n")
    assert re.fullmatch(rf"START RequestId: {id} Version: \$LATEST", lines[0])
    assert lines[1:6] == ["one line", "two", "lines", "to stderr", "no line end"]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"\[INFO\]\t{stamp}\t{id}\tlogged information", lines[6])
    assert re.match(rf"\[ERROR\]\t{stamp}\t{id}\tcaught\rTraceback ", lines[7]), "a traceback is one event"
    assert lines[8].startswith("raw bytes ")
    assert lines[9] == f"END RequestId: {id}"
    report = (
        rf"REPORT RequestId: {id}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 256 MB\t"
        r"Max Memory Used: \d+ MB\t(Init Duration: \d+\.\d\d ms\t)?"
    )
    assert re.fullmatch(report, lines[10])
    assert len(lines) == 11
    assert api.log_of("all-writes", id)[:8] == lines[:8], "the same is kept"


def test_a_log_flood_is_cut_and_says_so(api: Api) -> None:
    found = api.invoke("all-floods", {"lines": 30_000})
    assert found["payload"] == "flooded"
    lines = api.log_of("all-floods", found["request_id"])
    assert any("limit log_bytes_per_invocation is 1048576 bytes" in line for line in lines)
    assert sum(map(len, lines)) < 1_100_000
    assert lines[-1].startswith("REPORT")


# --- Lambda's own client and Lambda's own code


def test_boto3_invokes_lists_and_describes(everything: RunningPlatform) -> None:
    client = lambda_client(everything)
    answer = client.invoke(FunctionName="all-echo", Payload=b'{"a":1}', LogType="Tail")
    assert (answer["StatusCode"], json.loads(answer["Payload"].read())) == (200, {"a": 1})
    assert base64.b64decode(answer["LogResult"]).startswith(b"START RequestId: ")
    assert "FunctionError" not in answer
    failed = client.invoke(FunctionName="all-fails", Payload=b"{}")
    assert (failed["StatusCode"], failed["FunctionError"]) == (200, "Unhandled")
    names = {
        function["FunctionName"] for page in client.get_paginator("list_functions").paginate() for function in page["Functions"]
    }
    assert {"all-echo", "all-fails", "all-context_of"} <= names
    assert client.get_function(FunctionName="all-context_of")["Configuration"]["MemorySize"] == 192


def test_boto3_sees_lambdas_errors(everything: RunningPlatform) -> None:
    client = lambda_client(everything)
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="Function not found: arn:aws:lambda:"):
        client.invoke(FunctionName="all-nothing")
    with pytest.raises(client.exceptions.InvalidRequestContentException, match="Could not parse request body into json"):
        client.invoke(FunctionName="all-echo", Payload=b"{")
    with pytest.raises(client.exceptions.RequestTooLargeException, match="7000002 byte payload is too large"):
        client.invoke(FunctionName="all-echo", Payload=b'"' + b"x" * 7_000_000 + b'"')
    with pytest.raises(client.exceptions.TooManyRequestsException) as caught:
        client.invoke(FunctionName="all-off", Payload=b"{}")
    assert caught.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    stranger = boto3.client(
        "lambda",
        endpoint_url=everything.api_url,
        region_name="us-east-1",
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="wrong",
    )
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        stranger.invoke(FunctionName="all-echo")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert client.invoke(FunctionName="all-echo", InvocationType="Event")["StatusCode"] == 202
    assert client.list_event_source_mappings()["EventSourceMappings"] == []
    with pytest.raises(botocore.exceptions.ClientError, match="not supported"):
        client.list_capacity_providers()


def test_a_folder_written_for_lambda_runs_unmodified(start: Start) -> None:
    import httpx

    platform = start(EXAMPLES / "lambda", "--no-watch")
    answer = httpx.get(f"{platform.app_url}/any/where", params={"name": "Ada"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert (found["hello"], found["function"]) == ("Ada", "lambda-handler")
    assert found["request"] == answer.headers["x-amzn-requestid"]
    api = Api(platform)
    direct = api.invoke("lambda-handler", {"queryStringParameters": None})
    assert json.loads(direct["payload"]["body"])["hello"] == "world"
    eventually(lambda: api.invocations("lambda-handler") == 2)
