"""From OpenAPI documents and CloudFormation resources to APIs; what is not honoured is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.apps.apis import Part, from_openapi, http_api_from, rest_api_from
from martlet.errors import DeployFailed
from martlet.gateway.apis import check
from martlet.types import ApiConfig, ApiGatewayResponse, Throttle

ID = "abcdefghij"
LAMBDA = "arn:aws:lambda:us-east-1:000000000000:function:shop-pets"
URI = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{LAMBDA}/invocations"
PROXY = {"type": "aws_proxy", "httpMethod": "POST", "uri": URI}
MOCK = {
    "type": "mock",
    "requestTemplates": {"application/json": '{"statusCode": 200}'},
    "passthroughBehavior": "when_no_match",
    "responses": {
        "default": {"statusCode": "200"},
        "4\\d{2}": {"statusCode": 404, "responseTemplates": {"application/json": "{}"}},
    },
}


def openapi(paths: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"openapi": "3.0.1", "info": {"title": "pets", "version": "1"}, "paths": paths, **more}


def swagger(paths: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"swagger": "2.0", "info": {"title": "pets", "version": "1"}, "paths": paths, **more}


def rest(body: dict[str, Any], **more: Any) -> ApiConfig:
    made = from_openapi(body, "rest", id=ID, **more)
    check(made)
    return made


def operation(integration: Any = PROXY, **more: Any) -> dict[str, Any]:
    return {"x-amazon-apigateway-integration": integration, **more}


# OpenAPI


def test_routes_of_a_document() -> None:
    made = rest(swagger({"/pets/{id}": {"get": operation(), "x-amazon-apigateway-any-method": operation(MOCK)}}))
    assert [(route.method, route.path) for route in made.routes] == [("GET", "/pets/{id}"), ("ANY", "/pets/{id}")]
    assert (made.name, made.kind) == ("pets", "rest")
    proxy, mock = (route.integration for route in made.routes)
    assert (proxy.kind, proxy.function, proxy.method) == ("AWS_PROXY", "shop-pets", "POST")
    assert [(one.status, one.pattern) for one in mock.responses] == [(200, ""), (404, "4\\d{2}")]


@pytest.mark.parametrize(
    ("arn", "function"),
    [
        (LAMBDA, "shop-pets"),
        (f"{LAMBDA}:live", "shop-pets:live"),
        (f"{LAMBDA}:7", "shop-pets:7"),
        (f"{LAMBDA}:${{stageVariables.alias}}", "shop-pets:${stageVariables.alias}"),
        ("arn:aws:lambda:us-east-1:000000000000:function:${stageVariables.name}", "${stageVariables.name}"),
    ],
)
def test_which_function_an_integration_names(arn: str, function: str) -> None:
    uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{arn}/invocations"
    made = rest(openapi({"/": {"get": operation({**PROXY, "uri": uri})}}))
    assert made.routes[0].integration.function == function


def test_validators_and_models_of_openapi_2_and_3() -> None:
    validators = {
        "x-amazon-apigateway-request-validators": {"all": {"validateRequestBody": True, "validateRequestParameters": True}}
    }
    pet = {"type": "object", "required": ["name"]}
    page = {"in": "query", "name": "page", "required": True}
    two = swagger(
        {
            "/p": {
                "parameters": [page],
                "post": operation(parameters=[{"in": "body", "name": "b", "schema": {"$ref": "#/definitions/Pet"}}]),
            }
        },
        definitions={"Pet": pet},
        **{"x-amazon-apigateway-request-validator": "all"},
        **validators,
    )
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}
    three = openapi(
        {
            "/p": {
                "post": operation(
                    parameters=[page], requestBody={"content": content}, **{"x-amazon-apigateway-request-validator": "all"}
                )
            }
        },
        components={"schemas": {"Pet": pet}},
        **validators,
    )
    for body in (two, three):
        (route,) = rest(body).routes
        assert (route.required, route.models) == (("method.request.querystring.page",), {"application/json": "Pet"})
        assert (route.validate_body, route.validate_parameters) == (True, True)


def test_an_inline_schema_gets_a_name() -> None:
    content = {"application/json": {"schema": {"type": "array"}}}
    made = rest(openapi({"/p": {"post": operation(requestBody={"content": content})}}))
    (name,) = made.routes[0].models.values()
    assert made.models[name] == {"type": "array"}


def test_gateway_responses_and_binary_types() -> None:
    own = {
        "DEFAULT_4XX": {
            "statusCode": 404,
            "responseParameters": {"gatewayresponse.header.X": "'1'"},
            "responseTemplates": {"a/b": "x"},
        }
    }
    made = rest(
        openapi({}, **{"x-amazon-apigateway-gateway-responses": own, "x-amazon-apigateway-binary-media-types": ["image/png"]})
    )
    assert made.responses == (
        ApiGatewayResponse(
            kind="DEFAULT_4XX", status=404, parameters={"gatewayresponse.header.X": "'1'"}, templates={"a/b": "x"}
        ),
    )
    assert made.binary_media_types == ("image/png",)


def test_lambda_authorizers() -> None:
    scheme = {
        "type": "apiKey",
        "name": "Auth",
        "in": "header",
        "x-amazon-apigateway-authtype": "custom",
        "x-amazon-apigateway-authorizer": {"type": "token", "authorizerUri": URI, "authorizerResultTtlInSeconds": 60},
    }
    body = swagger(
        {"/a": {"get": operation(security=[{"guard": []}])}, "/b": {"get": operation(security=[])}},
        securityDefinitions={"guard": scheme},
    )
    made = rest(body)
    (authorizer,) = made.authorizers
    assert (authorizer.kind, authorizer.identity, authorizer.ttl_seconds) == ("TOKEN", ("method.request.header.Auth",), 60)
    assert [(route.authorization, route.authorizer) for route in made.routes] == [("CUSTOM", "guard"), ("NONE", "")]


def test_an_http_api_as_sam_writes_it() -> None:
    integration = {"type": "aws_proxy", "httpMethod": "POST", "uri": URI, "payloadFormatVersion": "2.0"}
    paths = {
        "/$default": {"x-amazon-apigateway-any-method": operation(integration, isDefaultRoute=True)},
        "/p": {"get": operation(integration)},
    }
    cors = {"allowOrigins": ["*"], "allowMethods": ["GET"], "maxAge": 5}
    made = from_openapi(openapi(paths, **{"x-amazon-apigateway-cors": cors}), "http", id=ID)
    check(made)
    assert [(route.method, route.path) for route in made.routes] == [("ANY", "$default"), ("GET", "/p")]
    assert made.cors is not None
    assert (made.cors.origins, made.cors.max_age_seconds) == (("*",), 5)
    assert made.routes[0].integration.payload_format == "2.0"


REFUSED: list[tuple[dict[str, Any], str]] = [
    (openapi({}, **{"x-amazon-apigateway-policy": {}}), "x-amazon-apigateway-policy"),
    (openapi({}, **{"x-amazon-apigateway-minimum-compression-size": 10}), "minimum-compression-size"),
    (openapi({"/": {"get": {}}}), "GET /.*x-amazon-apigateway-integration is missing"),
    (openapi({"/": {"get": operation({**PROXY, "uri": "arn:aws:apigateway:us-east-1:sqs:path/1/q"})}}), "GET /.*'sqs'"),
    (openapi({"/": {"get": operation({**PROXY, "connectionType": "VPC_LINK"})}}), "VPC_LINK"),
    (openapi({"/": {"get": operation({**PROXY, "responseTransferMode": "STREAM"})}}), "STREAM"),
    (
        openapi(
            {
                "/": {
                    "get": operation(
                        {
                            **PROXY,
                            "type": "aws",
                            "requestParameters": {"integration.request.header.X-Amz-Invocation-Type": "'Event'"},
                        }
                    )
                }
            }
        ),
        "'Event'",
    ),
    (openapi({"/": {"get": operation({**PROXY, "frobnicate": 1})}}), "frobnicate"),
    (openapi({"/": {"get": operation({**PROXY, "timeoutInMillis": 40_000})}}), "timeoutInMillis is 40000"),
    (openapi({"/": {"get": operation({**PROXY, "type": "soap"})}}), "SOAP"),
    (openapi({"/": {"get": operation(security=[{"nope": []}])}}), "'nope', which is not declared"),
    (openapi({"/": {"get": operation(**{"x-amazon-apigateway-request-validator": "v"})}}), "'v', which is not declared"),
    (
        openapi({"/": {"get": operation(security=[{"key": []}])}}, components={"securitySchemes": {"key": {"type": "apiKey"}}}),
        "API keys",
    ),
    (
        openapi({}, components={"securitySchemes": {"p": {"x-amazon-apigateway-authorizer": {"type": "jwt"}}}}),
        "JWT",
    ),
    (
        swagger(
            {},
            securityDefinitions={
                "p": {
                    "x-amazon-apigateway-authtype": "cognito_user_pools",
                    "x-amazon-apigateway-authorizer": {"type": "cognito_user_pools"},
                }
            },
        ),
        "COGNITO_USER_POOLS",
    ),
    (openapi({}, **{"x-amazon-apigateway-gateway-responses": {"TEAPOT": {}}}), "TEAPOT"),
    (openapi([]), "paths is not an object"),  # type: ignore[arg-type]
    ({"info": {}}, "not an OpenAPI document"),
]


@pytest.mark.parametrize(("body", "words"), REFUSED)
def test_what_is_not_honoured_is_refused_by_name(body: dict[str, Any], words: str) -> None:
    with pytest.raises(DeployFailed, match=words):
        from_openapi(body, "rest", id=ID)


def test_lenient_says_it_instead() -> None:
    said: list[str] = []
    made = from_openapi(
        openapi({"/": {"get": operation()}}, **{"x-amazon-apigateway-policy": {}}), "rest", id=ID, warn=said.append
    )
    assert len(made.routes) == 1
    assert said == ["OpenAPI document: x-amazon-apigateway-policy is not supported yet; it has no effect"]


# CloudFormation


def part(kind: str, id: str, line: int | None = None, **properties: Any) -> Part:
    return Part(type=f"AWS::{kind}", logical_id=f"My{id}", id=id, properties=properties, line=line)


API = part("ApiGateway::RestApi", ID, Name="pets")


GROUP = "arn:aws:logs:us-east-1:000000000000:log-group:calls"


def logged(arn: str, form: str) -> Part:
    return part("ApiGateway::Stage", "s", StageName="x", AccessLogSetting={"DestinationArn": arn, "Format": form})


@pytest.mark.parametrize("arn", [GROUP, f"{GROUP}:*"])
def test_a_stage_has_an_access_log(arn: str) -> None:
    made = rest_api_from(resources(logged(arn, "$context.requestId $context.status")))
    (stage,) = [one for one in made.stages if one.name == "x"]
    assert (stage.access_log_group, stage.access_log_format) == ("calls", "$context.requestId $context.status")


SERVICE = "arn:aws:apigateway:us-east-1:{}"


def resources(*more: Part) -> list[Part]:
    return [
        API,
        part("ApiGateway::Resource", "res1", RestApiId=ID, ParentId="root", PathPart="pets"),
        part("ApiGateway::Resource", "res2", RestApiId=ID, ParentId="res1", PathPart="{id}"),
        *more,
    ]


def method(resource: str = "res2", **properties: Any) -> Part:
    given = {"Type": "AWS_PROXY", "IntegrationHttpMethod": "POST", "Uri": URI}
    base = {"RestApiId": ID, "ResourceId": resource, "HttpMethod": "GET", "AuthorizationType": "NONE", "Integration": given}
    return part("ApiGateway::Method", f"method{resource}", **{**base, **properties})


def test_a_rest_api_of_resources() -> None:
    made = rest_api_from(
        resources(
            method(
                RequestParameters={"method.request.querystring.q": True, "method.request.header.h": False},
                RequestValidatorId="val",
            ),
            method("root", HttpMethod="ANY", RequestModels={"application/json": "Pet"}),
            part(
                "ApiGateway::Model", "mod", RestApiId=ID, Name="Pet", ContentType="application/json", Schema='{"type":"object"}'
            ),
            part("ApiGateway::RequestValidator", "val", RestApiId=ID, ValidateRequestParameters="true"),
            part("ApiGateway::Deployment", "dep1", RestApiId=ID),
            part(
                "ApiGateway::Stage",
                "prod",
                RestApiId=ID,
                DeploymentId="dep1",
                StageName="prod",
                Variables={"a": "b"},
                MethodSettings=[
                    {"HttpMethod": "*", "ResourcePath": "/*", "ThrottlingRateLimit": 10, "ThrottlingBurstLimit": 5},
                    {"HttpMethod": "GET", "ResourcePath": "/~1pets~1{id}", "ThrottlingRateLimit": 1, "ThrottlingBurstLimit": 1},
                ],
            ),
        ),
        app="stack",
    )
    check(made)
    assert [(route.method, route.path, route.resource_id) for route in made.routes] == [
        ("GET", "/pets/{id}", "res2"),
        ("ANY", "/", "root"),
    ]
    first = made.routes[0]
    assert (first.required, first.validate_parameters, first.validate_body) == (("method.request.querystring.q",), True, False)
    (stage,) = made.stages
    assert (stage.name, stage.variables, stage.deployment_id) == ("prod", {"a": "b"}, "dep1")
    assert stage.throttle == Throttle(rate=10, burst=5)
    assert stage.throttles == {"GET /pets/{id}": Throttle(rate=1, burst=1)}
    assert (made.app, made.models) == ("stack", {"Pet": {"type": "object"}})


def test_a_deployment_can_make_a_stage() -> None:
    made = rest_api_from(
        [API, part("ApiGateway::Deployment", "d", RestApiId=ID, StageName="Stage", StageDescription={"Variables": {"a": "b"}})]
    )
    assert [(stage.name, stage.variables) for stage in made.stages] == [("Stage", {"a": "b"})]


def test_a_body_and_its_stages() -> None:
    body = swagger({"/x": {"get": operation()}})
    api = part(
        "ApiGateway::RestApi", ID, Body=body, BinaryMediaTypes=["image~1png"], EndpointConfiguration={"Types": ["REGIONAL"]}
    )
    made = rest_api_from([api, part("ApiGateway::Stage", "s", RestApiId=ID, DeploymentId="d", StageName="Prod")])
    assert ([route.path for route in made.routes], made.binary_media_types) == (["/x"], ("image/png",))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (resources(part("ApiGateway::UsagePlan", "plan", 7)), r"Myplan \(AWS::ApiGateway::UsagePlan\), line 7"),
        (resources(method(ApiKeyRequired=True)), "ApiKeyRequired"),
        (resources(method(AuthorizationType="COGNITO_USER_POOLS")), "COGNITO_USER_POOLS"),
        (resources(method(Frobnicate=1)), "Frobnicate"),
        (resources(method(Integration={"Type": "AWS_PROXY", "Uri": URI, "Frob": 1})), "Frob"),
        (resources(method(RequestValidatorId="nope")), "nope"),
        (resources(method(Integration={"Type": "AWS", "Uri": SERVICE.format("sqs:path/1/q")})), "credentials is missing"),
        (resources(method(Integration={"Type": "AWS", "Uri": SERVICE.format("translate:path//")})), "service 'translate'"),
        (resources(method(Integration={"Type": "AWS_PROXY", "Uri": SERVICE.format("sqs:path/1/q")})), "service 'sqs'"),
        (resources(part("ApiGateway::Stage", "s", StageName="x", CacheClusterEnabled=True)), "CacheClusterEnabled"),
        (
            resources(part("ApiGateway::Stage", "s", StageName="x", AccessLogSetting={"Format": "x"})),
            "DestinationArn is missing",
        ),
        (resources(logged("arn:aws:firehose:us-east-1:1:deliverystream/x", "$context.requestId")), "not a log group's"),
        (resources(logged(GROUP, "$context.status")), "must contain .context.requestId"),
        (resources(logged(GROUP, "$context.requestId\n$context.status")), "must be one line"),
        (resources(part("ApiGateway::Stage", "s", StageName="x", CanarySetting={"PercentTraffic": 1})), "CanarySetting"),
        ([part("ApiGateway::RestApi", ID, Policy={"Statement": []})], "Policy"),
        ([part("ApiGateway::RestApi", ID, EndpointConfiguration={"Types": ["PRIVATE"]})], "PRIVATE"),
        ([API, part("ApiGateway::Resource", "r", ParentId="r", PathPart="x")], "leads back to itself"),
        ([API, part("ApiGateway::Resource", "r", ParentId="", PathPart="a/b")], "one segment"),
        ([], "0 resources"),
    ],
)
def test_what_rest_resources_may_not_ask(parts: list[Part], words: str) -> None:
    with pytest.raises(DeployFailed, match=words):
        rest_api_from(parts)


HTTP = part("ApiGatewayV2::Api", ID, Name="pets", ProtocolType="HTTP")


def test_an_http_api_of_resources() -> None:
    made = http_api_from(
        [
            part(
                "ApiGatewayV2::Api",
                ID,
                Name="pets",
                ProtocolType="HTTP",
                CorsConfiguration={"AllowOrigins": ["*"], "MaxAge": 3},
            ),
            part(
                "ApiGatewayV2::Integration",
                "int1",
                ApiId=ID,
                IntegrationType="AWS_PROXY",
                IntegrationUri=LAMBDA,
                PayloadFormatVersion="2.0",
            ),
            part(
                "ApiGatewayV2::Integration",
                "int2",
                ApiId=ID,
                IntegrationType="HTTP_PROXY",
                IntegrationUri="https://example.com",
                IntegrationMethod="ANY",
                ResponseParameters={"200": {"ResponseParameters": [{"Source": "201", "Destination": "overwrite:statuscode"}]}},
            ),
            part("ApiGatewayV2::Route", "r1", ApiId=ID, RouteKey="GET /pets/{id}", Target="integrations/int1"),
            part(
                "ApiGatewayV2::Route", "r2", ApiId=ID, RouteKey="$default", Target="integrations/int2", AuthorizationType="NONE"
            ),
            part(
                "ApiGatewayV2::Stage",
                "$default",
                ApiId=ID,
                StageName="$default",
                AutoDeploy=True,
                StageVariables={"a": "b"},
                DefaultRouteSettings={"ThrottlingRateLimit": 5, "ThrottlingBurstLimit": 2},
                RouteSettings={"GET /pets/{id}": {"ThrottlingBurstLimit": 1}},
            ),
        ]
    )
    check(made)
    assert [(route.method, route.path, route.integration.kind) for route in made.routes] == [
        ("GET", "/pets/{id}", "AWS_PROXY"),
        ("ANY", "$default", "HTTP_PROXY"),
    ]
    assert made.routes[1].integration.response_parameters == {"200": {"overwrite:statuscode": "201"}}
    (stage,) = made.stages
    assert (stage.throttle, stage.throttles) == (Throttle(rate=5, burst=2), {"GET /pets/{id}": Throttle(rate=10_000, burst=1)})
    assert made.cors is not None
    assert made.cors.origins == ("*",)


def test_quick_create() -> None:
    made = http_api_from([part("ApiGatewayV2::Api", ID, Name="p", ProtocolType="HTTP", Target=LAMBDA)])
    assert [(route.path, route.integration.function) for route in made.routes] == [("$default", "shop-pets")]
    assert [stage.name for stage in made.stages] == ["$default"]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            [HTTP, part("ApiGatewayV2::Integration", "i", IntegrationType="AWS_PROXY", IntegrationSubtype="SQS-SendMessage")],
            "credentials is missing",
        ),
        (
            [HTTP, part("ApiGatewayV2::Integration", "i", IntegrationType="AWS_PROXY", IntegrationSubtype="Kinesis-PutRecord")],
            "Kinesis-PutRecord is not supported",
        ),
        ([HTTP, part("ApiGatewayV2::Route", "r", RouteKey="GET /", Target="integrations/none")], "not an integration"),
        ([HTTP, part("ApiGatewayV2::Authorizer", "a", AuthorizerType="JWT", JwtConfiguration={})], "issuer .* is not a URL"),
        ([HTTP, part("ApiGatewayV2::DomainName", "d", 12)], "DomainName.*line 12"),
        ([HTTP, part("ApiGatewayV2::Stage", "s", StageName="x", AccessLogSettings={"a": 1})], "AccessLogSettings"),
    ],
)
def test_what_http_resources_may_not_ask(parts: list[Part], words: str) -> None:
    with pytest.raises(DeployFailed, match=words):
        http_api_from(parts)


def test_jwt_authorizers_in_resources_and_in_documents() -> None:
    configuration = {"Issuer": "https://id.example", "Audience": ["shop"]}
    authorizer: dict[str, Any] = {"AuthorizerType": "JWT", "JwtConfiguration": configuration}
    authorizer["IdentitySource"] = ["$request.header.X"]
    needs: dict[str, Any] = {"AuthorizationType": "JWT", "AuthorizerId": "a", "AuthorizationScopes": ["read"]}
    api = http_api_from(
        [
            HTTP,
            part("ApiGatewayV2::Authorizer", "a", **authorizer),
            part("ApiGatewayV2::Integration", "i", IntegrationType="AWS_PROXY", IntegrationUri="f", PayloadFormatVersion="2.0"),
            part("ApiGatewayV2::Route", "r", RouteKey="GET /", Target="integrations/i", **needs),
        ]
    )
    found = api.authorizers[0]
    assert (found.kind, found.issuer, found.audience) == ("JWT", "https://id.example", ("shop",))
    assert found.identity == ("$request.header.X",)
    assert (api.routes[0].authorization, api.routes[0].authorizer, api.routes[0].scopes) == ("CUSTOM", "a", ("read",))
