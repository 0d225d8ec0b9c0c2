"""Operations on topics. Source: SNS API reference, 2010-03-31; recorded answers."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from martlet.buses.desk import Desk, Request
from martlet.buses.posting import invalid, not_found
from martlet.buses.rows import Subscription, Tables, Token, Topic
from martlet.errors import ServiceError, Unsupported
from martlet.types import ACCOUNT

__all__ = ["TopicDesk", "TopicOperations", "delivery_policy", "page_of"]

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")
_SWITCHES: Final = ("FifoTopic", "ContentBasedDeduplication")
_FEEDBACK = re.compile(
    r"(HTTP|Lambda|SQS|Firehose|Application)(SuccessFeedbackRoleArn|FailureFeedbackRoleArn|SuccessFeedbackSampleRate)"
)
_SETTABLE: Final = (
    *("Policy", "DisplayName", "DeliveryPolicy", "KmsMasterKeyId", "SignatureVersion", "TracingConfig", "FifoThroughputScope"),
    "ContentBasedDeduplication",
)
_ACTIONS: Final = (
    *("GetTopicAttributes", "SetTopicAttributes", "AddPermission", "RemovePermission", "DeleteTopic", "Subscribe"),
    *("ListSubscriptionsByTopic", "Publish"),
)
_RETRY: Final[dict[str, Any]] = {
    "minDelayTarget": 20,
    "maxDelayTarget": 20,
    "numRetries": 3,
    "numMaxDelayRetries": 0,
    "numNoDelayRetries": 0,
    "numMinDelayRetries": 0,
    "backoffFunction": "linear",
}
_TAGS_MAX: Final = 50
_PAGE: Final = 100


class TopicDesk(Desk):
    """What the operations of "sns" work with. `endpoint()` is where the platform's own API answers."""

    def __init__(self, *arguments: Any, endpoint: Callable[[], str], **options: Any) -> None:
        """See `Desk.__init__`."""
        super().__init__(*arguments, **options)
        self.endpoint = endpoint

    def topic_arn(self, name: str) -> str:
        return f"arn:aws:sns:{self.region}:{ACCOUNT}:{name}"

    def subscription_arn(self, one: Subscription) -> str:
        return f"{self.topic_arn(one.topic)}:{one.id}"

    def _name(self, arn: Any, member: str = "TopicArn") -> str:
        """The name in a topic's ARN. Raises `ServiceError` InvalidParameter."""
        parts = str(arn or "").split(":")
        if len(parts) < 6:
            raise invalid(f"{member} Reason: An ARN must have at least 6 elements, not {len(parts)}")
        if parts[2] != "sns" or parts[3] != self.region or len(parts) > 6:
            raise invalid(member)
        return parts[5] if parts[4] == ACCOUNT else f"\0{parts[5]}"  # of another account: there is none here

    def _topic(self, tables: Tables, arn: Any) -> Topic:
        """The topic. Raises `ServiceError` InvalidParameter, NotFound."""
        name = self._name(arn)
        found = tables.get(Topic, name) if not name.startswith("\0") else None
        if found is None:
            raise not_found()
        return found

    @staticmethod
    def _drop(tables: Tables, one: Subscription) -> None:
        tables.delete(one)
        if one.token:
            tables.delete(Token(one.token, one.topic, one.id))


