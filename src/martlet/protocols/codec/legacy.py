"""The query protocol of Amazon SQS, as its clients spoke it until 2023 and some speak it still: forms in, XML out.

Today's model is for JSON, and no longer says how things are called in forms and XML; so that is said here. A request may be
sent to a queue's own address, "/<account>/<queue>", and then need not name the queue. Source: API reference of Amazon SQS,
2012-11-05, "Making query API requests"; AWS SDK models before 1.31.81.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from martlet.errors import ServiceError
from martlet.protocols.codec.model import OperationModel, ServiceModel
from martlet.protocols.codec.wire import WireAnswer, WireRequest
from martlet.protocols.codec.wires import Decode, Encode, QueryWire

__all__ = ["SqsQueryWire", "is_queue_path", "sqs_wire"]

NAMESPACE: Final = "http://queue.amazonaws.com/doc/2012-11-05/"
_QUEUE_PATH = re.compile(rb"(?:/[^/]*)*/[0-9]{12}/[A-Za-z0-9_.-]{1,80}/?")
_ACCOUNT_WIDE: Final = frozenset({"CreateQueue", "ListQueues"})  # not to be asked at a queue's address

# Names of lists' elements: "ActionName.1".
_LISTS: Final = {
    "AWSAccountIdList": "AWSAccountId",
    "ActionNameList": "ActionName",
    "AttributeNameList": "AttributeName",
    "BatchResultErrorEntryList": "BatchResultErrorEntry",
    "BinaryList": "BinaryListValue",
    "ChangeMessageVisibilityBatchRequestEntryList": "ChangeMessageVisibilityBatchRequestEntry",
    "ChangeMessageVisibilityBatchResultEntryList": "ChangeMessageVisibilityBatchResultEntry",
    "DeleteMessageBatchRequestEntryList": "DeleteMessageBatchRequestEntry",
    "DeleteMessageBatchResultEntryList": "DeleteMessageBatchResultEntry",
    "ListMessageMoveTasksResultEntryList": "ListMessageMoveTasksResultEntry",
    "MessageAttributeNameList": "MessageAttributeName",
    "MessageList": "Message",
    "MessageSystemAttributeList": "MessageSystemAttributeName",
    "QueueUrlList": "QueueUrl",
    "SendMessageBatchRequestEntryList": "SendMessageBatchRequestEntry",
    "SendMessageBatchResultEntryList": "SendMessageBatchResultEntry",
    "StringList": "StringListValue",
    "TagKeyList": "TagKey",
}
# Names of maps' entries, keys and values: "Attribute.1.Name".
_MAPS: Final = {
    "MessageBodyAttributeMap": ("MessageAttribute", "Name", "Value"),
    "MessageBodySystemAttributeMap": ("MessageSystemAttribute", "Name", "Value"),
    "MessageSystemAttributeMap": ("Attribute", "Name", "Value"),
    "QueueAttributeMap": ("Attribute", "Name", "Value"),
    "TagMap": ("Tag", "Key", "Value"),
}


def is_queue_path(path: bytes) -> bool:
    """Whether a path is a queue's address."""
    return _QUEUE_PATH.fullmatch(path) is not None


class SqsQueryWire(QueryWire):
    """SQS in the query protocol."""

    def operation(self, name: str, path: bytes) -> OperationModel:
        """The operation of that name. Raises `ServiceError` InvalidAction in the words of SQS."""
        found = self.service.operations.get(name)
        if found is None or (name in _ACCOUNT_WIDE and is_queue_path(path)):
            raise ServiceError("InvalidAction", f"The action {name[:128]} is not valid for this endpoint.")
        return found

    def decoder(self, operation: OperationModel) -> Decode:
        inner = super().decoder(operation)
        addressed = operation.input is not None and "QueueUrl" in operation.input.members

        def decode(request: WireRequest, labels: Mapping[str, str]) -> dict[str, Any]:
            found = inner(request, labels)
            if addressed and not found.get("QueueUrl") and is_queue_path(request.path):
                found["QueueUrl"] = request.path.decode("ascii")
            return found

        return decode

    def encoder(self, operation: OperationModel) -> Encode:
        inner = super().encoder(operation)
        empty = f"<{operation.name}Result></{operation.name}Result>".encode()
        short = f"<{operation.name}Result/>".encode()

        def encode(result: dict[str, Any], request_id: str) -> WireAnswer:
            answer = inner(result, request_id)
            assert isinstance(answer.body, bytes)
            return WireAnswer(answer.status, answer.headers, answer.body.replace(empty, short, 1))

        return encode


@cache
def sqs_wire(model: ServiceModel) -> SqsQueryWire:
    """The wire for SQS's model of today."""
    shapes = {name: dict(definition) for name, definition in model._shapes.items()}
    for name, element in _LISTS.items():
        shapes[name] = {**shapes[name], "flattened": True, "member": {**shapes[name]["member"], "locationName": element}}
    for name, (_, key, value) in _MAPS.items():
        definition = shapes[name]
        shapes[name] = {
            **definition,
            "key": {**definition["key"], "locationName": key},
            "value": {**definition["value"], "locationName": value},
        }
    for name, definition in shapes.items():
        if definition["type"] == "structure":
            shapes[name] = {**definition, "members": {m: _renamed(r) for m, r in definition.get("members", {}).items()}}
    metadata = {**model.metadata, "protocol": "query", "xmlNamespace": NAMESPACE}
    operations = {name: operation._definition for name, operation in model.operations.items()}
    return SqsQueryWire(ServiceModel(model.name, {"metadata": metadata, "operations": operations, "shapes": shapes}))


def _renamed(reference: dict[str, Any]) -> dict[str, Any]:
    entry = _MAPS.get(reference["shape"])
    return reference if entry is None else {**reference, "locationName": entry[0]}
