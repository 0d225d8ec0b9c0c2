"""What the management API's description says of end users of apps; see `openapi`."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["OPERATIONS"]

_TEXT: Final = {"type": "string"}
_USER: Final = {
    "type": "object",
    "properties": {
        "sub": _TEXT,
        "email": _TEXT,
        "groups": {"type": "array", "items": _TEXT},
        "disabled": {"type": "boolean"},
        "totp": {"type": "boolean"},
        "created_at_ms": {"type": "integer"},
    },
}


def _path(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_POOL: Final = _path("app", "users")
_ONE: Final = _path("app", "users", "id")
_CHANGE: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"groups": {"type": "array", "items": _TEXT}, "disabled": {"type": "boolean"}},
}

OPERATIONS: Final[dict[str, dict[str, Any]]] = {
    "GET /v1/users/{app}/{users}": {
        "operationId": "listEndUsers",
        "summary": "End users of an app: a page in order of their ids, or the one of an e-mail address",
        "parameters": [
            *_POOL,
            _query("email", _TEXT, "only the user of this address"),
            _query("after", _TEXT, "the `next` of the page before"),
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100}, "users of a page"),
        ],
        "responses": {
            "200": _answer("Users.", {"type": "object", "properties": {"items": {"type": "array", "items": _USER}, "next": {}}})
        },
    },
    "POST /v1/users/{app}/{users}/keys": {
        "operationId": "rotateEndUsersKey",
        "summary": "Sign the users' tokens by a new key; tokens of the one before hold until they expire",
        "parameters": _POOL,
        "responses": {"201": _answer("The new key's id.", {"type": "object", "properties": {"kid": _TEXT}})},
    },
    "GET /v1/users/{app}/{users}/{id}": {
        "operationId": "getEndUser",
        "summary": "One end user",
        "parameters": _ONE,
        "responses": {"200": _answer("The user.", _USER)},
    },
    "PATCH /v1/users/{app}/{users}/{id}": {
        "operationId": "changeEndUser",
        "summary": "Set the groups of an end user, or shut it out",
        "parameters": _ONE,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _CHANGE}}},
        "responses": {"200": _answer("The user as it is now.", _USER)},
    },
    "DELETE /v1/users/{app}/{users}/{id}": {
        "operationId": "deleteEndUser",
        "summary": "Remove the account of an end user, with its sessions",
        "parameters": _ONE,
        "responses": {"204": {"description": "It is gone."}},
    },
}
