"""The management API's description, OpenAPI 3.1.1. Built from the router's own operations, so that none is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from martlet.limits import LIMITS
from martlet.protocols.asgi import Operation
from martlet.protocols.auditing_openapi import OPERATIONS as AUDITING
from martlet.protocols.collections_openapi import OPERATIONS
from martlet.protocols.users_openapi import OPERATIONS as USERS

__all__ = ["document"]

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
_FLAG: Final[Schema] = {"type": "boolean"}
_STRINGS: Final[Schema] = {"type": "array", "items": _STRING}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(name: str) -> Schema:
    return {"type": "array", "items": _ref(name)}


_SCHEMAS: Final[dict[str, Schema]] = {
    "Problem": {
        "description": "RFC 9457. `type` is urn:martlet:error:<code>; `remedy` says what to do.",
        "type": "object",
        "properties": {
            "type": _STRING,
            "title": _STRING,
            "status": {"type": "integer"},
            "detail": _STRING,
            "remedy": _STRING,
            "request_id": _STRING,
            "retry_after_seconds": _WHOLE,
        },
        "required": ["type", "title", "status", "detail"],
    },
    "Route": _object(
        method=_STRING,
        path=_STRING,
        function=_STRING,
        upstream={"type": ["object", "null"], "description": "another server in place of a function"},
        when={"type": "array", "items": {"type": "array", "items": _STRING}},
        share={"type": "number"},
        by=_STRING,
        payload_format={"enum": ["1.0", "2.0"]},
        cors={"type": ["object", "null"]},
        throttle={"type": ["object", "null"]},
    ),
    "Schedule": _object(
        name=_STRING, expression=_STRING, function=_STRING, timezone=_STRING, input={"description": "any JSON"}, enabled=_FLAG
    ),
    "App": _object(
        name=_STRING,
        revision=_WHOLE,
        code=_STRING,
        layer=_STRING,
        module=_STRING,
        functions=_STRINGS,
        routes=_list("Route"),
        schedules=_list("Schedule"),
        created_at_ms=_WHOLE,
        updated_at_ms=_WHOLE,
    ),
    "StackEvent": {
        "description": "`progress` has `text`; the last is `result` with a `deployment`, or `error` with a Problem",
        "type": "object",
        "properties": {"type": _STRING, "text": _STRING, "deployment": {"type": "object"}, "error": _ref("Problem")},
        "required": ["type"],
    },
    "Deployment": _object(
        app=_STRING,
        revision=_WHOLE,
        dry_run=_FLAG,
        functions=_STRINGS,
        routes=_list("Route"),
        steps={**_STRINGS, "description": "what was done, or with dry_run would be; empty: nothing changed"},
        duration_ms=_WHOLE,
    ),
    "DeploymentEvent": {
        "description": "One line. The last one is a result or an error; heartbeats only show that the connection lives.",
        "oneOf": [
            _object(type={"const": "progress"}, text=_STRING),
            _object(type={"const": "heartbeat"}),
            _object(type={"const": "result"}, deployment=_ref("Deployment")),
            _object(type={"const": "error"}, error=_ref("Problem")),
        ],
    },
    "Function": _object(
        name=_STRING,
        qualifier=_STRING,
        app=_STRING,
        arn=_STRING,
        runtime=_STRING,
        version=_WHOLE,
        code=_STRING,
        layer=_STRING,
        created_at_ms=_WHOLE,
        config={"type": "object", "description": "as declared; of the environment only the names"},
    ),
    "InvocationResult": {
        "type": "object",
        "properties": {
            "request_id": _STRING,
            "replay_of": _STRING,
            "function": _STRING,
            "version": _WHOLE,
            "error": {
                "enum": ["", "Unhandled"],
                "description": '"Unhandled": the function failed, payload is its error object',
            },
            "error_type": _STRING,
            "cold": _FLAG,
            "queue_us": _WHOLE,
            "init_us": _WHOLE,
            "duration_us": _WHOLE,
            "cpu_us": _WHOLE,
            "peak_mb": _WHOLE,
            "payload": {"description": "any JSON"},
            "log": {"type": "string", "description": "with log=true: the last 4 KB"},
        },
        "required": ["request_id", "function", "version", "error", "error_type", "duration_us", "payload"],
    },
    "DebugEvent": {
        "oneOf": [
            _object(type={"const": "progress"}, text=_STRING),
            _object(type={"const": "heartbeat"}),
            _object(type={"const": "result"}, invocation=_ref("InvocationResult")),
            _object(type={"const": "error"}, error=_ref("Problem")),
        ],
    },
    "Failure": _object(
        request_id=_STRING,
        function=_STRING,
        qualifier=_STRING,
        at_ms=_WHOLE,
        source=_STRING,
        error_type=_STRING,
        payload_bytes=_WHOLE,
    ),
    "LogEvent": {
        "oneOf": [
            _object(
                type={"const": "log"},
                function=_STRING,
                version=_WHOLE,
                request_id=_STRING,
                trace_id=_STRING,
                source=_STRING,
                started_at_ms=_WHOLE,
                duration_us=_WHOLE,
                status={"enum": ["", "error", "timeout"]},
                error_type=_STRING,
                lines=_STRINGS,
            ),
            _object(type={"const": "heartbeat"}),
        ]
    },
    "Document": _object(id=_STRING, version=_WHOLE, value={"description": "any JSON"}),
}


def _answer(description: str, schema: Schema | None = None, kind: str = "application/json") -> Schema:
    return {"description": description} | ({"content": {kind: {"schema": schema}}} if schema is not None else {})


def _parameter(name: str, schema: Schema, description: str = "", place: str = "query") -> Schema:
    found: Schema = {"name": name, "in": place, "schema": schema}
    if place == "path":
        found["required"] = True
    return found | ({"description": description} if description else {})


_ANY_JSON: Final[Schema] = {"description": "any JSON"}
_APP = _parameter("app", _STRING, "the app that owns the collection; inside a sandbox the caller's own is the default")
_IF_MATCH = _parameter("If-Match", _STRING, 'the version that must be there, such as "7", or *', "header")
_IF_NONE_MATCH = _parameter("If-None-Match", _STRING, "*: no document may be there", "header")
_STORED = {"headers": {"ETag": {"schema": _STRING, "description": "the document's version"}}}
_TAR: Final[Schema] = {
    "required": False,
    "description": f"the app's folder as tar or tar.gz, at most {LIMITS['code_bytes'].default} bytes unpacked; empty with path",
    "content": {"application/x-tar": {"schema": {"type": "string", "contentEncoding": "binary"}}},
}

# By "METHOD path": what OpenAPI's Operation Object says beside the path's parameters and the errors, which all share.
_OPERATIONS: Final[dict[str, Schema]] = {
    "GET /v1/health": {
        "operationId": "getHealth",
        "summary": "Whether the platform answers; needs no credentials",
        "security": [],
        "responses": {"200": _answer("It does.", _object(status={"const": "ok"}))},
    },
    "GET /v1/openapi.json": {
        "operationId": "getDescription",
        "summary": "This document; needs no credentials",
        "security": [],
        "responses": {"200": _answer("OpenAPI 3.1.", {"type": "object"})},
    },
    "GET /metrics": {
        "operationId": "getMetrics",
        "summary": "Counters and histograms for Prometheus",
        "responses": {"200": _answer("Prometheus text format 0.0.4.", _STRING, "text/plain")},
    },
    "GET /v1/status": {
        "operationId": "getStatus",
        "summary": "What the platform is doing now",
        "responses": {"200": _answer("Figures by room.", {"type": "object", "properties": {"version": _STRING}})},
    },
    "GET /v1/apps": {
        "operationId": "listApps",
        "summary": "All apps, by name",
        "responses": {"200": _answer("The apps.", _object(apps=_list("App")))},
    },
    "GET /v1/apps/{name}": {
        "operationId": "getApp",
        "summary": "One app",
        "responses": {"200": _answer("The app.", _ref("App"))},
    },
    "DELETE /v1/apps/{name}": {
        "operationId": "deleteApp",
        "summary": "Remove an app with its functions, routes and schedules",
        "responses": {"204": _answer("It is gone.")},
    },
    "POST /v1/apps/{name}/deployments": {
        "operationId": "deployApp",
        "summary": "Make the app be what the uploaded folder says; on an error what was deployed before still serves",
        "parameters": [
            _parameter("dry_run", _FLAG, "only tell what would be done"),
            _parameter("path", _STRING, "instead of a body: an absolute path on the platform's machine; root only"),
        ],
        "requestBody": _TAR,
        "responses": {"200": _answer("Events, one a line.", _ref("DeploymentEvent"), "application/x-ndjson")},
    },
    "POST /v1/stacks/{name}/deployments": {
        "operationId": "deployStack",
        "summary": "Make the stack be what a template says; on an error it is rolled back",
        "parameters": [_parameter("dry_run", _FLAG, "only tell what would be done")],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _object(
                        path=_STRING, parameters={"type": "object", "additionalProperties": _STRING}, lenient=_FLAG
                    )
                }
            },
        },
        "responses": {"200": _answer("Events, one a line.", _ref("StackEvent"), "application/x-ndjson")},
    },
    "PUT /v1/stacks/responses/{token}": {
        "operationId": "answerCustomResource",
        "summary": "What the function of a custom resource answers; the token is the credential",
        "security": [],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {"200": _answer("It is taken.", {"type": "object"})},
    },
    "GET /v1/functions": {
        "operationId": "listFunctions",
        "summary": "All functions, by name: of apps, of templates and of the Lambda API",
        "parameters": [
            _parameter("app", _STRING, "only this app's or stack's"),
            _parameter("versions", _FLAG, "published versions too"),
        ],
        "responses": {"200": _answer("The functions.", _object(functions=_list("Function")))},
    },
    "GET /v1/functions/{name}": {
        "operationId": "getFunction",
        "summary": "One function",
        "responses": {"200": _answer("The function.", _ref("Function"))},
    },
    "POST /v1/functions/{name}/invocations": {
        "operationId": "invokeFunction",
        "summary": "Run a function and wait for its end",
        "parameters": [_parameter("log", _FLAG, "add the end of its log")],
        "requestBody": {
            "required": False,
            "description": "the event; empty: {}",
            "content": {"application/json": {"schema": _ANY_JSON}},
        },
        "responses": {"200": _answer("It ran; `error` says whether it failed.", _ref("InvocationResult"))},
    },
    "POST /v1/functions/{name}/debug": {
        "operationId": "debugFunction",
        "summary": "Run one event in an instance that waits for a debugger on the host's loopback; root only",
        "parameters": [
            _parameter(
                "port", {"type": "integer", "minimum": 0, "maximum": 65_535}, "where debuggers connect; 0: any free one"
            ),
            _parameter("log", _FLAG, "add the end of its log"),
        ],
        "requestBody": {
            "required": False,
            "description": "the event; empty: {}",
            "content": {"application/json": {"schema": _ANY_JSON}},
        },
        "responses": {"200": _answer("Events, one a line.", _ref("DebugEvent"), "application/x-ndjson")},
    },
    "GET /v1/failures": {
        "operationId": "listFailures",
        "summary": "Failed events that are kept, newest first; without a function, the last 20 of each",
        "parameters": [_parameter("function", _STRING, "only this function's")],
        "responses": {"200": _answer("The events.", _object(failures=_list("Failure")))},
    },
    "POST /v1/failures/{id}/replays": {
        "operationId": "replayFailure",
        "summary": "Run a failed event again, as it was called, and wait for its end",
        "parameters": [_parameter("log", _FLAG, "add the end of its log")],
        "responses": {"200": _answer("It ran; `replay_of` names the event.", _ref("InvocationResult"))},
    },
    "GET /v1/logs": {
        "operationId": "getLogs",
        "summary": "Logs, oldest first; with follow until the client hangs up",
        "parameters": [
            _parameter("function", _STRING, "only this function's"),
            _parameter("since_ms", _WHOLE, "milliseconds since the epoch"),
            _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1_000}, "the newest this many"),
            _parameter("follow", _FLAG),
        ],
        "responses": {"200": _answer("Records, one a line.", _ref("LogEvent"), "application/x-ndjson")},
    },
    "GET /v1/dead-letters": {
        "operationId": "listDeadLetters",
        "summary": "Events of triggers that will not be tried again, newest first",
        "parameters": [
            _parameter("app", _STRING, "only this app's"),
            _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100}),
        ],
        "responses": {
            "200": _answer("Dead letters with their events.", _object(items={"type": "array", "items": {"type": "object"}}))
        },
    },
    "GET /v1/usage": {
        "operationId": "getUsage",
        "summary": "What each function and each document database used",
        "parameters": [_parameter("since_ms", _WHOLE, "default 0"), _parameter("until_ms", _WHOLE, "default now")],
        "responses": {
            "200": _answer(
                "Sums by function, and by database.",
                _object(
                    since_ms=_WHOLE,
                    until_ms=_WHOLE,
                    functions={"type": "array", "items": {"type": "object"}},
                    documents={"type": "array", "items": {"type": "object"}},
                    requests={"type": "array", "items": {"type": "object"}},
                ),
            )
        },
    },
    "GET /v1/budgets": {
        "operationId": "listBudgets",
        "summary": "Budgets of apps, what is used of them, and which are stopped",
        "responses": {"200": _answer("By app.", _object(budgets={"type": "array", "items": {"type": "object"}}))},
    },
    "PUT /v1/budgets/{app}": {
        "operationId": "putBudget",
        "summary": "Set what an app may use in a period; its functions stop when it is used up",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "period": {"enum": ["hour", "day", "month"], "default": "month"},
                            "invocations": _WHOLE,
                            "requests": _WHOLE,
                            "gb_seconds": _STRING,
                            "money": _STRING,
                            "alerts": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 100}},
                            "tell": {"type": "string", "description": "a function that hears of the alerts"},
                        },
                    }
                }
            },
        },
        "responses": {"204": _answer("It holds.")},
    },
    "DELETE /v1/budgets/{app}": {
        "operationId": "deleteBudget",
        "summary": "Remove an app's budget; its functions run again",
        "responses": {"204": _answer("Removed.")},
    },
    "GET /v1/bill": {
        "operationId": "getBill",
        "summary": "What a month cost so far, line by line, and what it comes to",
        "parameters": [
            _parameter("month", _STRING, "YYYY-MM, UTC; default: the present one"),
            _parameter("prices", {"enum": ["own", "list"]}, "default: the platform's price book"),
        ],
        "responses": {
            "200": _answer(
                "Amounts are texts, because they are exact.",
                _object(
                    month=_STRING,
                    currency=_STRING,
                    prices=_STRING,
                    since_ms=_WHOLE,
                    until_ms=_WHOLE,
                    lines={"type": "array", "items": {"type": "object"}},
                    by_app={"type": "object"},
                    total=_STRING,
                    forecast=_STRING,
                ),
            )
        },
    },
    "GET /v1/documents/{collection}": {
        "operationId": "listDocuments",
        "summary": "One page of documents, by id",
        "parameters": [
            _APP,
            _parameter("prefix", _STRING),
            _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100}),
            _parameter("after", _STRING, "the `next` of the page before"),
        ],
        "responses": {"200": _answer("A page.", _object(items=_list("Document"), next={"type": ["string", "null"]}))},
    },
    "GET /v1/documents/{collection}/{id}": {
        "operationId": "getDocument",
        "summary": "A document's value",
        "parameters": [_APP, _parameter("If-None-Match", _STRING, "versions that the caller has", "header")],
        "responses": {"200": _answer("The value.", _ANY_JSON) | _STORED, "304": _answer("The caller has it.")},
    },
    "PUT /v1/documents/{collection}/{id}": {
        "operationId": "putDocument",
        "summary": "Write a document; answered after the commit",
        "parameters": [_APP, _IF_MATCH, _IF_NONE_MATCH],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ANY_JSON}}},
        "responses": {"201": _answer("Created.") | _STORED, "204": _answer("Replaced.") | _STORED},
    },
    "DELETE /v1/documents/{collection}/{id}": {
        "operationId": "deleteDocument",
        "summary": "Delete a document; answered after the commit",
        "parameters": [_APP, _IF_MATCH],
        "responses": {"204": _answer("It is gone.")},
    },
    "POST /v1/buses/{name}/events": {
        "operationId": "publishCloudEvents",
        "summary": "Publish CloudEvents 1.0 to an event bus, in binary, structured or batched mode; answered after the commit",
        "requestBody": {"required": True, "content": {"application/cloudevents+json": {"schema": _ANY_JSON}}},
        "responses": {"202": _answer("Durable; the ids of the events.", _ANY_JSON)},
    },
}


def document(version: str, operations: Iterable[Operation]) -> bytes:
    """The description as JSON. Raises `KeyError` for an operation that is not described here."""
    paths: dict[str, Schema] = {}
    for operation in operations:
        described = dict((_OPERATIONS | OPERATIONS | AUDITING | USERS)[f"{operation.method} {operation.path}"])
        inside = [_parameter(part[1:-1], _STRING, place="path") for part in operation.parts() if part.startswith("{")]
        parameters = inside + described.get("parameters", [])
        if parameters:
            described["parameters"] = parameters
        error = _answer("An error.", _ref("Problem"), "application/problem+json")
        described["responses"] = {**described["responses"], "default": error}
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return msgspec.json.encode(
        {
            "openapi": "3.1.1",
            "info": {
                "title": "Martlet management API",
                "version": version,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"bearer": []}],
            "paths": paths,
            "components": {"schemas": _SCHEMAS, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
        }
    )
