"""The service "sns": Amazon SNS's operations, from request to answer as dicts in the API's own members.

A message is one entry of the change log, written before it is acknowledged; who hears it is decided by whoever reads the log.
In a FIFO topic what repeats a deduplication id within five minutes is acknowledged again and goes no further.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from martlet.buses import posting
from martlet.buses.desk import Request
from martlet.buses.notices import NOTICED, Notice
from martlet.buses.posting import invalid
from martlet.buses.rows import Tables, Topic
from martlet.buses.signing import Signer
from martlet.buses.subscriptions import SubscriptionOperations
from martlet.buses.topics import TopicOperations
from martlet.clock import uuid4_text
from martlet.errors import ServiceError, Unsupported
from martlet.store import Tx, keys

__all__ = ["Sns"]

_SEEN: Final = "buses.seen"  # (.., topic, scope, deduplication id) -> (message id, sequence number, when)
_EXPIRES: Final = "buses.seen.expires"  # (.., at_ms, topic, scope, deduplication id) -> nothing
_REMEMBER_MS: Final = 300_000
_SWEEP: Final = 10
_FIRST: Final = 10_000_000_000_000_000_000
_BATCH: Final = 10
_ID = re.compile(r"[A-Za-z0-9_-]*")
_TEXT = re.compile(r"[!-~]{1,128}")
_PHONE = re.compile(r"\+[0-9]{5,15}")
_ENCODE: Final = msgspec.json.Encoder().encode


class Sns(TopicOperations, SubscriptionOperations):
    """Amazon SNS. `signer` signs what goes out."""

    def __init__(self, *arguments: Any, signer: Signer, **options: Any) -> None:
        """See `TopicDesk.__init__`."""
        super().__init__(*arguments, **options)
        self.signer = signer

    async def start(self) -> None:
        """The key is there when messages can be."""
        if self._read(lambda tables: next(tables.every(Topic), None)) is not None:
            await self.signer.open()

    async def create_topic(self, caller: Any, request: Request) -> Request:
        await self.signer.open()
        return await super().create_topic(caller, request)

    def permission(self, operation: str, request: Request) -> tuple[str, str]:
        """(action, resource) that a caller needs; the resource is an ARN, or "*"."""
        action = {"PublishBatch": "Publish"}.get(operation, operation)
        arn = request.get("TopicArn") or request.get("TargetArn") or request.get("ResourceArn")
        if not arn and operation == "CreateTopic" and request.get("Name"):
            arn = self.topic_arn(str(request["Name"]))
        if not arn and request.get("SubscriptionArn"):
            arn = str(request["SubscriptionArn"]).rpartition(":")[0]
        return f"sns:{action}", str(arn or "*")

    async def publish(self, caller: Any, request: Request) -> Request:
        """Raises `ServiceError` InvalidParameter, ParameterValueInvalid, NotFound; `Unsupported` for phones and push."""
        if request.get("PhoneNumber") is not None:
            number = str(request["PhoneNumber"])
            if not _PHONE.fullmatch(number):
                raise invalid(f"PhoneNumber Reason: {number} is not valid to publish to")
            raise Unsupported("publishing to phone numbers (SMS) is not supported")
        arn = request.get("TopicArn") if request.get("TopicArn") is not None else request.get("TargetArn")
        if ":endpoint/" in str(arn):
            raise invalid("TargetArn Reason: No endpoint found for the target arn specified")
        posting.check_message(request.get("Message"))
        name = self._name(arn)
        draft = self._draft(name, request, trace=_trace(caller))
        posting.check_size(posting.size_of(str(request["Message"]), draft.attributes))
        self._read(lambda tables: self._topic(tables, arn))
        kept = await self._store.transact(lambda tx: self._keep(tx, arn, draft))
        return {"MessageId": kept.id, "SequenceNumber": kept.sequence or None}

    async def publish_batch(self, caller: Any, request: Request) -> Request:
        """All of them in one commit. Raises as `publish` does, and for batches that are none."""
        entries = request.get("PublishBatchRequestEntries") or []
        _check_batch(entries)
        name = self._name(request.get("TopicArn"))
        self._read(lambda tables: self._topic(tables, request.get("TopicArn")))
        drafts = []
        size = 0
        for number, entry in enumerate(entries, 1):
            posting.check_message(entry.get("Message"))
            draft = self._draft(name, entry, f"publishBatchRequestEntries.{number}.member.", trace=_trace(caller))
            size += posting.size_of(str(entry["Message"]), draft.attributes)
            drafts.append(draft)
        if size > posting.MOST_BYTES:
            raise ServiceError(
                "BatchRequestTooLong", "The length of all the messages put together is more than the limit.", 400
            )
        arn = request.get("TopicArn")
        kept = await self._store.transact(lambda tx: [self._keep(tx, arn, draft) for draft in drafts])
        done = [
            {"Id": entry["Id"], "MessageId": one.id, "SequenceNumber": one.sequence or None}
            for entry, one in zip(entries, kept, strict=True)
        ]
        return {"Successful": done, "Failed": []}

    def has(self, arn: str) -> bool:
        """Whether there is such a topic."""
        try:
            self._read(lambda tables: self._topic(tables, arn))
        except ServiceError:
            return False
        return True

    def put(self, tx: Tx, arn: str, message: str, *, attributes: Mapping[str, Any] | None = None, subject: str = "") -> None:
        """Publish within the caller's transaction: for other rooms. Raises `ServiceError`."""
        request = {"Message": message, "MessageAttributes": attributes or None, "Subject": subject or None}
        self._keep(tx, arn, self._draft(self._name(arn), request))

    def _draft(self, name: str, request: Request, path: str = "", *, trace: str = "") -> Notice:
        """The message as it will be kept, but for its place. Raises `ServiceError`."""
        posting.check_subject(request.get("Subject"))
        attributes = posting.attributes_of(request.get("MessageAttributes"), path)
        message = posting.check_message(request.get("Message"))
        texts: dict[str, str] = {}
        if request.get("MessageStructure") is not None:
            if request["MessageStructure"] != "json":
                raise invalid(f"MessageStructure: Invalid value [{request['MessageStructure']}]. Must be json.")
            message, texts = posting.structured(message)
        group, id = request.get("MessageGroupId"), request.get("MessageDeduplicationId")
        fifo = name.endswith(".fifo")
        if fifo and not group:
            raise invalid("The MessageGroupId parameter is required for FIFO topics")
        if not fifo and id:
            raise invalid(
                "MessageDeduplicationId Reason: The request includes MessageDeduplicationId parameter that is not valid for "
                "this topic type"
            )
        for member, value in (("MessageGroupId", group), ("MessageDeduplicationId", id)):
            if value is not None and not _TEXT.fullmatch(str(value)):
                raise invalid(f"{member} can only include alphanumeric and punctuation characters. 1 to 128 in length")
        return Notice(
            topic=name,
            id=uuid4_text(),
            message=message,
            at_ms=self._clock.now_ms(),
            subject=request.get("Subject"),
            texts=texts,
            attributes=attributes,
            group=str(group or ""),
            deduplication_id=str(id or ""),
            trace=trace,
        )

    def _keep(self, tx: Tx, arn: Any, draft: Notice) -> Notice:
        """Write the message into the log, or find the one that it repeats."""
        tables = Tables(tx)
        topic = self._topic(tables, arn)
        if topic.name.endswith(".fifo"):
            return self._keep_in_order(tx, tables, topic, draft)
        tx.append(NOTICED, topic.name.encode(), _ENCODE(draft))
        return draft

    def _keep_in_order(self, tx: Tx, tables: Tables, topic: Topic, draft: Notice) -> Notice:
        id = draft.deduplication_id
        if not id:
            if topic.attributes.get("ContentBasedDeduplication") != "true":
                raise invalid(
                    "The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
                    "explicitly"
                )
            id = hashlib.sha256(draft.message.encode()).hexdigest()
        scope = draft.group if topic.attributes.get("FifoThroughputScope") == "MessageGroup" else ""
        now_ms = draft.at_ms
        key = keys.encode(_SEEN, topic.name, scope, id)
        raw = tx.get(key)
        if raw is not None:
            message_id, sequence, seen_ms = msgspec.msgpack.decode(raw)
            if now_ms - seen_ms < _REMEMBER_MS:
                return msgspec.structs.replace(draft, id=message_id, sequence=sequence)
        for old, _ in tx.scan(keys.encode(_EXPIRES), keys.encode(_EXPIRES, now_ms), limit=_SWEEP):
            parts = keys.decode(old)
            tx.delete(old)
            stale = keys.encode(_SEEN, *parts[2:])
            before = tx.get(stale)
            if before is not None and now_ms - msgspec.msgpack.decode(before)[2] >= _REMEMBER_MS:
                tx.delete(stale)
        sequence = str(_FIRST + topic.sequence)
        tables.put(msgspec.structs.replace(topic, sequence=topic.sequence + 1))
        tx.put(key, msgspec.msgpack.encode((draft.id, sequence, now_ms)))
        tx.put(keys.encode(_EXPIRES, now_ms + _REMEMBER_MS, topic.name, scope, id), b"")
        kept = msgspec.structs.replace(draft, sequence=sequence, deduplication_id=id)
        tx.append(NOTICED, topic.name.encode(), _ENCODE(kept))
        return kept


def _trace(caller: Any) -> str:
    return str(getattr(caller, "trace_id", ""))


def _check_batch(entries: list[Mapping[str, Any]]) -> None:
    if not entries:
        raise ServiceError("EmptyBatchRequest", "The batch request doesn't contain any entries.", 400)
    if len(entries) > _BATCH:
        raise ServiceError("TooManyEntriesInBatchRequest", "The batch request contains more entries than permissible.", 400)
    seen = set()
    for entry in entries:
        id = str(entry.get("Id") or "")
        if not _ID.fullmatch(id) or not id:
            text = f"The Id of a batch entry in the batch request contains an impermissible character: {id}"
            raise ServiceError("InvalidBatchEntryId", text, 400)
        if len(id) > 80:
            raise ServiceError("InvalidBatchEntryId", f"The Id of a batch entry in the batch request is too long: {id}", 400)
        if id in seen:
            raise ServiceError("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id.", 400)
        seen.add(id)
