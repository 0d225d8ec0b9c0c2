"""Topics: who hears a message, in which form, and how it gets there.

Queues take it in the very commit that moves the loop's cursor, so that a FIFO topic's queue has its order; functions get it
into their asynchronous queue; HTTP endpoints are called, and tried again as the delivery policy says. Source: SNS developer
guide, "Message delivery retries" and "Amazon SNS dead-letter queues".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from martlet.buses import Sns, notices
from martlet.buses.filters import compiled
from martlet.buses.notices import NOTICED, SUBSCRIBED, Notice
from martlet.buses.rows import CHANGED, Subscription, Tables, Token, Topic
from martlet.buses.topics import delivery_policy
from martlet.clock import uuid4_text
from martlet.errors import MartletError, Throttled, Unsupported
from martlet.store import LogEntry, Store, Tx
from martlet.triggers.calls import Calls
from martlet.triggers.destinations import Destinations, Message, may_pass
from martlet.triggers.event import Event, event_id
from martlet.triggers.kinds.bus import backoff_ms
from martlet.triggers.source import Attempt

__all__ = ["TopicSource"]

_RETRIES: Final = 100_015  # SNS: to queues and functions, over 23 days
_AGE_SECONDS: Final = 23 * 86_400
_SECONDS: Final = 15.0  # SNS: an endpoint that has not answered by then has failed
_AGENT: Final = "Amazon Simple Notification Service Agent"
_SERVICE: Final = "sns.amazonaws.com"
_SENDER: Final = "AIDAIT2UOQQY3AUEKVGXU"
_CONFIRM: Final = (
    "You have chosen to subscribe to the topic {arn}.\n"
    "To confirm the subscription, visit the SubscribeURL included in this message."
)
_FAREWELL: Final = (
    "You have chosen to deactivate subscription {arn}.\n"
    "To cancel this operation and restore the subscription, visit the SubscribeURL included in this message."
)
_DECODE: Final = msgspec.json.Decoder(Notice).decode
_ENCODE: Final = msgspec.json.Encoder().encode


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message on its way to one subscription brings along."""

    topic: str  # ARN
    subscription: str  # ARN
    id: str = ""  # of the message
    kind: str = "Notification"
    raw: bool = False
    attributes: dict[str, tuple[str, str]] = {}
    group: str = ""
    deduplication_id: str = ""
    trace: str = ""
    retry: dict[str, Any] = {}
    content_type: str = ""
    dead_letter: str = ""
    dead: bool = False
    trusted: bool = False


_DETAILS: Final = msgspec.json.Decoder(Details).decode
_Reader = tuple[Subscription, Callable[[Notice], bool] | None]


