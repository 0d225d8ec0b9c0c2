"""A queue's Policy: what it decides, and its statements that AddPermission and RemovePermission keep by their label. Pure.

Source: developer guide of Amazon SQS, "Using custom policies with the Amazon SQS Access Policy Language". An explicit Deny
binds everybody, the owner's key too, but not in what the owner needs to change the policy. An account as principal hands the
decision to the account's own policies, so by itself it allows nothing to anybody but the owner (IAM user guide, "Principal").
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from martlet.auth.documents import check_resource
from martlet.auth.evaluation import Request, compile_policy, decide
from martlet.errors import AccessDenied, ServiceError
from martlet.queues.failures import invalid, invalid_value, missing
from martlet.types import ACCOUNT, Principal

__all__ = ["By", "admit", "is_policy", "verdict", "with_statement", "without_statement"]

Verdict: TypeAlias = Literal["allow", "deny", ""]
By: TypeAlias = tuple[str, str]  # a service that sends ("sns.amazonaws.com"), and the ARN of what it sends for

_LABEL = re.compile(r"[A-Za-z0-9_-]{1,80}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_ACTIONS: Final = (
    *("*", "SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes", "GetQueueUrl"),
    *("ListDeadLetterSourceQueues", "PurgeQueue"),
)
_OWNERS: Final = (  # what the queue's owner alone may do, whatever its policy says
    *("AddPermission", "CancelMessageMoveTask", "CreateQueue", "DeleteQueue", "ListMessageMoveTasks", "ListQueues"),
    *("ListQueueTags", "RemovePermission", "SetQueueAttributes", "StartMessageMoveTask", "TagQueue", "UntagQueue"),
)
_REPAIRS: Final = frozenset({"sqs:GetQueueAttributes", *(f"sqs:{action}" for action in _OWNERS)})
_STATEMENTS_MAX: Final = 20
_ACTIONS_MAX: Final = 7


def is_policy(text: str) -> bool:
    """Whether it is a document that can be decided by."""
    try:
        check_resource(text)
    except ServiceError:
        return False
    return True


def verdict(policy: str, principal: Principal, action: str, resource: str) -> Verdict:
    """What a queue's policy says by itself of a caller's action ("sqs:SendMessage") on the queue's ARN; "" for nothing."""
    if not policy:
        return ""
    standing = principal.standing
    known: dict[str, Any] = {} if standing is None else standing.known()
    # What comes over loopback, from a sandbox too, crosses no network.
    known["aws:securetransport"] = str(known.get("aws:sourceip", "127.0.0.1")).startswith(("127.", "::1"))
    request = Request(action=action, resource=resource, principal=_arn_of(principal), account=ACCOUNT, context=known)
    said = _decided(policy, request)
    if said == "deny" and principal.kind == "root" and action in _REPAIRS:
        return "allow"
    return said


def admit(policy: str, by: By, resource: str) -> None:
    """Return if the policy lets a service send to the queue, else raise `AccessDenied`."""
    service, source = by
    known: dict[str, Any] = {
        "aws:sourcearn": source,
        "aws:sourceaccount": ACCOUNT,
        "aws:sourceowner": ACCOUNT,
        "aws:principalisawsservice": True,
        "aws:principalservicename": service,
        "aws:securetransport": True,
    }
    request = Request(action="sqs:SendMessage", resource=resource, principal=service, context=known)
    if not policy or _decided(policy, request) != "allow":
        raise AccessDenied(
            f"the policy of {resource} does not let {service} send messages to it for {source}",
            principal=service, action="sqs:SendMessage", resource=resource,
        )  # fmt: skip


def _decided(policy: str, request: Request) -> Verdict:
    document = (compile_policy(policy),)
    if decide(request, (), resource=document).verdict == "explicit deny":
        return "deny"
    by_name = msgspec.structs.replace(request, account="")  # the account as principal allows nobody
    return "allow" if decide(by_name, (), resource=document).allowed else ""


def _arn_of(principal: Principal) -> str:
    if principal.standing is not None:
        return str(principal.standing.arn)
    if principal.kind == "root":
        return f"arn:aws:iam::{ACCOUNT}:root"
    if principal.kind == "role":
        return f"arn:aws:sts::{ACCOUNT}:{principal.name}"
    return f"arn:aws:sts::{ACCOUNT}:assumed-role/{principal.name}/{principal.name}"


def with_statement(policy: str, arn: str, label: str, accounts: Sequence[str], actions: Sequence[str]) -> str:
    """The policy with one more statement. Raises `ServiceError` InvalidParameterValue, OverLimit, MissingParameter."""
    _check(label, accounts, actions)
    document = _document(policy, arn)
    statements = document["Statement"]
    if any(statement.get("Sid") == label for statement in statements):
        raise invalid_value(label, "Label", "Already exists.")
    if len(statements) >= _STATEMENTS_MAX:
        raise ServiceError("OverLimit", f"{len(statements) + 1} statements were found, maximum allowed is {_STATEMENTS_MAX}.")
    principals = [f"arn:aws:iam::{account}:root" for account in accounts]
    names = [f"SQS:{action}" for action in actions]
    statements.append(
        {
            "Sid": label,
            "Effect": "Allow",
            "Principal": {"AWS": principals[0] if len(principals) == 1 else principals},
            "Action": names[0] if len(names) == 1 else names,
            "Resource": arn,
        }
    )
    return json.dumps(document, separators=(",", ":"))


def without_statement(policy: str, arn: str, label: str) -> str:
    """The policy without the statement of that label, "" when none is left. Raises `ServiceError` InvalidParameterValue."""
    if not label:
        raise missing("Label")
    document = _document(policy, arn)
    left = [statement for statement in document["Statement"] if statement.get("Sid") != label]
    if len(left) == len(document["Statement"]):
        raise invalid_value(label, "Label", "can't find label.")
    if not left:
        return ""
    return json.dumps(document | {"Statement": left}, separators=(",", ":"))


def _check(label: str, accounts: Sequence[str], actions: Sequence[str]) -> None:
    for name, value in (("Label", label), ("AWSAccountIds", accounts), ("Actions", actions)):
        if not value:
            raise missing(name)
    if not _LABEL.fullmatch(label):
        raise invalid_value(
            label, "Label", "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length."
        )
    for account in accounts:
        if not _ACCOUNT.fullmatch(account):
            raise invalid_value(account, "PrincipalId", "Unable to verify.")
    if len(actions) > _ACTIONS_MAX:
        raise ServiceError("OverLimit", f"{len(actions)} Actions were found, maximum allowed is {_ACTIONS_MAX}.")
    for action in actions:
        if action in _OWNERS:
            reason = "Only the queue owner is allowed to invoke this action."
            raise invalid_value(f"SQS:{action}", "ActionName", reason)
        if action not in _ACTIONS:
            allowed = ", ".join(_ACTIONS)
            raise invalid(f"Value SQS:{action} for parameter ActionName is invalid. Reason: Please refer to {allowed}.")


def _document(policy: str, arn: str) -> dict[str, Any]:
    if not policy:
        return {"Version": "2008-10-17", "Id": f"{arn}/SQSDefaultPolicy", "Statement": []}
    document: dict[str, Any] = json.loads(policy)
    statements = document.get("Statement", [])
    return document | {"Statement": list(statements) if isinstance(statements, list) else [statements]}
