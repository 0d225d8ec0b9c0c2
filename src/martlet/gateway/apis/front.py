"""Which API, stage and route, or which function URL, a request means: by host, or by path where there is no DNS.

    <id>.execute-api.<region>.<anything>/<stage>/…      /_api/<id>/<stage>/…      HTTP APIs' stage $default has no prefix
    <id>.lambda-url.<region>.<anything>/…               /_url/<id>/…

Nothing in a path is decoded or normalised before it has found its API, so ".." and "%2F" are only names that nobody has.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from martlet.clock import Clock, uuid4_text
from martlet.errors import Unauthenticated
from martlet.gateway.apis.answers import ERRORS
from martlet.gateway.apis.authorizers import Authorizers
from martlet.gateway.apis.backend import Backend
from martlet.gateway.apis.call import Call
from martlet.gateway.apis.connections import Connections, management_id
from martlet.gateway.apis.flight import AskService, Enqueue
from martlet.gateway.apis.http_api import HttpFlight, message_answer
from martlet.gateway.apis.rest import RestFlight, gateway_answer
from martlet.gateway.apis.socket_call import SocketCall
from martlet.gateway.apis.sockets import ConnectFlight
from martlet.gateway.apis.table import CompiledApi, Plan, Stage, compile_api, find_http
from martlet.gateway.apis.tokens import OwnKeys, no_own_keys
from martlet.gateway.apis.urls import URL_FORBIDDEN, FunctionUrl, UrlFlight
from martlet.gateway.http import Exchange
from martlet.gateway.payload import trace_id
from martlet.gateway.router import Elsewhere, RouteTable
from martlet.types import ApiConfig, Invocation

__all__ = ["ApiEdge", "elsewhere"]

_HOST: Final = re.compile(rb"([a-z0-9]{1,63})\.(execute-api|lambda-url)\.[a-z0-9-]+\..+")
_PATH: Final = re.compile(rb"/_(api|url)/([a-z0-9]{1,63})(?=/|\Z)")
_FORBIDDEN: Final = (
    403,
    [(b"x-amzn-ErrorType", b"ForbiddenException"), (b"content-type", b"application/json")],
    b'{"message":"Forbidden"}',
)


def elsewhere(host: bytes) -> Elsewhere | None:
    """Whether this lower-case host without a port is an API's or a function URL's."""
    found = _HOST.fullmatch(host)
    return Elsewhere("api" if found[2] == b"execute-api" else "url", found[1].decode("ascii")) if found else None


def _anybody(*_: str) -> bool:
    return True


def _nowhere(*_: object) -> None:
    return None


class ApiEdge:
    """Serves the APIs of `set_apis` and the URLs of `set_urls` by calling `dispatch(invocation)`.

    `authenticate` is the auth room's (SigV4 of an AWS_IAM route or URL), `permit(principal, action, resource)` its decision;
    without them signed routes admit nobody. `may_invoke(function, arn)` and `may_invoke_url(function, qualifier)` are the
    functions' own policies. `access_log(group, epoch ms, line)` takes lines of stages' access logs, `ask_service`
    requests to the platform's own services by a role (see `flight.AskService`). `enqueue(function,
    payload, request_id)` queues an event durably. Call `close` at the end.
    """

    def __init__(
        self,
        dispatch: Callable[[Invocation], None],
        *,
        clock: Clock,
        region: str = "us-east-1",
        suffix: str = "martlet.internal",
        backend: Backend | None = None,
        enqueue: Enqueue | None = None,
        may_invoke: Callable[[str, str], bool] = _anybody,
        may_invoke_url: Callable[[str, str], bool] = _anybody,
        authenticate: Callable[..., Any] | None = None,
        permit: Callable[[Any, str, str], None] | None = None,
        access_log: Callable[[str, int, str], None] = _nowhere,
        ask_service: AskService | None = None,
        own_keys: OwnKeys = no_own_keys,
    ) -> None:
        self.dispatch = dispatch
        self.clock = clock
        self.region = region
        self.backend = backend or Backend()
        self.enqueue = enqueue
        self.access_log = access_log
        self.ask_service = ask_service
        self.may_invoke = may_invoke
        self.under_way: set[Any] = set()
        self.count: Callable[..., None] = lambda status, app="", size=0: None
        self.authorizers = Authorizers(dispatch, clock, region, self.backend, own_keys)
        self.connections = Connections(clock, region)
        self._may_invoke_url = may_invoke_url
        self._authenticate = authenticate
        self._permit = permit
        self._suffix = suffix
        self._apis: dict[str, CompiledApi] = {}
        self._urls: dict[str, FunctionUrl] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # what is served

    def attach(self, under_way: set[Any], count: Callable[..., None]) -> None:
        """Count requests and answers where the edge counts its own."""
        self.under_way = under_way
        self.count = count

    def set_apis(self, configs: Iterable[ApiConfig]) -> None:
        """Serve these APIs from now on; requests under way keep what they have. Raises `InvalidInput`; nothing changed then."""
        found: dict[str, CompiledApi] = {}
        for config in configs:
            before = self._apis.get(config.id)
            same = before is not None and before.config == config
            found[config.id] = before if before is not None and same else compile_api(config, self.clock, before)
        gone = set(self._apis) - set(found)
        self._apis = found
        self.authorizers.forget()
        if gone:
            self.connections.leave(gone)

    def set_urls(self, configs: Iterable[dict[str, Any]]) -> None:
        """Serve these function URLs from now on. Raises `InvalidInput`; nothing changed then."""
        self._urls = {url.id: url for url in map(FunctionUrl, configs)}

    async def close(self) -> None:
        """Give up what HTTP backends still owe, and close their connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.backend.close()

    # requests

    def owns(self, path: bytes) -> bool:
        """Whether a path is ours on every host."""
        return path.startswith(b"/_") and _PATH.match(path) is not None

    def takes_path(self, exchange: Exchange) -> bool:
        """Serve `/_api/<id>/…` and `/_url/<id>/…`; False for any other path."""
        path = exchange.request.path
        found = _PATH.match(path)
        if found is None:
            return False
        id = found[2].decode("ascii")
        rest = path[found.end() :].decode("ascii") or "/"
        service = "execute-api" if found[1] == b"api" else "lambda-url"
        domain = f"{id}.{service}.{self.region}.{self._suffix}"
        self._serve(exchange, "api" if found[1] == b"api" else "url", id, rest, domain)
        return True

    def takes_host(self, exchange: Exchange, where: Elsewhere) -> None:
        """Serve a request whose host `elsewhere` recognised."""
        domain = exchange.request.host.partition(b":")[0].rstrip(b".").decode("ascii")
        self._serve(exchange, where.kind, where.id, exchange.request.path.decode("ascii"), domain)

    def _serve(self, exchange: Exchange, kind: str, id: str, path: str, domain: str) -> None:
        request_id = uuid4_text()
        now_ms = self.clock.now_ms()
        request = exchange.request
        trace = trace_id(request, request_id, now_ms)
        known = self._apis.get(id) if kind == "api" else None
        make = Call if known is None or known.sockets is None else SocketCall
        call = make(request, api_id=id, domain=domain, request_id=request_id, trace=trace, now_ms=now_ms, full_path=path)
        if kind == "url":
            self._serve_url(exchange, id, call)
            return
        api = self._apis.get(id)
        if api is None or api.config.disabled:
            self._say(exchange, *_FORBIDDEN)
        elif api.rest is not None:
            self._serve_rest(exchange, api, call)
        elif api.http is not None:
            self._serve_http(exchange, api, api.http, call)
        elif isinstance(call, SocketCall):
            self._serve_socket(exchange, api, call)

    def _serve_socket(self, exchange: Exchange, api: CompiledApi, call: SocketCall) -> None:
        """/<stage> is a client's handshake, /<stage>/@connections/<id> a backend's request."""
        name, _, rest = call.full_path.lstrip("/").partition("/")
        stage = api.stages.get(name)
        if stage is None or (rest and not rest.startswith("@connections/")):
            self._say(exchange, *_FORBIDDEN)
            return
        self._enter(call, stage)
        id = management_id(f"/{rest}".encode("ascii"))
        if id is not None:
            self._say(exchange, *self.connections.answer(self, exchange, id))
            return
        ConnectFlight.begin_on(self, exchange, api, stage, call)

    def serving(self, api_id: str, stage: str) -> tuple[CompiledApi, Stage] | None:
        """An API and its stage as they are deployed now."""
        api = self._apis.get(api_id)
        found = api.stages.get(stage) if api is not None and not api.config.disabled else None
        return (api, found) if api is not None and found is not None else None

    def _serve_url(self, exchange: Exchange, id: str, call: Call) -> None:
        url = self._urls.get(id)
        if url is None:
            self._say(exchange, 403, *URL_FORBIDDEN)
            return
        call.stage = "$default"
        UrlFlight(self, exchange, url, call).begin(self._may_invoke_url(url.name, url.qualifier))

    def _serve_rest(self, exchange: Exchange, api: CompiledApi, call: Call) -> None:
        assert api.rest is not None
        name, _, rest = call.full_path.lstrip("/").partition("/")
        stage = api.stages.get(name)
        if stage is None:
            self._say(exchange, *_FORBIDDEN)
            return
        call.full_path = f"/{name}/{rest}" if rest or call.full_path.endswith("/") else f"/{name}"
        call.path = "/" + rest.lstrip("/")
        self._enter(call, stage)
        plan, params = api.rest.find(exchange.request.method, call.path)
        if plan is None:
            error = ERRORS["MISSING_AUTHENTICATION_TOKEN"]
            status, headers, body = gateway_answer(api, call, error, error.message)
            own = [(b"x-amzn-RequestId", call.request_id.encode()), (b"x-amz-apigw-id", call.extended_id.encode())]
            self._say(exchange, status, [*headers, *own], body)
            return
        self._route(call, plan, params)
        RestFlight(self, exchange, api, stage, plan, call).begin()

    def _serve_http(self, exchange: Exchange, api: CompiledApi, table: RouteTable, call: Call) -> None:
        name, _, rest = call.full_path[1:].partition("/")
        stage = api.stages.get(name)
        if stage is not None and name != "$default":
            call.path = f"/{rest}"
        else:
            stage = api.stages.get("$default")
            call.path = call.full_path
        if stage is None:
            self._say(exchange, *message_answer("NOT_FOUND"))
            return
        self._enter(call, stage)
        request = exchange.request
        if api.cors is not None and request.method == "OPTIONS":
            origin = request.header(b"origin")
            if origin is not None and request.header(b"access-control-request-method") is not None:
                own = [(b"apigw-requestid", call.extended_id.encode())]
                self._say(exchange, 204, [*api.cors.preflight(origin), *own], b"")
                return
        plan, params = find_http(table, request.method, call.path.encode("ascii"))
        if plan is None:
            status, headers, body = message_answer("NOT_FOUND")
            self._say(exchange, status, [*headers, (b"apigw-requestid", call.extended_id.encode())], body)
            return
        self._route(call, plan, params)
        HttpFlight(self, exchange, api, stage, plan, call).begin()

    @staticmethod
    def _enter(call: Call, stage: Stage) -> None:
        call.stage = stage.config.name
        call.variables = stage.config.variables

    @staticmethod
    def _route(call: Call, plan: Plan, params: dict[str, str]) -> None:
        call.params = params
        call.resource = plan.route.path
        call.resource_id = plan.route.resource_id

    def _say(self, exchange: Exchange, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.count(status)
        exchange.respond(status, headers, body)

    # for flights

    def spawn(self, work: Awaitable[None]) -> None:
        """Run a coroutine that answers its flight itself."""

        loop = asyncio.get_running_loop()

        async def run() -> None:
            try:
                await work
            except Exception as error:  # a fault of ours: the flight's time limit answers its client
                loop.call_exception_handler({"message": "an integration failed", "exception": error})

        task = loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def signed_by(self, exchange: Exchange, service: str) -> Any:
        """Who signed the request. Raises `Unauthenticated`; only signatures count here, no bearer token."""
        request = exchange.request
        authorization = request.header(b"authorization") or b""
        signed = authorization.startswith(b"AWS4-HMAC-SHA256") or b"X-Amz-Signature=" in request.query
        if not signed or self._authenticate is None:
            raise Unauthenticated("the request is not signed", reason="MissingAuthenticationToken")
        return self._authenticate(request.method, request.path, request.query, request.headers, request.body, service=service)

    def permit(self, principal: Any, action: str, resource: str) -> None:
        """Raises `AccessDenied`."""
        if self._permit is None:
            raise Unauthenticated("signed requests are not taken here", reason="MissingAuthenticationToken")
        self._permit(principal, action, resource)
