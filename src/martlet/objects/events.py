"""What is told of a change, and to whom: notification configurations, S3's event records, EventBridge's events. Pure.

Sources: S3 user guide, "Amazon S3 Event Notifications", "Event message structure", "Using EventBridge"; recorded events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote_plus

import msgspec

from martlet.clock import uuid4_text
from martlet.errors import ServiceError
from martlet.objects.acl import OWNER_ID
from martlet.objects.failures import invalid_argument, not_implemented
from martlet.objects.names import arn_of
from martlet.objects.rows import Version
from martlet.types import ACCOUNT

__all__ = ["EVENT", "KINDS", "Cause", "Notice", "bus_event", "checked", "record", "targets", "test_event"]

EVENT: Final = "objects.event"  # topic of the log entries that are told
# member of the configuration → (member with the ARN, argument's name in errors, pattern of the ARN)
KINDS: Final = {
    "QueueConfigurations": ("QueueArn", "Queue", re.compile(r"arn:[^:]+:sqs:[^:]+:[0-9]{12}:[A-Za-z0-9_.-]+")),
    "TopicConfigurations": ("TopicArn", "Topic", re.compile(r"arn:[^:]+:sns:[^:]+:[0-9]{12}:[A-Za-z0-9_.-]+")),
    "LambdaFunctionConfigurations": (
        "LambdaFunctionArn",
        "CloudFunction",
        re.compile(r"arn:[^:]+:lambda:[^:]+:[0-9]{12}:function:[A-Za-z0-9_-]+(:[A-Za-z0-9$_-]+)?"),
    ),
}
_EVENTS: Final = frozenset(
    {
        *("s3:ObjectCreated:*", "s3:ObjectCreated:Put", "s3:ObjectCreated:Post", "s3:ObjectCreated:Copy"),
        *("s3:ObjectCreated:CompleteMultipartUpload", "s3:ObjectRemoved:*", "s3:ObjectRemoved:Delete"),
        *("s3:ObjectRemoved:DeleteMarkerCreated", "s3:LifecycleExpiration:*", "s3:LifecycleExpiration:Delete"),
        *("s3:LifecycleExpiration:DeleteMarkerCreated", "s3:ObjectTagging:*", "s3:ObjectTagging:Put"),
        *("s3:ObjectTagging:Delete", "s3:ObjectAcl:Put"),
    }
)
_NEVER_FIRED: Final = (
    "s3:ReducedRedundancyLostObject",
    "s3:ObjectRestore",
    "s3:Replication",
    "s3:LifecycleTransition",
    "s3:Intelli",
)
# Which event of EventBridge a change is, and its reason.
_BUS: Final = {
    "ObjectCreated:Put": ("Object Created", "PutObject"),
    "ObjectCreated:Post": ("Object Created", "POST Object"),
    "ObjectCreated:Copy": ("Object Created", "CopyObject"),
    "ObjectCreated:CompleteMultipartUpload": ("Object Created", "CompleteMultipartUpload"),
    "ObjectRemoved:Delete": ("Object Deleted", "DeleteObject"),
    "ObjectRemoved:DeleteMarkerCreated": ("Object Deleted", "DeleteObject"),
    "LifecycleExpiration:Delete": ("Object Deleted", "Lifecycle Expiration"),
    "LifecycleExpiration:DeleteMarkerCreated": ("Object Deleted", "Lifecycle Expiration"),
    "ObjectTagging:Put": ("Object Tags Added", ""),
    "ObjectTagging:Delete": ("Object Tags Deleted", ""),
    "ObjectAcl:Put": ("Object ACL Updated", ""),
}


class Cause(msgspec.Struct, frozen=True):
    """Whose request it was."""

    principal_id: str = ""
    source_ip: str = "127.0.0.1"
    request_id: str = ""


class Notice(msgspec.Struct, frozen=True):
    """Body (JSON) of a log entry: this is to be told to `target`, an ARN; or to function `function` of app `app`."""

    target: str
    payload: dict[str, Any]
    app: str = ""
    function: str = ""
    source: str = ""  # the bucket's ARN


# --- configurations


def checked(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as it is kept. Raises InvalidArgument; whether targets exist is another's question."""
    made: dict[str, Any] = {}
    for kind, (member, argument, form) in KINDS.items():
        found = []
        for one in configuration.get(kind) or ():
            arn = str(one.get(member) or "")
            if not form.fullmatch(arn):
                raise invalid_argument("The ARN could not be parsed", argument, arn)
            found.append({"Id": one.get("Id") or uuid4_text(), member: arn, **_what(one)})
        if found:
            made[kind] = found
    ids = [one["Id"] for kind in made for one in made[kind]]
    if len(set(ids)) != len(ids):
        raise invalid_argument("Same ID used for multiple configurations. IDs must be unique")
    if configuration.get("EventBridgeConfiguration") is not None:
        made["EventBridgeConfiguration"] = {}
    return made


