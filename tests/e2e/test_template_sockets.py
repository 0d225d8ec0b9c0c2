"""A template with a WebSocket API: a chat room, end to end, through boto3 and a client library that is not ours."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import boto3
import pytest
import websockets
from tests.e2e.conftest import Start
from tests.e2e.driving import APPS, Command, eventually
from tests.e2e.test_lambda_control import client_of
from tests.running_platform import RunningPlatform
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as _connect

pytestmark = pytest.mark.e2e
_PATIENCE = 60.0  # for what takes milliseconds: a slow machine makes a test slow, not red


def connect(address: str, **more: Any) -> _connect:
    """As the library does, but as patient as the tests are: three cold starts on a busy machine may need longer."""
    return _connect(address, open_timeout=_PATIENCE, ping_interval=None, **more)


@pytest.fixture(scope="module")
def stack(start: Start) -> RunningPlatform:
    return start(APPS / "chat" / "template.yaml", "--no-watch")


def _outputs(platform: RunningPlatform) -> dict[str, str]:
    (found,) = client_of(platform, "cloudformation").describe_stacks()["Stacks"]
    return {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}


async def _heard(client: ClientConnection) -> Any:
    async with asyncio.timeout(_PATIENCE):
        return json.loads(await client.recv())


async def _names(client: ClientConnection) -> Any:
    await client.send(json.dumps({"action": "who"}))
    return await _heard(client)


async def test_people_talk_and_leave(stack: RunningPlatform) -> None:
    outputs = _outputs(stack)
    address = outputs["Address"]
    assert address.startswith(stack.app_url.replace("http", "ws"))
    async with connect(f"{address}?name=ann") as ann:
        async with connect(f"{address}?name=bob") as bob:
            assert await _names(ann) == ["ann", "bob"]
            await bob.send(json.dumps({"action": "send", "text": "grüß dich"}))
            for client in (ann, bob):
                assert await _heard(client) == {"from": "bob", "text": "grüß dich"}
            await ann.send(json.dumps({"action": "dance"}))
            assert (await _heard(ann))["message"] == "Forbidden"  # no such route, and no $default
        async with asyncio.timeout(_PATIENCE):
            while await _names(ann) != ["ann"]:  # $disconnect crosses bob off
                pass


async def test_who_may_not_come_does_not(stack: RunningPlatform) -> None:
    address = _outputs(stack)["Address"]
    for query, status in (("?name=mallory", 403), ("", 401)):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(address + query)
        assert refused.value.response.status_code == status


def _manager(stack: RunningPlatform, endpoint: str) -> Any:
    return boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=stack.credentials["access_key_id"],
        aws_secret_access_key=stack.credentials["secret_access_key"],
    )


async def test_boto3_manages_connections(stack: RunningPlatform) -> None:
    outputs = _outputs(stack)
    table = client_of(stack, "dynamodb")
    for endpoint in (outputs["Connections"], stack.api_url):  # as the stack says, and as boto3 finds it by AWS_ENDPOINT_URL
        manager = _manager(stack, endpoint)
        async with connect(f"{outputs['Address']}?name=cat", user_agent_header="tests") as cat:
            rows = (await asyncio.to_thread(table.scan, TableName=outputs["Table"]))["Items"]
            (id,) = [row["id"]["S"] for row in rows if row["name"]["S"] == "cat"]
            await asyncio.to_thread(manager.post_to_connection, ConnectionId=id, Data=b'"hello"')
            assert await _heard(cat) == "hello"
            found = await asyncio.to_thread(manager.get_connection, ConnectionId=id)
            assert found["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "tests"}
            assert found["ConnectedAt"] <= found["LastActiveAt"]
            with pytest.raises(manager.exceptions.PayloadTooLargeException):
                await asyncio.to_thread(manager.post_to_connection, ConnectionId=id, Data=b"x" * 131_073)
            await asyncio.to_thread(manager.delete_connection, ConnectionId=id)
            with pytest.raises(websockets.ConnectionClosedOK):
                await _heard(cat)
            with pytest.raises(manager.exceptions.GoneException):
                await asyncio.to_thread(manager.post_to_connection, ConnectionId=id, Data=b"x")
        left = lambda id=id: id not in str(table.scan(TableName=outputs["Table"]))  # noqa: E731
        await asyncio.to_thread(eventually, left)


async def test_the_stack_takes_its_api_along(stack: RunningPlatform, martlet: Command) -> None:
    address = _outputs(stack)["Address"]
    async with connect(f"{address}?name=dan") as dan:
        (app,) = martlet("apps", "--json", data=stack.data).json["apps"]
        destroyed = await asyncio.to_thread(martlet, "destroy", app["name"], "--yes", data=stack.data)
        assert destroyed.code == 0
        with pytest.raises(websockets.ConnectionClosedOK) as closed:
            await _heard(dan)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
