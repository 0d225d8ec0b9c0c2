"""REST APIs: validation, integration request, integration response, gateway responses."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from martlet.errors import LimitExceeded, MartletError
from martlet.gateway.answer import Headers
from martlet.gateway.apis.answers import ERRORS, GatewayError, answer_rest, field
from martlet.gateway.apis.backend import BackendAnswer, BackendFailed
from martlet.gateway.apis.call import Call
from martlet.gateway.apis.events import event_rest
from martlet.gateway.apis.flight import ApiFlight
from martlet.gateway.apis.mapping import (
    MalformedBody,
    Overrides,
    request_value,
    response_value,
    run_request_template,
    run_response_template,
    substitute,
)
from martlet.gateway.apis.table import CompiledApi
from martlet.gateway.payload import MalformedAnswer
from martlet.gateway.schema import TooMuchWork
from martlet.types import ApiIntegrationResponse, Outcome

__all__ = ["RestFlight", "gateway_answer"]

_JSON: Final = "application/json"
_PLACE: Final = re.compile(r"integration\.request\.(header|querystring|path)\.(.+)")
_NEVER_SENT: Final = frozenset(("transfer-encoding", "content-length"))
_NEVER_SENT_TO_FUNCTIONS: Final = _NEVER_SENT | {"authorization", "connection", "expect", "proxy-authenticate", "te"}
_HOP_BY_HOP: Final = frozenset(
    (
        "connection", "content-length", "content-encoding", "expect", "host", "keep-alive", "max-forwards", "content-md5",
        "proxy-authenticate", "proxy-authorization", "proxy-connection", "server", "te", "trailer", "transfer-encoding",
        "upgrade", "via", "www-authenticate", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto",
    )
)  # fmt: skip
_MOCK_STATUS: Final = re.compile(
    r"""(?:(["'])statusCode\1|(?<!["'\w])statusCode(?!["']))[ \t\r\n]*:[ \t\r\n]*(-?[0-9]{1,9})[ \t\r\n]*[,}]"""
)
_KEYS_OF_OBJECTS: Final = re.compile(r",\s*\{")


def gateway_answer(
    api: CompiledApi, call: Call, error: GatewayError, message: str | None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The gateway's own answer, in the API's words where it has some."""
    fallback = "DEFAULT_4XX" if error.status < 500 else "DEFAULT_5XX"
    custom = api.responses.get(error.kind) or api.responses.get(fallback)
    status = error.status if custom is None or custom.status is None else custom.status
    body = orjson.dumps({error.key: message})
    media = _JSON
    headers: dict[bytes, bytes] = {b"x-amzn-ErrorType": error.error_type.encode()}
    if custom is not None:
        if custom.templates:
            media = _JSON if _JSON in custom.templates else next(iter(custom.templates))
            known = {"message": message, "messageString": orjson.dumps(message).decode(), "responseType": error.kind}
            body = substitute(custom.templates[media], call, known).encode("utf-8", "replace")
        for place, expression in custom.parameters.items():
            values = request_value(expression, call)
            if place.startswith("gatewayresponse.header.") and values:
                name, value = _checked(place.removeprefix("gatewayresponse.header."), values[-1])
                headers[name] = value
    if not any(name.lower() == b"content-type" for name in headers):
        headers[b"Content-Type"] = media.encode("latin-1", "replace")
    return status, list(headers.items()), body


def _checked(name: str, value: str) -> tuple[bytes, bytes]:
    made = field(name, value)
    if made is None:
        raise MalformedAnswer(f"header {name!r} cannot be set")
    return made


