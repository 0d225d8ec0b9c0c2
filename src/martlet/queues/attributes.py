"""A queue's attributes: what can be set, within which bounds, and how they are shown. Pure.

Source: API reference of Amazon SQS, CreateQueue and SetQueueAttributes. What is set is kept as text, as it was given, so that
it is shown as it was given; what the queue works with is read from it once (`applied`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError
from martlet.queues.failures import bad_attribute, invalid_value, unknown_attribute
from martlet.queues.policies import is_policy
from martlet.queues.rows import Queue
from martlet.types import ACCOUNT

__all__ = ["COUNTED", "NAMES", "applied", "arn_of", "changed", "dead_letter_of", "differing", "name_in_arn", "shown"]

# name: (least, most, default)
_NUMBERS: Final = {
    "DelaySeconds": (0, 900, 0),
    "MaximumMessageSize": (1_024, 1_048_576, 1_048_576),
    "MessageRetentionPeriod": (60, 1_209_600, 345_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20, 0),
    "VisibilityTimeout": (0, 43_200, 30),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400, 300),
}
_SWITCHES: Final = ("FifoQueue", "ContentBasedDeduplication", "SqsManagedSseEnabled")
_CHOICES: Final = {
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
}
_TEXTS: Final = ("Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId")
COUNTED: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
)
_READ_ONLY: Final = (*COUNTED, "CreatedTimestamp", "LastModifiedTimestamp", "QueueArn")
_SETTABLE: Final = frozenset({*_NUMBERS, *_SWITCHES, *_CHOICES, *_TEXTS})
NAMES: Final = frozenset({*_SETTABLE, *_READ_ONLY, "All"})

_ARN = re.compile(
    r"arn:aws[a-z-]*:sqs:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):(?P<name>[A-Za-z0-9_-]{1,75}(?:\.fifo)?[A-Za-z0-9_-]{0,5})"
)
_ATTEMPTS_MAX: Final = 1_000
_SOURCES_MAX: Final = 10
_POLICY_BYTES: Final = 8_192
# As long as SQS may take for a change of attributes to take effect; the scope of deduplication does take it.
RESCOPE_MS: Final = 60_000

Find = Callable[[str], Queue | None]


def arn_of(name: str, region: str) -> str:
    return f"arn:aws:sqs:{region}:{ACCOUNT}:{name}"


def name_in_arn(arn: object, region: str) -> str | None:
    """The name of a queue of ours; None for anything else."""
    found = _ARN.fullmatch(arn) if isinstance(arn, str) else None
    if found is None or found["region"] != region or found["account"] != ACCOUNT:
        return None
    return found["name"]


def changed(
    before: Mapping[str, str], given: Mapping[str, Any], *, fifo: bool, region: str, find: Find, name: str
) -> dict[str, str]:
    """`before` with the attributes `given`, checked. `fifo`: what kind of queue it is. `find`: queues by name.

    Raises `ServiceError` InvalidAttributeName, InvalidAttributeValue, InvalidParameterValue."""
    after = dict(before)
    for attribute, value in given.items():
        if attribute not in _SETTABLE:
            raise unknown_attribute(attribute)
        text = _checked(attribute, str(value), fifo=fifo)
        if attribute == "RedrivePolicy" and text:
            _check_redrive(text, fifo=fifo, region=region, find=find, name=name)
        if text == "":
            after.pop(attribute, None)
        else:
            after[attribute] = text
    if not fifo:
        after.pop("FifoQueue", None)
    _check_together(after, given)
    return after


def _checked(name: str, text: str, *, fifo: bool) -> str:
    """One attribute's value in its own form, or "" to take it away."""
    if name == "FifoQueue":
        return _check_kind(text, fifo)
    if name in ("ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit") and not fifo:
        if name == "ContentBasedDeduplication":
            raise unknown_attribute(name)
        raise ServiceError("InvalidAttributeName", f"You can specify the {name} only when FifoQueue is set to true.")
    if name in _NUMBERS:
        least, most, _ = _NUMBERS[name]
        if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise bad_attribute(name)
        return str(int(text))
    if name in _SWITCHES:
        if text.lower() not in ("true", "false"):
            raise bad_attribute(name)
        return text.lower()
    if name in _CHOICES:
        if text not in _CHOICES[name]:
            raise bad_attribute(name)
        return text
    if name == "Policy" and text:
        _check_policy(text)
    if name == "RedriveAllowPolicy" and text:
        _check_allow(text)
    return text


