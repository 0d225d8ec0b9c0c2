"""What the management API's description says of the audit log and of policies; see `openapi`."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["OPERATIONS"]

_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer", "minimum": 0}
_PRINCIPAL: Final = {
    "name": "principal",
    "in": "query",
    "required": True,
    "schema": _TEXT,
    "description": '"function NAME", "role NAME", "user NAME" or "root"',
}


def _query(name: str, schema: dict[str, Any], description: str = "", *, required: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "in": "query", "required": required, "schema": schema}
    return found | ({"description": description} if description else {})


def _answer(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}


OPERATIONS: Final[dict[str, dict[str, Any]]] = {
    "GET /v1/audit": {
        "operationId": "listAuditEntries",
        "summary": "Management calls and denials: the newest, or those after a number",
        "parameters": [
            _query("after", _WHOLE, "the number of the entry before; default: the newest entries"),
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100}),
            _query("principal", _TEXT, "only of principals whose name holds this"),
            _query("action", _TEXT, "only calls whose action holds this"),
            _query("outcome", {"enum": ["done", "failed", "denied"]}),
            _query("since_ms", _WHOLE, "only later ones; default 0"),
        ],
        "responses": {"200": _answer("Entries, oldest first, each with the digest of the one before.")},
    },
    "GET /v1/audit/verify": {
        "operationId": "verifyAudit",
        "summary": "Check that the audit log holds together",
        "responses": {"200": _answer("How many entries hold together; `why` is not empty where they do not.")},
    },
    "GET /v1/policy/explain": {
        "operationId": "explainDecision",
        "summary": "Whether a principal may do something, what decides it, and the statement that is missing",
        "parameters": [
            _PRINCIPAL,
            _query("action", _TEXT, "e.g. sqs:SendMessage", required=True),
            _query("resource", _TEXT, "e.g. its ARN", required=True),
        ],
        "responses": {"200": _answer("The decision.")},
    },
    "GET /v1/policy/suggest": {
        "operationId": "suggestPolicy",
        "summary": "The least that would let a principal do what it asked for so far",
        "parameters": [_PRINCIPAL],
        "responses": {"200": _answer("A policy, what an app would declare, what was denied, and what is declared and unused.")},
    },
    "GET /v1/policy/principals": {
        "operationId": "listPrincipals",
        "summary": "Who asked for anything so far",
        "responses": {"200": _answer("Names for `principal`.")},
    },
    "DELETE /v1/policy/accesses": {
        "operationId": "forgetAccesses",
        "summary": "Forget what a principal asked for so far",
        "parameters": [_PRINCIPAL],
        "responses": {"204": {"description": "Forgotten."}},
    },
}
