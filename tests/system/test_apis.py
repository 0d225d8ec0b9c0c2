"""REST and HTTP APIs over real HTTP with real functions in real sandboxes: once for each kind of integration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from martlet.apps.apis import Part, from_openapi, http_api_from
from martlet.config import Settings
from martlet.server import Server
from martlet.types import ACCOUNT, ApiConfig, ApiStage, Principal

APP = """
import json
from martlet import App

app = App("pets")

@app.function()
def proxy(event, context):
    return {"statusCode": 201, "headers": {"X-Stage": event["requestContext"]["stage"]},
            "body": json.dumps({"path": event["path"], "sent": event["body"], "params": event["pathParameters"]})}

@app.function()
def plain(event, context):
    if event.get("fail"):
        raise ValueError("Not found: " + event["fail"])
    return {"got": event}

@app.function()
def two(event, context):
    return {"route": event["routeKey"], "stage": event["requestContext"]["stage"]}

@app.function()
def guard(event, context):
    effect = "Allow" if event["authorizationToken"] == "let me in" else "Deny"
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": event["methodArn"]}
    return {"principalId": "somebody", "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}}

@app.get("/backend/{name}")
def backend(event, context):
    return {"statusCode": 404 if event["pathParameters"]["name"] == "nobody" else 200,
            "body": json.dumps({"name": event["pathParameters"]["name"], "q": event.get("queryStringParameters")})}
"""
ID = "pets123456"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:pets-"


def uri(function: str) -> str:
    return f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{ARN}{function}/invocations"


def rest_api(port: int) -> ApiConfig:
    template = '{"name": $input.json("$.name"), "fail": "$input.params(\'fail\')", "from": "$context.stage"}'
    answers = {
        "default": {"statusCode": 200, "responseTemplates": {"application/json": '{"said": $input.json("$.got")}'}},
        "Not found.*": {
            "statusCode": 404,
            "responseTemplates": {"application/json": '{"message": "$input.path(\'$.errorMessage\')"}'},
        },
    }
    http = {
        "default": {"statusCode": 200},
        "404": {"statusCode": 410, "responseTemplates": {"application/json": '{"gone": $input.json("$.name")}'}},
    }
    guard = {"type": "token", "authorizerUri": uri("guard"), "identitySource": "method.request.header.Authorization"}
    integrations: dict[str, Any] = {
        "/proxy/{id}": {"type": "aws_proxy", "httpMethod": "POST", "uri": uri("proxy")},
        "/plain": {
            "type": "aws",
            "httpMethod": "POST",
            "uri": uri("plain"),
            "requestTemplates": {"application/json": template},
            "responses": answers,
        },
        "/mock": {
            "type": "mock",
            "requestTemplates": {"application/json": '{"statusCode": 200}'},
            "responses": {
                "default": {"statusCode": 202, "responseTemplates": {"application/json": '{"v": "$stageVariables.v"}'}}
            },
        },
        "/http/{name}": {
            "type": "http",
            "httpMethod": "GET",
            "uri": f"http://localhost:{port}/backend/{{name}}",
            "responses": http,
            "requestParameters": {"integration.request.path.name": "method.request.path.name"},
        },
        "/passed/{name}": {"type": "http_proxy", "httpMethod": "GET", "uri": f"http://localhost:{port}/backend/{{name}}"},
        "/guarded": {"type": "aws_proxy", "httpMethod": "POST", "uri": uri("proxy")},
    }
    paths: dict[str, Any] = {
        path: {"x-amazon-apigateway-any-method": {"x-amazon-apigateway-integration": integration}}
        for path, integration in integrations.items()
    }
    paths["/guarded"]["x-amazon-apigateway-any-method"]["security"] = [{"guard": []}]
    scheme = {"type": "apiKey", "in": "header", "name": "Authorization", "x-amazon-apigateway-authorizer": guard}
    body = {"swagger": "2.0", "info": {"title": "pets"}, "paths": paths, "securityDefinitions": {"guard": scheme}}
    made = from_openapi(body, "rest", id=ID)
    return ApiConfig(**{**_fields(made), "stages": (ApiStage(name="dev", variables={"v": "7"}),)})


def _fields(config: ApiConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__struct_fields__}


async def ask(port: int, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    given = {"Host": f"localhost:{port}", "Connection": "close", "Content-Length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    head, _, rest = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    first, *fields = head.decode().split("\r\n")
    found = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
    return int(first.split(" ")[1]), found, json.loads(rest) if rest else None


ROOT = SimpleNamespace(principal=Principal("root"), region="us-east-1", account=ACCOUNT, request_id="", endpoint="")


async def permit(server: Server, function: str) -> None:
    """What a template's AWS::Lambda::Permission does: this account's APIs may invoke the function."""
    said = {"Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com", "StatementId": "apis"}
    source = f"arn:aws:execute-api:us-east-1:{ACCOUNT}:*/*/*"
    await server.control.add_permission(ROOT, {"FunctionName": f"pets-{function}", "SourceArn": source, **said})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    settings = Settings(data=str(tmp_path / "data"), port=0, api_port=0, stem_cells=1, integration_hosts="localhost")
    running = Server(settings)
    await running.start()
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    try:
        await running.apps.deploy(folder)
        await running.apis.create(rest_api(running.port))
        for name in ("proxy", "plain", "two"):
            await permit(running, name)
        yield running
    finally:
        await running.stop()


async def test_every_kind_of_integration(server: Server) -> None:
    port, base = server.port, f"/_api/{ID}/dev"
    status, headers, said = await ask(port, f"{base}/proxy/7", "POST", b'{"a":1}')
    assert (status, headers["x-stage"]) == (201, "dev")
    assert said == {"path": "/proxy/7", "sent": '{"a":1}', "params": {"id": "7"}}

    status, _, said = await ask(port, f"{base}/plain", "POST", b'{"name": "Rex"}', **{"Content-Type": "application/json"})
    assert (status, said) == (200, {"said": {"name": "Rex", "fail": "", "from": "dev"}})
    status, _, said = await ask(port, f"{base}/plain?fail=x", "POST", b"{}", **{"Content-Type": "application/json"})
    assert (status, said) == (404, {"message": "Not found: x"})

    assert (await ask(port, f"{base}/mock"))[::2] == (202, {"v": "7"})

    assert (await ask(port, f"{base}/http/rex"))[::2] == (200, {"name": "rex", "q": None})
    assert (await ask(port, f"{base}/http/nobody"))[::2] == (410, {"gone": "nobody"})
    assert (await ask(port, f"{base}/passed/rex?a=1"))[::2] == (200, {"name": "rex", "q": {"a": "1"}})

    status, _, said = await ask(port, f"{base}/guarded", Authorization="let me in")
    assert status == 201
    status, _, said = await ask(port, f"{base}/guarded", Authorization="please")
    assert (status, said) == (403, {"Message": "User is not authorized to access this resource with an explicit deny"})
    assert (await ask(port, f"{base}/guarded"))[::2] == (401, {"message": "Unauthorized"})


async def test_an_http_api_and_a_function_url(server: Server) -> None:
    parts = [
        Part(
            type="AWS::ApiGatewayV2::Api", logical_id="Api", id="web1234567", properties={"Name": "web", "Target": f"{ARN}two"}
        ),
    ]
    await server.apis.create(http_api_from(parts))
    status, _, said = await ask(server.port, "/_api/web1234567/anything")
    assert (status, said) == (200, {"route": "$default", "stage": "$default"})

    made = await server.control.create_function_url_config(ROOT, {"FunctionName": "pets-two", "AuthType": "NONE"})
    path = made["FunctionUrl"].removeprefix(f"http://127.0.0.1:{server.port}")
    host = f"{path.split('/')[2]}.lambda-url.us-east-1.on.aws"
    assert (await ask(server.port, path))[0] == 403, "nobody has said that everybody may"
    everybody = {"Action": "lambda:InvokeFunctionUrl", "Principal": "*", "FunctionUrlAuthType": "NONE", "StatementId": "url"}
    await server.control.add_permission(ROOT, {"FunctionName": "pets-two", **everybody})
    for way, headers in ((path, {}), ("/x", {"Host": host})):
        status, _, said = await ask(server.port, way, **headers)
        assert (status, said) == (200, {"route": "$default", "stage": "$default"})


async def test_apis_are_there_after_a_restart(server: Server, tmp_path: Path) -> None:
    await server.stop()
    again = Server(server.settings)
    await again.start()
    try:
        assert (await ask(again.port, f"/_api/{ID}/dev/mock"))[::2] == (202, {"v": "7"})
        assert (await ask(again.port, f"/_api/{ID}/dev/proxy/1"))[0] == 201
    finally:
        await again.stop()