class TopicSource:
    """The source "topic" of the delivery loop."""

    name = "topic"
    topics = (NOTICED, SUBSCRIBED, CHANGED)

    def __init__(
        self, store: Store, sns: Sns, destinations: Destinations, calls: Calls, compile_pattern: Callable[[str], Any]
    ) -> None:
        self._store = store
        self._sns = sns
        self._to = destinations
        self._calls = calls
        self._compile = compile_pattern
        self._readers: dict[str, tuple[Topic | None, list[_Reader]]] = {}

    # --- which

    def anew(self) -> None:
        self._readers.clear()

    def match(self, entry: LogEntry) -> Sequence[Event] | None:
        if entry.topic == CHANGED:
            self._readers.pop(entry.key.decode(), None)
            return None
        if entry.topic == SUBSCRIBED:
            return self._confirmation(entry)
        notice = _DECODE(entry.body)
        topic, readers = self._readers_of(notice.topic)
        return [] if topic is None else list(self._for_readers(entry, topic, readers, notice))

    def _readers_of(self, name: str) -> tuple[Topic | None, list[_Reader]]:
        found = self._readers.get(name)
        if found is None:
            found = self._readers[name] = self._store.read(lambda reader: self._look(Tables(reader), name))
        return found

    def _look(self, tables: Tables, name: str) -> tuple[Topic | None, list[_Reader]]:
        readers: list[_Reader] = []
        for one in tables.every(Subscription, name):
            if one.confirmed:
                scope = one.attributes.get("FilterPolicyScope") or "MessageAttributes"
                readers.append((one, compiled(one.attributes.get("FilterPolicy") or "", scope, self._compile)))
        return tables.get(Topic, name), readers

    def _for_readers(self, entry: LogEntry, topic: Topic, readers: list[_Reader], notice: Notice) -> Iterator[Event]:
        arn = self._sns.topic_arn(topic.name)
        signed: dict[str, dict[str, str]] = {}  # by the text, which may differ by protocol
        for one, lets in readers:
            if lets is not None and not lets(notice):
                continue
            raw = one.attributes.get("RawMessageDelivery", "").lower() == "true" and one.protocol != "lambda"
            text = notice.text(one.protocol)
            if raw:
                body = text
            else:
                if text not in signed:
                    signed[text] = self._signed(topic, notice, text)
                unsubscribe = f"{self._sns.endpoint()}/?Action=Unsubscribe&SubscriptionArn={self._sns.subscription_arn(one)}"
                body = notices.envelope(notice, one.protocol, arn, unsubscribe, signed[text])
            yield self._event(entry, topic, one, body, self._details(topic, one, notice, raw=raw))

    def _signed(self, topic: Topic, notice: Notice, text: str) -> dict[str, str]:
        if topic.name.endswith(".fifo"):
            return {}
        members = {
            "Type": "Notification",
            "Message": text,
            "MessageId": notice.id,
            "Subject": notice.subject,
            "Timestamp": notices.stamp(notice.at_ms),
            "TopicArn": self._sns.topic_arn(topic.name),
        }
        return self._sns.signer.signed(notices.signable(members), topic.attributes.get("SignatureVersion", "1"))

    def _details(self, topic: Topic, one: Subscription, notice: Notice, *, raw: bool) -> Details:
        policy = delivery_policy(topic, one)["http"] if one.protocol in ("http", "https") else {}
        redrive = json.loads(one.attributes.get("RedrivePolicy") or "{}")
        return Details(
            topic=self._sns.topic_arn(topic.name),
            subscription=self._sns.subscription_arn(one),
            id=notice.id,
            raw=raw,
            attributes=notice.attributes if raw else {},
            group=notice.group,
            deduplication_id=notice.deduplication_id,
            trace=notice.trace,
            retry=policy.get("defaultHealthyRetryPolicy", {}),
            content_type=str(policy.get("defaultRequestPolicy", {}).get("headerContentType", "")),
            dead_letter=str(redrive.get("deadLetterTargetArn", "")),
            trusted=bool(one.app),
        )

    def _event(self, entry: LogEntry, topic: Topic, one: Subscription, body: str, details: Details) -> Event:
        return Event(
            id=event_id("topic", entry.seq, one.id),
            source=self.name,
            app=one.app,
            trigger=topic.name,
            function=one.endpoint.rpartition("function:")[2] if one.protocol == "lambda" else "",
            payload=msgspec.Raw(_ENCODE(body)),
            target=one.endpoint,
            details=msgspec.Raw(_ENCODE(details)),
        )

    def _confirmation(self, entry: LogEntry) -> Sequence[Event]:
        """An endpoint is asked whether it wants to hear, or told that it does not any more."""
        name, _, id = entry.key.decode().partition(":")
        token = entry.body.decode()
        one, topic = self._store.read(lambda reader: _asked(Tables(reader), name, id, token))
        if one is None or topic is None or (one.confirmed and not token):
            return ()
        arn, subscription = self._sns.topic_arn(name), self._sns.subscription_arn(one)
        kind = "UnsubscribeConfirmation" if token else "SubscriptionConfirmation"
        token = token or one.token
        members = {
            "Type": kind,
            "MessageId": uuid4_text(),
            "Token": token,
            "TopicArn": arn,
            "Message": _FAREWELL.format(arn=subscription) if one.confirmed else _CONFIRM.format(arn=arn),
            "SubscribeURL": f"{self._sns.endpoint()}/?Action=ConfirmSubscription&TopicArn={quote(arn, safe=':')}&Token={token}",
            "Timestamp": notices.stamp(entry.at_ms),
        }
        signer, version = self._sns.signer, topic.attributes.get("SignatureVersion", "1")
        body = notices.confirmation(members | signer.signed(notices.signable(members), version))
        policy = delivery_policy(topic, one)["http"]
        details = Details(
            topic=arn,
            subscription=subscription,
            id=members["MessageId"],
            kind=kind,
            retry=policy["defaultHealthyRetryPolicy"],
            content_type=policy["defaultRequestPolicy"]["headerContentType"],
        )
        return [self._event(entry, topic, one, body, details)]

    # --- how

    def place(self, tx: Tx, event: Event) -> Callable[[], None] | None:
        if not event.target.startswith("arn:") or event.target.split(":")[2] != "sqs":
            return None
        try:
            return self._to.put(tx, event.target, _message(event), by=(_SERVICE, _DETAILS(event.details).topic))
        except MartletError:
            return None  # `carry` finds out again, and says so

    async def carry(self, event: Event) -> None:
        details = _DETAILS(event.details)
        text = msgspec.json.decode(event.payload, type=str)
        if event.target.startswith(("http://", "https://")):
            headers = _headers(event, details)
            await self._calls.call("POST", event.target, headers, text.encode(), _SECONDS)
        elif ":lambda:" in event.target:
            payload = notices.function_event(text, details.subscription)
            await self._to.invoke(event.target, payload, event.id, _SERVICE, details.topic, trusted=details.trusted)
        elif ":sqs:" in event.target:
            await self._to.send(event.target, _message(event), by=(_SERVICE, details.topic))
        else:
            raise Unsupported(f"the endpoint {event.target} is not supported")

    # --- and if not

    def again(self, attempt: Attempt) -> int | None:
        details = _DETAILS(attempt.event.details)
        if not details.retry:
            return backoff_ms(attempt, {}, _RETRIES, _AGE_SECONDS)
        if isinstance(attempt.error, Throttled):
            return backoff_ms(attempt, {}, _RETRIES, _AGE_SECONDS)
        if not may_pass(attempt.error):
            return None
        return _delay_ms(details.retry, attempt.attempts)

    def instead(self, attempt: Attempt) -> Event | None:
        event = attempt.event
        details = _DETAILS(event.details)
        if not details.dead_letter or details.dead:
            return None
        dead = msgspec.structs.replace(details, dead=True, dead_letter="", retry={})
        return msgspec.structs.replace(
            event, id=event_id("dead", event.id), target=details.dead_letter, details=msgspec.Raw(_ENCODE(dead))
        )


