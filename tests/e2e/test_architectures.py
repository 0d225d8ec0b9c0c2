"""The reference architectures in examples/, each as an app and as the SAM template of an AWS user: one test for both forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import EXAMPLES, RunningPlatform, eventually
from tests.e2e.test_lambda_control import client_of

pytestmark = pytest.mark.e2e
WAIT_SECONDS = 120.0  # for what takes a few seconds on an idle machine


class Running(NamedTuple):
    """An example that serves."""

    platform: RunningPlatform
    url: str
    outputs: dict[str, str]  # of its template; {} for an app


@pytest.fixture(params=["app", "template"])
def run(request: pytest.FixtureRequest, start: Start) -> Callable[..., Running]:
    """`run(name, data=...)`: `martlet up` of the example, in the form that this test is about."""

    def begin(name: str, data: Path | None = None) -> Running:
        form = EXAMPLES / name if request.param == "app" else EXAMPLES / f"{name}-sam/template.yaml"
        return reached(start(form, "--no-watch", data=data))

    return begin


def reached(platform: RunningPlatform) -> Running:
    outputs = {
        one["OutputKey"]: one["OutputValue"]
        for stack in client_of(platform, "cloudformation").describe_stacks()["Stacks"]
        for one in stack.get("Outputs", ())
    }
    return Running(platform, outputs.get("Url", platform.app_url), outputs)


# --- web-service -----------------------------------------------------------------------------------


def test_a_simple_web_service(run: Callable[..., Running], http: httpx.Client) -> None:
    service = run("web-service")
    tasks = f"{service.url}/tasks"
    assert http.get(tasks).json() == []
    created = http.post(tasks, json={"title": "water the plants"})
    assert created.status_code == 201
    task = {"id": created.json()["id"], "title": "water the plants", "done": False}
    assert http.get(f"{tasks}/{task['id']}").json() == task
    done = {**task, "done": True}
    assert http.put(f"{tasks}/{task['id']}", json={"title": task["title"], "done": True}).json() == done
    for wrong in ({}, {"title": ""}, {"title": 1}, {"title": "t", "done": "later"}, {"title": "t" * 201}, ["t"]):
        assert http.post(tasks, json=wrong).status_code == 422, wrong
        assert http.put(f"{tasks}/{task['id']}", json=wrong).status_code == 422, wrong
    assert http.get(tasks).json() == [done], "what was refused has changed nothing"

    service.platform.kill()
    service = run("web-service", data=service.platform.data)
    tasks = f"{service.url}/tasks"
    assert httpx.get(tasks, timeout=30).json() == [done]
    assert httpx.delete(f"{tasks}/{task['id']}", timeout=30).status_code == 204
    for method in ("GET", "DELETE"):
        assert httpx.request(method, f"{tasks}/{task['id']}", timeout=30).status_code == 404
    assert httpx.put(f"{tasks}/{task['id']}", json={"title": "again"}, timeout=30).status_code == 404
    assert httpx.get(tasks, timeout=30).json() == []
