"""Function URLs: format 2.0 straight to a function, buffered or streamed.

https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

import orjson

from martlet.errors import AccessDenied, LimitExceeded, MartletError, Throttled, Unauthenticated
from martlet.gateway.answer import Headers
from martlet.gateway.apis.call import Call
from martlet.gateway.apis.cors import ApiCors
from martlet.gateway.apis.events import event_v2
from martlet.gateway.apis.flight import Edge
from martlet.gateway.http import Exchange
from martlet.gateway.payload import MalformedAnswer, answer_url, head_from_prelude
from martlet.types import ACCOUNT, Cors, Invocation, Outcome

__all__ = ["URL_FORBIDDEN", "FunctionUrl", "UrlFlight"]

_JSON_TYPE: Final = (b"content-type", b"application/json")
_ROUTE_KEY: Final = "$default"
_TROUBLE: Final = "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
# What the service says to who may not call a URL, or of one that is not (any more): recorded.
URL_FORBIDDEN: Final[tuple[list[tuple[bytes, bytes]], bytes]] = (
    [_JSON_TYPE, (b"x-amzn-ErrorType", b"AccessDeniedException")],
    f'{{"Message":"Forbidden. For troubleshooting Function URL authorization issues, see: {_TROUBLE}"}}'.encode(),
)


class FunctionUrl:
    """One URL, from the dict of the Lambda room: FunctionName, Qualifier, UrlId, AuthType, InvokeMode, Cors."""

    __slots__ = ("cors", "function", "id", "name", "qualifier", "signed", "streamed")

    def __init__(self, config: dict[str, Any]) -> None:
        self.id = str(config["UrlId"])
        self.name = str(config["FunctionName"])
        self.qualifier = str(config.get("Qualifier") or "")
        plain = self.qualifier in ("", "$LATEST")
        self.function = self.name if plain else f"{self.name}:{self.qualifier}"
        self.signed = config.get("AuthType") != "NONE"
        self.streamed = config.get("InvokeMode") == "RESPONSE_STREAM"
        self.cors = _cors(config["Cors"]) if config.get("Cors") else None


def _cors(given: dict[str, Any]) -> ApiCors:
    return ApiCors(
        Cors(
            origins=tuple(given.get("AllowOrigins") or ()),
            methods=tuple(given.get("AllowMethods") or ()),
            headers=tuple(given.get("AllowHeaders") or ()),
            expose=tuple(given.get("ExposeHeaders") or ()),
            credentials=bool(given.get("AllowCredentials")),
            max_age_seconds=int(given.get("MaxAge") or 0),
        )
    )


class UrlFlight:
    """One request to a function URL. The function's own time limit is the only one."""

    __slots__ = ("call", "edge", "exchange", "invocation", "streaming", "url")

    def __init__(self, edge: Edge, exchange: Exchange, url: FunctionUrl, call: Call) -> None:
        self.edge = edge
        self.exchange = exchange
        self.url = url
        self.call = call
        self.streaming = False
        self.invocation: Invocation | None = None

    def begin(self, may_invoke: bool) -> None:
        """CORS, authorization, then the function."""
        request = self.exchange.request
        origin = request.header(b"origin")
        cors = self.url.cors
        if cors is not None and request.method == "OPTIONS" and origin and request.header(b"access-control-request-method"):
            self.respond(200, cors.preflight(origin), b"", merge=False)
            return
        context: dict[str, Any] | None = None
        if self.url.signed:
            try:
                context = self._signed_context()
            except (Unauthenticated, AccessDenied):
                self.forbid()
                return
        elif not may_invoke:
            self.forbid()
            return
        # recorded: decoded, and however many slashes it begins with (the URL as it is told ends with one)
        self.call.full_path = "/" + unquote(self.call.full_path.lstrip("/"))
        event = event_v2(self.call, _ROUTE_KEY, self.call.request_id, account=_account(context), authorizer=context)
        call = self.call
        streamed = self.url.streamed
        self.invocation = Invocation(
            self.url.function,
            event,
            call.request_id,
            self.done,
            source="http",
            trace_id=call.trace,
            on_head=self.head if streamed else None,
            on_chunk=self.chunk if streamed else None,
        )
        self.edge.under_way.add(self)
        self.edge.dispatch(self.invocation)

    def _signed_context(self) -> dict[str, Any]:
        """`requestContext.authorizer` of a signed request. Raises `Unauthenticated`, `AccessDenied`."""
        principal = self.edge.signed_by(self.exchange, "lambda")
        self.edge.permit(principal, "lambda:InvokeFunction", self.url.name)
        name = str(getattr(principal, "name", ""))
        account = ACCOUNT
        return {
            "iam": {
                "accessKey": None,
                "accountId": account,
                "callerId": name,
                "cognitoIdentity": None,
                "principalOrgId": None,
                "userArn": f"arn:aws:iam::{account}:{name}",
                "userId": name,
            }
        }

    # from functions

    def done(self, invocation: Invocation, outcome: Outcome) -> None:
        """The invocation's end, exactly once."""
        self.invocation = None
        self.edge.under_way.discard(self)
        exchange = self.exchange
        if self.streaming:
            if outcome.error or outcome.refusal is not None:
                exchange.abort()
            elif exchange.connected:
                exchange.end()
            return
        if not exchange.connected or exchange.started:
            return
        if outcome.refusal is not None:
            self._refused(outcome.refusal)
        elif outcome.error:
            self._failed()
        else:
            try:
                status, headers, body = answer_url(outcome.payload)
            except MalformedAnswer:
                self._failed()
                return
            self.respond(status, headers, body)

    def head(self, prelude: bytes) -> None:
        """The head of a streamed answer."""
        exchange = self.exchange
        try:
            if self.streaming or not exchange.connected or exchange.started:
                raise MalformedAnswer("there is no one to answer")
            status, headers = head_from_prelude(prelude)
        except MalformedAnswer:
            if exchange.connected and not exchange.started:
                self._failed()
            self._control("cancel")
            return
        self.streaming = True
        exchange.on_disconnect = lambda: self._control("cancel")
        exchange.on_pause = lambda: self._control("pause")
        exchange.on_drain = lambda: self._control("resume")
        self.edge.count(status, f"@{self.url.name}")
        exchange.start(status, self._all(headers))

    def chunk(self, data: bytes) -> None:
        """Part of a streamed answer."""
        if self.streaming:
            self.exchange.write(data)

    def _control(self, what: str) -> None:
        if self.invocation is not None and self.invocation.control is not None:
            getattr(self.invocation.control, what)()

    # to the client

    def forbid(self) -> None:
        """403, as the service says it."""
        self.respond(403, *URL_FORBIDDEN)

    def _failed(self) -> None:
        self.respond(502, [_JSON_TYPE], b"Internal Server Error")

    def _refused(self, error: MartletError) -> None:
        if isinstance(error, Throttled):
            said = {"Reason": "ConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate Exceeded."}
            self._say(429, said, [(b"x-amzn-ErrorType", b"TooManyRequestsException")])
        elif isinstance(error, LimitExceeded):
            self._say(413, {"Message": "Request Entity Too Large"}, [(b"x-amzn-ErrorType", b"RequestEntityTooLargeException")])
        elif error.http_status == 503:
            self._say(503, {"Message": "Service Unavailable"}, [])
        else:
            self._failed()

    def _say(self, status: int, body: dict[str, str], headers: list[tuple[bytes, bytes]]) -> None:
        self.respond(status, [_JSON_TYPE, *headers], orjson.dumps(body))

    def _all(self, headers: Headers, merge: bool = True) -> Headers:
        call = self.call
        own = [(b"x-amzn-RequestId", call.request_id.encode()), (b"X-Amzn-Trace-Id", call.trace.encode("latin-1"))]
        if merge and self.url.cors is not None:
            headers = ApiCors.merge(headers, self.url.cors.headers(call.request.header(b"origin")))
        return [*headers, *own]

    def respond(self, status: int, headers: Headers, body: bytes, merge: bool = True) -> None:
        self.edge.count(status, f"@{self.url.name}", len(body))
        self.exchange.respond(status, self._all(headers, merge), body)


def _account(context: dict[str, Any] | None) -> str:
    return "anonymous" if context is None else str(context["iam"]["accountId"])
