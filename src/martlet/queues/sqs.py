"""The operations of Amazon SQS, from request to answer as dicts in the API's own members. Errors are `ServiceError`.

Source: API reference of Amazon SQS, 2012-11-05. SQS checks requests by itself, in its own words, so the checks are here and
not in the protocol's model.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from martlet.errors import ServiceError
from martlet.queues import attributes, messages, policies, registry
from martlet.queues.attributes import arn_of
from martlet.queues.failures import invalid, invalid_value, missing, no_queue, unknown_attribute
from martlet.queues.queues import Draft, Queues, Received, Sent
from martlet.queues.rows import Queue
from martlet.store import Tx
from martlet.types import ACCOUNT, Principal

__all__ = ["Sqs"]

Request = dict[str, Any]
_SEND: Final = "SendMessageBatchRequestEntry"
_DELETE: Final = "DeleteMessageBatchRequestEntry"
_CHANGE: Final = "ChangeMessageVisibilityBatchRequestEntry"
_BATCH_BYTES: Final = 1_048_576
_BATCH_ENTRIES: Final = 10
_BATCH_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_HIDDEN_SECONDS_MAX: Final = 43_200
_SYSTEM: Final = (
    *("All", "SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SequenceNumber"),
    *("MessageDeduplicationId", "MessageGroupId", "AWSTraceHeader", "DeadLetterQueueSourceArn"),
)
# Which action a caller must be allowed, where it is not the operation's own name.
_ACTIONS: Final = {
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
    "DeleteMessageBatch": "DeleteMessage",
    "SendMessageBatch": "SendMessage",
}


class Caller(Protocol):
    """Who calls, as far as this room needs it."""

    @property
    def principal(self) -> Any: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def trace_id(self) -> str: ...


class Sqs:
    """The service "sqs"."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    def permission(self, operation: str, request: Request) -> tuple[str, str]:
        """(action, resource) that a caller needs; the resource is the queue's ARN, or "*"."""
        name = request.get("QueueName") or _name_in_url(request.get("QueueUrl"))
        arn = request.get("SourceArn") or (arn_of(str(name), self._queues.region) if name else "*")
        return f"sqs:{_ACTIONS.get(operation, operation)}", str(arn)

    def verdict(self, principal: Principal, action: str, resource: str) -> policies.Verdict:
        """What the queue's own policy says."""
        queue = self._queues.find_arn(resource)
        return "" if queue is None else policies.verdict(queue.policy, principal, action, resource)

    def waits(self, operation: str, request: Request) -> bool:
        """Whether the call may wait for long."""
        if operation != "ReceiveMessage":
            return False
        wait = request.get("WaitTimeSeconds")
        return bool(wait) if wait is not None else self._queues.waits(_name_in_url(request.get("QueueUrl")) or "")

    # --- queues -----------------------------------------------------------------------------------------------------

    async def create_queue(self, caller: Caller, request: Request) -> Request:
        given = _attribute_map(request)
        name = _demand(request, "QueueName")
        return {"QueueUrl": _url(caller, (await self._queues.create(name, given, request.get("tags") or {})).name)}

    async def get_queue_url(self, caller: Caller, request: Request) -> Request:
        name = _demand(request, "QueueName")
        if request.get("QueueOwnerAWSAccountId") not in (None, "", ACCOUNT) or self._queues.find(name) is None:
            raise no_queue()
        return {"QueueUrl": _url(caller, name)}

    async def list_queues(self, caller: Caller, request: Request) -> Request:
        most = request.get("MaxResults")
        after = _token(request.get("NextToken"))
        if most is not None and not 1 <= most <= 1_000:
            raise invalid_value(most, "MaxResults", "MaxResults must be an integer between 1 and 1000.")
        found = self._queues.page(request.get("QueueNamePrefix") or "", after, (most or 1_000) + 1)
        shown = found[: most or 1_000]
        answer: Request = {"QueueUrls": [_url(caller, queue.name) for queue in shown] or None}
        if most is not None and len(found) > len(shown):
            answer["NextToken"] = _as_token(shown[-1].name)
        return answer

    async def delete_queue(self, caller: Caller, request: Request) -> None:
        await self._queues.delete(_queue_name(request))

    async def purge_queue(self, caller: Caller, request: Request) -> None:
        await self._queues.purge(_queue_name(request))

    async def get_queue_attributes(self, caller: Caller, request: Request) -> Request:
        name = _queue_name(request)
        queue = self._demand(name)
        wanted = request.get("AttributeNames") or []
        for attribute in wanted:
            if attribute not in attributes.NAMES:
                raise unknown_attribute(attribute)
        everything = "All" in wanted
        found = attributes.shown(queue, self._queues.region)
        if everything or any(attribute in wanted for attribute in attributes.COUNTED):
            counts = await self._queues.counts(name)
            found["ApproximateNumberOfMessages"] = str(counts.ready)
            found["ApproximateNumberOfMessagesDelayed"] = str(counts.delayed)
            found["ApproximateNumberOfMessagesNotVisible"] = str(counts.in_flight)
        shown = {key: value for key, value in found.items() if everything or key in wanted}
        return {"Attributes": shown or None}

    async def set_queue_attributes(self, caller: Caller, request: Request) -> None:
        given = _attribute_map(request)
        name = _queue_name(request)
        if not given:
            self._demand(name)
            raise missing("Attribute.Name")
        await self._queues.set_attributes(name, given)

    async def list_dead_letter_source_queues(self, caller: Caller, request: Request) -> Request:
        most = request.get("MaxResults")
        if most is not None and not 1 <= most <= 1_000:
            raise invalid_value(most, "MaxResults", "MaxResults must be an integer between 1 and 1000.")
        after = _token(request.get("NextToken"))
        names = [name for name in self._queues.sources_of(_queue_name(request)) if name > after]
        shown = names[: most or 1_000]
        answer: Request = {"queueUrls": [_url(caller, name) for name in shown]}
        if len(names) > len(shown):
            answer["NextToken"] = _as_token(shown[-1])
        return answer

    async def list_queue_tags(self, caller: Caller, request: Request) -> Request:
        return {"Tags": self._demand(_queue_name(request)).tags or None}

    async def tag_queue(self, caller: Caller, request: Request) -> None:
        tags = request.get("Tags")
        if not tags:
            raise missing("Tags")
        await self._queues.change(_queue_name(request), lambda tx, queue: registry.tag(tx, queue.name, tags))

    async def untag_queue(self, caller: Caller, request: Request) -> None:
        names = request.get("TagKeys")
        if not names:
            raise invalid("Tag keys must be between 1 and 128 characters in length.")
        await self._queues.change(_queue_name(request), lambda tx, queue: registry.untag(tx, queue.name, names))

    async def add_permission(self, caller: Caller, request: Request) -> None:
        arguments = request.get("Label") or "", request.get("AWSAccountIds") or [], request.get("Actions") or []
        await self._change_policy(_queue_name(request), lambda policy, arn: policies.with_statement(policy, arn, *arguments))

    async def remove_permission(self, caller: Caller, request: Request) -> None:
        label = request.get("Label") or ""
        await self._change_policy(_queue_name(request), lambda policy, arn: policies.without_statement(policy, arn, label))

    async def _change_policy(self, name: str, change: Callable[[str, str], str]) -> None:
        region = self._queues.region

        def write(tx: Tx, queue: Queue) -> None:
            policy = change(queue.attributes.get("Policy", ""), arn_of(name, region))
            registry.set_attributes(tx, name, {"Policy": policy}, region, tx.now_ms)

        await self._queues.change(name, write)

    # --- sending ----------------------------------------------------------------------------------------------------

    async def send_message(self, caller: Caller, request: Request) -> Request:
        if not request.get("MessageBody"):
            raise missing("MessageBody")
        name = _queue_name(request)
        draft = _draft(request, caller)
        (sent,) = await self._queues.send(name, [draft])
        if isinstance(sent, ServiceError):
            raise sent
        return _sent(draft, sent)

    async def send_message_batch(self, caller: Caller, request: Request) -> Request:
        name = _queue_name(request)
        entries = _entries(request, _SEND)
        queue = self._demand(name)
        good: list[tuple[str, Draft]] = []
        failed: list[Request] = []
        size = 0
        for entry in entries:
            try:
                draft = _draft(entry, caller)
            except ServiceError as error:
                failed.append(_failure(entry["Id"], error))
                continue
            size += draft.size
            if queue.fifo:
                _check_fifo_entry(queue, draft)
            good.append((entry["Id"], draft))
        if size > _BATCH_BYTES:
            text = f"Batch requests cannot be longer than {_BATCH_BYTES} bytes. You have sent {size} bytes."
            raise ServiceError("BatchRequestTooLong", text)
        successful: list[Request] = []
        for (id, draft), sent in zip(good, await self._queues.send(name, [draft for _, draft in good]), strict=True):
            if isinstance(sent, ServiceError):
                failed.append(_failure(id, _of_batch(sent)))
            else:
                successful.append({"Id": id, **_sent(draft, sent)})
        return {"Successful": successful or None, "Failed": failed or None}

    # --- receiving --------------------------------------------------------------------------------------------------

    async def receive_message(self, caller: Caller, request: Request) -> Request:
        name = _queue_name(request)
        most = request.get("MaxNumberOfMessages")
        most = 1 if most is None else most
        visibility, wait = request.get("VisibilityTimeout"), request.get("WaitTimeSeconds")
        if not 1 <= most <= _BATCH_ENTRIES:
            raise invalid_value(most, "MaxNumberOfMessages", "Must be between 1 and 10, if provided.")
        if wait is not None and not 0 <= wait <= 20:
            raise invalid_value(wait, "WaitTimeSeconds", "Must be >= 0 and <= 20, if provided.")
        if visibility is not None and not 0 <= visibility <= _HIDDEN_SECONDS_MAX:
            raise _bad_visibility(visibility)
        system = [*(request.get("AttributeNames") or []), *(request.get("MessageSystemAttributeNames") or [])]
        for attribute in system:
            if attribute not in _SYSTEM:
                raise unknown_attribute(attribute)
        attempt = request.get("ReceiveRequestAttemptId") or ""
        if attempt:
            messages.check_id(attempt, "ReceiveRequestAttemptId")
        found = await self._queues.receive(
            name,
            most,
            visibility_ms=None if visibility is None else visibility * 1000,
            wait_ms=None if wait is None else wait * 1000,
            attempt_id=attempt,
        )
        names = request.get("MessageAttributeNames") or []
        return {"Messages": [_message(one, system, names) for one in found] or None}

    async def delete_message(self, caller: Caller, request: Request) -> None:
        handle = _demand(request, "ReceiptHandle")
        (end,) = await self._queues.acknowledge(_queue_name(request), [handle])
        if end is not None:
            raise end

    async def delete_message_batch(self, caller: Caller, request: Request) -> Request:
        name = _queue_name(request)
        entries = _entries(request, _DELETE)
        for number, entry in enumerate(entries, 1):
            if not entry.get("ReceiptHandle"):
                raise missing(f"{_DELETE}.{number}.ReceiptHandle")
        ends = await self._queues.acknowledge(name, [entry["ReceiptHandle"] for entry in entries])
        return _batch_ends(entries, ends)

    async def change_message_visibility(self, caller: Caller, request: Request) -> None:
        handle = _demand(request, "ReceiptHandle")
        visibility = request.get("VisibilityTimeout")
        if visibility is None:
            raise missing("VisibilityTimeout")
        if not 0 <= visibility <= _HIDDEN_SECONDS_MAX:
            raise _bad_visibility(visibility)
        (end,) = await self._queues.hide(_queue_name(request), [(handle, visibility * 1000)])
        if end is not None:
            raise end

    async def change_message_visibility_batch(self, caller: Caller, request: Request) -> Request:
        name = _queue_name(request)
        entries = _entries(request, _CHANGE)
        bad: dict[str, ServiceError] = {}
        for number, entry in enumerate(entries, 1):
            if not entry.get("ReceiptHandle"):
                raise missing(f"{_CHANGE}.{number}.ReceiptHandle")
            visibility = entry.get("VisibilityTimeout")
            if visibility is None:
                bad[entry["Id"]] = missing("VisibilityTimeout")
            elif not 0 <= visibility <= _HIDDEN_SECONDS_MAX:
                bad[entry["Id"]] = _bad_visibility(visibility)
        good = [entry for entry in entries if entry["Id"] not in bad]
        ends = await self._queues.hide(name, [(entry["ReceiptHandle"], entry["VisibilityTimeout"] * 1000) for entry in good])
        answer = _batch_ends(good, ends)
        failed = [_failure(id, error) for id, error in bad.items()]
        return {**answer, "Failed": [*failed, *(answer["Failed"] or [])] or None}

    # --- moving dead letters back -----------------------------------------------------------------------------------

    async def start_message_move_task(self, caller: Caller, request: Request) -> Request:
        rate = request.get("MaxNumberOfMessagesPerSecond")
        if rate is not None and not 1 <= rate <= 500:
            raise invalid_value(rate, "MaxNumberOfMessagesPerSecond", "Must be between 1 and 500, if provided.")
        source = _demand(request, "SourceArn")
        handle = await self._queues.moves.begin(source, request.get("DestinationArn") or "", rate or 0)
        return {"TaskHandle": handle}

    async def cancel_message_move_task(self, caller: Caller, request: Request) -> Request:
        moved = await self._queues.moves.cancel(_demand(request, "TaskHandle"))
        return {"ApproximateNumberOfMessagesMoved": moved}

    async def list_message_move_tasks(self, caller: Caller, request: Request) -> Request:
        most = request.get("MaxResults")
        most = 1 if most is None else most
        if not 1 <= most <= 10:
            raise invalid_value(most, "MaxResults", "Must be between 1 and 10, if provided.")
        moves = self._queues.moves
        results = [
            {
                "TaskHandle": moves.handle(move) if move.status == "RUNNING" else None,
                "Status": move.status,
                "SourceArn": arn_of(move.source, self._queues.region),
                "DestinationArn": arn_of(move.destination, self._queues.region) if move.destination else None,
                "MaxNumberOfMessagesPerSecond": move.rate or None,
                "ApproximateNumberOfMessagesMoved": move.moved,
                "ApproximateNumberOfMessagesToMove": move.wanted,
                "FailureReason": move.failure or None,
                "StartedTimestamp": move.started_at_ms,
            }
            for move in moves.newest(_demand(request, "SourceArn"), most)
        ]
        return {"Results": results or None}

    def _demand(self, name: str) -> Queue:
        found = self._queues.find(name)
        if found is None:
            raise no_queue()
        return found


