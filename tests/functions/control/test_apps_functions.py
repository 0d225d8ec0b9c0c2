"""Functions that an app's deployment made, seen through the Lambda API: callable and described, changed only by deploying."""

from __future__ import annotations

import asyncio

from tests.functions.control.world import ROLE, RUNTIME, World, archive

from martlet.functions.sandboxes.inside import frames
from martlet.types import FunctionConfig


async def deploy(world: World) -> None:
    config = FunctionConfig(name="pay", handler="app:pay", reserved=5, environment={"A": "b"})
    await world.functions.publish("shop", config, code="c" * 64, layer="", imports=())


async def test_they_are_listed_described_and_called(world: World) -> None:
    await deploy(world)
    await world.create("other")
    listed = (await world.call("list_functions"))["Functions"]
    assert [one["FunctionName"] for one in listed] == ["other", "shop-pay"]
    found = await world.call("get_function", FunctionName="shop-pay")
    assert found["Configuration"]["State"] == "Active"
    assert found["Configuration"]["Environment"] == {"Variables": {"A": "b"}}
    assert found["Concurrency"] == {"ReservedConcurrentExecutions": 5}
    answer = await world.call("invoke", FunctionName="shop-pay:$LATEST", Payload=b"[1]")
    assert (answer["Payload"], answer["ExecutedVersion"]) == (b"[1]", "$LATEST")


async def test_what_a_deployment_says_is_changed_by_a_deployment(world: World) -> None:
    await deploy(world)
    for operation, more in (
        ("update_function_configuration", {"Timeout": 3}),
        ("update_function_code", {"ZipFile": archive()}),
        ("publish_version", {}),
        ("delete_function", {}),
        ("put_function_concurrency", {"ReservedConcurrentExecutions": 1}),
    ):
        name, message = await world.fails(operation, FunctionName="shop-pay", **more)
        assert name == "ResourceConflictException"
        assert message == "The function shop-pay belongs to the app shop: change it there and deploy the app."
    code = {"ZipFile": archive()}
    request = {"FunctionName": "shop-pay", "Runtime": RUNTIME, "Handler": "a.b", "Code": code, "Role": ROLE}
    assert (await world.fails("create_function", **request))[1] == "Function already exist: shop-pay"


async def test_what_is_configured_for_them_goes_with_them(world: World) -> None:
    await deploy(world)
    ran: list[bytes] = []
    world.host.handler = lambda init, payload: (ran.append(payload), (frames.RESULT, b"null"))[1]  # type: ignore[func-returns-value]
    await world.call("put_function_event_invoke_config", FunctionName="shop-pay", MaximumRetryAttempts=0)
    await world.call("create_function_url_config", FunctionName="shop-pay", AuthType="NONE")
    await world.call("invoke", FunctionName="shop-pay", InvocationType="Event", Payload=b"{}")
    await world.control.asynchronous.run_due()
    assert ran == [b"{}"]
    await world.functions.remove("shop-pay")
    await asyncio.sleep(0)
    assert world.control.url_configs() == []
    assert (await world.fails("get_function_event_invoke_config", FunctionName="shop-pay"))[0] == "ResourceNotFoundException"
