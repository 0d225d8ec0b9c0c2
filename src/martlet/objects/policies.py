"""Bucket policies: are they well-formed, what do they decide, are they public. Pure.

Source: IAM user guide, "IAM JSON policy elements reference"; S3 user guide, "The meaning of 'public'". A policy that holds what
is not evaluated here is refused when it is put: a condition that nobody checks would be a lie.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from martlet.errors import ServiceError
from martlet.objects.failures import not_implemented

__all__ = ["check", "decide", "is_public"]

Decision = str  # "Allow", "Deny", "" for neither
_FIELDS: Final = frozenset(
    {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)
_ACTION = re.compile(r"\*|s3(-object-lambda)?:[A-Za-z*?]+", re.IGNORECASE)
_POLICY_BYTES: Final = 20_480
_NUMERIC: Final = {
    "NumericEquals": lambda have, want: have == want,
    "NumericNotEquals": lambda have, want: have != want,
    "NumericLessThan": lambda have, want: have < want,
    "NumericLessThanEquals": lambda have, want: have <= want,
    "NumericGreaterThan": lambda have, want: have > want,
    "NumericGreaterThanEquals": lambda have, want: have >= want,
}
_OPERATORS: Final = frozenset(
    {
        *(
            "StringEquals",
            "StringNotEquals",
            "StringEqualsIgnoreCase",
            "StringNotEqualsIgnoreCase",
            "StringLike",
            "StringNotLike",
        ),
        *("ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike", "IpAddress", "NotIpAddress", "Bool", "Null", *_NUMERIC),
    }
)
_KEYS = re.compile(
    r"aws:(sourceip|securetransport|useragent|referer|principalarn|principalaccount|principaltype|sourcevpc|sourcevpce|"
    r"sourcearn|sourceaccount|userid|username)|"
    r"s3:(prefix|delimiter|max-keys|x-amz-acl|x-amz-copy-source|x-amz-metadata-directive|x-amz-server-side-encryption|"
    r"x-amz-server-side-encryption-customer-algorithm|"
    r"x-amz-storage-class|x-amz-content-sha256|versionid|locationconstraint|signatureversion|authtype|"
    r"x-amz-grant-[a-z-]+|existingobjecttag/.+|requestobjecttag/.+|requestobjecttagkeys|object-lock-[a-z-]+|"
    r"if-none-match|if-match|objectcreationoperation)",
    re.IGNORECASE,
)
_FIXED_KEYS: Final = frozenset({"aws:sourcearn", "aws:sourceaccount", "aws:sourcevpc", "aws:sourcevpce", "aws:principalarn"})


def malformed(message: str) -> ServiceError:
    return ServiceError("MalformedPolicy", message, 400)


def check(text: str, bucket: str) -> None:
    """Return if `text` is a policy for `bucket`, else raise MalformedPolicy, or NotImplemented by name."""
    if len(text.encode()) > _POLICY_BYTES:
        raise ServiceError("PolicyTooLarge", "Policy exceeds the maximum allowed document size.", 400)
    if not text.lstrip().startswith("{"):
        raise malformed("Policies must be valid JSON and the first byte must be '{'")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise malformed("This policy contains invalid Json") from None
    unknown = set(document) - {"Version", "Id", "Statement"}
    if unknown:
        raise malformed(f"Unknown field {sorted(unknown)[0]}")
    if "Statement" not in document:
        raise malformed("Missing required field Statement")
    if document.get("Version", "2008-10-17") not in ("2012-10-17", "2008-10-17"):
        raise malformed("The policy must contain a valid version string")
    statements = _listed(document["Statement"])
    if not statements:
        raise malformed("Could not parse the policy: Statement is empty!")
    for statement in statements:
        _check_statement(statement, bucket)


def _check_statement(statement: Any, bucket: str) -> None:
    if not isinstance(statement, dict):
        raise malformed("Statement is not a map")
    unknown = set(statement) - _FIELDS
    if unknown:
        raise malformed(f"Unknown field {sorted(unknown)[0]}")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise malformed("Missing required field Effect" if "Effect" not in statement else "Invalid effect")
    if ("Principal" in statement) == ("NotPrincipal" in statement):
        raise malformed("Missing required field Principal")
    _check_principal(statement.get("Principal", statement.get("NotPrincipal")))
    if ("Action" in statement) == ("NotAction" in statement):
        raise malformed("Missing required field Action")
    if ("Resource" in statement) == ("NotResource" in statement):
        raise malformed("Missing required field Resource")
    for action in _listed(statement.get("Action", statement.get("NotAction"))):
        if not isinstance(action, str) or not _ACTION.fullmatch(action):
            raise malformed("Policy has invalid action")
    own = f"arn:aws:s3:::{bucket}"
    for resource in _listed(statement.get("Resource", statement.get("NotResource"))):
        if not isinstance(resource, str) or not (resource == "*" or _covers(resource.split("/", 1)[0], own)):
            raise malformed("Policy has invalid resource")
    _check_condition(statement.get("Condition") or {})


def _check_principal(principal: Any) -> None:
    if principal == "*":
        return
    if (
        not isinstance(principal, dict)
        or not principal
        or not set(principal) <= {"AWS", "Service", "CanonicalUser", "Federated"}
    ):
        raise malformed("Invalid principal in policy")
    for value in principal.values():
        if not all(isinstance(one, str) and one for one in _listed(value)) or not _listed(value):
            raise malformed("Invalid principal in policy")


def _check_condition(condition: Any) -> None:
    if not isinstance(condition, dict):
        raise malformed("Condition is not a map")
    for operator, wanted in condition.items():
        name = operator.removeprefix("ForAnyValue:").removeprefix("ForAllValues:")
        if name != operator or name.removesuffix("IfExists") not in _OPERATORS:
            raise not_implemented(f"the condition {operator} of a bucket policy")
        if not isinstance(wanted, dict) or not wanted:
            raise malformed("Condition is not a map")
        for key in wanted:
            if not _KEYS.fullmatch(key):
                raise not_implemented(f"the condition key {key} of a bucket policy")


# --- deciding


def decide(
    text: str, *, arn: str, account: str, action: str, resource: str, context: Mapping[str, str], service: str = ""
) -> Decision:
    """What the policy says. `arn`: who asks, "" for anybody; `account`: theirs; `context`: condition keys in lower case."""
    decision = ""
    for statement in _statements(text):
        if not _names(statement, arn, account, service) or not _acts(statement, action, resource):
            continue
        if not all(_holds(operator, wanted, context) for operator, wanted in (statement.get("Condition") or {}).items()):
            continue
        if statement["Effect"] == "Deny":
            return "Deny"
        decision = "Allow"
    return decision


def is_public(text: str) -> bool:
    """Whether somebody of the whole world is allowed something, on no condition that would tell them apart."""
    for statement in _statements(text):
        if statement["Effect"] != "Allow":
            continue
        everybody = "NotPrincipal" in statement or "*" in _principals(statement["Principal"], "AWS")
        condition = statement.get("Condition") or {}
        if everybody and not any(_narrows(operator, wanted) for operator, wanted in condition.items()):
            return True
    return False


def _narrows(operator: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a condition fixes who asks to values without wildcards."""
    if "Not" in operator or operator.endswith("IfExists"):
        return False
    for key, values in wanted.items():
        texts = [str(value) for value in _listed(values)]
        if key.lower() in _FIXED_KEYS and not any("*" in text for text in texts):
            return True
        if key.lower() == "aws:sourceip" and not any(text.endswith("/0") for text in texts):
            return True
    return False