def _asked(tables: Tables, topic: str, id: str, token: str) -> tuple[Subscription | None, Topic | None]:
    """The subscription that is asked or, with the token that brings it back, that has ended; and its topic."""
    found = tables.get(Token, token) if token else None
    return found.lost if found else tables.get(Subscription, topic, id), tables.get(Topic, topic)


def _message(event: Event) -> Message:
    details = _DETAILS(event.details)
    fifo = event.target.endswith(".fifo")
    attributes: dict[str, tuple[str, str | bytes]] = {
        name: (kind, base64.b64decode(value) if kind.startswith("Binary") else value)
        for name, (kind, value) in details.attributes.items()
    }
    text = msgspec.json.decode(event.payload, type=str)
    group = details.group if fifo or not details.topic.endswith(".fifo") else ""  # whose order a standard queue cannot keep
    return Message(text, attributes, group, details.deduplication_id if fifo else "", _SENDER, details.trace)


def _headers(event: Event, details: Details) -> list[tuple[str, str]]:
    headers = [
        ("x-amz-sns-message-type", details.kind),
        ("x-amz-sns-message-id", details.id),
        ("x-amz-sns-topic-arn", details.topic),
        ("Content-Type", details.content_type or "text/plain; charset=UTF-8"),
        ("User-Agent", _AGENT),
        ("Accept-Encoding", "gzip,deflate"),
    ]
    if details.kind == "Notification":
        headers.append(("x-amz-sns-subscription-arn", details.subscription))
    if details.raw:
        headers.append(("x-amz-sns-rawdelivery", "true"))
    return headers


def _delay_ms(policy: Mapping[str, Any], attempts: int) -> int | None:
    """How long until retry number `attempts`, by a delivery policy; None: that was the last. The phases: at once, at the least
    delay, growing, at the most delay."""
    retries = int(policy.get("numRetries", 3))
    if attempts > retries:
        return None
    least, most = float(policy.get("minDelayTarget", 20)), float(policy.get("maxDelayTarget", 20))
    at_once = int(policy.get("numNoDelayRetries", 0))
    low, high = int(policy.get("numMinDelayRetries", 0)), int(policy.get("numMaxDelayRetries", 0))
    if attempts <= at_once:
        return 0
    if attempts <= at_once + low:
        return int(least * 1000)
    growing = retries - at_once - low - high
    step = attempts - at_once - low
    if step > growing or growing <= 1:
        return int((most if step > growing else least) * 1000)
    share = (step - 1) / (growing - 1)
    kind = policy.get("backoffFunction", "linear")
    if kind == "exponential":
        share = (2.0 ** (step - 1) - 1) / (2.0 ** (growing - 1) - 1) if growing < 500 else share
    elif kind == "geometric":
        share = share**2
    elif kind == "arithmetic":
        share = share**1.5
    return int((least + (most - least) * share) * 1000)
