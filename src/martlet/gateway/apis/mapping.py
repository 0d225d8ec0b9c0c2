"""Mapping a request to a backend and its answer back: templates with `$input`, `$util` and `$context`, and parameter
expressions such as "method.request.header.X", "integration.response.body.id" or "'a constant'". Pure.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-mapping-template-reference.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/request-response-data-mappings.html
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final
from urllib.parse import quote_plus, unquote_plus

import orjson

from martlet.errors import InvalidInput, MartletError
from martlet.gateway.apis.call import Call
from martlet.gateway.jsonpath import compile_path
from martlet.gateway.vtl import JsonList, TemplateFailed, compile_template, to_text
from martlet.gateway.vtl.values import Budget, json_text

__all__ = [
    "MalformedBody",
    "Overrides",
    "request_value",
    "response_value",
    "run_request_template",
    "run_response_template",
    "substitute",
]


def parsed(text: str | bytes) -> Any:
    """JSON with lists that print as JSON. Raises `orjson.JSONDecodeError`."""
    return _listed(orjson.loads(text))


def _listed(value: Any) -> Any:
    if isinstance(value, list):
        return JsonList(_listed(item) for item in value)
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return value


class MalformedBody(MartletError):
    """A parameter is mapped from a body that is not JSON."""

    http_status = 400


class Overrides:
    """What a template put into $context.requestOverride and $context.responseOverride."""

    __slots__ = ("request", "response")

    def __init__(self) -> None:
        self.request: dict[str, Any] = {"header": {}, "path": {}, "querystring": {}}
        self.response: dict[str, Any] = {"header": {}, "status": 0}

    def status(self) -> int:
        """The status that the template wants, or 0."""
        status = self.response.get("status")
        if isinstance(status, str) and status.isdecimal():
            status = int(status[:4])
        return status if type(status) is int and 100 <= status <= 599 else 0


class _Params:
    """`$input.params()`."""

    __slots__ = ("headers", "path", "query")

    def __init__(self, call: Call) -> None:
        self.path = dict(call.params)
        self.query = {name: values[-1] for name, values in call.query.items()}
        self.headers = {name: values[-1] for name, values in call.many_headers.items()}

    def find(self, name: str) -> str:
        """Path, then query, then header, which is found in any case; "" where there is none."""
        for table in (self.path, self.query, self.headers):
            if name in table:
                return table[name]
        low = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == low), "")


class _Input:
    """`$input`."""

    __slots__ = ("_body", "_document", "_params")

    def __init__(self, body: bytes, params: _Params) -> None:
        self._body = body.decode("utf-8", "replace")
        self._params = params
        self._document: tuple[bool, Any] | None = None

    def document(self) -> tuple[bool, Any]:
        if self._document is None:
            try:
                self._document = (True, parsed(self._body or "{}"))
            except orjson.JSONDecodeError:
                self._document = (False, None)
        return self._document

    def property(self, name: str) -> Any:
        return (self._body or "{}") if name == "body" else None

    def call(self, name: str, arguments: list[Any], budget: Budget) -> Any:
        if name == "body" and not arguments:
            return self._body or "{}"
        if name == "params":
            if not arguments:
                return {"path": self._params.path, "querystring": self._params.query, "header": self._params.headers}
            return self._params.find(_text(arguments[0]))
        if name in ("path", "json") and len(arguments) == 1:
            found, value = self._find(_text(arguments[0]))
            if name == "path":
                return value
            return budget.text(json_text(value, budget)) if found else '""'
        return None

    def _find(self, path: str) -> tuple[bool, Any]:
        is_json, document = self.document()
        if not is_json:
            return False, None
        try:
            found, value = compile_path(path).find(document)
        except InvalidInput as error:
            raise TemplateFailed(error.message) from error
        return found, JsonList(value) if type(value) is list else value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TemplateFailed("the mapping template calls $input or $util with something that is not text")
    return value


_ESCAPES: Final = {
    "'": "\\'", '"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f",
}  # fmt: skip


def escape_javascript(text: str) -> str:
    """The characters of a JavaScript string literal, without the quotes around it."""
    made = []
    for character in text:
        if character in _ESCAPES:
            made.append(_ESCAPES[character])
        elif " " <= character <= "~":
            made.append(character)
        else:
            units = character.encode("utf-16-be", "surrogatepass")
            made += [f"\\u{int.from_bytes(units[at : at + 2], 'big'):04X}" for at in range(0, len(units), 2)]
    return "".join(made)


class _Utilities:
    """`$util`."""

    __slots__ = ()

    def property(self, name: str) -> Any:
        return None

    def call(self, name: str, arguments: list[Any], budget: Budget) -> Any:
        if len(arguments) != 1:
            return None
        value = arguments[0]
        if name == "escapeJavaScript":
            return budget.text(escape_javascript("null" if value is None else to_text(value, budget)))
        if value is None:
            return None
        text = to_text(value, budget)
        budget.room(len(text))
        if name == "urlEncode":
            return budget.text(quote_plus(text, safe="*-._"))
        if name == "urlDecode":
            return budget.text(unquote_plus(text))
        if name == "base64Encode":
            return budget.text(base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii"))
        try:
            if name == "base64Decode":
                return budget.text(base64.b64decode(text, validate=True).decode("utf-8", "replace"))
            if name == "parseJson":
                budget.step(1 + text.count(",") + text.count("{") + text.count("["))
                return parsed(text)
        except (ValueError, binascii.Error) as error:
            raise TemplateFailed(f"$util.{name}: {error}") from error
        return None


_UTIL: Final = _Utilities()


def _variables(call: Call, body: bytes, overrides: Overrides) -> dict[str, Any]:
    context: dict[str, Any] = call.context()
    context["requestOverride"] = overrides.request
    context["responseOverride"] = overrides.response
    return {
        "input": _Input(body, _Params(call)),
        "util": _UTIL,
        "context": context,
        "stageVariables": dict(call.variables),
    }


def run_request_template(template: str, call: Call, body: bytes, overrides: Overrides) -> bytes:
    """A request template's output. Raises `TemplateFailed`."""
    made = compile_template(template).render(_variables(call, body, overrides))
    return made.encode("utf-8", "replace")


