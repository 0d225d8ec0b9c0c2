"""Policy documents: is one well-formed, whom does a trust policy trust, what do permissions grant. Pure.

Source: IAM user guide, "IAM JSON policy elements reference" and "Grammar of the IAM JSON policy language". A document that says
more than Martlet can decide grants less, never more: a statement with a condition that is not understood allows nothing, and
one that denies with what is not understood denies everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError, Unsupported

__all__ = ["check_permissions", "check_trust", "grants_of", "trusts"]

_FIELDS: Final = frozenset(
    {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_RESOURCE = re.compile(r"\*|arn:[^:]*:[^:]*:[^:]*:[^:]*:.+", re.DOTALL)
_FUNCTION = re.compile(r"arn:aws:lambda:[^:]*:[^:]*:function:(?P<name>[A-Za-z0-9_*-]+)(?::[A-Za-z0-9$_*-]+)?")
_DOCUMENTS = re.compile(r"arn:martlet:documents:[^:]*:[^:]*:(?P<name>[A-Za-z0-9_-]+/[A-Za-z0-9_.*-]+)")
_VERSIONS: Final = ("2012-10-17", "2008-10-17")

Grants = frozenset[tuple[str, str]]


def malformed(message: str) -> ServiceError:
    return ServiceError("MalformedPolicyDocument", message, 400)


def check_permissions(text: str) -> None:
    """Return if `text` is an identity-based policy, else raise MalformedPolicyDocument."""
    for statement in _statements(text):
        if "Principal" in statement or "NotPrincipal" in statement:
            raise malformed("Policy document should not specify a principal.")
        if ("Resource" in statement) == ("NotResource" in statement):
            raise malformed("Policy statement must contain resources.")
        for resource in _texts(statement.get("Resource", statement.get("NotResource"))):
            if not _RESOURCE.fullmatch(resource):
                raise malformed(f'Resource {resource[:128]} must be in ARN format or "*".')


def check_trust(text: str) -> None:
    """Return if `text` is a role's trust policy, else raise MalformedPolicyDocument."""
    for statement in _statements(text):
        if "Resource" in statement or "NotResource" in statement:
            raise malformed("Has prohibited field Resource")
        if "Principal" not in statement and "NotPrincipal" not in statement:
            raise malformed("Missing required field Principal")
        principal = statement.get("Principal", statement.get("NotPrincipal"))
        if isinstance(principal, dict):
            if not principal or not set(principal) <= {"AWS", "Service", "Federated", "CanonicalUser"}:
                raise malformed("Invalid principal in policy")
            for values in principal.values():
                _texts(values)
        elif principal != "*":
            raise malformed("Invalid principal in policy")


def _statements(text: str) -> list[dict[str, Any]]:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise malformed("This policy contains invalid Json") from error
    if not isinstance(document, dict) or not set(document) <= {"Version", "Id", "Statement"}:
        raise malformed("Syntax errors in policy.")
    if document.get("Version", _VERSIONS[1]) not in _VERSIONS:
        raise malformed("The policy must contain a valid version string")
    found = document.get("Statement")
    statements = [found] if isinstance(found, dict) else found
    if not isinstance(statements, list) or not statements:
        raise malformed("Syntax errors in policy.")
    for statement in statements:
        _check_statement(statement)
    return statements


def _check_statement(statement: Any) -> None:
    if not isinstance(statement, dict) or not set(statement) <= _FIELDS:
        raise malformed("Syntax errors in policy.")
    if "Effect" not in statement:
        raise malformed("Missing required field Effect")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise malformed("Invalid effect: " + str(statement["Effect"])[:64])
    if ("Action" in statement) == ("NotAction" in statement):
        raise malformed("Policy statement must contain actions.")
    for action in _texts(statement.get("Action", statement.get("NotAction"))):
        if not _ACTION.fullmatch(action):
            raise malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    if not isinstance(statement.get("Condition", {}), dict) or not isinstance(statement.get("Sid", ""), str):
        raise malformed("Syntax errors in policy.")


def _texts(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(item, str) for item in values):
        raise malformed("Syntax errors in policy.")
    return values


# --- decisions


def trusts(text: str, caller_arn: str, account: str, action: str, external_id: str = "") -> bool:
    """Whether a trust policy lets `caller_arn` (or a service: "apigateway.amazonaws.com") do `action` ("sts:AssumeRole"). The
    document is known to be well-formed."""
    allowed = False
    for statement in _statements(text):
        named = _names_caller(statement, caller_arn, account)
        acts = _acts(statement, action)
        holds = _condition_holds(statement.get("Condition") or {}, external_id)
        if statement["Effect"] == "Deny":
            if named is not False and acts and holds is not False:
                return False
        elif named and acts and holds:
            allowed = True
    return allowed


def _names_caller(statement: dict[str, Any], arn: str, account: str) -> bool | None:
    """None: cannot be told (NotPrincipal)."""
    if "NotPrincipal" in statement:
        return None
    principal = statement["Principal"]
    if isinstance(principal, dict) and not arn.startswith("arn:"):
        return "Service" in principal and arn in _texts(principal["Service"])
    names = [principal] if isinstance(principal, str) else _texts(principal["AWS"]) if "AWS" in principal else []
    return any(name in ("*", account, f"arn:aws:iam::{account}:root", arn) for name in names)


def _acts(statement: dict[str, Any], action: str) -> bool:
    if "NotAction" in statement:
        return not any(_matches(pattern, action) for pattern in _texts(statement["NotAction"]))
    return any(_matches(pattern, action) for pattern in _texts(statement["Action"]))


def _matches(pattern: str, action: str) -> bool:
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", pattern))
    return re.fullmatch("".join(parts), action, re.IGNORECASE | re.DOTALL) is not None


def _condition_holds(condition: dict[str, Any], external_id: str) -> bool | None:
    """None: not understood. Only StringEquals of sts:ExternalId is."""
    if not condition:
        return True
    if set(condition) == {"StringEquals"} and isinstance(condition["StringEquals"], dict):
        wanted = condition["StringEquals"]
        if set(wanted) == {"sts:ExternalId"}:
            return external_id in _texts(wanted["sts:ExternalId"])
    return None


def grants_of(texts: Iterable[str]) -> Grants:
    """What permission policies grant, as the pairs (action, resource) that `authorize` decides by.

    A pair holds names or prefixes with "*"; what such pairs cannot say is left out, and so is not allowed. Raises
    `Unsupported` for a statement that denies: leaving it out would allow too much.
    """
    found: set[tuple[str, str]] = set()
    for text in texts:
        for statement in _statements(text):
            if statement["Effect"] == "Deny":
                raise Unsupported("a policy of the role has a statement with Effect Deny, which Martlet does not evaluate")
            if statement.get("Condition") or "NotAction" in statement or "NotResource" in statement:
                continue
            actions = [action for action in _texts(statement["Action"]) if _is_prefix(action)]
            for resource in map(_our_name, _texts(statement["Resource"])):
                if _is_prefix(resource):
                    found.update((action, resource) for action in actions)
    return frozenset(found)


def _is_prefix(pattern: str) -> bool:
    return "*" not in pattern[:-1] and "?" not in pattern


def _our_name(resource: str) -> str:
    """The name that rooms know a resource by: a function's own, "app/collection" of documents, else the ARN."""
    found = _FUNCTION.fullmatch(resource) or _DOCUMENTS.fullmatch(resource)
    return found["name"] if found is not None else resource
