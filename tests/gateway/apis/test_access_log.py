"""Access logs of stages: their lines over real HTTP, and how they reach the log group."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.gateway.apis.conftest import Build, http, rest

from martlet.errors import StoreFull
from martlet.gateway.apis.access_log import AccessLog, line_of
from martlet.types import ApiIntegration, ApiRoute, Outcome, Throttle

FORM = (
    '{"id":"$context.requestId","ip":"$context.identity.sourceIp","agent":"$context.identity.userAgent",'
    '"method":"$context.httpMethod","path":"$context.resourcePath","key":"$context.routeKey","status":"$context.status",'
    '"length":"$context.responseLength","function":"$context.integration.status","stage":"$context.stage",'
    '"error":"$context.error.responseType","who":"$context.authorizer.principalId","none":"$context.nothing.here"}\n'
)


def route(method: str = "GET", path: str = "/pets/{id}") -> ApiRoute:
    return ApiRoute(
        method=method,
        path=path,
        integration=ApiIntegration(kind="AWS_PROXY", function="shop", method="POST", timeout_ms=30_000),
    )


class Kept:
    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []

    def __call__(self, group: str, at_ms: int, line: str) -> None:
        self.lines.append((group, json.loads(line)))


@pytest.mark.parametrize("build", [rest, http])
async def test_each_answer_is_a_line_in_the_stages_form(stand: Build, build: Any) -> None:
    kept = Kept()
    stage = {"access_log_group": "calls", "access_log_format": FORM}
    served = await stand(build(route(), stage=stage), access_log=kept)
    prefix = "/dev" if build is rest else ""
    agent = 'x" \\, "status": "999'
    said = await served.ask(f"{prefix}/pets/7", headers={"User-Agent": agent})
    assert said.status == 200
    served.functions.default = Outcome(b"[]" if build is rest else b"1", "Unhandled")
    await served.ask(f"{prefix}/pets/8")
    (group, first), (_, second) = kept.lines
    assert group == "calls"
    assert (first["agent"], first["status"], first["length"]) == (agent, "200", "2"), "a client cannot write fields of its own"
    assert (first["ip"], first["method"], first["path"], first["function"]) == ("127.0.0.1", "GET", "/pets/{id}", "200")
    if build is rest:
        assert first["id"] == said.headers["x-amzn-requestid"]
    assert (first["stage"], first["key"]) == ("dev" if build is rest else "$default", "GET /pets/{id}")
    assert (first["error"], first["who"], first["none"]) == ("-", "-", "-")
    assert int(second["status"]) >= 500


async def test_what_the_gateway_refuses_is_a_line_too(stand: Build) -> None:
    kept = Kept()
    stage = {"access_log_group": "g", "access_log_format": FORM, "throttle": Throttle(rate=0, burst=0)}
    served = await stand(rest(route(), stage=stage), access_log=kept)
    assert (await served.ask("/dev/pets/7")).status == 429
    ((_, line),) = kept.lines
    assert (line["status"], line["error"], line["function"]) == ("429", "THROTTLED", "-")


async def test_a_stage_without_one_writes_none(stand: Build) -> None:
    kept = Kept()
    served = await stand(rest(route()), access_log=kept)
    assert (await served.ask("/dev/pets/7")).status == 200
    assert kept.lines == []


def test_a_format_is_text_with_names() -> None:
    facts = {"requestId": "r", "identity": {"sourceIp": "1.2.3.4", "user": None}, "line": "a\nb"}
    assert (
        line_of("$context.identity.sourceIp $context.identity.user [$context.requestId] $context", facts)
        == "1.2.3.4 - [r] $context"
    )
    assert line_of("$context.requestId.", facts) == "r."
    assert line_of("$context.line $context.identity\n", facts) == "a\\nb -"


async def test_lines_wait_for_a_store_that_fails() -> None:
    written: list[tuple[str, list[tuple[int, str]]]] = []
    broken = True

    async def write(group: str, lines: list[tuple[int, str]]) -> None:
        if broken and group == "b":
            raise StoreFull("the disk is full")
        written.append((group, list(lines)))

    log = AccessLog(write)
    for number in range(3):
        log.add("a", number, f"a{number}")
        log.add("b", number, f"b{number}")
    await asyncio.wait_for(_until(lambda: bool(written)), 10)
    assert written == [("a", [(0, "a0"), (1, "a1"), (2, "a2")])]
    broken = False
    log.add("b", 3, "b3")
    await log.close()
    assert written[1:] == [("b", [(0, "b0"), (1, "b1"), (2, "b2"), (3, "b3")])]


async def _until(done: Any) -> None:
    while not done():  # noqa: ASYNC110 - what it waits for is another task's
        await asyncio.sleep(0.01)