# --- requests


def _demand(request: Request, member: str) -> str:
    value = request.get(member)
    if not value:
        raise missing(member)
    return str(value)


def _name_in_url(url: object) -> str | None:
    """The queue's name: the URL's last part. None for the URL of another account's queue, and for no URL."""
    if not isinstance(url, str) or not url:
        return None
    parts = url.rstrip("/").split("/")
    if len(parts) > 1 and re.fullmatch(r"[0-9]{12}", parts[-2]) and parts[-2] != ACCOUNT:
        return None
    return parts[-1]


def _queue_name(request: Request) -> str:
    _demand(request, "QueueUrl")
    name = _name_in_url(request["QueueUrl"])
    if name is None:
        raise no_queue()
    return name


def _url(caller: Caller, name: str) -> str:
    return f"{caller.endpoint}/{ACCOUNT}/{name}"


def _attribute_map(request: Request) -> dict[str, str]:
    return {key: value for key, value in (request.get("Attributes") or {}).items() if value is not None}


def _as_token(name: str) -> str:
    return base64.b64encode(name.encode()).decode()


def _token(text: str | None) -> str:
    try:
        return base64.b64decode(text or "", validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid_value(text, "NextToken", "The token is not one that this operation gave out.") from None


def _draft(request: Request, caller: Caller) -> Draft:
    """The message in a SendMessage request or an entry of a batch, checked as far as that needs no queue."""
    body = messages.check_body(request.get("MessageBody"))
    found = messages.message_attributes(request.get("MessageAttributes"))
    delay = request.get("DelaySeconds")
    if delay is not None and not 0 <= delay <= 900:
        raise invalid_value(delay, "DelaySeconds", "DelaySeconds must be >= 0 and <= 900.")
    group, id = request.get("MessageGroupId"), request.get("MessageDeduplicationId")
    if group is not None:
        messages.check_id(group, "MessageGroupId")
    if id is not None:
        messages.check_id(id, "MessageDeduplicationId")
    principal = caller.principal
    trace = messages.trace_of(request.get("MessageSystemAttributes"))
    return Draft(
        body=body,
        attributes=found,
        group=group,
        deduplication_id=id,
        delay_ms=None if delay is None else delay * 1000,
        trace=trace or caller.trace_id,
        trace_given=bool(trace),
        sender=principal.name if principal.kind in ("function", "role") and principal.name else ACCOUNT,
        size=messages.size_of(body, found),
    )


def _check_fifo_entry(queue: Queue, draft: Draft) -> None:
    """In a batch these fail the whole request."""
    if not draft.group:
        raise ServiceError("InvalidParameterValue", missing("MessageGroupId").message)
    if not draft.deduplication_id and not queue.by_content:
        raise ServiceError(
            "InvalidParameterValue",
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
        )


def _entries(request: Request, kind: str) -> Sequence[Request]:
    """The entries of a batch, with ids that are good and distinct."""
    entries: Sequence[Request] = request.get("Entries") or []
    if not entries:
        raise ServiceError("EmptyBatchRequest", f"There should be at least one {kind} in the request.")
    if len(entries) > _BATCH_ENTRIES:
        text = f"Maximum number of entries per request are {_BATCH_ENTRIES}. You have sent {len(entries)}."
        raise ServiceError("TooManyEntriesInBatchRequest", text)
    seen = set()
    for number, entry in enumerate(entries, 1):
        id = entry.get("Id")
        if id is None:
            raise missing(f"{kind}.{number}.Id")
        if not _BATCH_ID.fullmatch(id):
            raise ServiceError(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
                "It can be at most 80 letters long.",
            )
        if id in seen:
            raise ServiceError("BatchEntryIdsNotDistinct", f"Id {id} repeated.")
        seen.add(id)
    return entries


def _bad_visibility(value: int) -> ServiceError:
    return invalid_value(value, "VisibilityTimeout", f"Must be >= 0 and <= {_HIDDEN_SECONDS_MAX}, if provided.")


# --- answers


def _sent(draft: Draft, sent: Sent) -> Request:
    return {
        "MessageId": sent.id,
        "MD5OfMessageBody": messages.md5(draft.body),
        "MD5OfMessageAttributes": messages.attributes_md5(draft.attributes),
        "MD5OfMessageSystemAttributes": messages.trace_md5(draft.trace) if draft.trace_given else None,
        "SequenceNumber": sent.sequence_number or None,
    }


def _failure(id: str, error: ServiceError) -> Request:
    return {"Id": id, "SenderFault": True, "Code": error.name, "Message": error.message}


def _of_batch(error: ServiceError) -> ServiceError:
    """What one message of several is refused with."""
    text = error.message.replace("One or more parameters are invalid.", "One or more parameters cannot be validated.", 1)
    return ServiceError(error.name, text)


def _batch_ends(entries: Sequence[Request], ends: Sequence[ServiceError | None]) -> Request:
    pairs = list(zip(entries, ends, strict=True))
    good = [{"Id": entry["Id"]} for entry, end in pairs if end is None]
    failed = [_failure(entry["Id"], end) for entry, end in pairs if end is not None]
    return {"Successful": good or None, "Failed": failed or None}


def system_attributes(received: Received) -> dict[str, str]:
    """Every system attribute that the message has."""
    message = received.message
    found = {
        "SenderId": message.sender,
        "SentTimestamp": str(received.sent_at_ms),
        "ApproximateReceiveCount": str(received.receives),
        "ApproximateFirstReceiveTimestamp": str(received.first_received_at_ms),
        "SequenceNumber": received.sequence_number,
        "MessageDeduplicationId": message.deduplication_id,
        "MessageGroupId": message.group,
        "AWSTraceHeader": message.trace,
        "DeadLetterQueueSourceArn": message.source,
    }
    return {name: value for name, value in found.items() if value}


def _message(received: Received, system: Sequence[str], names: Sequence[str]) -> Request:
    message = received.message
    shown = system_attributes(received) if system else {}
    if system and "All" not in system:
        shown = {name: value for name, value in shown.items() if name in system}
    chosen = messages.selected(message.attributes, names)
    return {
        "MessageId": message.id,
        "ReceiptHandle": received.handle,
        "MD5OfBody": messages.md5(message.body),
        "Body": message.body,
        "Attributes": shown or None,
        "MD5OfMessageAttributes": messages.attributes_md5(chosen),
        "MessageAttributes": messages.attributes_out(chosen) or None,
    }