def _check_kind(text: str, fifo: bool) -> str:
    if text.lower() not in ("true", "false"):
        raise bad_attribute("FifoQueue")
    if not fifo:
        raise unknown_attribute("FifoQueue")
    if text.lower() == "false":
        raise bad_attribute("FifoQueue", "Modifying queue type is not supported.")
    return "true"


def _check_together(after: dict[str, str], given: Mapping[str, Any]) -> None:
    if given.get("KmsMasterKeyId") and str(given.get("SqsManagedSseEnabled", "")).lower() == "true":
        raise ServiceError(
            "InvalidAttributeName",
            "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.",
        )
    if given.get("KmsMasterKeyId"):
        after["SqsManagedSseEnabled"] = "false"
    elif str(given.get("SqsManagedSseEnabled", "")).lower() == "true":
        after.pop("KmsMasterKeyId", None)
    if after.get("FifoThroughputLimit") == "perMessageGroupId" and after.get("DeduplicationScope") != "messageGroup":
        raise bad_attribute(
            "FifoThroughputLimit", "perMessageGroupId is allowed only when the value for DeduplicationScope is messageGroup."
        )


def _check_policy(text: str) -> None:
    if len(text.encode()) > _POLICY_BYTES or not is_policy(text):
        raise bad_attribute("Policy")


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _check_redrive(text: str, *, fifo: bool, region: str, find: Find, name: str) -> None:
    def wrong(reason: str) -> ServiceError:
        return invalid_value(text, "RedrivePolicy", reason)

    policy = _json_object(text)
    if policy is None:
        raise wrong("Redrive policy is not a valid JSON map.")
    for key in ("deadLetterTargetArn", "maxReceiveCount"):
        if policy.get(key) in (None, ""):
            raise wrong(f"Redrive policy does not contain mandatory attribute: {key}.")
    for key in policy:
        if key not in ("deadLetterTargetArn", "maxReceiveCount"):
            raise wrong(f"Only following attributes are supported: [deadLetterTargetArn, maxReceiveCount]. Got: {key}.")
    count = str(policy["maxReceiveCount"])
    if not re.fullmatch(r"[0-9]{1,4}", count) or not 1 <= int(count) <= _ATTEMPTS_MAX:
        raise wrong(f"Invalid value for maxReceiveCount: {count}, valid values are from 1 to {_ATTEMPTS_MAX} both inclusive.")
    target_name = name_in_arn(policy["deadLetterTargetArn"], region)
    if target_name is None:
        raise wrong("Invalid value for deadLetterTargetArn.")
    target = find(target_name)
    if target is None:
        raise wrong("Dead letter target does not exist.")
    if target.fifo != fifo:
        raise wrong("Dead-letter queue must be same type of queue as the source.")
    if not _allows(target, arn_of(name, region)):
        raise wrong("The dead-letter queue's RedriveAllowPolicy does not allow this source queue.")


def _allows(target: Queue, source_arn: str) -> bool:
    policy = _json_object(target.attributes.get("RedriveAllowPolicy", "")) or {}
    permission = policy.get("redrivePermission", "allowAll")
    return permission == "allowAll" or (permission == "byQueue" and source_arn in policy.get("sourceQueueArns", ()))