class RestFlight(ApiFlight):
    """One request to a REST API."""

    __slots__ = ("_overrides",)

    _overrides: Overrides

    # the request

    def admitted(self) -> None:
        self._overrides = Overrides()
        if not self._valid():
            return
        integration = self.plan.route.integration
        if integration.kind == "AWS_PROXY":
            if integration.method != "POST":
                self.fail("API_CONFIGURATION_ERROR")  # functions are invoked by POST, and by nothing else
                return
            self._check_parameters(_NEVER_SENT_TO_FUNCTIONS)
            binary = self.api.is_binary(self.call.content_type())
            event = event_rest(self.call, self.stage.config.deployment_id, binary)
            self.invoke(self.stage.resolve(integration.function), event)
            return
        body = self._request_body()
        if body is None:
            return
        if integration.kind == "MOCK":
            self._mock(body)
        elif integration.kind == "AWS":
            self._check_parameters(_NEVER_SENT_TO_FUNCTIONS)
            self._function(body)
        elif integration.kind == "SERVICE":
            self._check_parameters(_NEVER_SENT)
            self.depart()
            self.edge.spawn(self._ask_service(body))
        else:
            self._http(body)

    def _check_parameters(self, forbidden: frozenset[str]) -> None:
        for place in self.plan.route.integration.parameters:
            found = _PLACE.fullmatch(place)
            if found and found[1] == "header" and found[2].lower() in forbidden:
                raise MartletError(f"header {found[2]} cannot be mapped")

    def _valid(self) -> bool:
        """Required parameters first, then the body, as the real service has it."""
        call = self.call
        missing = []
        for place, name in self.plan.required:
            there = call.header(name) if place == "header" else call.query.get(name) if place == "querystring" else None
            if place == "path":
                there = [call.params[name]] if call.params.get(name) else None
            if not there or not there[-1]:
                missing.append(name)
        if missing:
            self.fail("BAD_REQUEST_PARAMETERS", f"Missing required request parameters: [{', '.join(missing)}]")
            return False
        if not self.plan.models:
            return True
        media = call.content_type() or _JSON
        if media not in self.plan.models and "$default" not in self.plan.models:
            return True
        schema = self.plan.models.get(media) or self.plan.models.get("$default")
        if schema is None:  # the model Empty
            return True
        is_json, document = call.document() if call.request.body else (True, {})
        try:
            if is_json and schema.valid(document):
                return True
        except TooMuchWork:
            pass  # a body that cannot be judged is not let in
        self.fail("BAD_REQUEST_BODY")
        return False

    def _request_body(self) -> bytes | None:
        """The integration request's body, through contentHandling and the template. None: answered with 415."""
        integration, call = self.plan.route.integration, self.call
        body = call.request.body
        if self.api.is_binary(call.content_type()):
            if integration.content_handling == "CONVERT_TO_TEXT":
                body = base64.b64encode(body)
        elif integration.content_handling == "CONVERT_TO_BINARY":
            body = _decoded(body)
        else:
            body = body.decode("utf-8", "replace").encode()
        if integration.kind == "HTTP_PROXY":
            return body
        media = call.content_type() or _JSON
        template = _by_media(integration.templates, media)
        if template is None:
            template = integration.templates.get("$default")
        if template is not None:
            return run_request_template(template, call, body, self._overrides)
        if integration.passthrough == "NEVER" or (integration.passthrough == "WHEN_NO_TEMPLATES" and integration.templates):
            self.fail("UNSUPPORTED_MEDIA_TYPE")
            return None
        return body

    # integrations

    def _mock(self, body: bytes) -> None:
        status = mock_status(body)
        if status is None:
            self.fail("API_CONFIGURATION_ERROR")
            return
        self._integration_response(str(status), [], b"", traced=False)

    def _function(self, body: bytes) -> None:
        payload = body or b"{}"
        integration = self.plan.route.integration
        function = self.stage.resolve(integration.function)
        try:
            orjson.loads(payload)
        except orjson.JSONDecodeError:
            problem = {"message": "Could not parse request body into json: Could not parse payload into json", "Type": "User"}
            self._integration_response("400", [], orjson.dumps(problem), traced=True)
            return
        if integration.asynchronous:
            if self.edge.enqueue is None:
                self.fail("API_CONFIGURATION_ERROR")
                return
            self.depart()
            self.edge.spawn(self._queue(function, payload))
            return
        self.invoke(function, payload)

    async def _queue(self, function: str, payload: bytes) -> None:
        assert self.edge.enqueue is not None
        try:
            await self.edge.enqueue(function, payload, self.call.request_id)
        except MartletError:
            self.fail("API_CONFIGURATION_ERROR")
            return
        self._integration_response("", [], b"", traced=True)

    def outcome(self, outcome: Outcome) -> None:
        refused = outcome.refusal
        if refused is not None:
            self.fail("REQUEST_TOO_LARGE" if isinstance(refused, LimitExceeded) else "API_CONFIGURATION_ERROR")
            return
        if self.plan.route.integration.kind == "AWS_PROXY":
            try:
                if outcome.error:
                    raise MalformedAnswer("the function failed")
                status, headers, body = answer_rest(outcome.payload, self.api.is_binary(self._accepted()))
            except MalformedAnswer:
                self.fail("DEFAULT_5XX")
                return
            self.answer(status, headers, body, traced=True)
            return
        message = _error_message(outcome.payload) if outcome.error else ""
        self._integration_response(message, [], outcome.payload, traced=True)

    def _http(self, body: bytes) -> None:
        self._check_parameters(_NEVER_SENT)
        self.depart()
        self.edge.spawn(self._ask(body))

    async def _ask(self, body: bytes) -> None:
        integration = self.plan.route.integration
        try:
            url, headers = self._backend_request()
            method = integration.method if integration.method not in ("", "ANY") else self.call.request.method
            answer = await self.edge.backend.ask(method, url, headers, body, integration.timeout_ms / 1000)
            self.returned(answer.status)
        except TimeoutError:
            self.fail("INTEGRATION_TIMEOUT")
            return
        except BackendFailed:
            self.fail("INTEGRATION_FAILURE")
            return
        except MalformedBody as error:
            self.fail("BAD_REQUEST_BODY", error.message)
            return
        except MartletError:
            self.fail("API_CONFIGURATION_ERROR")
            return
        try:
            if integration.kind == "HTTP_PROXY":
                self._pass_on(answer)
            else:
                self._integration_response(str(answer.status), answer.headers, answer.body, traced=True)
        except (MartletError, MalformedAnswer):
            self.fail("API_CONFIGURATION_ERROR")

    async def _ask_service(self, body: bytes) -> None:
        integration = self.plan.route.integration
        try:
            url, headers = self._backend_request()
            uri, _, query = url.partition("?")
            answer = await self.served(integration.method or "POST", uri, query, headers, body)
            if answer is not None:
                status, named, said = answer
                self._integration_response(str(status), named, said, traced=True)
        except (MartletError, MalformedAnswer):
            self.fail("API_CONFIGURATION_ERROR")

    def _backend_request(self) -> tuple[str, list[tuple[str, str]]]:
        """URL and headers towards an HTTP backend."""
        integration, call = self.plan.route.integration, self.call
        proxy = integration.kind == "HTTP_PROXY"
        path: dict[str, str] = dict(call.params) if proxy else {}
        query: dict[str, list[str]] = dict(call.query) if proxy else {}
        headers: dict[str, list[str]] = self._passed_headers() if proxy else {"Accept": [_JSON]}
        for place, expression in integration.parameters.items():
            found = _PLACE.fullmatch(place)
            values = request_value(expression, call)
            if found is None or values is None:
                continue
            kind, name = found.groups()
            if kind == "path":
                path[name] = values[-1]
            elif kind == "querystring":
                query[name] = values
            else:
                _put(headers, name, [",".join(values)])
        self._override(path, query, headers)
        if not proxy and not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = [self.call.content_type() or _JSON]
        if not any(name.lower() == "user-agent" for name in headers):
            headers["User-Agent"] = [f"AmazonAPIGateway_{call.api_id}"]
        headers["X-Amzn-Apigateway-Api-Id"] = [call.api_id]
        headers["X-Amzn-Trace-Id"] = [call.trace]
        url = expand(self.stage.resolve(integration.uri), path)
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query, doseq=True)
        return url, [(name, value) for name, values in headers.items() for value in values]

    def _passed_headers(self) -> dict[str, list[str]]:
        found = {name: values for name, values in self.call.many_headers.items() if name.lower() not in _HOP_BY_HOP}
        if not any(name.lower() == "content-type" for name in found) and self.call.request.body:
            found["Content-Type"] = [_JSON]
        return found

    def _override(self, path: dict[str, str], query: dict[str, list[str]], headers: dict[str, list[str]]) -> None:
        given = self._overrides.request
        for name, value in _named(given.get("path")):
            path[name] = _one(value)
        for name, value in _named(given.get("querystring")):
            query[name] = _several(value)
        for name, value in _named(given.get("header")):
            if name.lower() in _NEVER_SENT:
                raise MartletError(f"header {name} cannot be overridden")
            _put(headers, name, _several(value))

    # the answer

    def _pass_on(self, answer: BackendAnswer) -> None:
        headers = [made for name, value in answer.headers if (made := field(name, value)) is not None]
        self.answer(answer.status, headers, answer.body, traced=False)

    def _integration_response(self, selected: str, headers: list[tuple[str, str]], body: bytes, traced: bool) -> None:
        """Choose among the integration responses by `selected`, and answer with what it makes of the backend's answer."""
        chosen = self._choose(selected)
        if chosen is None:
            self.fail("API_CONFIGURATION_ERROR")
            return
        backend_media = next((value for name, value in headers if name.lower() == "content-type"), _JSON)
        backend_media = backend_media.partition(";")[0].strip().lower()
        handled = self._response_body(body, backend_media, chosen)
        found: dict[str, list[str]] = {}
        for place, expression in chosen.parameters.items():
            values = response_value(expression, self.call, headers, body)
            if place.startswith("method.response.header.") and values is not None:
                _put(found, place.removeprefix("method.response.header."), values)
        media = ""
        if chosen.templates:
            media, template = _response_template(chosen.templates, backend_media)
            handled = run_response_template(template, self.call, handled, self._overrides)
        for name, value in _named(self._overrides.response.get("header")):
            _put(found, name, _several(value))
        status = self._overrides.status() or chosen.status
        try:
            made = [made for name, values in found.items() for value in values if (made := field(name, value)) is not None]
            if not any(name.lower() == b"content-type" for name, _ in made):
                made.append(_checked("Content-Type", media or _JSON))
        except MalformedAnswer:
            self.fail("API_CONFIGURATION_ERROR")
            return
        self.answer(status, made, handled, traced)

    def _choose(self, selected: str) -> ApiIntegrationResponse | None:
        responses = self.plan.route.integration.responses
        default = None
        for pattern, index in self.plan.responses:
            if pattern is None:
                default = responses[index] if default is None else default
            elif selected and pattern.fullmatch(selected):
                return responses[index]
        return default

    def _accepted(self) -> str:
        """The first media type of Accept."""
        raw = (self.call.request.header(b"accept") or b"").partition(b",")[0]
        return raw.partition(b";")[0].strip().lower().decode("latin-1")

    def _response_body(self, body: bytes, media: str, chosen: ApiIntegrationResponse) -> bytes:
        """https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-payload-encodings-workflow.html"""
        handling = chosen.content_handling
        accepted = self._accepted()
        if self.api.is_binary(media):
            wants_text = handling == "CONVERT_TO_TEXT" or (not handling and not self.api.is_binary(accepted))
            return base64.b64encode(body) if wants_text else body
        wants_binary = handling == "CONVERT_TO_BINARY" or (not handling and bool(accepted) and self.api.is_binary(accepted))
        return _decoded(body) if wants_binary else body.decode("utf-8", "replace").encode()

    def answer(self, status: int, headers: Headers, body: bytes, traced: bool) -> None:
        """An answer with the gateway's own headers."""
        call = self.call
        own = [(b"x-amzn-RequestId", call.request_id.encode()), (b"x-amz-apigw-id", call.extended_id.encode())]
        if traced:
            own.append((b"X-Amzn-Trace-Id", call.trace.encode("latin-1")))
        self.respond(status, [*headers, *own], body)

    def fail(self, kind: str, message: str | None = "") -> None:
        error = ERRORS[kind]
        said = error.message if message == "" else message
        self.error = (kind, said)
        try:
            status, headers, body = gateway_answer(self.api, self.call, error, said)
        except (MartletError, MalformedAnswer):  # the API's own words fail: the gateway's remain
            status, body = error.status, orjson.dumps({error.key: said})
            headers = [(b"x-amzn-ErrorType", error.error_type.encode()), (b"Content-Type", b"application/json")]
        self.answer(status, headers, body, traced=False)