run_response_template = run_request_template  # $input is then the backend's answer; its parameters remain the request's


# parameter expressions


def request_value(expression: str, call: Call) -> list[str] | None:
    """The values that an expression of requestParameters stands for, or None for nothing."""
    place, _, name = expression.removeprefix("method.request.").partition(".")
    if expression.startswith("method.request."):
        if place == "header":
            return call.header(name)[-1:] or None
        if place == "multivalueheader":
            return call.header(name) or None
        if place == "querystring":
            return call.query.get(name, [])[-1:] or None
        if place == "multivaluequerystring":
            return call.query.get(name) or None
        if place == "path":
            return [call.params[name]] if name in call.params else None
        if place == "body":
            return _from_body(call.request.body, name)
        return None
    return _common(expression, call)


def response_value(expression: str, call: Call, headers: list[tuple[str, str]], body: bytes) -> list[str] | None:
    """The values that an expression of responseParameters stands for, or None for nothing."""
    if not expression.startswith("integration.response."):
        return _common(expression, call)
    place, _, name = expression.removeprefix("integration.response.").partition(".")
    if place in ("header", "multivalueheader"):
        found = [value for key, value in headers if key.lower() == name.lower()]
        return (found if place == "multivalueheader" else found[-1:]) or None
    return _from_body(body, name) if place == "body" else None


def _common(expression: str, call: Call) -> list[str] | None:
    if len(expression) >= 2 and expression[0] == expression[-1] == "'":
        return [expression[1:-1]]
    place, _, name = expression.partition(".")
    if place == "stageVariables":
        return [call.variables[name]] if name in call.variables else None
    if place == "context":
        value: Any = call.context()
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return None if value is None else [to_text(value, Budget())]
    return None


def _from_body(body: bytes, path: str) -> list[str] | None:
    """The whole body, or a place in it by JSONPath without its "$."."""
    try:
        document = parsed(body or b"{}")
    except orjson.JSONDecodeError as error:
        if body.lstrip().startswith(b"{"):  # only what begins as an object is held to be JSON (recorded)
            raise MalformedBody("Invalid JSON in request body") from error
        return None if path else [body.decode("utf-8", "replace")]
    if not path:
        return [(body or b"{}").decode("utf-8", "replace")]
    try:
        found, value = compile_path("$." + path).find(document)
    except InvalidInput:
        return None
    if not found or value is None:
        return None
    return [value if isinstance(value, str) else json_text(value, Budget())]


def substitute(template: str, call: Call, error: dict[str, Any]) -> str:
    """A gateway response's template: only plain variables, no directives and no methods.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-gatewayResponse-definition.html
    """
    if "#" in template:
        template = template.replace("#", "#[[#]]#")
    variables = {"context": {**call.context(), "error": error}, "stageVariables": dict(call.variables)}
    return compile_template(template).render(variables)
