"""REST APIs over real HTTP: routing, events, validation, mapping, the gateway's own answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.gateway.apis.conftest import API, Build, rest

from martlet.errors import InvalidInput, LimitExceeded, Throttled
from martlet.gateway.apis import check
from martlet.types import (
    ApiConfig,
    ApiGatewayResponse,
    ApiIntegration,
    ApiIntegrationResponse,
    ApiRoute,
    Outcome,
    Throttle,
)

JSON = {"Content-Type": "application/json"}


def proxy(method: str = "ANY", path: str = "/{proxy+}", function: str = "shop", **more: Any) -> ApiRoute:
    return ApiRoute(
        method=method, path=path, integration=ApiIntegration(kind="AWS_PROXY", function=function, method="POST"), **more
    )


def mock(template: str = "", path: str = "/mock", status: int = 200, **more: Any) -> ApiRoute:
    response = ApiIntegrationResponse(status=status, templates={"application/json": template} if template else {})
    integration = ApiIntegration(kind="MOCK", templates={"application/json": '{"statusCode": 200}'}, responses=(response,))
    return ApiRoute(method="ANY", path=path, integration=integration, **more)


def custom(**more: Any) -> ApiRoute:
    given = {"kind": "AWS", "function": "shop", "method": "POST", "responses": (ApiIntegrationResponse(status=200),), **more}
    return ApiRoute(method="ANY", path="/c", integration=ApiIntegration(**given))


# routing


async def test_an_event_has_the_recorded_shape(stand: Build) -> None:
    served = await stand(rest(proxy(resource_id="abc123"), stage={"variables": {"color": "red"}, "deployment_id": "dep1"}))
    said = await served.ask("/dev/a//b/?x=1&x=a+b%2B&y=", headers={"X-Odd": "1", "User-Agent": "t", "TE": "x", "Cookie": "a=b"})
    assert said.status == 200
    event = served.functions.event
    assert list(event) == [
        "resource", "path", "httpMethod", "headers", "multiValueHeaders", "queryStringParameters",
        "multiValueQueryStringParameters", "pathParameters", "stageVariables", "requestContext", "body", "isBase64Encoded",
    ]  # fmt: skip
    assert (event["resource"], event["path"], event["pathParameters"]) == ("/{proxy+}", "/a//b/", {"proxy": "a//b"})
    assert event["queryStringParameters"] == {"x": "a b+", "y": ""}
    assert event["multiValueQueryStringParameters"] == {"x": ["1", "a b+"], "y": [""]}
    assert event["headers"]["X-Odd"] == "1"
    assert not {"TE", "Connection"} & set(event["headers"])
    assert event["multiValueHeaders"]["Host"] == [f"{API}.execute-api.us-east-1.amazonaws.com"]
    assert (event["body"], event["isBase64Encoded"], event["stageVariables"]) == (None, False, {"color": "red"})
    context = event["requestContext"]
    assert (context["path"], context["stage"], context["resourceId"]) == ("/dev/a//b/", "dev", "abc123")
    assert (context["apiId"], context["domainPrefix"], context["deploymentId"]) == (API, API, "dep1")
    assert (context["requestId"], context["extendedRequestId"]) == (
        said.headers["x-amzn-requestid"],
        said.headers["x-amz-apigw-id"],
    )
    assert len(context["extendedRequestId"]) == 16
    assert context["identity"] == {
        "accessKey": None, "accountId": None, "caller": None, "cognitoAuthenticationProvider": None,
        "cognitoAuthenticationType": None, "cognitoIdentityId": None, "cognitoIdentityPoolId": None,
        "principalOrgId": None, "sourceIp": "127.0.0.1", "user": None, "userAgent": "t", "userArn": None,
    }  # fmt: skip
    assert said.headers["content-type"] == "application/json"
    assert said.headers["x-amzn-trace-id"].startswith("Root=1-")


async def test_what_is_absent_is_null(stand: Build) -> None:
    served = await stand(rest(proxy("GET", "/plain")))
    await served.ask("/dev/plain")
    event = served.functions.event
    names = ("queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "stageVariables", "body")
    assert [event[name] for name in names] == [None] * 5
    assert event["requestContext"]["identity"]["userAgent"] is None


@pytest.mark.parametrize(
    ("path", "resource", "params"),
    [
        ("/dev", "/", None),
        ("/dev/", "/", None),
        ("/dev/pets", "/pets", None),
        ("/dev/pets/", "/pets", None),
        ("/dev//pets", "/pets", None),
        ("//dev/pets", "/pets", None),
        ("/dev/pets/7", "/pets/{id}", {"id": "7"}),
        ("/dev/pets/mine", "/pets/mine", None),
        ("/dev/pets/a%2Fb", "/pets/{id}", {"id": "a%2Fb"}),
        ("/dev/pets/7/toys/8", "/pets/{id}/toys/{toy}", {"id": "7", "toy": "8"}),
        ("/dev/pets/7/x/y", "/pets/{rest+}", {"rest": "7/x/y"}),
        ("/dev/other/x", "/{proxy+}", {"proxy": "other/x"}),
        ("/dev/..%2f..%2fetc/passwd", "/{proxy+}", {"proxy": "..%2f..%2fetc/passwd"}),
        ("/dev/../dev/pets", "/{proxy+}", {"proxy": "../dev/pets"}),
    ],
)
async def test_the_most_specific_resource_wins(stand: Build, path: str, resource: str, params: Any) -> None:
    paths = ("/", "/pets", "/pets/{id}", "/pets/mine", "/pets/{id}/toys/{toy}", "/pets/{rest+}", "/{proxy+}")
    served = await stand(rest(*(proxy("GET", one) for one in paths)))
    assert (await served.ask(path)).status == 200
    assert (served.functions.event["resource"], served.functions.event["pathParameters"]) == (resource, params)


async def test_by_path_without_dns(stand: Build) -> None:
    served = await stand(rest(proxy()))
    assert (await served.ask(f"/_api/{API}/dev/x/y", host="127.0.0.1:8700")).status == 200
    event = served.functions.event
    assert (event["path"], event["requestContext"]["path"]) == ("/x/y", "/dev/x/y")
    assert event["requestContext"]["domainName"] == f"{API}.execute-api.us-east-1.martlet.internal"


@pytest.mark.parametrize(
    ("path", "host", "status", "kind"),
    [
        ("/dev/nope", None, 403, "MissingAuthenticationTokenException"),
        ("/prod/x", None, 403, "ForbiddenException"),
        ("/", None, 403, "ForbiddenException"),
        ("/dev/x", "zzzzzzzzzz.execute-api.us-east-1.amazonaws.com", 403, "ForbiddenException"),
        (f"/_api/{API}/../dev/x", "localhost", 403, "ForbiddenException"),
        ("/_api/zzzz/dev/x", "localhost", 403, "ForbiddenException"),
    ],
)
async def test_what_leads_nowhere(stand: Build, path: str, host: str | None, status: int, kind: str) -> None:
    served = await stand(rest(proxy("GET", "/x")))
    said = await served.ask(path, host=host) if host else await served.ask(path)
    assert (said.status, said.headers["x-amzn-errortype"]) == (status, kind)
    message = "Missing Authentication Token" if kind.startswith("Missing") else "Forbidden"
    assert said.json == {"message": message}


@pytest.mark.parametrize("path", ["/_api/", "/_api", "/_api/%2e%2e/x", "/_api/UPPER/x", "/_apiabc/x", "/_api/a%2Fb/dev"])
async def test_paths_that_only_look_like_an_api_are_the_apps(stand: Build, path: str) -> None:
    served = await stand(rest(proxy()))
    assert (await served.ask(path, host="localhost")).status == 404
    assert served.functions.seen == []


async def test_the_wrong_method_of_a_resource(stand: Build) -> None:
    served = await stand(rest(proxy("GET", "/x"), proxy()))
    assert (await served.ask("/dev/x", "POST")).json == {"message": "Missing Authentication Token"}


async def test_stage_variables_choose_the_function(stand: Build) -> None:
    served = await stand(rest(proxy(function="shop:${stageVariables.alias}"), stage={"variables": {"alias": "live"}}))
    await served.ask("/dev/x")
    assert served.functions.seen[-1].function == "shop:live"


# binary


@pytest.mark.parametrize(
    ("kinds", "accept", "body"),
    [
        (("image/png",), "image/png", b"\x89P"),
        (("*/*",), "", b"\x89P"),
        (("image/png",), "*/*", b"iVA="),
        ((), "image/png", b"iVA="),
    ],
)
async def test_binary_answers_follow_the_first_accepted_type(stand: Build, kinds: Any, accept: str, body: bytes) -> None:
    served = await stand(rest(proxy(), binary_media_types=kinds))
    served.functions.default = Outcome(b'{"statusCode":200,"isBase64Encoded":true,"body":"iVA="}')
    said = await served.ask("/dev/x", headers={"Accept": f"{accept},text/html"} if accept else None)
    assert said.body == body


async def test_binary_bodies_are_base64_only_for_the_types_declared(stand: Build) -> None:
    served = await stand(rest(proxy(), binary_media_types=("image/png",)))
    await served.ask("/dev/x", "POST", headers={"Content-Type": "image/png; q=1"}, body=b"\x00\xff")
    assert (served.functions.event["body"], served.functions.event["isBase64Encoded"]) == ("AP8=", True)
    await served.ask("/dev/x", "POST", headers=JSON, body=b'{"a":1}')
    assert (served.functions.event["body"], served.functions.event["isBase64Encoded"]) == ('{"a":1}', False)


# answers of functions


@pytest.mark.parametrize(
    "payload",
    [
        b'"text"',
        b"{}",
        b"null",
        b"[1]",
        b"not json",
        b'{"statusCode":200,"extra":1}',
        b'{"statusCode":"abc"}',
        b'{"statusCode":200,"body":1}',
        b'{"statusCode":700}',
        b'{"multiValueHeaders":{"a":"b"}}',
        b'{"headers":[]}',
        b'{"headers":{"a b":"c"}}',
        b'{"headers":{"a":"b\\r\\nevil: 1"}}',
        b'{"headers":{"a":{"b":1}}}',
    ],
)
async def test_malformed_answers_are_502(stand: Build, payload: bytes) -> None:
    served = await stand(rest(proxy()))
    served.functions.default = Outcome(payload)
    said = await served.ask("/dev/x")
    assert (said.status, said.json) == (502, {"message": "Internal server error"})
    assert said.headers["x-amzn-errortype"] == "InternalServerErrorException"
    assert "evil" not in said.headers


async def test_headers_of_a_functions_answer(stand: Build) -> None:
    served = await stand(rest(proxy()))
    answer = {
        "headers": {
            "Content-Type": "text/html",
            "n": 1,
            "yes": True,
            "WWW-Authenticate": "Basic",
            "Date": "then",
            "none": None,
        },
        "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"], "N": [2]},
        "statusCode": "418",
        "body": "ä",
    }
    served.functions.default = Outcome(json.dumps(answer).encode())
    said = await served.ask("/dev/x")
    assert (said.status, said.body.decode()) == (418, "ä")
    assert (said.headers["set-cookie"], said.headers["n"], said.headers["yes"]) == ("a=1, b=2", "2, 1", "true")
    assert (said.headers["x-amzn-remapped-www-authenticate"], said.headers["x-amzn-remapped-date"]) == ("Basic", "then")
    assert said.headers["date"] != "then"
    assert "none" not in said.headers


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (Outcome(b'{"errorMessage":"x"}', "Unhandled", "ValueError"), 502, "Internal server error"),
        (Outcome(refusal=Throttled("busy")), 500, "Internal server error"),
        (Outcome(refusal=LimitExceeded("payload")), 413, "Request Too Long"),
    ],
)
async def test_functions_that_fail(stand: Build, outcome: Outcome, status: int, message: str) -> None:
    served = await stand(rest(proxy()))
    served.functions.default = outcome
    said = await served.ask("/dev/x")
    assert (said.status, said.json) == (status, {"message": message})


async def test_an_integration_has_a_time_limit(stand: Build) -> None:
    integration = ApiIntegration(kind="AWS_PROXY", function="shop", method="POST", timeout_ms=50)
    served = await stand(rest(ApiRoute(method="GET", path="/x", integration=integration)))
    served.functions.default = None
    said = await served.ask("/dev/x")
    assert (said.status, said.json) == (504, {"message": "Endpoint request timed out"})
    invocation = served.functions.seen[0]
    invocation.on_done(invocation, Outcome(b'{"statusCode":200}'))  # too late: dropped
    assert not served.edge.under_way


# throttles


async def test_throttles_of_stage_and_method(stand: Build) -> None:
    slow = Throttle(rate=0.001, burst=1)
    served = await stand(rest(proxy("GET", "/x"), proxy("GET", "/y"), stage={"throttles": {"GET /x": slow}}))
    assert [(await served.ask("/dev/x")).status for _ in range(2)] == [200, 429]
    said = await served.ask("/dev/x")
    assert (said.json, said.headers["x-amzn-errortype"]) == ({"message": "Too Many Requests"}, "TooManyRequestsException")
    assert [(await served.ask("/dev/y")).status for _ in range(3)] == [200, 200, 200]


async def test_a_rate_of_zero_admits_nobody(stand: Build) -> None:
    served = await stand(rest(proxy(), stage={"throttle": Throttle(rate=0, burst=0)}))
    assert (await served.ask("/dev/x")).status == 429


# validation


MODEL = {"Pet": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}
REQUIRED = ("method.request.header.x-who", "method.request.path.id", "method.request.querystring.page")


async def test_missing_parameters_are_named_in_order(stand: Build) -> None:
    route = proxy("GET", "/pets/{id}", required=REQUIRED, validate_parameters=True)
    served = await stand(rest(route))
    said = await served.ask("/dev/pets/1")
    assert (said.status, said.json) == (400, {"message": "Missing required request parameters: [x-who, page]"})
    assert said.headers["x-amzn-errortype"] == "BadRequestException"
    assert (await served.ask("/dev/pets/1?page=2", headers={"X-Who": "me"})).status == 200


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b'{"name":"Rex"}', "application/json", 200),
        (b'{"name":1}', "application/json", 400),
        (b"not json", "application/json", 400),
        (b"", "application/json", 400),
        (b'{"name":1}', "text/plain", 200),
        (b'{"name":1}', "", 400),
        (b"[" * 5000, "application/json", 400),
    ],
)
async def test_bodies_are_checked_against_the_model_of_their_type(stand: Build, body: bytes, media: str, status: int) -> None:
    served = await stand(rest(proxy(models={"application/json": "Pet"}, validate_body=True), models=MODEL))
    said = await served.ask("/dev/x", "POST", headers={"Content-Type": media} if media else None, body=body)
    assert said.status == status
    if status == 400:
        assert said.json == {"message": "Invalid request body"}


# mock and templates


async def test_mock_with_a_template(stand: Build) -> None:
    template = '{"id": "$input.params(\'id\')", "v": "$stageVariables.v", "ip": "$context.identity.sourceIp"}'
    served = await stand(rest(mock(template, "/mock/{id}"), stage={"variables": {"v": "1"}}))
    said = await served.ask("/dev/mock/42")
    assert (said.status, said.json) == (200, {"id": "42", "v": "1", "ip": "127.0.0.1"})
    assert "x-amzn-trace-id" not in said.headers


async def test_cors_by_mock_as_sam_and_cdk_write_it(stand: Build) -> None:
    names = {"Access-Control-Allow-Origin": "'*'", "Access-Control-Allow-Methods": "'GET,POST'"}
    response = ApiIntegrationResponse(status=200, parameters={f"method.response.header.{k}": v for k, v in names.items()})
    integration = ApiIntegration(kind="MOCK", templates={"application/json": "{statusCode:200}"}, responses=(response,))
    served = await stand(rest(ApiRoute(method="OPTIONS", path="/x", integration=integration)))
    said = await served.ask("/dev/x", "OPTIONS", headers={"Origin": "http://a", "Access-Control-Request-Method": "GET"})
    assert (said.status, said.headers["access-control-allow-origin"], said.body) == (200, "*", b"")


async def test_selection_and_overrides(stand: Build) -> None:
    responses = (
        ApiIntegrationResponse(status=200),
        ApiIntegrationResponse(
            status=404, pattern="40[0-9]", templates={"application/json": '{"was": "$context.responseOverride.x"}'}
        ),
    )
    template = '#set($context.responseOverride.x = "kept")#set($context.responseOverride.header.h = "v"){"statusCode": 404}'
    integration = ApiIntegration(kind="MOCK", templates={"application/json": template}, responses=responses)
    served = await stand(rest(ApiRoute(method="GET", path="/x", integration=integration)))
    said = await served.ask("/dev/x")
    assert (said.status, said.json, said.headers["h"]) == (404, {"was": "kept"}, "v")


async def test_no_integration_response_fits(stand: Build) -> None:
    responses = (ApiIntegrationResponse(status=200, pattern="5.."),)
    integration = ApiIntegration(kind="MOCK", templates={"application/json": '{"statusCode": 200}'}, responses=responses)
    served = await stand(rest(ApiRoute(method="GET", path="/x", integration=integration)))
    said = await served.ask("/dev/x")
    assert (said.status, said.json) == (500, {"message": "Internal server error"})


@pytest.mark.parametrize("value", ["a\r\nevil: 1", "a\nb", "\x00"])
async def test_headers_cannot_be_injected_through_mappings(stand: Build, value: str) -> None:
    template = "#set($context.responseOverride.header.h = $util.parseJson($input.body).v)"
    responses = (ApiIntegrationResponse(status=200, templates={"application/json": template}),)
    served = await stand(rest(custom(responses=responses)))
    served.functions.default = Outcome(json.dumps({"v": value}).encode())
    said = await served.ask("/dev/c", "POST", headers=JSON, body=b"{}")
    assert said.status == 500
    assert "evil" not in said.headers


async def test_a_template_bomb_is_500_and_the_edge_lives(stand: Build) -> None:
    bomb = "#set($x='aaaaaaaaaa')#foreach($i in [1..999])#set($x=$x+$x)#end"
    served = await stand(rest(mock(bomb), mock('{"ok":1}', "/fine")))
    assert (await served.ask("/dev/mock")).status == 500
    assert (await served.ask("/dev/fine")).json == {"ok": 1}


# functions without proxy


async def test_a_function_gets_what_the_template_makes(stand: Build) -> None:
    template = '{"who": $input.json("$.name"), "method": "$context.httpMethod", "q": "$input.params(\'q\')"}'
    served = await stand(rest(custom(templates={"application/json": template})))
    served.functions.default = Outcome(b'{"made": 1}')
    said = await served.ask("/dev/c?q=7", "POST", headers=JSON, body=b'{"name": "Rex"}')
    assert served.functions.event == {"who": "Rex", "method": "POST", "q": "7"}
    assert (said.status, said.json, said.headers["content-type"]) == (200, {"made": 1}, "application/json")


@pytest.mark.parametrize(
    ("passthrough", "templates", "media", "status"),
    [
        ("WHEN_NO_MATCH", {}, "application/json", 200),
        ("WHEN_NO_MATCH", {"application/xml": "x"}, "application/json", 200),
        ("WHEN_NO_TEMPLATES", {}, "application/json", 200),
        ("WHEN_NO_TEMPLATES", {"application/xml": "x"}, "application/json", 415),
        ("NEVER", {}, "application/json", 415),
        ("NEVER", {"application/json": "{}"}, "application/json", 200),
        ("NEVER", {"application/json": "{}"}, "", 200),
        ("NEVER", {"$default": "{}"}, "text/plain", 200),
    ],
)
async def test_passthrough(stand: Build, passthrough: str, templates: Any, media: str, status: int) -> None:
    served = await stand(rest(custom(passthrough=passthrough, templates=templates)))
    said = await served.ask("/dev/c", "POST", headers={"Content-Type": media} if media else None, body=b'{"a": 1}')
    assert said.status == status
    if status == 415:
        assert said.json == {"message": "Unsupported Media Type"}


async def test_errors_of_functions_choose_the_response(stand: Build) -> None:
    responses = (
        ApiIntegrationResponse(status=200),
        ApiIntegrationResponse(
            status=404,
            pattern="Not found.*",
            parameters={"method.response.header.X-Why": "integration.response.body.errorMessage"},
            templates={"application/json": '{"message": "$input.path(\'$.errorMessage\')"}'},
        ),
    )
    served = await stand(rest(custom(responses=responses)))
    served.functions.default = Outcome(b'{"errorMessage":"Not found: 7","errorType":"E"}', "Unhandled", "E")
    said = await served.ask("/dev/c")
    assert (said.status, said.json, said.headers["x-why"]) == (404, {"message": "Not found: 7"}, "Not found: 7")
    served.functions.default = Outcome(b'{"errorMessage":"It was Not found"}', "Unhandled", "E")
    assert (await served.ask("/dev/c")).status == 200  # the pattern must match the whole message
    served.functions.default = Outcome(b'{"errorMessage":"Not found: 7"}')
    assert (await served.ask("/dev/c")).status == 200  # a value, not an error


async def test_events_are_queued_where_the_integration_asks_for_it(stand: Build) -> None:
    queued: list[tuple[str, bytes, str]] = []

    async def enqueue(function: str, payload: bytes, request_id: str) -> None:
        queued.append((function, payload, request_id))

    served = await stand(rest(custom(asynchronous=True)), enqueue=enqueue)
    said = await served.ask("/dev/c", "POST", headers=JSON, body=b'{"a":1}')
    assert (said.status, said.body) == (200, b"")
    assert queued == [("shop", b'{"a":1}', said.headers["x-amzn-requestid"])]
    assert served.functions.seen == []


async def test_content_handling(stand: Build) -> None:
    served = await stand(rest(custom(content_handling="CONVERT_TO_BINARY", templates={})))
    await served.ask("/dev/c", "POST", headers=JSON, body=base64.b64encode(b'{"a":1}'))
    assert served.functions.event == {"a": 1}
    assert (await served.ask("/dev/c", "POST", headers=JSON, body=b"not base64!")).status == 500


async def test_a_function_needs_json(stand: Build) -> None:
    served = await stand(rest(custom()))
    said = await served.ask("/dev/c", "POST", headers={"Content-Type": "text/plain"}, body=b"plain text")
    assert served.functions.seen == []
    assert "Could not parse request body into json" in said.json["message"]


async def test_mapping_a_forbidden_header_is_500(stand: Build) -> None:
    served = await stand(rest(custom(parameters={"integration.request.header.Transfer-Encoding": "'chunked'"})))
    said = await served.ask("/dev/c")
    assert (said.status, said.json) == (500, {"message": "Internal server error"})


# gateway responses


async def test_an_apis_own_words(stand: Build) -> None:
    own = (
        ApiGatewayResponse(
            kind="DEFAULT_4XX",
            parameters={"gatewayresponse.header.Access-Control-Allow-Origin": "'*'"},
            templates={"application/json": '{"error": $context.error.messageString, "type": "$context.error.responseType"}'},
        ),
        ApiGatewayResponse(kind="THROTTLED", status=503),
    )
    served = await stand(rest(proxy("GET", "/x"), responses=own, stage={"throttle": Throttle(rate=0, burst=0)}))
    said = await served.ask("/dev/nope")
    assert said.json == {"error": "Missing Authentication Token", "type": "MISSING_AUTHENTICATION_TOKEN"}
    assert (said.status, said.headers["access-control-allow-origin"]) == (403, "*")
    assert (await served.ask("/dev/x")).status == 503


# what a deployment is told


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (rest(mock("#if(")), "ANY /mock.*expression"),
        (rest(custom(responses=(ApiIntegrationResponse(status=200, pattern="(x"),))), "pattern"),
        (rest(proxy("GET", "/a"), proxy("GET", "/a/")), "two methods|GET"),
        (rest(proxy("GET", "/{a+}/b")), "must come last"),
        (rest(proxy(models={"application/json": "Nope"}, validate_body=True)), "no model 'Nope'"),
        (rest(proxy(models={"application/json": "M"}, validate_body=True), models={"M": {"type": "x"}}), "model M"),
        (rest(proxy(authorization="CUSTOM", authorizer="nope")), "no authorizer 'nope'"),
        (rest(stage={"variables": {"a": "b\r\nc"}}), "variable a"),
        (
            rest(ApiRoute(method="GET", path="/x", integration=ApiIntegration(kind="HTTP", uri="file:///etc/passwd"))),
            "file:///",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_at_deploy(config: ApiConfig, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check(config)
