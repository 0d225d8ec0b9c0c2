"""What people write functions with, unmodified: Powertools, Mangum with FastAPI, Chalice, behind every kind of address."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import APPS, Api, Command
from tests.running_platform import RunningPlatform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]  # the first build fetches packages
KINDS = {"Rest": "APIGatewayRestResolver", "Http": "APIGatewayHttpResolver", "Url": "LambdaFunctionUrlResolver"}


@pytest.fixture(scope="module")
def platform(start: Start) -> RunningPlatform:
    return start(None)


@pytest.fixture(scope="module")
def powertools(platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The template's outputs."""
    command = Command(tmp_path_factory.mktemp("powertools"))
    ran = command("deploy", APPS / "powertools", "--app", "pt", "--json", data=platform.data, seconds=280)
    assert ran.code == 0, ran.err
    outputs: dict[str, str] = ran.json["outputs"]
    return outputs


@pytest.mark.parametrize("kind", KINDS)
def test_powertools_event_handler(powertools: dict[str, str], http: httpx.Client, kind: str) -> None:
    base = powertools[kind]
    origin = {"origin": "https://shop.example"}
    answer = http.get(f"{base}things/7?q=z", headers=origin)
    assert answer.json() == {"number": 7, "q": "z", "kind": KINDS[kind]}
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    wrong = http.get(f"{base}things/seven")
    assert (wrong.status_code, wrong.json()["detail"][0]["type"]) == (422, "int_parsing")
    assert http.get(f"{base}things/404").json() == {"statusCode": 404, "message": "no such thing"}
    made = http.post(f"{base}things", json={"a": "ä"})
    assert (made.status_code, made.json()) == (201, {"made": {"a": "ä"}})
    before = http.options(f"{base}things/7", headers={**origin, "access-control-request-method": "GET"})
    assert (before.status_code, before.headers["access-control-allow-methods"]) == (204, "GET,OPTIONS,POST")


def test_powertools_logger_and_metrics_in_the_log(
    platform: RunningPlatform, powertools: dict[str, str], http: httpx.Client
) -> None:
    request_id = http.get(f"{powertools['Rest']}things/9").headers["x-amzn-requestid"]
    name = next(one for one in Api(platform).get("/v1/apps/pt")["functions"] if one.startswith("pt-Rest-"))
    lines = [json.loads(line) for line in Api(platform).log_of(name, request_id) if line.startswith("{")]
    logged = next(line for line in lines if line.get("message") == "a thing")
    assert (logged["number"], logged["function_request_id"], logged["correlation_id"]) == (9, request_id, request_id)
    assert (logged["service"], logged["function_memory_size"]) == ("shop", "256")
    metric = next(line for line in lines if "Things" in line)
    assert metric["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Shop"
    assert metric["Things"] == [9.0]


def test_powertools_batch_and_parser_on_a_canonical_event(
    platform: RunningPlatform, powertools: dict[str, str], martlet: Command
) -> None:
    def invoke(*arguments: str) -> Any:
        ran = martlet("invoke", *arguments, data=platform.data)
        assert ran.code == 0, ran.err
        return ran.json

    assert invoke("pt-Batch", "--event", "sqs") == {"batchItemFailures": []}
    failed = invoke("pt-Batch", "--event", "sqs", "--set", "Records.0.body=no", "--set", "Records.0.messageId=m1")
    assert failed == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert invoke("Parsed", "--event", "sqs") == ["world"]  # the short name is enough


def test_powertools_validation_and_idempotency(platform: RunningPlatform, powertools: dict[str, str]) -> None:
    api = Api(platform)
    assert api.invoke("pt-Validated", {"name": "n"})["payload"] == "n"
    assert api.invoke("pt-Validated", {})["payload"]["errorType"] == "SchemaValidationError"
    answers = [api.invoke("pt-Once", {"order": order})["payload"] for order in (1, 1, 2)]
    assert answers == [{"order": 1, "calls": 1}, {"order": 1, "calls": 1}, {"order": 2, "calls": 2}]


@pytest.mark.parametrize(("kind", "version"), [("Rest", "1.0"), ("Http", "2.0"), ("Web", "2.0")])
def test_mangum_serves_fastapi(powertools: dict[str, str], http: httpx.Client, kind: str, version: str) -> None:
    base = powertools[kind]
    answer = http.get(f"{base}hi/ada?x=1&x=2")
    assert answer.json() == {"hi": "ada", "query": "x=1&x=2", "version": version}
    answer = http.post(f"{base}echo", content="tëxt".encode(), headers={"cookie": "a=b; c=d", "content-type": "text/plain"})
    assert (answer.status_code, answer.json()) == (201, {"body": "tëxt", "cookies": {"a": "b", "c": "d"}})
    assert http.get(f"{base}hi/").status_code == 404


@pytest.fixture(scope="module")
def chalice(platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the Chalice app, as `chalice package` makes it and the template prints it."""
    folder: Path = tmp_path_factory.mktemp("chalice") / "app"
    shutil.copytree(APPS / "chalice", folder)
    program = [sys.executable, "-c", "import sys; from chalice.cli import main; sys.exit(main())"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "AWS_DEFAULT_REGION": "us-east-1"}
    subprocess.run([*program, "package", "out"], cwd=folder, env=environment, check=True, capture_output=True, timeout=200)
    ran = Command(folder)("deploy", folder / "out", "--app", "ch", "--json", data=platform.data)
    assert ran.code == 0, ran.err
    address: str = ran.json["outputs"]["EndpointURL"]
    return address


def test_a_chalice_app(chalice: str, http: httpx.Client) -> None:
    assert http.get(chalice).json() == {"hello": "world"}
    answer = http.get(f"{chalice}hello/ada?x=1")
    assert answer.json() == {"hello": "ada", "query": {"x": "1"}, "stage": "api"}
    assert answer.headers["access-control-allow-origin"] == "*"
    made = http.post(f"{chalice}items", json={"name": "n"})
    assert (made.status_code, made.json(), made.headers["x-made"]) == (201, {"made": "n"}, "yes")
    refused = http.post(f"{chalice}items", json={})
    assert (refused.status_code, refused.json()) == (400, {"Code": "BadRequestError", "Message": "no name"})
    before = http.options(f"{chalice}items", headers={"origin": "https://shop.example"})
    assert before.headers["access-control-allow-origin"] == "https://shop.example"
    assert before.headers["access-control-max-age"] == "600"
    binary = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}
    assert http.post(f"{chalice}blob", content=b"\0\xff\1", headers=binary).content == b"\0\xff\1"
    assert http.put(f"{chalice}form", data={"a": "b"}).json() == {"raw": "a=b"}
    assert http.put(f"{chalice}form", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    missing = http.get(f"{chalice}nope")
    assert (missing.status_code, missing.json()) == (403, {"message": "Missing Authentication Token"})


def test_a_chalice_schedule_and_a_plain_function(platform: RunningPlatform, chalice: str, martlet: Command) -> None:
    ran = martlet("invoke", "ch-Every", "--event", "schedule", data=platform.data)
    assert (ran.code, ran.json) == (0, {"detail": {}}), ran.err
    assert Api(platform).invoke("ch-Plain", {"a": 1})["payload"] == {"plain": {"a": 1}}
