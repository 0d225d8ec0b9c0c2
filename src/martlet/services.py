"""AWS's services that Martlet has, by the names that boto3 gives them. `server` makes one of each."""

from __future__ import annotations

import importlib
from typing import Any

from martlet.apps.stacks.sleeping import SleepingStacks
from martlet.auth import Identities, Sessions
from martlet.buses import Events, Scheduler, Sns
from martlet.documents.dynamodb import DynamoDb, DynamoDbStreams
from martlet.functions.control import Control
from martlet.functions.log_groups import LogGroups
from martlet.gateway.apis import ManagementApi
from martlet.objects import S3
from martlet.queues import Sqs
from martlet.secrets import Secrets, Ssm
from martlet.triggers import EventSources
from martlet.triggers.sources import OPERATIONS as EVENT_SOURCE_OPERATIONS

__all__ = ["SERVICES", "CloudFormation", "Lambda"]


class Lambda:
    """The service "lambda": the control plane of functions, and the event source mappings of the triggers beside it."""

    parts = (Control, EventSources)

    def __init__(self, control: Control, sources: EventSources) -> None:
        self._control, self._sources = control, sources
        for name in EVENT_SOURCE_OPERATIONS:
            setattr(self, name, getattr(sources, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    def _tagged(self, request: dict[str, Any]) -> Any:
        return self._sources if ":event-source-mapping:" in request["Resource"] else self._control

    async def list_tags(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        return await self._tagged(request).list_tags(caller, request)  # type: ignore[no-any-return]

    async def tag_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        return await self._tagged(request).tag_resource(caller, request)  # type: ignore[no-any-return]

    async def untag_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        return await self._tagged(request).untag_resource(caller, request)  # type: ignore[no-any-return]


class CloudFormation:
    """The service "cloudformation", read in at the first call."""

    def __init__(self, stacks: SleepingStacks) -> None:
        self._stacks = stacks
        self._service: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._service is None:
            module, _, kind = str(SERVICES["cloudformation"]).partition(":")
            self._service = getattr(importlib.import_module(module), kind)(self._stacks.wake().engine)
        return getattr(self._service, name)


SERVICES: dict[str, type | str] = {
    "apigatewaymanagementapi": ManagementApi,
    "cloudformation": "martlet.apps.stacks.api:CloudFormation",
    "dynamodb": DynamoDb,
    "dynamodbstreams": DynamoDbStreams,
    "events": Events,
    "iam": Identities,
    "lambda": Lambda,
    "logs": LogGroups,
    "s3": S3,
    "scheduler": Scheduler,
    "sns": Sns,
    "secretsmanager": Secrets,
    "sqs": Sqs,
    "ssm": Ssm,
    "sts": Sessions,
}
