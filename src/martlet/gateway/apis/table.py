"""APIs compiled for the edge: every template parsed, every pattern and model checked, before the first request.

`check` is what a deployment asks: whatever could fail at a request for the configuration's own fault fails there, by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from martlet.clock import Clock
from martlet.errors import InvalidInput, LimitExceeded, MartletError
from martlet.gateway.apis.cors import ApiCors
from martlet.gateway.apis.selection import Selection
from martlet.gateway.patterns import Pattern, compile_pattern
from martlet.gateway.router import Match, RouteTable
from martlet.gateway.schema import Schema
from martlet.gateway.throttle import Buckets
from martlet.gateway.vtl import TemplateSyntax, compile_template
from martlet.limits import LIMITS, exceeded
from martlet.types import ApiAuthorizer, ApiConfig, ApiGatewayResponse, ApiRoute, ApiStage, Route

__all__ = ["CompiledApi", "Plan", "Stage", "check", "compile_api"]

_VARIABLE: Final = re.compile(r"\$\{stageVariables\.([A-Za-z0-9_-]+)\}")
_VALUE: Final = re.compile(r"[A-Za-z0-9._~:/?#&=,-]*")  # API Gateway: stage variables
_PARAMETER: Final = re.compile(r"\{([A-Za-z0-9._:$-]+)(\+?)\}")
_REQUIRED: Final = re.compile(r"method\.request\.(header|querystring|path)\.(.+)")


class Plan:
    """What is known of a route before the first request."""

    __slots__ = ("authorizer", "models", "names", "required", "responses", "route", "route_key")

    def __init__(self, route: ApiRoute, authorizer: ApiAuthorizer | None, schemas: Mapping[str, Schema | None]) -> None:
        self.route = route
        self.authorizer = authorizer
        self.route_key = f"{route.method} {route.path}" if route.method and route.path != "$default" else route.path
        self.names = tuple(found[1] for found in _PARAMETER.finditer(route.path))
        self.required: list[tuple[str, str]] = []
        if route.validate_parameters:
            for name in route.required:
                found = _REQUIRED.fullmatch(name)
                if found is None:
                    raise InvalidInput(f"required parameter {name!r} is not method.request.(header|querystring|path).NAME")
                self.required.append((found[1], found[2]))
        self.models = {media.lower(): schemas[name] for media, name in route.models.items()} if route.validate_body else {}
        self.responses: list[tuple[Pattern | None, int]] = []
        for index, response in enumerate(route.integration.responses):
            self.responses.append((compile_pattern(response.pattern) if response.pattern else None, index))
        _check_integration(route)


def _check_integration(route: ApiRoute) -> None:
    integration = route.integration
    for template in integration.templates.values():
        compile_template(template)
    for response in integration.responses:
        for template in response.templates.values():
            compile_template(template)
        if not 100 <= response.status <= 599:
            raise InvalidInput(f"integration response {response.status}: a status is 100 to 599")
    if integration.kind in ("AWS", "AWS_PROXY") and not integration.function:
        raise InvalidInput("the integration names no function")
    if integration.kind in ("HTTP", "HTTP_PROXY") and not integration.uri.startswith(
        ("http://", "https://", "${stageVariables")
    ):
        raise InvalidInput(f"uri {integration.uri[:200]!r} is not an http or https URL")


class Stage:
    """A stage, with its token buckets."""

    __slots__ = ("_buckets", "_clock", "_default", "config")

    def __init__(self, config: ApiStage, clock: Clock, before: Stage | None) -> None:
        for name, value in config.variables.items():
            if not _VALUE.fullmatch(value):
                raise InvalidInput(f"stage {config.name}: variable {name}: {value!r} has characters that are not allowed")
        self.config = config
        self._clock = clock
        self._default = config.throttle
        self._buckets: dict[str, Buckets | None] = {}
        if before is not None:  # throttles that did not change keep their count
            same = (before.config.throttle, before.config.throttles) == (config.throttle, config.throttles)
            self._buckets = before._buckets if same else {}
        for throttle in (config.throttle, *config.throttles.values()):
            if throttle is not None and throttle.rate > 0 and throttle.burst >= 1:
                Buckets(throttle, clock)

    def admits(self, key: str) -> bool:
        """Take a token of the route's bucket. A rate or burst of zero admits nobody."""
        throttle = self.config.throttles.get(key, self._default)
        if throttle is None:
            return True
        if throttle.rate <= 0 or throttle.burst < 1:
            return False
        buckets = self._buckets.get(key)
        if buckets is None:
            buckets = self._buckets[key] = Buckets(throttle, self._clock)
        return not buckets.take("")

    def resolve(self, text: str) -> str:
        """`${stageVariables.name}` replaced; one that is not set becomes nothing."""
        if "${" not in text:
            return text
        return _VARIABLE.sub(lambda found: self.config.variables.get(found[1], ""), text)


