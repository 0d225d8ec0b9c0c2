"""What `protocols.collections` offers, for the API's description."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["OPERATIONS"]

_STRING: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer", "minimum": 0}
_ANY: Final[dict[str, Any]] = {"type": "object"}


def _parameter(name: str, schema: dict[str, Any], what: str = "", place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema, **({"description": what} if what else {})}


def _answer(what: str, kind: str = "application/json", schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": what, "content": {kind: {"schema": schema or _ANY}}}


def _body(what: str, kind: str = "application/json") -> dict[str, Any]:
    return {"required": True, "description": what, "content": {kind: {"schema": {} if kind == "application/json" else _STRING}}}


_APP: Final = _parameter("app", _STRING, "the app, or a database inside it: app/child")
_MATCH: Final = _parameter("If-Match", _STRING, 'the version that must be there: "7"', "header")
_CURSOR: Final = _parameter("cursor", _STRING, "of an earlier answer")
_LIMIT: Final = _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100})
_AS_OF: Final = _parameter("as_of", _WHOLE, "microseconds since the epoch")
_FLAG: Final = {"enum": ["true", "false"]}
_KEY: Final = _parameter("Idempotency-Key", _STRING, "a retried mutation with it gets the first answer", "header")
_SOURCE: Final = _parameter("source", _STRING, "the importer's name; default: api")
_GRAPHQL: Final = [
    _parameter("query", _STRING),
    _parameter("operationName", _STRING),
    _parameter("variables", _STRING, "JSON"),
    _parameter("extensions", _STRING, "JSON"),
]

OPERATIONS: Final[dict[str, dict[str, Any]]] = {
    "POST /v1/documents/{collection}": {
        "operationId": "createDocument",
        "summary": "Write a document under an id that is made for it",
        "parameters": [_APP],
        "requestBody": _body("The value."),
        "responses": {"201": _answer("Its id and version.")},
    },
    "PATCH /v1/documents/{collection}/{id}": {
        "operationId": "patchDocument",
        "summary": "Change fields of a document: JSON Merge Patch (RFC 7396)",
        "parameters": [_APP, _MATCH],
        "requestBody": _body("The patch."),
        "responses": {"204": {"description": "Changed; ETag is its version."}},
    },
    "GET /v1/documents/{collection}/{id}/versions": {
        "operationId": "listVersions",
        "summary": "The versions of a document that are kept, newest first",
        "parameters": [_APP, _LIMIT],
        "responses": {"200": _answer("Versions.")},
    },
    "POST /v1/documents/{collection}/{id}/restore": {
        "operationId": "restoreDocument",
        "summary": "Write a kept version again, as a new one",
        "parameters": [_APP, _parameter("version", _WHOLE)],
        "responses": {"204": {"description": "Restored; ETag is the new version."}},
    },
    "POST /v1/transactions": {
        "operationId": "transact",
        "summary": "Many operations on documents of one database as one transaction",
        "parameters": [_APP, _parameter("Idempotency-Key", _STRING, "a retry with it gets the first answer", "header")],
        "requestBody": _body('{"operations": [{"op": "put", "collection": ..., "id": ..., "value": ...}, ...]}'),
        "responses": {"200": _answer("One result for each operation.")},
    },
    "GET /v1/collections": {
        "operationId": "listCollections",
        "summary": "The collections of a database",
        "parameters": [_APP],
        "responses": {"200": _answer("Collections with their indexes.")},
    },
    "GET /v1/collections/{collection}": {
        "operationId": "getCollection",
        "summary": "A collection: settings, size, indexes and how far their builds are",
        "parameters": [_APP],
        "responses": {"200": _answer("The collection.")},
    },
    "PUT /v1/collections/{collection}": {
        "operationId": "defineCollection",
        "summary": "Make or change a collection: schema, indexes, history, expiry",
        "parameters": [_APP],
        "requestBody": _body("Its settings."),
        "responses": {"200": _answer("The collection.")},
    },
    "DELETE /v1/collections/{collection}": {
        "operationId": "deleteCollection",
        "summary": "Remove a collection with all that is in it",
        "parameters": [_APP],
        "responses": {"204": {"description": "It is gone."}},
    },
    "POST /v1/collections/{collection}/query": {
        "operationId": "queryCollection",
        "summary": "One page of a query: an index's range, filtered, sorted, projected, expanded",
        "parameters": [_APP],
        "requestBody": _body("The query."),
        "responses": {"200": _answer("A page.")},
    },
    "GET /v1/collections/{collection}/changes": {
        "operationId": "listChanges",
        "summary": "Changes in commit order, after a cursor; as Server-Sent Events where the client accepts them",
        "parameters": [
            _APP,
            _CURSOR,
            _LIMIT,
            _parameter("start", {"enum": ["now", "oldest"]}, "without a cursor"),
            _parameter("wait_seconds", {"type": "number", "minimum": 0, "maximum": 60}, "hold back an empty page"),
        ],
        "responses": {"200": _answer("A page, or a stream of events.")},
    },
    "GET /v1/collections/{collection}/export": {
        "operationId": "exportCollection",
        "summary": "Every document as a line of JSON: one state",
        "parameters": [_APP, _AS_OF],
        "responses": {"200": _answer("NDJSON.", "application/x-ndjson", _STRING)},
    },
    "POST /v1/collections/{collection}/import": {
        "operationId": "importDocuments",
        "summary": "Documents from NDJSON or CSV; bad lines are reported, the others are written",
        "parameters": [
            _APP,
            _parameter("mode", {"enum": ["upsert", "insert"]}),
            _parameter("dry_run", {"enum": ["true", "false"]}),
            _parameter("id_field", _STRING, "each line is a document, and this field its id"),
        ],
        "requestBody": _body("Lines.", "application/x-ndjson"),
        "responses": {"200": _answer("A report.")},
    },
    "GET /v1/databases": {
        "operationId": "listDatabases",
        "summary": "The app's database and those inside it",
        "parameters": [_APP],
        "responses": {"200": _answer("Databases.")},
    },
    "POST /v1/databases": {
        "operationId": "createDatabase",
        "summary": "Make a database inside another",
        "requestBody": _body('{"path": "app/child"}'),
        "responses": {"201": _answer("The database.")},
    },
    "DELETE /v1/databases/{database}": {
        "operationId": "deleteDatabase",
        "summary": "Remove a database with all that is in it and inside it (its path percent-encoded)",
        "responses": {"204": {"description": "It is gone."}},
    },
    "GET /v1/graphql": {
        "operationId": "queryGraphqlByGet",
        "summary": "A GraphQL query; with Accept: text/event-stream also a subscription",
        "parameters": [_APP, *_GRAPHQL],
        "responses": {"200": _answer("The answer.", "application/graphql-response+json")},
    },
    "POST /v1/graphql": {
        "operationId": "queryGraphql",
        "summary": "A GraphQL operation: queries, mutations (one transaction), subscriptions (Accept: text/event-stream)",
        "parameters": [_APP, _KEY],
        "requestBody": _body('{"query": ..., "variables": {...}, "operationName": ..., "extensions": {...}}'),
        "responses": {"200": _answer("The answer.", "application/graphql-response+json")},
    },
    "GET /v1/databases/{database}/graphql": {
        "operationId": "queryDatabaseGraphqlByGet",
        "summary": "As GET /v1/graphql, the database named in the path",
        "parameters": _GRAPHQL,
        "responses": {"200": _answer("The answer.", "application/graphql-response+json")},
    },
    "POST /v1/databases/{database}/graphql": {
        "operationId": "queryDatabaseGraphql",
        "summary": "As POST /v1/graphql, the database named in the path",
        "parameters": [_KEY],
        "requestBody": _body('{"query": ..., "variables": {...}, "operationName": ..., "extensions": {...}}'),
        "responses": {"200": _answer("The answer.", "application/graphql-response+json")},
    },
    "GET /v1/databases/{database}/graphql/schema": {
        "operationId": "getGraphqlSchema",
        "summary": "The imported schema, or (form=api) the API that is made of it",
        "parameters": [_parameter("form", {"enum": ["sources", "api"]})],
        "responses": {"200": _answer("The importers' SDL; with form=api the API's.")},
    },
    "PUT /v1/databases/{database}/graphql/schema": {
        "operationId": "importGraphqlSchema",
        "summary": "Make the database's collections and GraphQL API be what SDL says; what takes away is refused",
        "parameters": [
            _SOURCE,
            _parameter("replace", _FLAG, "apply what takes something away, too; documents are never removed"),
            _parameter("dry_run", _FLAG, "only tell what would be done"),
            _parameter("introspection", _FLAG, "whether __schema and __type are answered"),
        ],
        "requestBody": _body("The SDL.", "application/graphql"),
        "responses": {"200": _answer("What changed.")},
    },
    "DELETE /v1/databases/{database}/graphql/schema": {
        "operationId": "deleteGraphqlSchema",
        "summary": "Remove an importer's schema; collections and documents stay",
        "parameters": [_SOURCE, _parameter("dry_run", _FLAG)],
        "responses": {"200": _answer("What changed.")},
    },
}