def mock_status(body: bytes) -> int | None:
    """The statusCode that a mock integration's request template made; None for a template that made none.

    The real service reads it with a parser that forgives nearly everything (recorded): keys without quotes, stray commas.
    """
    text = body.decode("utf-8", "replace")
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        text = text.strip()
        if len(text) > 100_000 or text[:1] != "{" or text[-1:] != "}" or _KEYS_OF_OBJECTS.search(text):
            return None
        found = _MOCK_STATUS.search(text)
        return int(found[2]) if found else None
    status = parsed.get("statusCode") if isinstance(parsed, dict) else None
    return status if type(status) is int else None


def expand(uri: str, path: dict[str, str]) -> str:
    """`{name}` in a URI by the path's parameters, escaped; a slash in one stays a slash. An unknown one stays as it is."""

    def one(found: re.Match[str]) -> str:
        name = found[1].removesuffix("+")
        return quote(path[name], safe="/%:@!$&'()*+,;=~-._") if name in path else found[0]

    return re.sub(r"(?<!\$)\{([^{}]+)\}", one, uri)


def _decoded(body: bytes) -> bytes:
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MartletError(f"the body is not base64: {error}") from error


def _by_media(templates: dict[str, str], media: str) -> str | None:
    for name, template in templates.items():
        if name.lower() == media:
            return template
    return None


def _response_template(templates: dict[str, str], media: str) -> tuple[str, str]:
    """By the backend's media type, else JSON's, else the first (recorded)."""
    for wanted in (media, _JSON):
        for name, template in templates.items():
            if name.lower() == wanted:
                return name, template
    return next(iter(templates.items()))


def _error_message(payload: bytes) -> str:
    try:
        result = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return ""
    message = result.get("errorMessage") if isinstance(result, dict) else None
    return message if isinstance(message, str) else ""


def _put(headers: dict[str, list[str]], name: str, values: list[str]) -> None:
    """Set a header, whatever case it was set in before."""
    for known in [known for known in headers if known.lower() == name.lower()]:
        del headers[known]
    headers[name] = values


def _named(value: object) -> list[tuple[str, Any]]:
    return [(str(name), item) for name, item in value.items() if item is not None] if isinstance(value, dict) else []


def _one(value: Any) -> str:
    return _several(value)[-1]


def _several(value: Any) -> list[str]:
    found = value if isinstance(value, list) and value else [value]
    return [item if isinstance(item, str) else orjson.dumps(item).decode() for item in found]