class TopicOperations(TopicDesk):
    """Topics, their attributes, tags and permissions."""

    async def create_topic(self, caller: Any, request: Request) -> Request:
        """The topic that is there when it has the same attributes and tags. Raises `ServiceError` InvalidParameter."""
        name = str(request.get("Name") or "")
        if request.get("DataProtectionPolicy"):
            raise Unsupported("topics: the parameter DataProtectionPolicy is not supported: messages are not inspected")
        given = {key: str(value) for key, value in (request.get("Attributes") or {}).items()}
        fifo = given.get("FifoTopic", "").lower() == "true"
        if not _NAME.fullmatch(name.removesuffix(".fifo")) or name.endswith(".fifo") != fifo or len(name) > 256:
            raise invalid("Topic Name")
        tags = _tags(request.get("Tags"))
        for attribute, value in given.items():
            if attribute != "FifoTopic":
                self._check_attribute(attribute, value, fifo=fifo, prefix="Attributes Reason: ")

        def create(tables: Tables) -> None:
            before = tables.get(Topic, name)
            if before is None:
                kept = {key: value.lower() if key in _SWITCHES else value for key, value in given.items()}
                if not fifo:
                    kept.pop("FifoTopic", None)
                tables.put(Topic(name=name, created_at_ms=self._clock.now_ms(), attributes=kept, tags=tags))
                return
            shown = self._shown(tables, before)
            if any(shown.get(key) != value for key, value in given.items() if value != "false" or key in shown):
                raise invalid("Attributes Reason: Topic already exists with different attributes")
            if request.get("Tags") is not None and not tags.items() <= before.tags.items():
                raise invalid("Tags Reason: Topic already exists with different tags")

        await self._write(create)
        return {"TopicArn": self.topic_arn(name)}

    async def delete_topic(self, caller: Any, request: Request) -> None:
        """With its subscriptions; one that is not there is fine."""
        name = self._name(request.get("TopicArn"))

        def delete(tables: Tables) -> None:
            topic = tables.get(Topic, name)
            if topic is None:
                return
            for one in list(tables.every(Subscription, name)):
                self._drop(tables, one)
            tables.delete(topic)
            tables.changed(name)

        await self._write(delete)

    async def list_topics(self, caller: Any, request: Request) -> Request:
        found = self._read(lambda tables: [(one.name, {"TopicArn": self.topic_arn(one.name)}) for one in tables.every(Topic)])
        shown, more = page_of(found, request)
        return {"Topics": shown, **more}

    async def get_topic_attributes(self, caller: Any, request: Request) -> Request:
        return {"Attributes": self._read(lambda tables: self._shown(tables, self._topic(tables, request.get("TopicArn"))))}

    def _shown(self, tables: Tables, topic: Topic) -> dict[str, str]:
        confirmed = pending = 0
        for one in tables.every(Subscription, topic.name):
            confirmed, pending = confirmed + one.confirmed, pending + (not one.confirmed)
        shown = {
            "TopicArn": self.topic_arn(topic.name),
            "Owner": ACCOUNT,
            "Policy": self._default_policy(topic.name),
            "DisplayName": "",
            "SubscriptionsPending": str(pending),
            "SubscriptionsConfirmed": str(confirmed),
            "SubscriptionsDeleted": "0",
            "EffectiveDeliveryPolicy": json.dumps(delivery_policy(topic), separators=(",", ":")),
        }
        if topic.name.endswith(".fifo"):
            shown |= {"ContentBasedDeduplication": "false"}
        return shown | topic.attributes

    def _default_policy(self, name: str) -> str:
        statement = {
            "Sid": "__default_statement_ID",
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": [f"SNS:{action}" for action in _ACTIONS],
            "Resource": self.topic_arn(name),
            "Condition": {"StringEquals": {"AWS:SourceOwner": ACCOUNT}},
        }
        return json.dumps(
            {"Version": "2008-10-17", "Id": "__default_policy_ID", "Statement": [statement]}, separators=(",", ":")
        )

    async def set_topic_attributes(self, caller: Any, request: Request) -> None:
        name, value = str(request.get("AttributeName") or ""), str(request.get("AttributeValue") or "")

        def change(tables: Tables) -> None:
            topic = self._topic(tables, request.get("TopicArn"))
            self._check_attribute(name, value, fifo=topic.name.endswith(".fifo"))
            attributes = {**topic.attributes, name: value.lower() if name in _SWITCHES else value}
            if not value and name != "DisplayName":
                del attributes[name]
            tables.put(msgspec.structs.replace(topic, attributes=attributes))
            tables.changed(topic.name)

        await self._write(change)

    def _check_attribute(self, name: str, value: str, *, fifo: bool, prefix: str = "") -> None:
        if name in ("ArchivePolicy", "DataProtectionPolicy") or _FEEDBACK.fullmatch(name):
            raise Unsupported(f"topics: the attribute {name} is not supported")
        if name not in _SETTABLE:
            raise invalid("AttributeName" if not prefix else f"{prefix}Unknown attribute {name}")
        if name in ("ContentBasedDeduplication", "FifoThroughputScope") and not fifo:
            raise invalid(f"{prefix}{name}: is only for FIFO topics")
        if name == "ContentBasedDeduplication" and value.lower() not in ("true", "false"):
            raise invalid(f"{prefix}{name}: Invalid value [{value}]. Must be true or false.")
        if name == "SignatureVersion" and value not in ("1", "2"):
            raise invalid(f"{prefix}SignatureVersion: Invalid value [{value}]. Must be 1 or 2.")
        if name == "FifoThroughputScope" and value not in ("Topic", "MessageGroup"):
            raise invalid(f"{prefix}FifoThroughputScope: Invalid value [{value}].")
        if name in ("Policy", "DeliveryPolicy") and value:
            try:
                found = json.loads(value)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise invalid(f"{prefix}{name}: failed to parse JSON")

    async def add_permission(self, caller: Any, request: Request) -> None:
        """A statement of the topic's policy. Raises `ServiceError` InvalidParameter, NotFound."""
        label, actions = str(request.get("Label") or ""), list(request.get("ActionName") or ())
        accounts = list(request.get("AWSAccountId") or ())

        def add(tables: Tables) -> None:
            topic = self._topic(tables, request.get("TopicArn"))
            if any(action != "*" and action not in _ACTIONS for action in actions) or not actions:
                raise invalid("Policy statement action out of service scope!")
            policy = json.loads(topic.attributes.get("Policy") or self._default_policy(topic.name))
            if any(one.get("Sid") == label for one in policy["Statement"]):
                raise invalid("Statement already exists")
            principals = [f"arn:aws:iam::{account}:root" for account in accounts]
            names = [f"SNS:{action}" for action in actions]
            policy["Statement"].append(
                {
                    "Sid": label,
                    "Effect": "Allow",
                    "Principal": {"AWS": principals[0] if len(principals) == 1 else principals},
                    "Action": names[0] if len(names) == 1 else names,
                    "Resource": self.topic_arn(topic.name),
                }
            )
            self._set_policy(tables, topic, policy)

        await self._write(add)

    async def remove_permission(self, caller: Any, request: Request) -> None:
        def remove(tables: Tables) -> None:
            topic = self._topic(tables, request.get("TopicArn"))
            policy = json.loads(topic.attributes.get("Policy") or self._default_policy(topic.name))
            policy["Statement"] = [one for one in policy["Statement"] if one.get("Sid") != request.get("Label")]
            self._set_policy(tables, topic, policy)

        await self._write(remove)

    @staticmethod
    def _set_policy(tables: Tables, topic: Topic, policy: dict[str, Any]) -> None:
        text = json.dumps(policy, separators=(",", ":"))
        tables.put(msgspec.structs.replace(topic, attributes={**topic.attributes, "Policy": text}))

    async def tag_resource(self, caller: Any, request: Request) -> None:
        tags = _tags(request.get("Tags"))

        def tag(tables: Tables) -> None:
            topic = self._tagged(tables, request)
            merged = {**topic.tags, **tags}
            if len(merged) > _TAGS_MAX:
                raise ServiceError("TagLimitExceeded", "Could not complete request: tag quota of per resource exceeded", 400)
            tables.put(msgspec.structs.replace(topic, tags=merged))

        await self._write(tag)

    async def untag_resource(self, caller: Any, request: Request) -> None:
        gone = set(request.get("TagKeys") or ())

        def untag(tables: Tables) -> None:
            topic = self._tagged(tables, request)
            left = {key: value for key, value in topic.tags.items() if key not in gone}
            tables.put(msgspec.structs.replace(topic, tags=left))

        await self._write(untag)

    async def list_tags_for_resource(self, caller: Any, request: Request) -> Request:
        topic = self._read(lambda tables: self._tagged(tables, request))
        return {"Tags": [{"Key": key, "Value": value} for key, value in topic.tags.items()]}

    def _tagged(self, tables: Tables, request: Request) -> Topic:
        name = str(request.get("ResourceArn") or "").rpartition(":")[2]
        found = tables.get(Topic, name)
        if found is None:
            raise ServiceError("ResourceNotFound", "Resource does not exist", 404)
        return found


