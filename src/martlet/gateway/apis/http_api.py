"""HTTP APIs: payload formats 2.0 and 1.0 to functions, HTTP proxies with parameter mapping, CORS.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-parameter-mapping.html
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from martlet.errors import LimitExceeded, MartletError
from martlet.gateway.answer import Headers
from martlet.gateway.apis.answers import field
from martlet.gateway.apis.backend import BackendAnswer, BackendFailed
from martlet.gateway.apis.call import Call
from martlet.gateway.apis.cors import ApiCors
from martlet.gateway.apis.events import event_v1, event_v2
from martlet.gateway.apis.flight import ApiFlight
from martlet.gateway.apis.rest import expand
from martlet.gateway.jsonpath import compile_path
from martlet.gateway.payload import MalformedAnswer, answer_v1, answer_v2
from martlet.gateway.vtl import to_text
from martlet.gateway.vtl.values import Budget
from martlet.types import ACCOUNT, Outcome

__all__ = ["HttpFlight", "message_answer"]

_JSON_TYPE: Final = (b"content-type", b"application/json")
_SAID: Final[dict[str, tuple[int, str]]] = {
    "ACCESS_DENIED": (403, "Forbidden"),
    "FORBIDDEN": (403, "Forbidden"),
    "INTEGRATION_FAILURE": (503, "Service Unavailable"),
    "INTEGRATION_TIMEOUT": (503, "Service Unavailable"),
    "INVALID_SIGNATURE": (403, "Forbidden"),
    "MISSING_AUTHENTICATION_TOKEN": (403, "Forbidden"),
    "NOT_FOUND": (404, "Not Found"),
    "REQUEST_TOO_LARGE": (413, "Request Entity Too Large"),
    "THROTTLED": (429, "Too Many Requests"),
    "UNAUTHORIZED": (401, "Unauthorized"),
    "UNAVAILABLE": (503, "Service Unavailable"),
}
_HOP_BY_HOP: Final = frozenset(
    ("connection", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
     "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto")
)  # fmt: skip
_REFERENCE: Final = re.compile(
    r"\$\{([^{}]+)\}|"
    r"\$((?:request|response|context|stageVariables)(?:\.[A-Za-z0-9_:.\[\]'*-]*[A-Za-z0-9_\]])?)"
)


_WHOLE: Final = frozenset(("DelaySeconds", "MaxNumberOfMessages", "VisibilityTimeout", "WaitTimeSeconds"))
_OBJECTS: Final = frozenset(("AttributeNames", "MessageAttributeNames", "MessageAttributes", "MessageSystemAttributes"))
_UNSAID: Final = (500, "Internal Server Error")


def message_answer(kind: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """An error of an HTTP API."""
    status, said = _SAID.get(kind, _UNSAID)
    return status, [_JSON_TYPE], orjson.dumps({"message": said})


class HttpFlight(ApiFlight):
    """One request to an HTTP API."""

    __slots__ = ()

    def admitted(self) -> None:
        integration = self.plan.route.integration
        if integration.kind == "HTTP_PROXY":
            self.depart()
            self.edge.spawn(self._ask())
            return
        if integration.kind == "SERVICE":
            self.depart()
            self.edge.spawn(self._ask_service())
            return
        key = self.plan.route_key
        if integration.payload_format == "1.0":
            event = event_v1(self.call, key)
        else:
            event = event_v2(self.call, key, self.call.extended_id, authorizer=self.call.authorizer)
        self.invoke(self.stage.resolve(integration.function), event)

    def policy_arn(self) -> str:
        """An HTTP API's route $default stands for itself; SAM's permissions name it so."""
        if self.plan.route_key == "$default":
            return f"arn:aws:execute-api:{self.edge.region}:{ACCOUNT}:{self.call.api_id}/{self.call.stage}/$default"
        return super().policy_arn()

    def outcome(self, outcome: Outcome) -> None:
        if outcome.refusal is not None:
            large = isinstance(outcome.refusal, LimitExceeded)
            busy = outcome.refusal.http_status in (429, 503)
            self.fail("REQUEST_TOO_LARGE" if large else "UNAVAILABLE" if busy else "API_CONFIGURATION_ERROR")
            return
        if outcome.error:
            self.fail("API_CONFIGURATION_ERROR")
            return
        old = self.plan.route.integration.payload_format == "1.0"
        try:
            status, headers, body = (answer_v1 if old else answer_v2)(outcome.payload)
        except MalformedAnswer:
            self.fail("API_CONFIGURATION_ERROR")
            return
        self._mapped(status, headers, body)

    # services

    async def _ask_service(self) -> None:
        """The members of the operation are the integration's parameters; what is text of JSON stays text."""
        integration = self.plan.route.integration
        try:
            members = {name: self._value(expression, None) for name, expression in integration.parameters.items()}
            payload = service_request(integration.uri, {name: value for name, value in members.items() if value is not None})
            headers = [("Content-Type", "application/x-amz-json-1.0")]
            answer = await self.served("POST", integration.uri, "", headers, payload)
            if answer is not None:
                status, named, body = answer
                kept = [made for name, value in named if name.lower() != "content-length" and (made := field(name, value))]
                self._mapped(status, kept, body)
        except (MartletError, MalformedAnswer):
            self.fail("API_CONFIGURATION_ERROR")

    # HTTP proxies

    async def _ask(self) -> None:
        integration = self.plan.route.integration
        try:
            url, headers = self._backend_request()
            method = integration.method if integration.method not in ("", "ANY") else self.call.request.method
            body = self.call.request.body
            answer = await self.edge.backend.ask(method, url, headers, body, integration.timeout_ms / 1000)
            self.returned(answer.status)
            self._pass_on(answer)
        except TimeoutError:
            self.fail("INTEGRATION_TIMEOUT")
        except BackendFailed:
            self.fail("INTEGRATION_FAILURE")
        except (MartletError, MalformedAnswer):
            self.fail("API_CONFIGURATION_ERROR")

    def _backend_request(self) -> tuple[str, list[tuple[str, str]]]:
        call, integration = self.call, self.plan.route.integration
        headers = {name: list(values) for name, values in call.many_headers.items() if name.lower() not in _HOP_BY_HOP}
        query = {name: list(values) for name, values in call.query.items()}
        path = ""
        for place, expression in integration.parameters.items():
            action, _, target = place.partition(":")
            kind, _, name = target.partition(".")
            value = self._value(expression, None)
            if kind == "path":
                path = value or ""
            elif kind in ("header", "querystring") and name:
                _apply(action, headers if kind == "header" else query, name, value, kind == "header")
        address = call.request.client[0]
        named = (call.request.host or b"").decode("ascii")
        headers["Forwarded"] = [f"by=martlet;for={address};host={named};proto={call.request.scheme}"]
        url = expand(self.stage.resolve(integration.uri), call.params)
        if path:
            origin = re.match(r"https?://[^/?#]+", url)
            url = (origin[0] if origin else "") + "/" + quote(path.lstrip("/"), safe="/%:@!$&'()*+,;=~-._")
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query, doseq=True)
        return url, [(name, value) for name, values in headers.items() for value in values]

    def _pass_on(self, answer: BackendAnswer) -> None:
        headers = [made for name, value in answer.headers if (made := field(name, value)) is not None]
        self._mapped(answer.status, headers, answer.body)

    # the answer

    def _mapped(self, status: int, headers: Headers, body: bytes) -> None:
        """Response parameters of this status, then the answer."""
        mapping = self.plan.route.integration.response_parameters.get(str(status))
        if mapping:
            table: dict[str, list[str]] = {}
            for raw_name, raw_value in headers:
                table.setdefault(raw_name.decode("ascii"), []).append(raw_value.decode("latin-1"))
            backend = (table, body)
            for place, expression in mapping.items():
                action, _, target = place.partition(":")
                kind, _, name = target.partition(".")
                value = self._value(expression, backend)
                if kind == "statuscode" and value and value.isdecimal() and 100 <= int(value) <= 599:
                    status = int(value)
                elif kind == "header" and name:
                    _apply(action, table, name, value, True)
            headers = [made for name, values in table.items() for value in values if (made := field(name, value)) is not None]
        self.answer(status, headers, body)

    def _value(self, expression: str, backend: tuple[dict[str, list[str]], bytes] | None) -> str | None:
        """An expression with its references replaced. One reference alone may be nothing."""

        def one(found: re.Match[str]) -> str:
            return _referred(self.call, found[1] or found[2], backend) or ""

        alone = _REFERENCE.fullmatch(expression)
        if alone is not None:
            return _referred(self.call, alone[1] or alone[2], backend)
        return _REFERENCE.sub(one, expression)

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """An answer with the gateway's own headers."""
        own = [(b"apigw-requestid", self.call.extended_id.encode())]
        if self.api.cors is not None:
            headers = ApiCors.merge(headers, self.api.cors.headers(self.call.request.header(b"origin")))
        self.respond(status, [*headers, *own], body)

    def challenge(self, kind: str, scheme: str) -> None:
        self.error = (kind, _SAID.get(kind, _UNSAID)[1])
        status, headers, body = message_answer(kind)
        self.answer(status, [*headers, (b"www-authenticate", scheme.encode("latin-1", "replace"))], body)

    def fail(self, kind: str, message: str | None = "") -> None:
        self.error = (kind, _SAID.get(kind, _UNSAID)[1])
        self.answer(*message_answer(kind))


