"""The records of APIs: acknowledged is durable, and only what can be served is acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from martlet.apps.apis import Apis
from martlet.clock import Clock
from martlet.errors import Conflict, DeployFailed, InvalidInput, NotFound
from martlet.gateway.apis import check
from martlet.server import ENGINES
from martlet.store import Store
from martlet.types import ApiConfig, ApiIntegration, ApiIntegrationResponse, ApiRoute


def config(id: str = "abcdefghij", template: str = "{}") -> ApiConfig:
    responses = (ApiIntegrationResponse(status=200, templates={"application/json": template}),)
    route = ApiRoute(method="GET", path="/x", integration=ApiIntegration(kind="MOCK", responses=responses))
    return ApiConfig(id=id, name="pets", kind="rest", routes=(route,), models={"M": {"type": "object", "x": [1, None]}})


async def opened(folder: Path, on_apis: Callable[[], None] = lambda: None) -> tuple[Store, Apis]:
    store = await Store.open(folder, clock=Clock(), engine=ENGINES["sqlite"])
    apis = Apis(store, on_apis=on_apis, check=check)
    await apis.load()
    return store, apis


async def test_apis_survive_a_restart(tmp_path: Path) -> None:
    store, apis = await opened(tmp_path)
    await apis.create(config())
    await apis.create(config("other"))
    await apis.replace(config(template='{"a": 1}'))
    await apis.remove("other")
    await store.close()
    store, apis = await opened(tmp_path)
    assert apis.apis() == [config(template='{"a": 1}')]
    await store.close()


async def test_every_change_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    store, apis = await opened(tmp_path, lambda: told.append(1))
    await apis.create(config())
    await apis.replace(config())
    await apis.remove("abcdefghij")
    assert len(told) == 4
    await store.close()


async def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    store, apis = await opened(tmp_path)
    await apis.create(config())
    with pytest.raises(Conflict):
        await apis.create(config())
    with pytest.raises(DeployFailed, match=r"GET /x.*line 1"):
        await apis.replace(config(template="#if("))
    with pytest.raises(NotFound):
        await apis.replace(config("nobody"))
    with pytest.raises(NotFound):
        await apis.remove("nobody")
    with pytest.raises(InvalidInput, match="not an API's id"):
        await apis.create(config("../x"))
    assert apis.apis() == [config()]
    await store.close()
