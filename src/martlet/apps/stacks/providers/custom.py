"""Custom::… and AWS::CloudFormation::CustomResource: a function of the template makes, changes and removes something.

The function is sent CloudFormation's event and answers by HTTP PUT to its ResponseURL, whose last part is the only
credential: 128 random bits that are good for one answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from martlet.apps.stacks.kinds import Kind, fixed
from martlet.apps.stacks.providers.provider import Context, Physical, _Replace, generated_name, unknown
from martlet.clock import token_hex, uuid4_text
from martlet.errors import DeployFailed, InvalidInput, LimitExceeded, NotFound
from martlet.limits import LIMITS

__all__ = ["CustomProvider", "Outcome", "Responses"]

_ANSWER_BYTES: Final = 1 << 20
_DATA_BYTES: Final = 4_096  # CloudFormation: response body


class Outcome(Protocol):
    """How an invocation ended."""

    @property
    def error(self) -> str: ...
    @property
    def error_type(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def refusal(self) -> Exception | None: ...


Invoke = Callable[[str, bytes], Awaitable[Outcome]]  # ("name" or "name:qualifier", event)


class Responses:
    """The answers that functions of custom resources send. One for all stacks."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}

    def expect(self) -> tuple[str, asyncio.Future[dict[str, Any]]]:
        token = token_hex(16)
        future = self._waiting[token] = asyncio.get_running_loop().create_future()
        return token, future

    def forget(self, token: str) -> None:
        self._waiting.pop(token, None)

    def answer(self, token: str, body: bytes) -> None:
        """What came to a ResponseURL. Raises `NotFound` for one that is not awaited (any more), `InvalidInput`."""
        future = self._waiting.get(token)
        if future is None or future.done():
            raise NotFound("nobody waits for this answer")
        if len(body) > _ANSWER_BYTES:
            raise LimitExceeded(f"an answer of a custom resource has at most {_ANSWER_BYTES} bytes, got {len(body)}")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the answer is not JSON: {error}") from error
        if not isinstance(value, dict) or value.get("Status") not in ("SUCCESS", "FAILED"):
            raise InvalidInput('the answer is not an object with "Status": "SUCCESS" or "FAILED"')
        future.set_result(value)


class CustomProvider:
    """Custom resources that a function makes."""

    kind = Kind(
        type="AWS::CloudFormation::CustomResource",
        open=True,
        properties={"ServiceToken": fixed(required=True)},
        note="Custom::… too; ServiceToken must be a function, which gets all properties and gives the attributes",
    )

    def __init__(self, invoke: Invoke, responses: Responses, base: Callable[[], str]) -> None:
        """`base` is the API's address as a function's sandbox sees it."""
        self._invoke = invoke
        self._responses = responses
        self._base = base

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        if "ServiceToken" not in properties:
            raise DeployFailed(f"{context.logical_id}: Property ServiceToken cannot be empty.")
        return Physical("", unknown(context))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        return await self._ask(context, "Create", properties)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        extra = {"PhysicalResourceId": physical.id, "OldResourceProperties": _stringified(old)}
        return await self._ask(context, "Update", new, extra)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        await self._ask(context, "Delete", properties, {"PhysicalResourceId": physical.id})

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        """The function may have made something before the platform ended: it is told to remove it, as AWS does."""
        return Physical(physical_id or generated_name(context, 128)) if properties else None

    async def _ask(
        self, context: Context, request: str, properties: Mapping[str, Any], extra: Mapping[str, Any] | None = None
    ) -> Physical:
        function = _function(str(properties.get("ServiceToken", "")), context.logical_id)
        token, future = self._responses.expect()
        event = {
            "RequestType": request,
            "ServiceToken": properties["ServiceToken"],
            "ResponseURL": f"{self._base()}/v1/stacks/responses/{token}",
            "StackId": context.stack_id,
            "RequestId": uuid4_text(),
            "LogicalResourceId": context.logical_id,
            "ResourceType": context.type,
            "ResourceProperties": _stringified(properties),
            **(extra or {}),
        }
        seconds = min(int(properties.get("ServiceTimeout", LIMITS["custom_resource_seconds"].default)), 3_600)
        try:
            answer = await self._answered(context, function, event, future, seconds)
        finally:
            self._responses.forget(token)
        return _physical(context, request, answer, str(event.get("PhysicalResourceId", "")))

    async def _answered(
        self, context: Context, function: str, event: Mapping[str, Any], future: asyncio.Future[dict[str, Any]], seconds: int
    ) -> dict[str, Any]:
        calling: asyncio.Future[Any] = asyncio.ensure_future(self._invoke(function, json.dumps(event).encode()))
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait({calling, future}, return_when=asyncio.FIRST_COMPLETED)
                if not future.done():
                    _raise_failure(context, calling.result())
                    if event["RequestType"] == "Create" and context.stop is not None:
                        await self._unless_stopped(context.stop, future)
                return await future
        except TimeoutError as error:
            raise DeployFailed(
                f"CloudFormation did not receive a response from your Custom Resource. Please check your logs for requestId "
                f"[{event['RequestId']}]. If you are using the Python cfn-response module, you may need to update your Lambda "
                "function code so that CloudFormation can attach the updated version."
            ) from error
        finally:
            if not calling.done():
                calling.cancel()
                await asyncio.gather(calling, return_exceptions=True)

    async def _unless_stopped(self, stop: asyncio.Event, future: asyncio.Future[dict[str, Any]]) -> None:
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({stopping, future}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not future.done():
            raise DeployFailed("Resource creation cancelled")


def _raise_failure(context: Context, outcome: Outcome) -> None:
    if outcome.refusal is not None:
        raise DeployFailed(f"the function of {context.logical_id} did not run: {outcome.refusal}")
    if outcome.error:
        text = outcome.payload[:1_000].decode("utf-8", "replace")
        raise DeployFailed(f"the function of {context.logical_id} failed with {outcome.error_type or outcome.error}: {text}")


def _function(token: str, logical_id: str) -> str:
    parts = token.split(":")
    if len(parts) < 7 or parts[2] != "lambda":
        raise DeployFailed(f"{logical_id}: ServiceToken {token} is not a function's ARN; topics are not supported yet")
    return ":".join(parts[6:])


def _physical(context: Context, request: str, answer: Mapping[str, Any], before: str) -> Physical:
    if answer["Status"] == "FAILED":
        reason = answer.get("Reason") or "no reason given"
        raise DeployFailed(f"Received response status [FAILED] from custom resource. Message returned: {reason}")
    data = answer.get("Data") or {}
    if not isinstance(data, dict):
        raise DeployFailed(f"{context.logical_id}: Data of the custom resource's answer is not an object")
    if len(json.dumps(answer)) > _DATA_BYTES:
        raise DeployFailed(f"Response object is too long: the most is {_DATA_BYTES} bytes")
    id = answer.get("PhysicalResourceId") or before
    if request != "Delete" and not isinstance(id, str):
        raise DeployFailed("Invalid PhysicalResourceId")
    if request != "Delete" and not id:
        raise DeployFailed("Invalid PhysicalResourceId")
    return Physical(str(id), {str(name): value for name, value in data.items()})


def _stringified(value: Any) -> Any:
    """Scalars are texts in the event, as CloudFormation sends them."""
    if isinstance(value, dict):
        return {name: _stringified(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_stringified(one) for one in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) or value is None else str(value)