def service_request(action: str, members: dict[str, str]) -> bytes:
    """The JSON request of an operation. Source: API Gateway developer guide, "Integration subtype reference"."""
    if action != "action/PutEvents":
        known: dict[str, Any] = {}
        for name, value in members.items():
            whole = name in _WHOLE and value.lstrip("-").isdigit()
            known[name] = int(value) if whole else orjson.loads(value) if name in _OBJECTS else value
        return orjson.dumps(known)
    entry: dict[str, Any] = dict(members)
    if "Resources" in entry:
        entry["Resources"] = orjson.loads(entry["Resources"])
    return orjson.dumps({"Entries": [entry]})


def _apply(action: str, table: dict[str, list[str]], name: str, value: str | None, any_case: bool) -> None:
    same = [key for key in table if key == name or (any_case and key.lower() == name.lower())]
    if action == "append" and value is not None and same:
        table[same[0]].append(value)
        return
    if action == "remove" or value is not None:
        for key in same:
            del table[key]
    if action in ("append", "overwrite") and value is not None:
        table[name] = [value]


def _referred(call: Call, name: str, backend: tuple[dict[str, list[str]], bytes] | None) -> str | None:
    """What "request.header.X", "response.body.a.b", "context.stage" or "stageVariables.y" stands for."""
    root, _, rest = name.partition(".")
    kind, _, key = rest.partition(".")
    if root == "stageVariables":
        return call.variables.get(rest)
    if root == "context":
        value: Any = call.context()
        for part in rest.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return None if value is None else to_text(value, Budget())
    if root == "response" and backend is not None:
        headers, body = backend
        if kind == "header":
            found = [value for name, values in headers.items() if name.lower() == key.lower() for value in values]
            return ",".join(found) if found else None
        return _in_body(body, key) if kind == "body" else None
    if root != "request":
        return None
    if kind == "header":
        return ",".join(call.header(key)) or None
    if kind == "querystring":
        return ",".join(call.query.get(key, [])) or None
    if kind == "path":
        return call.params.get(key) if key else call.path
    return _in_body(call.request.body, key) if kind == "body" else None


def _in_body(body: bytes, path: str) -> str | None:
    if not path:
        return body.decode("utf-8", "replace")
    try:
        found, value = compile_path("$." + path).find(orjson.loads(body))
    except (orjson.JSONDecodeError, MartletError):
        return None
    if not found or value is None:
        return None
    return value if isinstance(value, str) else orjson.dumps(value).decode()