class _Node:
    __slots__ = ("children", "greedy", "methods", "parameter")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.greedy: dict[str, Plan] | None = None
        self.methods: dict[str, Plan] = {}


class ResourceTree:
    """The resources of a REST API: a literal segment wins over {parameter}, that over {greedy+}.

    The most specific resource is chosen by path alone; if it has not the method, the request has no route.
    """

    def __init__(self, plans: Iterable[Plan]) -> None:
        self._root = _Node()
        for plan in plans:
            self._add(plan)

    def _add(self, plan: Plan) -> None:
        node, path = self._root, plan.route.path
        if not path.startswith("/"):
            raise InvalidInput(f"path {path!r} does not begin with /")
        methods: dict[str, Plan] | None = None
        segments = path.strip("/").split("/") if path.strip("/") else []
        for index, segment in enumerate(segments):
            found = _PARAMETER.fullmatch(segment)
            if found is None:
                node = node.children.setdefault(segment, _Node())
            elif found[2]:
                if index != len(segments) - 1:
                    raise InvalidInput(f"path {path}: {segment} must come last")
                node.greedy = methods = node.greedy if node.greedy is not None else {}
            else:
                node.parameter = node.parameter or _Node()
                node = node.parameter
        methods = node.methods if methods is None else methods
        if plan.route.method in methods:
            raise InvalidInput(f"{plan.route.method} {path}: two methods fit the same requests")
        methods[plan.route.method] = plan

    def find(self, method: str, path: str) -> tuple[Plan | None, dict[str, str]]:
        """The plan for a path without its stage, and the path's parameters, as they were sent."""
        segments = path.strip("/").split("/") if path.strip("/") else []
        stack: list[tuple[_Node, int, tuple[str, ...]]] = [(self._root, 0, ())]
        best: tuple[int, dict[str, Plan], tuple[str, ...]] | None = None
        while stack:
            node, depth, values = stack.pop()
            if depth == len(segments):
                if node.methods:
                    return self._choose(node.methods, method, values)
                continue
            if node.greedy is not None and (best is None or depth > best[0]):
                best = (depth, node.greedy, (*values, "/".join(segments[depth:])))
            segment = segments[depth]
            if node.parameter is not None and segment:
                stack.append((node.parameter, depth + 1, (*values, segment)))
            child = node.children.get(segment)
            if child is not None:
                stack.append((child, depth + 1, values))
        return self._choose(best[1], method, best[2]) if best is not None else (None, {})

    @staticmethod
    def _choose(methods: dict[str, Plan], method: str, values: tuple[str, ...]) -> tuple[Plan | None, dict[str, str]]:
        plan = methods.get(method) or methods.get("ANY")
        return (plan, dict(zip(plan.names, values, strict=False))) if plan is not None else (None, {})