def _check_allow(text: str) -> None:
    def wrong(reason: str) -> ServiceError:
        return invalid_value(text, "RedriveAllowPolicy", reason)

    policy = _json_object(text)
    if policy is None:
        raise wrong("Amazon SQS can't create the redrive allow policy, as it's in an unsupported format.")
    permission, sources = policy.get("redrivePermission"), policy.get("sourceQueueArns")
    if permission not in ("allowAll", "denyAll", "byQueue"):
        raise wrong("Amazon SQS can't create the redrive allow policy, as it's in an unsupported format.")
    if permission == "byQueue":
        if (
            not isinstance(sources, list)
            or not 1 <= len(sources) <= _SOURCES_MAX
            or not all(isinstance(s, str) for s in sources)
        ):
            raise wrong(
                f"Amazon SQS can't create the redrive allow policy. sourceQueueArns takes 1 to {_SOURCES_MAX} queue ARNs."
            )
    elif sources is not None:
        raise wrong("Amazon SQS can't create the redrive allow policy. sourceQueueArns is allowed with byQueue only.")


def dead_letter_of(attributes: Mapping[str, str]) -> tuple[str, int]:
    """(name of the dead-letter queue or "", receives before it)."""
    policy = _json_object(attributes.get("RedrivePolicy", ""))
    if policy is None:
        return "", 0
    return str(policy["deadLetterTargetArn"]).rpartition(":")[2], int(policy["maxReceiveCount"])


def applied(queue: Queue, attributes: dict[str, str], now_ms: int) -> Queue:
    """The queue with these attributes in force."""

    def number(name: str) -> int:
        return int(attributes.get(name, _NUMBERS[name][2]))

    dead_letter, attempts = dead_letter_of(attributes)
    by_group = attributes.get("DeduplicationScope") == "messageGroup"
    rescoped = by_group != queue.by_group and queue.attributes != {}
    return msgspec.structs.replace(
        queue,
        attributes=attributes,
        modified_at_ms=now_ms,
        visibility_ms=number("VisibilityTimeout") * 1000,
        delay_ms=number("DelaySeconds") * 1000,
        wait_ms=number("ReceiveMessageWaitTimeSeconds") * 1000,
        retention_ms=number("MessageRetentionPeriod") * 1000,
        largest=number("MaximumMessageSize"),
        dead_letter=dead_letter,
        attempts=attempts,
        by_content=attributes.get("ContentBasedDeduplication") == "true",
        by_group=by_group,
        by_group_before=queue.by_group if rescoped else queue.by_group_before,
        rescoped_at_ms=now_ms + RESCOPE_MS if rescoped else queue.rescoped_at_ms,
    )


def shown(queue: Queue, region: str) -> dict[str, str]:
    """Every attribute but the counts, as GetQueueAttributes has them."""
    found = {name: str(default) for name, (_, _, default) in _NUMBERS.items() if name != "KmsDataKeyReusePeriodSeconds"}
    found["SqsManagedSseEnabled"] = "true"
    found["QueueArn"] = arn_of(queue.name, region)
    found["CreatedTimestamp"] = str(queue.created_at_ms // 1000)
    found["LastModifiedTimestamp"] = str(queue.modified_at_ms // 1000)
    if queue.fifo:
        found |= {
            "FifoQueue": "true",
            "ContentBasedDeduplication": "false",
            "DeduplicationScope": "queue",
            "FifoThroughputLimit": "perQueue",
        }
    found |= queue.attributes
    if "KmsMasterKeyId" not in found:
        found.pop("KmsDataKeyReusePeriodSeconds", None)
    elif "KmsDataKeyReusePeriodSeconds" not in found:
        found["KmsDataKeyReusePeriodSeconds"] = "300"
    redrive = _json_object(found.get("RedrivePolicy", ""))
    if redrive is not None:  # the count is shown as a number, however it was given
        found["RedrivePolicy"] = json.dumps(
            redrive | {"maxReceiveCount": int(redrive["maxReceiveCount"])}, separators=(",", ":")
        )
    return found


def differing(queue: Queue, given: Mapping[str, Any], region: str) -> str | None:
    """The first attribute in `given` that the queue has otherwise."""
    have = shown(queue, region)
    for name, value in given.items():
        text = str(value)
        if name in _SWITCHES:
            text = text.lower()
        here = have.get(name, "")
        if text != here and not (name.endswith("Policy") and _json_object(text) == _json_object(here)):
            return name
    return None
