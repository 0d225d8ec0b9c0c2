"""HTTP APIs, authorizers and function URLs over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.gateway.apis.conftest import API, Build, http, rest

from martlet.clock import ManualClock
from martlet.errors import AccessDenied, InvalidInput, Overloaded, Throttled, Unauthenticated
from martlet.gateway.apis import check
from martlet.types import ApiAuthorizer, ApiIntegration, ApiRoute, Cors, Outcome, Principal, Throttle

URL = "a" * 32
URL_HOST = f"{URL}.lambda-url.us-east-1.on.aws"


def route(method: str = "GET", path: str = "/pets/{id}", payload: Any = "2.0", **more: Any) -> ApiRoute:
    integration = ApiIntegration(kind="AWS_PROXY", function="shop", payload_format=payload, timeout_ms=30_000)
    return ApiRoute(method=method, path=path, integration=integration, **more)


# HTTP APIs


async def test_format_2_of_a_named_stage(stand: Build) -> None:
    served = await stand(http(route()))
    said = await served.ask("/v1/pets/a%20b?x=1&x=2", headers={"Cookie": "a=b; c=d", "X-A": "1"})
    event = served.functions.event
    assert (event["routeKey"], event["rawPath"], event["rawQueryString"]) == ("GET /pets/{id}", "/v1/pets/a%20b", "x=1&x=2")
    assert (event["pathParameters"], event["queryStringParameters"]) == ({"id": "a b"}, {"x": "1,2"})
    assert (event["cookies"], event["headers"]["x-a"]) == (["a=b", "c=d"], "1")
    context = event["requestContext"]
    assert (context["stage"], context["apiId"], context["http"]["path"]) == ("v1", API, "/v1/pets/a%20b")
    assert context["requestId"] == said.headers["apigw-requestid"]
    assert not {"body", "stageVariables"} & set(event)


async def test_the_default_stage_has_no_prefix(stand: Build) -> None:
    served = await stand(http(route(), stage={"variables": {"a": "1"}}))
    assert (await served.ask("/pets/7")).status == 200
    assert served.functions.event["requestContext"]["stage"] == "$default"
    assert served.functions.event["stageVariables"] == {"a": "1"}
    assert (await served.ask(f"/_api/{API}/pets/7", host="localhost")).status == 200
    assert (await served.ask(f"/_api/{API}/v1/pets/7", host="localhost")).status == 200


async def test_priorities_and_the_default_route(stand: Build) -> None:
    routes = (route(path="/pets/{id}"), route("ANY", "/pets/{id}"), route("ANY", "/{proxy+}"), route("ANY", "$default"))
    served = await stand(http(*routes))
    for method, path, key in (
        ("GET", "/pets/1", "GET /pets/{id}"),
        ("PUT", "/pets/1", "ANY /pets/{id}"),
        ("GET", "/x/y", "ANY /{proxy+}"),
        ("GET", "/", "$default"),
    ):
        await served.ask(path, method)
        assert served.functions.event["routeKey"] == key


async def test_not_found_and_failures(stand: Build) -> None:
    served = await stand(http(route()))
    assert ((said := await served.ask("/nope")).status, said.json) == (404, {"message": "Not Found"})
    for outcome, status, message in (
        (Outcome(b"{}", "Unhandled", "E"), 500, "Internal Server Error"),
        (Outcome(refusal=Throttled("busy")), 503, "Service Unavailable"),
        (Outcome(refusal=Overloaded("busy")), 503, "Service Unavailable"),
    ):
        served.functions.default = outcome
        said = await served.ask("/pets/1")
        assert (said.status, said.json) == (status, {"message": message})


async def test_format_1_over_an_http_api(stand: Build) -> None:
    served = await stand(http(route(payload="1.0")))
    await served.ask("/pets/7?a=1&a=2")
    event = served.functions.event
    assert (event["version"], event["resource"], event["path"]) == ("1.0", "/pets/{id}", "/pets/7")
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"]}
    served.functions.default = Outcome(b'"text"')
    assert (await served.ask("/pets/7")).status == 500


async def test_cors_of_an_http_api(stand: Build) -> None:
    cors = Cors(origins=("https://a.com",), methods=("GET", "POST"), headers=("x-a",), credentials=True, max_age_seconds=9)
    served = await stand(http(route(), cors=cors))
    asked = {"Origin": "https://a.com", "Access-Control-Request-Method": "POST"}
    said = await served.ask("/anything", "OPTIONS", headers=asked)
    assert (said.status, said.headers["access-control-allow-methods"]) == (204, "GET,POST")
    assert (said.headers["access-control-allow-headers"], said.headers["access-control-max-age"]) == ("x-a", "9")
    said = await served.ask("/pets/1", headers={"Origin": "https://a.com"})
    assert said.headers["access-control-allow-origin"] == "https://a.com"
    assert "access-control-allow-origin" not in (await served.ask("/pets/1", headers={"Origin": "https://b.com"})).headers


def test_cors_that_browsers_refuse_is_refused_at_deploy() -> None:
    with pytest.raises(InvalidInput, match="credentials"):
        check(http(cors=Cors(origins=("*",), credentials=True)))


async def test_throttle_of_an_http_route(stand: Build) -> None:
    served = await stand(http(route(), stage={"throttles": {"GET /pets/{id}": Throttle(rate=0.001, burst=1)}}))
    assert [(await served.ask("/pets/1")).status for _ in range(2)] == [200, 429]


# authorizers


def policy(effect: str, resource: str = "*", context: Any = None) -> Outcome:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}
    answer = {
        "principalId": "me",
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": context or {},
    }
    return Outcome(json.dumps(answer).encode())


def conditional() -> Outcome:
    statement = {"Action": "*", "Effect": "Allow", "Resource": "*", "Condition": {"a": 1}}
    return Outcome(json.dumps({"principalId": "x", "policyDocument": {"Statement": [statement]}}).encode())


def guarded(kind: Any = "TOKEN", **more: Any) -> Any:
    authorizer = ApiAuthorizer(
        name="auth", kind=kind, function="guard", **{"identity": ("method.request.header.Authorization",), **more}
    )
    integration = ApiIntegration(kind="AWS_PROXY", function="shop", method="POST")
    one = ApiRoute(method="GET", path="/{proxy+}", integration=integration, authorization="CUSTOM", authorizer="auth")
    return rest(one, authorizers=(authorizer,))


async def test_a_token_authorizer(stand: Build) -> None:
    served = await stand(guarded())
    served.functions.answers["guard"] = policy("Allow", context={"n": 1, "yes": True})
    said = await served.ask("/dev/x", headers={"Authorization": "t0k"})
    assert said.status == 200
    asked = json.loads(served.functions.seen[0].payload)
    arn = f"arn:aws:execute-api:us-east-1:000000000000:{API}/dev/GET/x"
    assert asked == {"type": "TOKEN", "methodArn": arn, "authorizationToken": "t0k"}
    assert served.functions.event["requestContext"]["authorizer"] == {
        "principalId": "me",
        "n": "1",
        "yes": "true",
        "integrationLatency": 0,
    }


@pytest.mark.parametrize(
    ("outcome", "status", "body"),
    [
        (policy("Deny"), 403, {"Message": "User is not authorized to access this resource with an explicit deny"}),
        (
            policy("Allow", "arn:aws:execute-api:*:*:*/prod/*"),
            403,
            {"Message": "User is not authorized to access this resource"},
        ),
        (policy("Allow", "arn:aws:execute-api:us-east-1:*:*/dev/GET/*"), 200, None),
        (policy("Allow", "arn:aws:execute-api:us-east-1:*:*/d?v/GET/x"), 200, None),
        (Outcome(b'{"errorMessage":"Unauthorized"}', "Unhandled", "Exception"), 401, {"message": "Unauthorized"}),
        (Outcome(b'{"errorMessage":"boom"}', "Unhandled", "Exception"), 500, {"message": None}),
        (Outcome(b'{"principalId":"x"}'), 500, {"message": None}),
        (Outcome(b"null"), 500, {"message": None}),
        (conditional(), 500, {"message": None}),
    ],
)
async def test_what_an_authorizer_may_say(stand: Build, outcome: Outcome, status: int, body: Any) -> None:
    served = await stand(guarded(ttl_seconds=0))
    served.functions.answers["guard"] = outcome
    said = await served.ask("/dev/x", headers={"Authorization": "t"})
    assert said.status == status
    if body is not None:
        assert said.json == body
        assert [invocation.function for invocation in served.functions.seen] == ["guard"]


async def test_without_identity_nobody_is_asked(stand: Build) -> None:
    served = await stand(guarded(validation="t[0-9]+"))
    served.functions.answers["guard"] = policy("Allow")
    for headers in ({}, {"Authorization": ""}, {"Authorization": "wrong"}, {"Authorization": "t1x"}):
        said = await served.ask("/dev/x", headers=headers)
        assert (said.status, said.json) == (401, {"message": "Unauthorized"})
    assert served.functions.seen == []


async def test_answers_are_remembered_for_their_time(stand: Build) -> None:
    clock = ManualClock()
    served = await stand(guarded(ttl_seconds=60), clock=clock)
    served.functions.answers["guard"] = policy("Allow")

    async def asked(token: str) -> int:
        before = len(served.functions.seen)
        assert (await served.ask("/dev/x", headers={"Authorization": token})).status == 200
        return len(served.functions.seen) - before

    assert [await asked("a"), await asked("a"), await asked("b")] == [2, 1, 2]
    clock.advance(61)
    assert await asked("a") == 2
    served.functions.answers["guard"] = policy("Deny")
    assert await asked("a") == 1  # until its time is over


async def test_a_remembered_policy_is_judged_for_each_resource(stand: Build) -> None:
    served = await stand(guarded())
    served.functions.answers["guard"] = policy("Allow", "arn:aws:execute-api:*:*:*/dev/GET/x")
    assert (await served.ask("/dev/x", headers={"Authorization": "t"})).status == 200
    assert (await served.ask("/dev/y", headers={"Authorization": "t"})).status == 403


async def test_simple_answers_of_an_http_api(stand: Build) -> None:
    authorizer = ApiAuthorizer(
        name="auth",
        kind="REQUEST",
        function="guard",
        identity=("$request.header.authorization",),
        payload_format="2.0",
        simple=True,
        ttl_seconds=0,
    )
    served = await stand(http(route(authorization="CUSTOM", authorizer="auth"), authorizers=(authorizer,)))
    served.functions.answers["guard"] = Outcome(b'{"isAuthorized": true, "context": {"a": [1]}}')
    assert (await served.ask("/pets/1", headers={"Authorization": "t"})).status == 200
    assert served.functions.event["requestContext"]["authorizer"] == {"lambda": {"a": [1]}}
    asked = json.loads(served.functions.seen[0].payload)
    assert (asked["version"], asked["type"], asked["identitySource"]) == ("2.0", "REQUEST", ["t"])
    served.functions.answers["guard"] = Outcome(b'{"isAuthorized": false}')
    assert ((said := await served.ask("/pets/1", headers={"Authorization": "t"})).status, said.json) == (
        403,
        {"message": "Forbidden"},
    )
    assert (await served.ask("/pets/1")).json == {"message": "Unauthorized"}


# function URLs


def url(**more: Any) -> dict[str, Any]:
    given = {"FunctionName": "shop", "Qualifier": "", "UrlId": URL, "AuthType": "NONE", "InvokeMode": "BUFFERED"}
    return {**given, **more}


async def test_a_function_url(stand: Build) -> None:
    served = await stand(urls=[url(Qualifier="live")])
    said = await served.ask("/pa2%Fth/1?q=ü".replace("ü", "%C3%BC"), host=URL_HOST)
    assert said.status == 200
    assert served.functions.seen[0].function == "shop:live"
    event = served.functions.event
    assert (event["routeKey"], event["rawPath"], event["queryStringParameters"]) == ("$default", "/pa2%Fth/1", {"q": "ü"})
    context = event["requestContext"]
    assert (context["accountId"], context["apiId"], context["stage"]) == ("anonymous", URL, "$default")
    assert (context["domainName"], context["domainPrefix"]) == (URL_HOST, URL)
    assert (await served.ask(f"/_url/{URL}/x", host="localhost")).status == 200
    assert served.functions.event["rawPath"] == "/x"


@pytest.mark.parametrize(
    ("outcome", "status", "body"),
    [
        (Outcome(b'"text"'), 200, b"text"),
        (Outcome(b'{"a":1}'), 200, b'{"a":1}'),
        (Outcome(b"{}", "Unhandled", "E"), 502, b"Internal Server Error"),
        (Outcome(b'{"statusCode":"x"}'), 502, b"Internal Server Error"),
    ],
)
async def test_answers_of_a_url(stand: Build, outcome: Outcome, status: int, body: bytes) -> None:
    served = await stand(urls=[url()])
    served.functions.default = outcome
    said = await served.ask(host=URL_HOST)
    assert (said.status, said.body) == (status, body)


async def test_a_throttled_url(stand: Build) -> None:
    served = await stand(urls=[url()])
    served.functions.default = Outcome(refusal=Throttled("busy"))
    said = await served.ask(host=URL_HOST)
    assert (said.status, said.json["message"]) == (429, "Rate Exceeded.")


async def test_a_streamed_url(stand: Build) -> None:
    served = await stand(urls=[url(InvokeMode="RESPONSE_STREAM")])

    class Streaming:
        def __call__(self, invocation: Any) -> None:
            invocation.on_head(b'{"statusCode":201,"headers":{"content-type":"text/plain"}}')
            invocation.on_chunk(b"one ")
            invocation.on_chunk(b"two")
            invocation.on_done(invocation, Outcome())

    served.edge.dispatch = Streaming()
    said = await served.ask(host=URL_HOST)
    assert (said.status, said.headers["transfer-encoding"]) == (201, "chunked")
    assert said.body == b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_a_buffered_url_asks_for_no_stream(stand: Build) -> None:
    served = await stand(urls=[url()])
    await served.ask(host=URL_HOST)
    assert served.functions.seen[0].on_head is None


async def test_who_may_call_a_url(stand: Build) -> None:
    served = await stand(urls=[url()], may_invoke_url=lambda name, qualifier: False)
    said = await served.ask(host=URL_HOST)
    gone = await served.ask(host=f"{'b' * 32}.lambda-url.us-east-1.on.aws")
    text = "Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com/lambda/latest/"
    for one in (said, gone):
        assert (one.status, one.json) == (403, {"Message": f"{text}dg/urls-auth.html"})
        assert one.headers["x-amzn-errortype"] == "AccessDeniedException"


async def test_a_url_s_path_is_decoded_and_begins_with_one_slash(stand: Build) -> None:
    served = await stand(urls=[url()])
    for path in ("//pa2%25Fth/1", "/pa2%Fth/1"):
        await served.ask(host=URL_HOST, path=path)
        event = served.functions.event
        assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/pa2%Fth/1"


async def test_a_url_sends_an_object_as_json(stand: Build) -> None:
    served = await stand(urls=[url()])
    served.functions.default = Outcome('{"statusCode": 201, "body": {"a": [1, "ä"]}}'.encode())
    said = await served.ask(host=URL_HOST)
    assert (said.status, said.json) == (201, {"a": [1, "ä"]})


async def test_a_signed_url(stand: Build) -> None:
    services: list[str] = []

    def authenticate(*_: Any, service: str) -> Principal:
        services.append(service)
        return Principal("root", "root")

    def permit(principal: Principal, action: str, resource: str) -> None:
        if resource != "shop":
            raise AccessDenied("no")

    served = await stand(urls=[url(AuthType="AWS_IAM")], authenticate=authenticate, permit=permit)
    assert (await served.ask(host=URL_HOST)).status == 403
    assert (await served.ask(host=URL_HOST, headers={"Authorization": "Bearer mt_x"})).status == 403
    assert services == []
    assert (await served.ask(host=URL_HOST, headers={"Authorization": "AWS4-HMAC-SHA256 x"})).status == 200
    assert services == ["lambda"]
    assert served.functions.event["requestContext"]["authorizer"]["iam"]["userId"] == "root"


async def test_signed_routes_without_a_room_for_auth_admit_nobody(stand: Build) -> None:
    def refuse(*_: Any, service: str) -> Principal:
        raise Unauthenticated("no", reason="SignatureDoesNotMatch")

    integration = ApiIntegration(kind="AWS_PROXY", function="shop", method="POST")
    one = ApiRoute(method="GET", path="/x", integration=integration, authorization="AWS_IAM")
    served = await stand(rest(one))
    assert (await served.ask("/dev/x")).json == {"message": "Missing Authentication Token"}
    signed = {"Authorization": "AWS4-HMAC-SHA256 x"}
    assert (await served.ask("/dev/x", headers=signed)).status == 403
    served = await stand(rest(one), authenticate=refuse, permit=lambda *_: None)
    assert (await served.ask("/dev/x", headers=signed)).headers["x-amzn-errortype"] == "InvalidSignatureException"


async def test_cors_of_a_url(stand: Build) -> None:
    served = await stand(urls=[url(Cors={"AllowOrigins": ["*"], "AllowMethods": ["GET"], "MaxAge": 5})])
    said = await served.ask(host=URL_HOST, headers={"Origin": "https://a.com"})
    assert said.headers["access-control-allow-origin"] == "*"
    asked = {"Origin": "https://a.com", "Access-Control-Request-Method": "GET"}
    said = await served.ask(method="OPTIONS", host=URL_HOST, headers=asked)
    assert (said.status, said.headers["access-control-allow-methods"]) == (200, "GET")
