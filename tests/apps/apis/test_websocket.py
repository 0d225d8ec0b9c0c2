"""From CloudFormation resources to WebSocket APIs; what is not honoured is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.apps.apis import Part, http_api_from
from martlet.errors import DeployFailed
from martlet.gateway.apis import check
from martlet.types import ApiConfig, Throttle

ID = "wsabcdefgh"
LAMBDA = "arn:aws:lambda:us-east-1:000000000000:function:shop-chat"
URI = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{LAMBDA}/invocations"


def part(kind: str, id: str, line: int | None = None, **properties: Any) -> Part:
    return Part(type=f"AWS::ApiGatewayV2::{kind}", logical_id=f"My{id}", id=id, properties=properties, line=line)


API = part("Api", ID, Name="chat", ProtocolType="WEBSOCKET", RouteSelectionExpression="$request.body.action")
TALK = part("Integration", "i", ApiId=ID, IntegrationType="AWS_PROXY", IntegrationUri=URI)


def made(*parts: Part) -> ApiConfig:
    found = http_api_from([API, TALK, *parts], app="shop")
    check(found)
    return found


def route(key: str, id: str = "r", **more: Any) -> Part:
    return part("Route", id, ApiId=ID, RouteKey=key, Target="integrations/i", **more)


def test_a_websocket_api_of_resources() -> None:
    found = made(
        route("$connect", "r1", AuthorizationType="CUSTOM", AuthorizerId="a", ApiKeyRequired=False),
        route("$disconnect", "r2"),
        route("$default", "r3"),
        route("join", "r4", RouteResponseSelectionExpression="$default"),
        route("talk", "r5", RouteResponseSelectionExpression="$default"),
        part("RouteResponse", "x", ApiId=ID, RouteId="r4", RouteResponseKey="$default"),
        part(
            "Authorizer",
            "a",
            AuthorizerType="REQUEST",
            AuthorizerUri=URI,
            IdentitySource=["route.request.header.Auth"],
            Name="a",
        ),
        part("Deployment", "d", ApiId=ID),
        part(
            "Stage",
            "s",
            ApiId=ID,
            StageName="prod",
            DeploymentId="d",
            StageVariables={"color": "red"},
            DefaultRouteSettings={"ThrottlingRateLimit": 5, "ThrottlingBurstLimit": 6},
            RouteSettings={"join": {"ThrottlingRateLimit": 1, "ThrottlingBurstLimit": 2}},
        ),
    )
    assert (found.id, found.name, found.kind, found.app, found.selection) == (
        ID,
        "chat",
        "websocket",
        "shop",
        "$request.body.action",
    )
    assert [(one.method, one.path, one.responds) for one in found.routes] == [
        ("", "$connect", False),
        ("", "$disconnect", False),
        ("", "$default", False),
        ("", "join", True),
        ("", "talk", False),  # asks for a response that is not there
    ]
    first = found.routes[0]
    assert (first.authorization, first.authorizer) == ("CUSTOM", "a")
    assert (first.integration.kind, first.integration.function, first.integration.timeout_ms) == (
        "AWS_PROXY",
        "shop-chat",
        29_000,
    )
    (authorizer,) = found.authorizers
    assert (authorizer.kind, authorizer.function, authorizer.identity, authorizer.ttl_seconds) == (
        "REQUEST",
        "shop-chat",
        ("method.request.header.Auth",),
        0,
    )
    (stage,) = found.stages
    assert (stage.name, stage.variables, stage.deployment_id) == ("prod", {"color": "red"}, "d")
    assert (stage.throttle, stage.throttles) == (Throttle(rate=5, burst=6), {"join": Throttle(rate=1, burst=2)})


def test_a_deployment_may_name_its_stage() -> None:
    assert [stage.name for stage in made(part("Deployment", "d", ApiId=ID, StageName="dev")).stages] == ["dev"]


def with_api(**properties: Any) -> list[Part]:
    return [part("Api", ID, 7, ProtocolType="WEBSOCKET", **{"RouteSelectionExpression": "$request.body.a", **properties})]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (with_api(RouteSelectionExpression=""), "line 7: RouteSelectionExpression is missing"),
        (with_api(CorsConfiguration={"AllowOrigins": ["*"]}), "CorsConfiguration"),
        (with_api(Target=LAMBDA), "Target"),
        (with_api(Body={"openapi": "3.0.1"}), "Body"),
        ([API, part("Integration", "i", IntegrationType="MOCK")], "MOCK is not supported in WebSocket APIs yet"),
        (
            [API, part("Integration", "i", IntegrationType="HTTP_PROXY", IntegrationUri="http://x")],
            "HTTP_PROXY is not supported",
        ),
        ([API, part("IntegrationResponse", "i", 9)], "line 9"),
        ([API, part("Model", "i", 9)], "line 9"),
        ([API, TALK, route("$nothing")], "RouteKey"),
        ([API, TALK, route("")], "RouteKey"),
        ([API, TALK, route("join", "a"), route("join", "b")], "another route's already"),
        ([API, TALK, part("Route", "r", RouteKey="join", Target="integrations/none")], "not an integration"),
        ([API, TALK, route("join", AuthorizationType="AWS_IAM")], r"\$connect: a connection is authorized once"),
        ([API, TALK, route("$connect", AuthorizationType="JWT")], "JWT is for HTTP APIs"),
        ([API, TALK, route("$connect", ApiKeyRequired=True)], "API keys"),
        ([API, TALK, route("join", RequestModels={"a": "b"})], "RequestModels"),
        ([API, TALK, part("RouteResponse", "x", RouteId="r", RouteResponseKey="other")], "RouteResponseKey"),
        ([API, TALK, part("RouteResponse", "x", RouteId="none", RouteResponseKey="$default")], "not a route"),
        ([API, part("Authorizer", "a", AuthorizerType="JWT")], "JWT is for HTTP APIs"),
        (
            [API, part("Authorizer", "a", AuthorizerType="REQUEST", AuthorizerUri=URI, IdentitySource=["$request.header.A"])],
            "IdentitySource",
        ),
        ([API, part("Authorizer", "a", AuthorizerType="REQUEST", AuthorizerUri=URI, AuthorizerResultTtlInSeconds=5)], "Ttl"),
        ([API, part("Stage", "s", StageName="$default")], "StageName"),
        ([API, part("Stage", "s", StageName="x", AccessLogSettings={"a": 1})], "AccessLogSettings"),
        ([API, part("Stage", "s", StageName="x", DefaultRouteSettings={"LoggingLevel": "INFO"})], "LoggingLevel"),
        ([API, API], "2 resources"),
    ],
)
def test_what_a_websocket_api_may_not_ask(parts: list[Part], words: str) -> None:
    with pytest.raises(DeployFailed, match=words):
        http_api_from(parts)


def test_an_expression_that_the_edge_cannot_evaluate_is_refused_at_deployment() -> None:
    found = http_api_from(with_api(RouteSelectionExpression="$request.header.x"))
    with pytest.raises(Exception, match="route selection expression"):
        check(found)
