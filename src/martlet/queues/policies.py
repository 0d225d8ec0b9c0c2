"""A queue's permissions: statements of its Policy that AddPermission and RemovePermission keep by their label. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from martlet.errors import ServiceError
from martlet.queues.failures import invalid, invalid_value, missing

__all__ = ["with_statement", "without_statement"]

_LABEL = re.compile(r"[A-Za-z0-9_-]{1,80}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_ACTIONS: Final = (
    *("*", "SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes", "GetQueueUrl"),
    *("ListDeadLetterSourceQueues", "PurgeQueue"),
)
_STATEMENTS_MAX: Final = 20
_ACTIONS_MAX: Final = 7


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
        if action not in _ACTIONS:
            allowed = ", ".join(_ACTIONS)
            raise invalid(f"Value SQS:{action} for parameter ActionName is invalid. Reason: Please refer to {allowed}.")


def _document(policy: str, arn: str) -> dict[str, Any]:
    if not policy:
        return {"Version": "2008-10-17", "Id": f"{arn}/SQSDefaultPolicy", "Statement": []}
    document: dict[str, Any] = json.loads(policy)
    statements = document.get("Statement", [])
    return document | {"Statement": list(statements) if isinstance(statements, list) else [statements]}
