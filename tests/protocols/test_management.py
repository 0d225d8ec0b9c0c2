"""The management API: every endpoint, who may call it, and what it says when it refuses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests.protocols.fakes import BEARER, CALLER, USED, Record, World, version

from martlet.errors import Throttled
from martlet.limits import LIMITS, Limit
from martlet.protocols import app, management
from martlet.protocols.asgi import Request, Router

ENDPOINTS = [
    ("GET", "/metrics"),
    ("GET", "/v1/status"),
    ("GET", "/v1/apps"),
    ("GET", "/v1/apps/shop"),
    ("DELETE", "/v1/apps/shop"),
    ("POST", "/v1/apps/shop/deployments"),
    ("GET", "/v1/functions"),
    ("GET", "/v1/functions/shop-echo"),
    ("POST", "/v1/functions/shop-echo/invocations"),
    ("GET", "/v1/logs"),
    ("GET", "/v1/logs?function=shop-echo"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/dead-letters"),
    ("GET", "/v1/documents/carts?app=shop"),
    ("GET", "/v1/documents/carts/1?app=shop"),
    ("PUT", "/v1/documents/carts/1?app=shop"),
    ("DELETE", "/v1/documents/carts/1?app=shop"),
]


@pytest.fixture
def world() -> World:
    return World()


def client_of(world: World, context: Any = None, **headers: str) -> httpx.AsyncClient:
    inner = app(world.rooms)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "martlet.context": context}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://test", headers=headers)


@pytest.fixture
def root(world: World) -> httpx.AsyncClient:
    return client_of(world, **BEARER)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["type"]) == (status, status, f"urn:martlet:error:{code}"), body
    assert body["request_id"]
    return body


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_nobody_gets_in_without_credentials(world: World, method: str, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic cm9vdA=="}):
        async with client_of(world, **headers) as client:
            answer = await client.request(method, path)
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "shop" in world.apps.records
    assert world.functions.calls == []
    assert world.apps.sources == []


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_a_function_may_do_what_it_was_granted(world: World, method: str, path: str) -> None:
    async with client_of(world, CALLER, **BEARER) as client:  # the sandbox's own principal wins over any header
        answer = await client.request(method, path)
    granted = path in ("/v1/functions/shop-echo/invocations", "/v1/documents/carts/1?app=shop") and method in ("POST", "GET")
    assert (answer.status_code == 403) is not granted
    assert "shop" in world.apps.records


async def test_a_function_may_not_name_another_apps_documents(world: World) -> None:
    world.functions.versions["other-f"] = version("other-f", "other")
    async with client_of(world, CALLER) as client:
        problem(await client.get("/v1/documents/carts/1?app=other"), 403, "access_denied")
        problem(await client.get("/v1/documents/carts/1"), 404, "not_found")


async def test_health_and_description_are_open(world: World) -> None:
    async with client_of(world) as client:
        assert (await client.get("/v1/health")).json() == {"status": "ok"}
        assert (await client.get("/v1/openapi.json")).json()["openapi"] == "3.1.1"


async def test_unauthenticated_bodies_are_not_read(world: World) -> None:
    read = False

    async def body() -> Any:
        nonlocal read
        read = True
        yield b"x"

    async with client_of(world) as client:
        problem(await client.post("/v1/apps/shop/deployments", content=body()), 401, "unauthenticated")
    assert not read


async def test_what_is_not_there(root: httpx.AsyncClient) -> None:
    async with root:
        for path in (
            "/",
            "/v1",
            "/v1/",
            "/v2/apps",
            "/v1/apps/",
            "/v1/apps/shop/x",
            "/v1//apps",
            "/v1/documents/a/b/c",
            "/%ff",
        ):
            problem(await root.get(path), 404, "not_found")
        problem(await root.get("/v1/apps/none"), 404, "not_found")
        problem(await root.get("/v1/functions/none"), 404, "not_found")
        problem(await root.get("/v1/logs?function=none"), 404, "not_found")
        answer = await root.put("/v1/apps/shop")
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "DELETE, GET"


async def test_unknown_and_double_parameters(root: httpx.AsyncClient) -> None:
    async with root:
        for path in (
            "/v1/logs?limt=1",
            "/v1/logs?limit=1&limit=2",
            "/v1/logs?limit=0",
            "/v1/logs?limit=-1",
            "/v1/logs?limit=10001",
        ):
            problem(await root.get(path), 400, "invalid_input")
        for path in (
            "/v1/logs?since_ms=x",
            "/v1/logs?since_ms=١",
            "/v1/logs?follow=yes",
            "/v1/usage?since_ms=2&until_ms=1",
            "/v1/health?a=1",
        ):
            problem(await root.get(path), 400, "invalid_input")


async def test_apps(root: httpx.AsyncClient, world: World) -> None:
    async with root:
        listed = (await root.get("/v1/apps")).json()["apps"]
        assert [(found["name"], found["functions"]) for found in listed] == [("shop", ["shop-echo"])]
        assert (await root.get("/v1/apps/shop")).json() == listed[0]
        answer = await root.delete("/v1/apps/shop")
        assert (answer.status_code, answer.content) == (204, b"")
        problem(await root.delete("/v1/apps/shop"), 404, "not_found")


async def test_functions_do_not_show_secrets(root: httpx.AsyncClient) -> None:
    async with root:
        answer = await root.get("/v1/functions?app=shop")
        one = await root.get("/v1/functions/shop-echo")
    assert one.json() in answer.json()["functions"]
    assert one.json()["config"]["environment"] == ["SECRET"]
    assert "hunter2" not in answer.text + one.text


async def test_deploy_upload(root: httpx.AsyncClient, world: World) -> None:
    async with root:
        answer = await root.post("/v1/apps/new/deployments", content=b"tar bytes")
    assert [event["type"] for event in events(answer)] == ["progress", "progress", "result"]
    assert events(answer)[-1]["deployment"]["steps"] == ["publish function  new-echo  (new)"]
    assert world.apps.sources == [b"tar bytes"]
    assert "new" in world.apps.records


async def test_deploy_dry_run(root: httpx.AsyncClient, world: World) -> None:
    async with root:
        answer = await root.post("/v1/apps/new/deployments?dry_run=true", content=b"tar")
    assert events(answer)[-1]["deployment"]["dry_run"] is True
    assert "new" not in world.apps.records


async def test_deploy_of_a_path(root: httpx.AsyncClient, world: World, tmp_path: Any) -> None:
    async with root:
        assert (await root.post("/v1/apps/new/deployments", params={"path": str(tmp_path)})).status_code == 200
        problem(await root.post("/v1/apps/new/deployments?path=relative"), 400, "invalid_input")
        problem(await root.post("/v1/apps/new/deployments?path=/a", content=b"x"), 400, "invalid_input")
    assert world.apps.sources == [tmp_path]


async def test_a_path_is_for_the_owner_only(world: World) -> None:
    principal = type(CALLER)("service", "ci", frozenset({("apps:Deploy", "new")}))
    async with client_of(world, principal) as client:
        problem(await client.post("/v1/apps/new/deployments?path=/etc"), 403, "access_denied")
        assert (await client.post("/v1/apps/new/deployments", content=b"tar")).status_code == 200


async def test_deploy_that_fails_at_once_has_its_own_status(root: httpx.AsyncClient, world: World) -> None:
    world.deploy_fails([])
    async with root:
        body = problem(await root.post("/v1/apps/new/deployments", content=b"t"), 422, "deploy_failed")
    assert (body["detail"], body["remedy"], body["stack"]) == ("app.py:3: invalid syntax", "fix it", "Traceback (yours)")


async def test_deploy_that_fails_later_ends_with_an_error(root: httpx.AsyncClient, world: World) -> None:
    world.deploy_fails(["packed 2 files"])
    async with root:
        found = events(await root.post("/v1/apps/new/deployments", content=b"t"))
    assert [event["type"] for event in found] == ["progress", "error"]
    assert found[-1]["error"]["type"] == "urn:martlet:error:deploy_failed"


async def test_upload_that_is_too_large(root: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr("martlet.apps.archive.UPLOAD_BYTES", 10)
    async with root:
        body = problem(await root.post("/v1/apps/new/deployments", content=b"x" * 11), 413, "limit_exceeded")
    assert body["limit"] == "code_bytes"
    assert world.apps.sources == []


async def test_silence_is_broken_by_heartbeats(root: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(management, "_HEARTBEAT_SECONDS", 0.001)
    gate = world.apps.gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, gate.set)
    async with root:
        kinds = [event["type"] for event in events(await root.post("/v1/apps/new/deployments", content=b"t"))]
    assert "heartbeat" in kinds
    assert kinds[-1] == "result"


async def test_invoke(root: httpx.AsyncClient, world: World) -> None:
    async with root:
        answer = (await root.post("/v1/functions/shop-echo/invocations?log=true", content=b'{"a": 1}')).json()
        assert (answer["payload"], answer["error"], answer["version"]) == ({"a": 1}, "", 3)
        assert "hello" in answer["log"]
        failed = (await root.post("/v1/functions/shop-fail/invocations")).json()
        assert (failed["error"], failed["error_type"]) == ("Unhandled", "ValueError")
        problem(await root.post("/v1/functions/shop-echo/invocations", content=b"{"), 400, "invalid_input")
    assert [call["payload"] for call in world.functions.calls] == [b'{"a": 1}', b"{}"]


async def test_a_version_or_an_alias_is_invoked_by_its_name(root: httpx.AsyncClient, world: World) -> None:
    async with root:
        answer = await root.post("/v1/functions/echo%3Alive/invocations", content=b"{}")  # the short name is enough
        assert answer.json()["function"] == "shop-echo:live"
        assert (await root.get("/v1/functions/shop-echo:live")).json()["name"] == "shop-echo"
        said = problem(await root.get("/v1/logs?function=shop-echo:live"), 400, "invalid_input")
    assert "kept by function" in said["detail"]


async def test_debugging_tells_what_to_do_and_ends_with_the_event(root: httpx.AsyncClient, world: World) -> None:
    world.functions.attached.set()
    async with root:
        answer = await root.post("/v1/functions/shop-echo/debug?port=5678", content=b"[1]")
        told, result = events(answer)
        assert told["text"] == "shop-echo waits for a debugger on 127.0.0.1:5678"
        assert (result["type"], result["invocation"]["payload"]) == ("result", [1])
        problem(await root.post("/v1/functions/shop-nothing/debug"), 404, "not_found")
        problem(await root.post("/v1/functions/shop-echo/debug?port=70000"), 400, "invalid_input")
    async with client_of(world, CALLER) as inside:  # may invoke it, which is not the same
        problem(await inside.post("/v1/functions/shop-echo/debug"), 403, "access_denied")


async def test_debugging_ends_when_the_client_goes(world: World) -> None:
    went = asyncio.Event()
    body = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive() -> Any:
        if body:
            return body.pop()
        await went.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if b"waits for a debugger" in message.get("body", b""):
            went.set()
        elif went.is_set():
            raise OSError

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/functions/shop-echo/debug",
        "raw_path": b"/v1/functions/shop-echo/debug",
        "query_string": b"",
        "headers": [(b"authorization", BEARER["authorization"].encode())],
    }
    await asyncio.wait_for(app(world.rooms)(scope, receive, send), 10)
    assert world.functions.debugging_ended


async def test_failed_events(root: httpx.AsyncClient, world: World) -> None:
    async with root:
        listed = (await root.get("/v1/failures")).json()["failures"]
        assert [(found["request_id"], found["function"], found["qualifier"]) for found in listed] == [
            ("r1", "shop-fail", ""),
            ("r2", "shop-echo", "1"),
        ]
        assert "payload" not in listed[0]  # what was sent may be secret; its size is not
        again = (await root.post("/v1/failures/r2/replays?log=true")).json()
        assert (again["replay_of"], again["function"], again["payload"]) == ("r2", "shop-echo:1", {"n": 1})
        assert "hello" in again["log"]
        problem(await root.post("/v1/failures/r3/replays"), 404, "not_found")
        problem(await root.get("/v1/failures?function=none"), 404, "not_found")
    async with client_of(world, CALLER) as inside:
        assert (await inside.post("/v1/failures/r2/replays")).status_code == 200  # it may invoke shop-echo
        problem(await inside.post("/v1/failures/r1/replays"), 403, "access_denied")
        problem(await inside.get("/v1/failures"), 403, "access_denied")


async def test_invoke_refused(root: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.functions.refusal = Throttled("too many", retry_after_seconds=3)
    async with root:
        answer = await root.post("/v1/functions/shop-busy/invocations")
        assert problem(answer, 429, "throttled")["retry_after_seconds"] == 3
        assert answer.headers["retry-after"] == "3"
        monkeypatch.setitem(LIMITS, "payload_bytes", Limit("payload_bytes", 5, "bytes", "test"))
        body = problem(await root.post("/v1/functions/shop-echo/invocations", content=b'"12345"'), 413, "limit_exceeded")
    assert (body["limit"], body["limit_value"]) == ("payload_bytes", 5)


async def test_logs(root: httpx.AsyncClient, world: World) -> None:
    world.logs.records = [Record("shop-echo", "1", "a"), Record("shop-fail", "2", "b")]
    async with root:
        found = events(await root.get("/v1/logs?since_ms=5&limit=7"))
        assert [(event["function"], event["request_id"], event["lines"][1]) for event in found] == [
            ("shop-echo", "1", "a"),
            ("shop-fail", "2", "b"),
        ]
        assert len(events(await root.get("/v1/logs?function=shop-fail"))) == 1
    assert world.logs.asked == [(None, 5, 7), ("shop-fail", None, 1000)]


async def test_following_logs_ends_with_their_end(root: httpx.AsyncClient, world: World) -> None:
    world.logs.records = [Record("shop-echo", "1", "a")]
    world.logs.fresh.put_nowait(Record("shop-echo", "2", "b"))
    world.logs.fresh.put_nowait(None)
    async with root:
        found = events(await root.get("/v1/logs?follow=true"))
    assert [event["request_id"] for event in found] == ["1", "2"]
    assert world.logs.ended


async def test_following_logs_ends_when_the_client_goes(world: World) -> None:
    world.logs.records = [Record("shop-echo", "1", "a")]
    seen = asyncio.Event()
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    async def send(message: dict[str, Any]) -> None:
        if message.get("body"):
            seen.set()

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/logs",
        "query_string": b"follow=true",
        "headers": [(name.encode(), value.encode()) for name, value in BEARER.items()],
    }
    serving = asyncio.create_task(app(world.rooms)(scope, incoming.get, send))
    await seen.wait()
    assert not serving.done()
    incoming.put_nowait({"type": "http.disconnect"})
    await serving
    assert world.logs.ended


async def test_a_client_that_goes_does_not_stop_its_deployment(world: World) -> None:
    gate = world.apps.gate = asyncio.Event()
    seen = asyncio.Event()
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    incoming.put_nowait({"type": "http.request", "body": b"tar", "more_body": False})

    async def send(message: dict[str, Any]) -> None:
        seen.set()

    headers = [(name.encode(), value.encode()) for name, value in BEARER.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/apps/new/deployments", "query_string": b"", "headers": headers}
    serving = asyncio.create_task(app(world.rooms)(scope, incoming.get, send))
    await seen.wait()
    incoming.put_nowait({"type": "http.disconnect"})
    await serving
    gate.set()
    while "new" not in world.apps.records:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_usage_status_and_metrics(root: httpx.AsyncClient, world: World) -> None:
    async with root:
        usage = (await root.get("/v1/usage?since_ms=5")).json()
        assert usage == {
            "since_ms": 5,
            "until_ms": 1_700_000_000_000,
            "functions": [{**USED, "hour_ms": 5}],
            "documents": [],
            "requests": [],
        }
        assert (await root.get("/v1/status")).json() == {"version": "9.9.9", **world.rooms.status()}
        metrics = await root.get("/metrics")
        assert metrics.text.startswith("# HELP")
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")


class TestDocuments:
    PATH = "/v1/documents/carts/one%2Ftwo?app=shop"

    async def test_life_of_a_document(self, root: httpx.AsyncClient, world: World) -> None:
        async with root:
            problem(await root.get(self.PATH), 404, "not_found")
            created = await root.put(self.PATH, content=b'{"b":  1}', headers={"if-none-match": "*"})
            assert (created.status_code, created.headers["etag"]) == (201, '"1"')
            assert ("shop", "carts", "one/two") in world.documents.rows
            found = await root.get(self.PATH)
            assert (found.content, found.headers["etag"]) == (b'{"b":  1}', '"1"')
            assert (await root.get(self.PATH, headers={"if-none-match": '"1"'})).status_code == 304
            replaced = await root.put(self.PATH, json=2, headers={"if-match": '"1"'})
            assert (replaced.status_code, replaced.headers["etag"]) == (204, '"2"')
            assert (await root.delete(self.PATH, headers={"if-match": '"2"'})).status_code == 204
            problem(await root.delete(self.PATH), 404, "not_found")

    async def test_conditions_that_do_not_hold(self, root: httpx.AsyncClient, world: World) -> None:
        async with root:
            problem(await root.put(self.PATH, json=1, headers={"if-match": '"1"'}), 412, "precondition_failed")
            problem(await root.put(self.PATH, json=1, headers={"if-match": "*"}), 412, "precondition_failed")
            problem(await root.delete(self.PATH, headers={"if-match": "*"}), 412, "precondition_failed")
            assert world.documents.rows == {}
            await root.put(self.PATH, json=1)
            problem(await root.put(self.PATH, json=2, headers={"if-none-match": "*"}), 412, "precondition_failed")
            problem(await root.put(self.PATH, json=2, headers={"if-match": '"7"'}), 412, "precondition_failed")
            problem(await root.delete(self.PATH, headers={"if-match": '"7"'}), 412, "precondition_failed")
            assert (await root.put(self.PATH, json=3, headers={"if-match": "*"})).headers["etag"] == '"2"'

    @pytest.mark.parametrize(
        "headers",
        [
            {"if-match": "1"},
            {"if-match": 'W/"1"'},
            {"if-match": '"0"'},
            {"if-match": '"a"'},
            {"if-match": '"1", "2"'},
            {"if-none-match": '"1"'},
            {"if-match": '"1"', "if-none-match": "*"},
        ],
    )
    async def test_conditions_that_mean_nothing(self, root: httpx.AsyncClient, world: World, headers: dict[str, str]) -> None:
        async with root:
            problem(await root.put(self.PATH, json=1, headers=headers), 400, "invalid_input")
        assert world.documents.rows == {}

    async def test_listing(self, root: httpx.AsyncClient) -> None:
        async with root:
            for name in ("a1", "a2", "b1"):
                await root.put(f"/v1/documents/carts/{name}?app=shop", json=name)
            page = (await root.get("/v1/documents/carts?app=shop&limit=2")).json()
            assert [item["id"] for item in page["items"]] == ["a1", "a2"]
            rest = (await root.get(f"/v1/documents/carts?app=shop&after={page['next']}")).json()
            assert rest == {"items": [{"id": "b1", "version": 1, "value": "b1"}], "next": None}
            for limit in ("0", "1001", "x", ""):
                problem(await root.get(f"/v1/documents/carts?app=shop&limit={limit}"), 400, "invalid_input")

    async def test_from_outside_the_app_must_be_named(self, root: httpx.AsyncClient) -> None:
        async with root:
            problem(await root.get("/v1/documents/carts/1"), 400, "invalid_input")

    async def test_too_large(self, root: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(LIMITS, "document_bytes", Limit("document_bytes", 3, "bytes", "test"))
        async with root:
            assert problem(await root.put(self.PATH, content=b"12345"), 413, "limit_exceeded")["limit"] == "document_bytes"


async def test_a_fault_inside_is_not_told(root: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(world.apps, "list", broken)
    async with root:
        answer = await root.get("/v1/apps")
    problem(answer, 500, "internal")
    assert "secret" not in answer.text


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


async def test_description_fits_the_router(world: World, root: httpx.AsyncClient) -> None:
    async with root:
        described = (await root.get("/v1/openapi.json")).json()
    router = management._Management(world.rooms).router()
    assert {(o.method.lower(), o.path) for o in router.operations} == {
        (method, path) for path, methods in described["paths"].items() for method in methods
    }
    operations = [operation for methods in described["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for path, methods in described["paths"].items():
        for operation in methods.values():
            inside = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert inside == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert all("description" in answer for answer in operation["responses"].values())
    for reference in references(described):
        assert reference.rpartition("/")[2] in described["components"]["schemas"]


def test_router_decodes_after_the_split() -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError

    async def handler(request: Request) -> Any:
        raise AssertionError

    from martlet.protocols.asgi import Operation

    router = Router((Operation("GET", "/a/{name}/b", handler),))
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/a/x/y/b",
        "raw_path": b"/a/x%2Fy%20z/b",
        "headers": [],
        "query_string": b"",
    }
    request = Request(scope, receive)
    router.find(request)
    assert request.parameters == {"name": "x/y z"}
