"""The strangler of examples/, as an app and as a template: routes move between a legacy server and functions under load, and no
request notices. MARTLET_TEST_STRANGLER=20000 is the whole load."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import EXAMPLES, Command, eventually, running
from tests.e2e.test_lambda_control import client_of
from tests.ports import free_ports
from tests.running_platform import RunningPlatform

REQUESTS = int(os.environ.get("MARTLET_TEST_STRANGLER", "2000"))
USERS = 500
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240 + REQUESTS / 50)]


class Shop(NamedTuple):
    """The example that serves, and how its route /quotes is moved."""

    platform: RunningPlatform
    url: str
    form: str
    client: httpx.Client
    move: Callable[[int], None]  # to a share of the clients, in percent; a template knows 0 and 100


@pytest.fixture
def legacy() -> Iterator[int]:
    """The port of the example's legacy server."""
    port = free_ports(1)
    with running([sys.executable, str(EXAMPLES / "strangler/legacy.py"), "--port", str(port)]):

        def serves() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
            except httpx.TransportError:
                return False

        eventually(serves)
        yield port


@pytest.fixture(params=["app", "template"])
def shop(request: pytest.FixtureRequest, start: Start, legacy: int, tmp_path: Path, martlet: Command) -> Iterator[Shop]:
    allowed = {"MARTLET_INTEGRATION_HOSTS": f"127.0.0.1:{legacy}"}
    if request.param == "app":
        folder = tmp_path / "strangler"
        shutil.copytree(EXAMPLES / "strangler", folder)
        text = (folder / "app.py").read_text().replace("127.0.0.1:9000", f"127.0.0.1:{legacy}")

        def arguments(share: int) -> list[str]:
            (folder / "app.py").write_text(text.replace("share=10", f"share={share}"))
            return [str(folder)]
    else:

        def arguments(share: int) -> list[str]:
            moved = {0: "no", 100: "yes"}[share]
            parameters = ["--param", f"Legacy=http://127.0.0.1:{legacy}", "--param", f"Moved={moved}"]
            return [str(EXAMPLES / "strangler-sam/template.yaml"), *parameters]

    platform = start(*arguments(0), "--no-watch", environ=allowed)

    def move(share: int) -> None:
        ran = martlet("deploy", *arguments(share), data=platform.data)
        assert ran.code == 0, ran.err

    url = platform.app_url
    if request.param == "template":
        (stack,) = client_of(platform, "cloudformation").describe_stacks()["Stacks"]
        url = stack["Outputs"][0]["OutputValue"]
    with httpx.Client(timeout=60) as client:
        yield Shop(platform, url, request.param, client, move)
    assert platform.stop() == 0, platform.printed()


class Visitors:
    """Several who ask without a pause until the block ends: how often each (status, who answered) was met."""

    def __init__(self, url: str, count: int = 6) -> None:
        self.met = Counter[tuple[str, int, str]]()
        self.failures: list[BaseException] = []
        self._url = urlsplit(url)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=(number,)) for number in range(count)]

    @property
    def total(self) -> int:
        return sum(self.met.values()) + len(self.failures)

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, number: int) -> None:
        connection = http.client.HTTPConnection(str(self._url.hostname), self._url.port, timeout=60)
        turn = 0
        while not self._stop.is_set():
            turn += 1
            user = {"X-User": f"user-{number}-{turn % USERS}"}
            try:
                if turn % 5:
                    connection.request("GET", f"{self._url.path}/quotes/cup", headers=user)
                else:
                    connection.request("POST", f"{self._url.path}/orders", body=b"x" * (turn % 3_000), headers=user)
                answer = connection.getresponse()
                body = json.loads(answer.read())
                self.met["quote" if turn % 5 else "order", answer.status, body.get("by", "")] += 1
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.failures.append(error)
                connection.close()
        connection.close()


def ask(shop: Shop, path: str, **more: Any) -> tuple[int, Any]:
    answer = shop.client.request(more.pop("method", "GET"), shop.url + path, **more)
    return answer.status_code, answer.json()


def test_each_path_is_answered_by_whom_it_has_moved_to(shop: Shop) -> None:
    assert ask(shop, "/products/cup") == (200, {"name": "cup", "cents": 300, "by": "martlet"})
    assert ask(shop, "/quotes/cup") == (200, {"name": "cup", "cents": 300, "by": "legacy"})
    assert ask(shop, "/no/such/page")[0] == 404
    status, order = ask(shop, "/orders", method="POST", content=bytes(5_000_000))
    assert (status, order["bytes"], order["by"]) == (201, 5_000_000, "legacy")
    assert "127.0.0.1" in order["for"]
    if shop.form == "app":  # API Gateway knows no choice by header
        assert ask(shop, "/quotes/cup", headers={"X-Beta": "1"})[1]["by"] == "martlet"


def test_a_route_moves_without_a_failed_request(shop: Shop) -> None:
    steps = [0, 10, 50, 100] if shop.form == "app" else [0, 100, 0, 100]
    with Visitors(shop.url) as visitors:
        for number, share in enumerate(steps, start=1):
            shop.move(share)
            if shop.form == "app":
                moved = sum(quoted_by(shop, user) == "martlet" for user in range(40))
                assert {0: moved == 0, 100: moved == 40}.get(share, True)
            eventually(lambda number=number: visitors.total >= REQUESTS * number // len(steps), 120 + REQUESTS / 50)
    assert visitors.failures == []
    assert {status for _, status, _ in visitors.met} == {200, 201}, visitors.met
    assert visitors.met["quote", 200, "legacy"] > 0
    assert visitors.met["quote", 200, "martlet"] > 0
    assert {by for kind, _, by in visitors.met if kind == "order"} == {"legacy"}
    assert {quoted_by(shop, user) for user in range(20)} == {"martlet"}


def quoted_by(shop: Shop, user: int) -> str:
    by: str = ask(shop, "/quotes/cup", headers={"X-User": f"user-{user}"})[1]["by"]
    return by


def test_a_share_holds_and_no_client_changes_sides(shop: Shop) -> None:
    if shop.form == "template":
        assert ask(shop, "/quotes/cup", headers={"X-Beta": "1"})[1]["by"] == "legacy", "a template moves whole routes"
        return
    seen: list[set[int]] = []
    for share in (10, 50):
        shop.move(share)
        seen += [{user for user in range(200) if quoted_by(shop, user) == "martlet"} for _ in range(2)]
    assert seen[0] == seen[1] < seen[2] == seen[3]
    assert 10 <= len(seen[0]) <= 30
    assert 80 <= len(seen[2]) <= 120


def test_a_legacy_server_on_this_machine_must_be_allowed(martlet: Command, tmp_path: Path, start: Start) -> None:
    platform = start(None)
    ran = martlet("deploy", EXAMPLES / "strangler", data=platform.data)
    assert ran.code != 0
    assert "127.0.0.1 may not be called: it is this host" in ran.err
    assert "MARTLET_INTEGRATION_HOSTS=127.0.0.1:9000" in ran.err