def delivery_policy(topic: Topic, subscription: Subscription | None = None) -> dict[str, Any]:
    """How HTTP deliveries are tried again: the topic's, and what its subscription says otherwise."""
    own = (json.loads(topic.attributes.get("DeliveryPolicy") or "{}").get("http") or {}) if topic.attributes else {}
    policy: dict[str, Any] = {
        "defaultHealthyRetryPolicy": _RETRY | (own.get("defaultHealthyRetryPolicy") or {}),
        "disableSubscriptionOverrides": bool(own.get("disableSubscriptionOverrides", False)),
        "defaultRequestPolicy": {"headerContentType": "text/plain; charset=UTF-8"} | (own.get("defaultRequestPolicy") or {}),
    }
    for name in ("defaultThrottlePolicy",):
        if own.get(name):
            policy[name] = own[name]
    if subscription is None or policy["disableSubscriptionOverrides"]:
        return {"http": policy}
    said = json.loads(subscription.attributes.get("DeliveryPolicy") or "{}")
    policy["defaultHealthyRetryPolicy"] |= said.get("healthyRetryPolicy") or {}
    policy["defaultRequestPolicy"] |= said.get("requestPolicy") or {}
    return {"http": policy}


def _tags(given: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    pairs = list(given or ())
    tags = {str(one["Key"]): str(one.get("Value") or "") for one in pairs}
    if len(tags) != len(pairs):
        raise invalid("Duplicated keys are not allowed.")
    if len(tags) > _TAGS_MAX:
        raise ServiceError("TagLimitExceeded", "Could not complete request: tag quota of per resource exceeded", 400)
    return tags


def page_of(items: Iterable[tuple[str, T]], request: Mapping[str, Any]) -> tuple[list[T], dict[str, str]]:
    """One page of (place, item) in their order, and {"NextToken"} if more follow."""
    after = ""
    if request.get("NextToken"):
        try:
            after = base64.urlsafe_b64decode(str(request["NextToken"]).encode()).decode()
        except (binascii.Error, ValueError):
            raise invalid("NextToken") from None
    left = [(place, item) for place, item in items if place > after]
    shown = [item for _, item in left[:_PAGE]]
    if len(left) <= _PAGE:
        return shown, {}
    return shown, {"NextToken": base64.urlsafe_b64encode(left[_PAGE - 1][0].encode()).decode()}
