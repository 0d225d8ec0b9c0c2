"""Operations on subscriptions. Source: SNS API reference, 2010-03-31; recorded answers.

Queues and functions are subscribed at once; an HTTP endpoint is sent a token, and hears messages when that came back.
"""

from __future__ import annotations

import hmac
import json
import re
from typing import Any, Final

import msgspec

from martlet.buses.desk import Request, check_target_permission
from martlet.buses.filters import BadPolicy, check
from martlet.buses.notices import SUBSCRIBED
from martlet.buses.posting import invalid, not_found
from martlet.buses.rows import Subscription, Tables, Token, Topic
from martlet.buses.topics import TopicDesk, page_of
from martlet.clock import token_hex, uuid4_text
from martlet.errors import AccessDenied, ServiceError, Unsupported
from martlet.limits import LIMITS
from martlet.store import keys
from martlet.types import ACCOUNT

__all__ = ["SubscriptionOperations"]

_PROTOCOLS: Final = ("http", "https", "sqs", "lambda")
_REFUSED: Final = ("email", "email-json", "sms", "application", "firehose")
_SETTABLE: Final = ("RawMessageDelivery", "FilterPolicy", "FilterPolicyScope", "RedrivePolicy", "DeliveryPolicy")
_QUEUE = re.compile(r"arn:aws[a-z-]*:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+(\.fifo)?")
_FUNCTION = re.compile(r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:.+")
_PHONE = re.compile(r"\+?[0-9]{1,}([ .-]?[0-9]+)*")
_TOKEN = re.compile(r"[0-9a-f]{200,}")
_TOKEN_BYTES: Final = 144
_ROOT: Final = f"arn:aws:iam::{ACCOUNT}:root"
_LOST: Final = "buses.token.expires"  # (.., until_ms, token) -> nothing: tokens that bring a subscription back
_LOST_MS: Final = 3 * 86_400_000
_SWEEP: Final = 10
PENDING: Final = "pending confirmation"


class SubscriptionOperations(TopicDesk):
    """Subscriptions, their attributes and confirmation."""

    async def subscribe(self, caller: Any, request: Request) -> Request:
        """The subscription that is there when there is one. Raises `ServiceError` InvalidParameter, NotFound; `Unsupported` for
        e-mail, SMS, mobile push and Firehose, by name."""
        protocol, endpoint = str(request.get("Protocol") or ""), str(request.get("Endpoint") or "")
        topic_name = self._name(request.get("TopicArn"))
        attributes = {name: str(value) for name, value in (request.get("Attributes") or {}).items()}
        self._read(lambda tables: self._topic(tables, request.get("TopicArn")))
        self._check_endpoint(protocol, endpoint, topic_name)
        if protocol == "sqs":
            check_target_permission(self._authorize, caller, endpoint)
        self._check_options(attributes, fifo=endpoint.endswith(".fifo"))
        if protocol in _REFUSED:  # only now: what is wrong besides is said first
            raise Unsupported(f"subscriptions of the protocol {protocol} are not supported")

        def put(tables: Tables) -> Subscription:
            topic = self._topic(tables, request.get("TopicArn"))
            found = list(tables.every(Subscription, topic.name))
            for one in found:
                if (one.protocol, one.endpoint) == (protocol, endpoint):
                    if _differ(one.attributes, attributes):
                        raise invalid("Attributes Reason: Subscription already exists with different attributes")
                    if not one.confirmed:  # the endpoint is asked again
                        self._ask(tables, one)
                    return one
            if len(found) >= LIMITS["topic_subscriptions"].default:
                raise ServiceError("SubscriptionLimitExceeded", f"Subscription limit exceeded for topic {topic.name}", 403)
            return self._new(tables, topic, protocol, endpoint, attributes, principal=_arn_of(caller))

        one = await self._write(put)
        shown = one.confirmed or str(request.get("ReturnSubscriptionArn")).lower() == "true"
        return {"SubscriptionArn": self.subscription_arn(one) if shown else PENDING}

    def _new(
        self, tables: Tables, topic: Topic, protocol: str, endpoint: str, attributes: dict[str, str], app: str = "",
        principal: str = "",
    ) -> Subscription:  # fmt: skip
        asked = protocol in ("http", "https")
        one = Subscription(
            topic=topic.name,
            id=uuid4_text(),
            protocol=protocol,
            endpoint=endpoint,
            attributes=attributes,
            confirmed=not asked,
            authenticated=not asked,
            token=token_hex(_TOKEN_BYTES) if asked else "",
            created_at_ms=self._clock.now_ms(),
            principal=principal,
            app=app,
        )
        tables.put(one)
        tables.changed(topic.name)
        if asked:
            tables.put(Token(one.token, one.topic, one.id))
            self._ask(tables, one)
        return one

    @staticmethod
    def _ask(tables: Tables, one: Subscription) -> None:
        tables._tx.append(SUBSCRIBED, f"{one.topic}:{one.id}".encode(), b"")

    def _check_endpoint(self, protocol: str, endpoint: str, topic: str) -> None:
        fifo = topic.endswith(".fifo")
        if protocol == "sms" and not _is_phone(endpoint):
            raise ServiceError("InvalidParameter", f"Invalid SMS endpoint: {endpoint}", 400)
        if protocol not in (*_PROTOCOLS, *_REFUSED):
            raise invalid(f"Amazon SNS does not support this protocol string: {protocol}")
        if protocol == "sqs":
            if not _QUEUE.fullmatch(endpoint):
                raise invalid("SQS endpoint ARN")
            if endpoint.endswith(".fifo") and not fifo:
                raise invalid(
                    "Invalid parameter: Endpoint Reason: FIFO SQS Queues can not be subscribed to standard SNS topics"
                )
        elif fifo and protocol not in _REFUSED:
            raise invalid("Invalid parameter: Endpoint Reason: Please use FIFO SQS queue")
        elif protocol == "lambda" and not _FUNCTION.fullmatch(endpoint):
            raise invalid("Lambda endpoint ARN")
        elif protocol in ("http", "https") and not endpoint.startswith(f"{protocol}://"):
            raise invalid("Endpoint must match the specified protocol")

    def _check_options(self, attributes: dict[str, str], *, fifo: bool) -> None:
        for name, value in attributes.items():
            scope = attributes.get("FilterPolicyScope") or "MessageAttributes"
            self._check_option(name, value, scope, fifo=fifo, prefix="Attributes Reason: ")

    def _check_option(self, name: str, value: str, scope: str, *, fifo: bool, prefix: str = "") -> None:
        if name == "ReplayPolicy":
            raise Unsupported("subscriptions: the attribute ReplayPolicy is not supported")
        if name not in _SETTABLE:
            raise invalid(f"{prefix}Unknown attribute: {name}" if prefix else "AttributeName")
        if name == "RawMessageDelivery" and value.lower() not in ("true", "false"):
            raise invalid(f"{prefix}RawMessageDelivery: Invalid value [{value}]. Must be true or false.")
        if name == "FilterPolicyScope" and value not in ("MessageAttributes", "MessageBody"):
            text = f"FilterPolicyScope: Invalid value [{value}]. Please use either MessageBody or MessageAttributes"
            raise invalid(f"{prefix}{text}")
        if name == "FilterPolicy" and value:
            try:
                check(value, scope, self._compile)
            except BadPolicy as error:
                text = str(error)
                raise invalid(text if text.startswith("Filter policy scope") else prefix + text) from None
        if name == "RedrivePolicy" and value:
            _check_redrive(value, fifo=fifo, prefix=prefix)
        if name == "DeliveryPolicy" and value:
            _json_object(value, f"{prefix}DeliveryPolicy")

    async def confirm_subscription(self, caller: Any, request: Request) -> Request:
        """Raises `ServiceError` InvalidParameter, NotFound."""
        token = str(request.get("Token") or "")
        name = self._name(request.get("TopicArn"))
        if not _TOKEN.fullmatch(token):
            raise ServiceError("InvalidParameter", "Invalid token", 400)
        known = caller is not None and caller.principal.kind != "anonymous"
        authenticated = known and str(request.get("AuthenticateOnUnsubscribe")).lower() == "true"

        def confirm(tables: Tables) -> Subscription:
            found = tables.get(Token, token)  # whatever topic of this region the request names, as the service has it
            one = tables.get(Subscription, found.topic, found.id) if found else self._with_token(tables, name, token)
            if one is None and found is not None:
                one = self._restored(tables, found)
            if one is None:
                raise invalid("Token")
            if not one.confirmed:
                one = msgspec.structs.replace(one, confirmed=True, authenticated=authenticated)
                tables.put(one)
                tables.changed(one.topic)
            return one

        return {"SubscriptionArn": self.subscription_arn(await self._write(confirm))}

    @staticmethod
    def _with_token(tables: Tables, topic: str, token: str) -> Subscription | None:
        """One that was made before tokens had rows of their own."""
        asked = (one for one in tables.every(Subscription, topic) if one.token)
        return next((one for one in asked if hmac.compare_digest(one.token, token)), None)

    async def unsubscribe(self, caller: Any, request: Request) -> None:
        """One that is not there is fine. Raises `ServiceError` InvalidParameter."""
        arn = str(request.get("SubscriptionArn") or "")
        if not arn:
            raise invalid("SubscriptionArn Reason: no value for required parameter")
        parts = arn.split(":")
        if len(parts) < 6:
            raise invalid(f"SubscriptionArn Reason: An ARN must have at least 6 elements, not {len(parts)}")
        if len(parts) != 7 or not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", parts[6]):
            raise invalid("SubscriptionId")
        anonymous = caller is not None and caller.principal.kind == "anonymous"

        def remove(tables: Tables) -> None:
            one = tables.get(Subscription, parts[5], parts[6])
            if one is None:
                return
            if anonymous and (one.authenticated or one.protocol not in ("http", "https")):
                raise AccessDenied(f"anonymous may not sns:Unsubscribe on {arn}", action="sns:Unsubscribe", resource=arn)
            self._drop(tables, one)
            tables.changed(one.topic)
            if one.confirmed and one.protocol in ("http", "https"):
                self._say_farewell(tables, one)

        await self._write(remove)

    def _say_farewell(self, tables: Tables, one: Subscription) -> None:
        """The endpoint is told, with a token that brings the subscription back for some days."""
        tx, now_ms = tables._tx, self._clock.now_ms()
        for old, _ in tx.scan(keys.encode(_LOST), keys.encode(_LOST, now_ms), limit=_SWEEP):
            tx.delete(old)
            tables.delete(Token(str(keys.decode(old)[2]), "", ""))
        token, until_ms = token_hex(_TOKEN_BYTES), now_ms + _LOST_MS
        tables.put(Token(token, one.topic, one.id, one, until_ms))
        tx.put(keys.encode(_LOST, until_ms, token), b"")
        tx.append(SUBSCRIBED, f"{one.topic}:{one.id}".encode(), token.encode())

    def _restored(self, tables: Tables, found: Token) -> Subscription | None:
        """A subscription that ended, back again."""
        if found.lost is None or found.until_ms <= self._clock.now_ms() or tables.get(Topic, found.topic) is None:
            return None
        tables.put(found.lost)
        if found.lost.token:
            tables.put(Token(found.lost.token, found.topic, found.id))
        tables.changed(found.topic)
        return found.lost

    def _subscription(self, tables: Tables, request: Request) -> Subscription:
        parts = str(request.get("SubscriptionArn") or "").split(":")
        if len(parts) < 6:
            raise invalid(f"SubscriptionArn Reason: An ARN must have at least 6 elements, not {len(parts)}")
        found = tables.get(Subscription, parts[5], parts[6]) if len(parts) == 7 else None
        if found is None:
            raise not_found("Subscription")
        return found

    async def get_subscription_attributes(self, caller: Any, request: Request) -> Request:
        one = self._read(lambda tables: self._subscription(tables, request))
        shown = {
            "SubscriptionArn": self.subscription_arn(one),
            "TopicArn": self.topic_arn(one.topic),
            "Owner": ACCOUNT,
            "Protocol": one.protocol,
            "Endpoint": one.endpoint,
            "ConfirmationWasAuthenticated": str(one.authenticated).lower(),
            "PendingConfirmation": str(not one.confirmed).lower(),
            "RawMessageDelivery": "false",
            "SubscriptionPrincipal": one.principal or _ROOT,
        }
        given = {name: value for name, value in one.attributes.items() if value}
        if "FilterPolicy" in given:
            shown["FilterPolicyScope"] = "MessageAttributes"
        else:
            given.pop("FilterPolicyScope", None)  # it is kept, and shown with a policy only
        if "RawMessageDelivery" in given:
            given["RawMessageDelivery"] = given["RawMessageDelivery"].lower()
        return {"Attributes": shown | given}

    async def set_subscription_attributes(self, caller: Any, request: Request) -> None:
        name, value = str(request.get("AttributeName") or ""), str(request.get("AttributeValue") or "")

        def change(tables: Tables) -> None:
            one = self._subscription(tables, request)
            scope = one.attributes.get("FilterPolicyScope") or "MessageAttributes"
            self._check_option(name, value, scope, fifo=one.endpoint.endswith(".fifo"))
            attributes = {**one.attributes, name: value}
            if not value or (name == "FilterPolicy" and json.loads(value) == {}):
                del attributes[name]
            tables.put(msgspec.structs.replace(one, attributes=attributes))
            tables.changed(one.topic)

        await self._write(change)

    async def list_subscriptions(self, caller: Any, request: Request) -> Request:
        found = self._read(lambda tables: [(f"{one.topic}:{one.id}", one) for one in tables.every(Subscription)])
        shown, more = page_of(found, request)
        return {"Subscriptions": [self._listed(one) for one in shown], **more}

    async def list_subscriptions_by_topic(self, caller: Any, request: Request) -> Request:
        def look(tables: Tables) -> list[Subscription]:
            return list(tables.every(Subscription, self._topic(tables, request.get("TopicArn")).name))

        shown, more = page_of([(one.id, one) for one in self._read(look)], request)
        return {"Subscriptions": [self._listed(one) for one in shown], **more}

    def _listed(self, one: Subscription) -> Request:
        return {
            "SubscriptionArn": self.subscription_arn(one) if one.confirmed else "PendingConfirmation",
            "Owner": ACCOUNT,
            "Protocol": one.protocol,
            "Endpoint": one.endpoint,
            "TopicArn": self.topic_arn(one.topic),
        }


def _arn_of(caller: Any) -> str:
    """ARN of who calls."""
    standing = None if caller is None else caller.principal.standing
    return _ROOT if standing is None else str(standing.arn)


def _differ(kept: dict[str, str], asked: dict[str, str]) -> bool:
    """Whether a request says something else than there is; what was not said was said by default."""
    kept = {"RawMessageDelivery": "false", "FilterPolicyScope": "MessageAttributes"} | kept
    switch = "RawMessageDelivery"
    return any(
        kept.get(name, "").lower() != value.lower() if name == switch else kept.get(name) != value
        for name, value in asked.items()
    )


def _is_phone(text: str) -> bool:
    return _PHONE.fullmatch(text) is not None and not re.search(r"[.-]{2}|[ .-]$", text)


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"{where}: failed to parse JSON. {error}") from None
    if not isinstance(found, dict):
        raise invalid(f"{where}: failed to parse JSON.")
    return found


def _check_redrive(text: str, *, fifo: bool, prefix: str) -> None:
    arn = str(_json_object(text, f"{prefix}RedrivePolicy").get("deadLetterTargetArn") or "")
    if not _QUEUE.fullmatch(arn):
        raise invalid(f"{prefix}RedrivePolicy: deadLetterTargetArn is an invalid arn")
    if fifo and not arn.endswith(".fifo"):
        raise invalid(f"{prefix}RedrivePolicy: must use a FIFO queue as DLQ for a FIFO Subscription to a FIFO Topic.")