@lru_cache(maxsize=256)
def _statements(text: str) -> list[dict[str, Any]]:
    return [one for one in _listed(json.loads(text)["Statement"]) if isinstance(one, dict)]


def _names(statement: Mapping[str, Any], arn: str, account: str, service: str) -> bool:
    if "NotPrincipal" in statement:
        return not _named(statement["NotPrincipal"], arn, account, service)
    return _named(statement["Principal"], arn, account, service)


def _named(principal: Any, arn: str, account: str, service: str) -> bool:
    named = _principals(principal, "AWS")
    if "*" in named:
        return True
    if service and service in _principals(principal, "Service"):
        return True
    if not arn:
        return False
    role = re.sub(r":sts::(\d+):assumed-role/([^/]+)/.*", r":iam::\1:role/\2", arn)
    return any(one in (arn, role, account, f"arn:aws:iam::{account}:root") for one in named)


def _principals(principal: Any, kind: str) -> list[Any]:
    return ["*"] if principal == "*" else _listed(principal.get(kind, ()))


def _acts(statement: Mapping[str, Any], action: str, resource: str) -> bool:
    if "NotAction" in statement:
        acts = not any(_covers(one, action, ignore_case=True) for one in _listed(statement["NotAction"]))
    else:
        acts = any(_covers(one, action, ignore_case=True) for one in _listed(statement["Action"]))
    if not acts:
        return False
    if "NotResource" in statement:
        return not any(_covers(one, resource) for one in _listed(statement["NotResource"]))
    return any(_covers(one, resource) for one in _listed(statement["Resource"]))


def _holds(operator: str, wanted: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    return all(_key_holds(operator, key, _listed(values), context) for key, values in wanted.items())


def _key_holds(operator: str, key: str, values: list[Any], context: Mapping[str, str]) -> bool:
    have = context.get(key.lower())
    texts = [_text(value) for value in values]
    if operator == "Null":
        return (have is None) == (texts[0].lower() == "true")
    name = operator.removesuffix("IfExists")
    negated = "Not" in name
    if have is None:
        return negated or name != operator
    if name in _NUMERIC:
        try:
            return any(_NUMERIC[name](float(have), float(text)) for text in texts)
        except ValueError:
            return False
    met = any(_meets(name, have, text) for text in texts)
    return met != negated


def _meets(name: str, have: str, wanted: str) -> bool:
    if "IpAddress" in name:
        try:
            return ipaddress.ip_address(have) in ipaddress.ip_network(wanted, strict=False)
        except ValueError:
            return False
    if name == "Bool" or "IgnoreCase" in name:
        return have.lower() == wanted.lower()
    if "Like" in name or name.startswith("Arn"):
        return _covers(wanted, have)
    return have == wanted


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


@lru_cache(maxsize=2_048)
def _pattern(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", pattern))
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _covers(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    return _pattern(pattern, ignore_case).fullmatch(text) is not None
