"""Policy documents: is one well-formed, and whom does a trust policy trust. Pure; the decisions are `evaluation`.

Source: IAM user guide, "IAM JSON policy elements reference" and "Grammar of the IAM JSON policy language".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from martlet.auth.evaluation import Decision, Request, compile_policy, decide, is_operator
from martlet.errors import ServiceError

__all__ = ["check_permissions", "check_resource", "check_resource_policy", "check_trust", "malformed", "trusts"]

_FIELDS: Final = frozenset(
    {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_RESOURCE = re.compile(r"\*|arn:[^:]*:[^:]*:[^:]*:[^:]*:.+", re.DOTALL)
_VERSIONS: Final = ("2012-10-17", "2008-10-17")


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


def check_resource_policy(text: str) -> None:
    """Return if `text` is the policy of a resource, else raise MalformedPolicyDocument."""
    for statement in _statements(text):
        if ("Resource" in statement) == ("NotResource" in statement):
            raise malformed("Policy statement must contain resources.")
        for resource in _texts(statement.get("Resource", statement.get("NotResource"))):
            if not _RESOURCE.fullmatch(resource):
                raise malformed(f'Resource {resource[:128]} must be in ARN format or "*".')
        _check_principal(statement)


def check_trust(text: str) -> None:
    """Return if `text` is a role's trust policy, else raise MalformedPolicyDocument."""
    for statement in _statements(text):
        if "Resource" in statement or "NotResource" in statement:
            raise malformed("Has prohibited field Resource")
        _check_principal(statement)


def check_resource(text: str) -> None:
    """Return if `text` is a policy of a queue or topic, which need not name themselves, else raise MalformedPolicyDocument."""
    for statement in _statements(text):
        _check_principal(statement)
        if "Resource" in statement and "NotResource" in statement:
            raise malformed("Syntax errors in policy.")
        for name in ("Resource", "NotResource"):
            if name in statement:
                _texts(statement[name])


def _check_principal(statement: dict[str, Any]) -> None:
    if ("Principal" in statement) == ("NotPrincipal" in statement):
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
    _check_condition(statement.get("Condition", {}))


def _check_condition(condition: dict[str, Any]) -> None:
    for operator, keys in condition.items():
        if not is_operator(operator):
            raise malformed(f"Invalid Condition type : {operator[:64]}.")
        if not isinstance(keys, dict) or not keys:
            raise malformed("Syntax errors in policy.")
        for values in keys.values():
            several = values if isinstance(values, list) else [values]
            if not all(isinstance(one, (str, int, float, bool)) for one in several):
                raise malformed("Syntax errors in policy.")


def _texts(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(item, str) for item in values):
        raise malformed("Syntax errors in policy.")
    return values


# --- decisions


def trusts(
    text: str, caller_arn: str, account: str, action: str, context: Mapping[str, Any] = MappingProxyType({})
) -> Decision:
    """Whether a trust policy lets `caller_arn` (or a service: "apigateway.amazonaws.com") do `action` ("sts:AssumeRole"). The
    document is known to be well-formed. `context` has condition keys in lower case ("sts:externalid")."""
    known = {"aws:principalarn": caller_arn, "aws:principalaccount": account, **context}
    request = Request(action=action, resource="*", principal=caller_arn, account=account, context=known)
    return decide(request, (), resource=(compile_policy(text),))