class CompiledApi:
    """An API, ready to be served."""

    __slots__ = ("_any_binary", "_binary", "config", "cors", "http", "responses", "rest", "selection", "sockets", "stages")

    def __init__(self, config: ApiConfig, clock: Clock, before: CompiledApi | None = None) -> None:
        self.config = config
        self.responses: dict[str, ApiGatewayResponse] = {response.kind: response for response in config.responses}
        stages: dict[str, Stage] = before.stages if before is not None else {}
        self.stages: dict[str, Stage] = {stage.name: Stage(stage, clock, stages.get(stage.name)) for stage in config.stages}
        self._binary = frozenset(media.lower().replace("~1", "/") for media in config.binary_media_types)
        self._any_binary = "*/*" in self._binary
        self.cors = ApiCors(config.cors) if config.cors is not None else None
        count = len({route.path for route in config.routes}) if config.kind == "rest" else len(config.routes)
        if count > LIMITS["api_routes"].default:
            raise exceeded("api_routes", count, f"API {config.name}")
        plans = _plans(config)
        self.rest = ResourceTree(plans) if config.kind == "rest" else None
        self.http = _http_table(config.id, plans) if config.kind == "http" else None
        self.sockets = {plan.route_key: plan for plan in plans} if config.kind == "websocket" else None
        self.selection = Selection(config.selection) if config.kind == "websocket" else None

    def is_binary(self, media: str) -> bool:
        """Whether this media type (without parameters) is one of the API's binary ones."""
        return self._any_binary or (bool(self._binary) and media.lower() in self._binary)


def _plans(config: ApiConfig) -> list[Plan]:
    authorizers = {authorizer.name: authorizer for authorizer in config.authorizers}
    for authorizer in config.authorizers:
        if authorizer.validation:
            compile_pattern(authorizer.validation)
    schemas: dict[str, Schema | None] = {"Empty": None}
    wanted = {name for route in config.routes if route.validate_body for name in route.models.values()}
    for name in sorted(wanted - {"Empty"}):
        if name not in config.models:
            raise InvalidInput(f"there is no model {name!r}", field="models")
        size = len(msgspec.json.encode(config.models[name]))
        if size > LIMITS["model_bytes"].default:
            raise exceeded("model_bytes", size, f"model {name}")
        try:
            schemas[name] = Schema(config.models[name], config.models)
        except InvalidInput as error:
            raise InvalidInput(f"model {name}: {error.message}", remedy=error.remedy, field="models") from error
    plans = []
    for route in config.routes:
        try:
            if route.authorization == "CUSTOM" and route.authorizer not in authorizers:
                raise InvalidInput(f"there is no authorizer {route.authorizer!r}")
            plans.append(Plan(route, authorizers.get(route.authorizer), schemas))
        except (InvalidInput, TemplateSyntax, LimitExceeded) as error:
            raise InvalidInput(f"{route.method} {route.path}: {error.message}", remedy=error.remedy, field="routes") from error
    return plans


def _http_table(id: str, plans: list[Plan]) -> RouteTable:
    by_key = {(plan.route.method, plan.route.path): plan for plan in plans}

    def plan_of(app: str, route: Route, function: str) -> Any:
        return by_key[route.method, route.path]

    routes = [(id, Route(method=plan.route.method, path=plan.route.path, function=""), "") for plan in plans]
    table = RouteTable(routes, plan=plan_of)
    table.set_default(id)
    return table


def find_http(table: RouteTable, method: str, path: bytes) -> tuple[Plan | None, dict[str, str]]:
    """The plan of an HTTP API's route, and the path's parameters, decoded."""
    match = table.match(b"", method, path)
    return (match.plan, match.path_params) if isinstance(match, Match) else (None, {})


def compile_api(config: ApiConfig, clock: Clock, before: CompiledApi | None = None) -> CompiledApi:
    """Raises `InvalidInput` naming the route, the model or the stage that cannot be served."""
    return CompiledApi(config, clock, before)


def check(config: ApiConfig) -> None:
    """Raises `MartletError` for a configuration that cannot be served; the message names the place."""
    try:
        compile_api(config, Clock())
    except MartletError as error:
        raise InvalidInput(f"API {config.name}: {error.message}", remedy=error.remedy, field="api") from error