def _what(one: Mapping[str, Any]) -> dict[str, Any]:
    events = one.get("Events") or []
    if not events:
        raise ServiceError(
            "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"
        )
    for event in events:
        if event.startswith(_NEVER_FIRED):
            raise not_implemented(f"the event {event}")
        if event not in _EVENTS:
            raise invalid_argument("The event is not supported for notifications", "Event", event)
    made: dict[str, Any] = {"Events": list(events)}
    rules = ((one.get("Filter") or {}).get("Key") or {}).get("FilterRules")
    if rules:
        made["Filter"] = {"Key": {"FilterRules": [_filter_rule(rule) for rule in rules]}}
    return made


def _filter_rule(rule: Mapping[str, Any]) -> dict[str, str]:
    name = str(rule.get("Name") or "")
    if name.lower() not in ("prefix", "suffix"):
        raise invalid_argument("filter rule name must be either prefix or suffix", "FilterRule.Name", name)
    return {"Name": name.capitalize(), "Value": str(rule.get("Value") or "")}


def targets(configuration: Mapping[str, Any], event: str, key: str) -> Iterator[tuple[str, str]]:
    """(configuration's id, ARN) of those that hear of `event` ("ObjectCreated:Put") of `key`."""
    for kind, (member, _, _) in KINDS.items():
        for one in configuration.get(kind) or ():
            if matches(one["Events"], one.get("Filter"), event, key):
                yield one["Id"], one[member]


def matches(events: Sequence[str], chosen: Mapping[str, Any] | None, event: str, key: str) -> bool:
    """Whether a configuration with these events and this filter speaks of `event` of `key`."""
    name = f"s3:{event}"
    if not any(one == name or (one.endswith("*") and name.startswith(one[:-1])) for one in events):
        return False
    for rule in ((chosen or {}).get("Key") or {}).get("FilterRules") or ():
        value = rule["Value"]
        fits = key.startswith(value) if rule["Name"].lower() == "prefix" else key.endswith(value)
        if not fits:
            return False
    return True


# --- events


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def _version(event: str) -> str:
    return "2.3" if event.startswith(("ObjectTagging", "ObjectAcl", "LifecycleExpiration")) else "2.1"


def record(
    event: str, at_ms: int, region: str, bucket: str, key: str, version: Version, cause: Cause, configuration_id: str
) -> dict[str, Any]:
    """One record of S3's event message. Deletes have neither size nor ETag; tags and lists no sequencer."""
    told: dict[str, Any] = {"key": quote_plus(key, safe="/-_.~*")}
    if event.startswith("ObjectCreated"):
        told["size"] = version.size
    if not event.startswith(("ObjectRemoved:Delete", "LifecycleExpiration:Delete")) or version.marker:
        told["eTag"] = version.etag or "d41d8cd98f00b204e9800998ecf8427e"
    if event == "ObjectRemoved:Delete":
        told.pop("eTag", None)
    if version.version_id:
        told["versionId"] = version.version_id
    if not event.startswith(("ObjectTagging", "ObjectAcl")):
        told["sequencer"] = f"{version.seq:018X}"
    return {
        "eventVersion": _version(event),
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": _time(at_ms),
        "eventName": event,
        "userIdentity": {"principalId": cause.principal_id or "s3.amazonaws.com"},
        "requestParameters": {"sourceIPAddress": cause.source_ip},
        "responseElements": {"x-amz-request-id": cause.request_id, "x-amz-id-2": cause.request_id},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": configuration_id,
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": OWNER_ID[:14].upper()}, "arn": arn_of(bucket)},
            "object": told,
        },
    }


def bus_event(event: str, at_ms: int, region: str, bucket: str, key: str, version: Version, cause: Cause) -> dict[str, Any]:
    """The event as EventBridge gets it."""
    kind, reason = _BUS[event]
    told: dict[str, Any] = {"key": key}
    if not version.marker and not event.startswith(("ObjectRemoved", "Lifecycle")):
        told["etag"] = version.etag
        if event.startswith("ObjectCreated"):
            told["size"] = version.size
    if version.version_id:
        told["version-id"] = version.version_id
    if not event.startswith(("ObjectTagging", "ObjectAcl")):
        told["sequencer"] = f"{version.seq:018X}"
    detail: dict[str, Any] = {
        "version": "0",
        "bucket": {"name": bucket},
        "object": told,
        "request-id": cause.request_id,
        "requester": ACCOUNT if cause.principal_id else "s3.amazonaws.com",
        "source-ip-address": cause.source_ip,
    }
    if reason:
        detail["reason"] = reason
    if kind == "Object Deleted":
        detail["deletion-type"] = "Delete Marker Created" if version.marker and "Marker" in event else "Permanently Deleted"
    return {
        "version": "0",
        "id": uuid4_text(),
        "detail-type": kind,
        "source": "aws.s3",
        "account": ACCOUNT,
        "time": _time(at_ms)[:-5] + "Z",
        "region": region,
        "resources": [arn_of(bucket)],
        "detail": detail,
    }


def test_event(bucket: str, at_ms: int, request_id: str) -> dict[str, Any]:
    """What queues and topics get when a configuration first names them."""
    return {
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": _time(at_ms),
        "Bucket": bucket,
        "RequestId": request_id,
        "HostId": request_id,
    }
