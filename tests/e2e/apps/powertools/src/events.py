"""Powertools' batch processor, parser, validation and idempotency."""

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.base import BasePersistenceLayer
from aws_lambda_powertools.utilities.parser import BaseModel, envelopes, parse
from aws_lambda_powertools.utilities.validation import validator

processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


def record_handler(record):
    if record.json_body != {"hello": "world"}:
        raise ValueError("not what was agreed")


def batch(event, context):
    return process_partial_response(event=event, record_handler=record_handler, processor=processor, context=context)


class Hello(BaseModel):
    hello: str


def parsed(event, context):
    return [one.hello for one in parse(event, model=Hello, envelope=envelopes.SqsEnvelope)]


@validator(inbound_schema={"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}})
def validated(event, context):
    return event["name"]


class Memory(BasePersistenceLayer):
    def __init__(self):
        super().__init__()
        self.items = {}

    def _get_record(self, idempotency_key):
        if idempotency_key not in self.items:
            raise IdempotencyItemNotFoundError
        return self.items[idempotency_key]

    def _put_record(self, data_record):
        found = self.items.get(data_record.idempotency_key)
        if found is not None and not found.is_expired:
            raise IdempotencyItemAlreadyExistsError(old_data_record=found)
        self.items[data_record.idempotency_key] = data_record

    def _update_record(self, data_record):
        self.items[data_record.idempotency_key] = data_record

    def _delete_record(self, data_record):
        self.items.pop(data_record.idempotency_key, None)


calls = []


@idempotent(persistence_store=Memory(), config=IdempotencyConfig(event_key_jmespath="order"))
def once(event, context):
    calls.append(event["order"])
    return {"order": event["order"], "calls": len(calls)}
