"""Whole ASGI and WSGI apps behind one function: FastAPI, Starlette and Flask, and apps that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import fastapi
import flask
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from martlet import App

from .events import body_of, v1, v2

pytestmark = pytest.mark.filterwarnings("error")


def mount(app: Any, path: str = "/api", **options: Any) -> Any:
    return App("t").mount(path, app, **options).__martlet_entry__()


def reviews() -> fastapi.FastAPI:
    api = fastapi.FastAPI()

    @api.get("/")
    def index(request: fastapi.Request) -> dict[str, str]:
        return {"url": str(request.url), "root_path": request.scope["root_path"]}

    @api.post("/items/{id}")
    async def item(id: int, body: dict[str, int], q: list[str] = fastapi.Query()) -> dict[str, Any]:  # noqa: B008
        return {"id": id, "body": body, "q": q}

    return api


async def test_fastapi_under_a_prefix() -> None:
    entry = mount(reviews())
    found = await entry(v2(path="/api/"), None)
    assert json.loads(found["body"]) == {"url": "https://shop.localhost:8700/api/", "root_path": "/api"}
    found = await entry(v2(path="/api"), None)
    assert (found["statusCode"], found["headers"]["location"]) == (307, "https://shop.localhost:8700/api/")
    event = v2("POST", "/api/items/3", query="q=a&q=b%20c", body='{"n": 1}', headers={"content-type": "application/json"})
    assert json.loads((await entry(event, None))["body"]) == {"id": 3, "body": {"n": 1}, "q": ["a", "b c"]}
    assert (await entry(v2("POST", "/api/items/x", query="q=a", body="{}"), None))["statusCode"] == 422
    assert (await entry(v2(path="/api/none"), None))["statusCode"] == 404
    old = v1(
        "POST",
        "/api/items/4",
        query={"q": ["a&b", "c"]},
        headers={"Content-Type": ["application/json"]},
        body="{}",
    )
    assert json.loads((await entry(old, None))["body"]) == {"id": 4, "body": {}, "q": ["a&b", "c"]}


async def test_fastapi_at_the_root_serves_its_own_documentation() -> None:
    found = await mount(reviews(), "/")(v2(path="/openapi.json"), None)
    assert "/items/{id}" in json.loads(found["body"])["paths"]


async def _echo(request: Request) -> Response:
    body = await request.body()
    answer = Response(body, headers={"x-cookies": json.dumps(request.cookies), "x-path": request.url.path})
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer


async def test_bodies_cookies_and_escapes_pass_exactly() -> None:
    entry = mount(Starlette(routes=[Route("/{path:path}", _echo, methods=["PUT"])]), "/")
    found = await entry(v2("PUT", "/a%2Fb/%C3%BC", body=bytes(range(256)), cookies=["x=1", "y=2"]), None)
    assert body_of(found) == bytes(range(256))
    assert json.loads(found["headers"]["x-cookies"]) == {"x": "1", "y": "2"}
    assert [cookie.partition(";")[0] for cookie in found["cookies"]] == ["a=1", "b=2"]
    assert found["headers"]["x-path"] in ("/a/b/ü", "/a%2Fb/%C3%BC", "/a/b/%C3%BC")
    old = await entry(v1("PUT", "/x", body="hi", headers={"Cookie": ["x=1; y=2"]}), None)
    assert [cookie.partition(";")[0] for cookie in old["multiValueHeaders"]["set-cookie"]] == ["a=1", "b=2"]
    assert json.loads(old["headers"]["x-cookies"]) == {"x": "1", "y": "2"}


async def test_lifespan_starts_once_and_its_state_is_seen() -> None:
    started: list[int] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        await asyncio.sleep(0)
        started.append(1)
        yield {"n": 41}

    async def show(request: Request) -> JSONResponse:
        request.state.n += 1
        return JSONResponse(request.state.n)

    entry = mount(Starlette(routes=[Route("/", show)], lifespan=lifespan), "/")
    found = await asyncio.gather(*(entry(v2(), None) for _ in range(5)))
    assert [answer["body"] for answer in found] == ["42"] * 5
    assert started == [1]


async def test_a_lifespan_that_fails_fails_every_event_and_startup() -> None:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    entry = mount(Starlette(lifespan=lifespan), "/")
    with pytest.raises(RuntimeError, match=r"(?s)lifespan startup failed.*no database"):
        await entry.startup()
    with pytest.raises(RuntimeError, match="no database"):
        await entry(v2(), None)


async def test_background_tasks_finish_before_the_answer_is_complete() -> None:
    done: list[str] = []

    async def later() -> None:
        await asyncio.sleep(0.001)
        done.append("later")

    def plain(request: Request) -> Response:
        return PlainTextResponse("x", background=BackgroundTask(later))

    def streamed(request: Request) -> Response:
        return StreamingResponse(iter(["a", "b"]), background=BackgroundTask(later))

    entry = mount(Starlette(routes=[Route("/p", plain), Route("/s", streamed)]), "/")
    assert (await entry(v2(path="/p"), None))["body"] == "x"
    assert done == ["later"]
    assert [chunk async for chunk in await entry(v2(path="/s"), None)] == [b"a", b"b"]
    assert done == ["later"] * 2


async def test_streams_flow_and_wait_for_their_reader() -> None:
    made: list[int] = []
    ended: list[str] = []

    async def numbers() -> AsyncIterator[bytes]:
        try:
            for number in range(1000):
                made.append(number)
                yield b"%d," % number
        finally:
            ended.append("yes")

    async def stream(request: Request) -> Response:
        return StreamingResponse(numbers(), 201, {"x-a": "1"}, "text/csv")

    app = Starlette(routes=[Route("/", stream)])
    answer = await mount(app, "/")(v2(), None)
    assert answer.head["statusCode"] == 201
    assert answer.head["headers"] == {"x-a": "1", "content-type": "text/csv; charset=utf-8"}
    chunks = answer.__aiter__()
    assert await anext(chunks) == b"0,"
    await asyncio.sleep(0.01)
    assert len(made) <= 4  # the reader has taken one: the maker does not run ahead
    await chunks.aclose()
    await answer.aclose()
    for _ in range(10):
        await asyncio.sleep(0)
    assert ended == ["yes"]

    answer = await mount(app, "/")(v2(), None)
    assert b"".join([chunk async for chunk in answer]) == b"".join(b"%d," % number for number in range(1000))


async def test_base_http_middleware_works() -> None:
    async def dispatch(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        answer.headers["x-seen"] = "1"
        return answer

    app = Starlette(
        routes=[Route("/", _echo, methods=["POST"])], middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)]
    )
    answer = await mount(app, "/")(v2("POST", body="hello"), None)
    body = b"".join([chunk async for chunk in answer]) if hasattr(answer, "head") else body_of(answer)
    head = answer.head if hasattr(answer, "head") else answer
    assert (body, head["headers"]["x-seen"]) == (b"hello", "1")


async def test_a_failing_app_answers_500_and_logs(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(request: Request) -> Response:
        raise ZeroDivisionError("oh")

    found = await mount(Starlette(routes=[Route("/", broken)]), "/")(v2(), None)
    assert (found["statusCode"], found["body"]) == (500, "Internal Server Error")
    assert "ZeroDivisionError: oh" in capsys.readouterr().err


async def _raises(scope: Any, receive: Any, send: Any) -> None:
    raise KeyError(scope["type"])


async def _silent(scope: Any, receive: Any, send: Any) -> None:
    return


async def _half(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})


async def _late(scope: Any, receive: Any, send: Any) -> None:
    await _half(scope, receive, send)
    raise KeyError("late")


async def _body_first(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"x"})


async def _twice(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
    await send({"type": "http.response.body", "body": b"y"})


@pytest.mark.parametrize(
    ("app", "error", "message"),
    [
        (_raises, KeyError, "http"),
        (_silent, RuntimeError, "without an answer"),
        (_body_first, RuntimeError, "out of order"),
    ],
)
async def test_apps_that_break_the_protocol(app: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        await mount(app, "/")(v2(), None)


@pytest.mark.parametrize(("app", "error"), [(_half, RuntimeError), (_late, KeyError)])
async def test_an_app_that_breaks_off_breaks_the_stream(app: Any, error: type[Exception]) -> None:
    answer = await mount(app, "/")(v2(), None)
    chunks = answer.__aiter__()
    assert await anext(chunks) == b"x"
    with pytest.raises(error):
        await anext(chunks)


async def test_what_comes_after_the_end_is_refused_but_the_answer_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert (await mount(_twice, "/")(v2(), None))["statusCode"] == 200
    assert "out of order" in capsys.readouterr().err


async def test_cancelling_the_entry_cancels_the_app() -> None:
    cancelled = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("none")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    task = asyncio.create_task(mount(slow, "/")(v2(), None))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_receive_says_disconnect_after_the_answer() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append((await receive())["type"])
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
            seen.append((await receive())["type"])

    assert (await mount(app, "/")(v2(), None))["statusCode"] == 204
    assert seen == ["http.request", "http.disconnect"]


# --- WSGI -----------------------------------------------------------------------------------------------------------------


def shop() -> flask.Flask:
    app = flask.Flask("shop")

    @app.route("/items/<int:id>", methods=["GET", "POST"])
    def item(id: int) -> Any:
        request = flask.request
        found = {
            "id": id,
            "q": request.args.getlist("q"),
            "json": request.get_json(silent=True),
            "url": request.url,
            "cookies": dict(request.cookies),
            "client": request.remote_addr,
            "script": request.script_root,
        }
        answer = flask.jsonify(found)
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "2")
        return answer

    @app.route("/big")
    def big() -> Any:
        return b"\xff" * 3_000_000

    @app.route("/stream")
    def stream() -> Any:
        return flask.Response((part for part in ["a", "", "b"]), mimetype="text/csv")

    @app.route("/echo", methods=["POST"])
    def echo() -> Any:
        return flask.request.get_data()

    return app


def test_flask_under_a_prefix() -> None:
    entry = mount(shop(), "/web")
    event = v2(
        "POST",
        "/web/items/3",
        query="q=a&q=b",
        body='{"n": 1}',
        headers={"content-type": "application/json"},
        cookies=["c=1", "d=2"],
    )
    found = entry(event, None)
    assert json.loads(found["body"]) == {
        "id": 3,
        "q": ["a", "b"],
        "json": {"n": 1},
        "url": "https://shop.localhost:8700/web/items/3?q=a&q=b",
        "cookies": {"c": "1", "d": "2"},
        "client": "192.0.2.7",
        "script": "/web",
    }
    assert [cookie.partition(";")[0] for cookie in found["cookies"]] == ["a=1", "b=2"]
    assert entry(v2(path="/web/none"), None)["statusCode"] == 404
    old = entry(v1(path="/web/items/4", query={"q": ["x y"]}), None)
    assert json.loads(old["body"])["q"] == ["x y"]
    assert len(old["multiValueHeaders"]["set-cookie"]) == 2


def test_flask_streams_what_is_long_or_unknown() -> None:
    entry = mount(shop(), "/")
    stream = entry(v2(path="/stream"), None)
    assert stream.head["headers"]["content-type"] == "text/csv; charset=utf-8"
    assert list(stream) == [b"a", b"b"]
    assert b"".join(entry(v2(path="/big"), None)) == b"\xff" * 3_000_000
    assert body_of(entry(v2("POST", "/echo", body=bytes(range(256))), None)) == bytes(range(256))


def test_wsgi_close_is_called_however_it_ends() -> None:
    closed: list[str] = []

    class Body:
        def __init__(self, parts: list[bytes], fail: bool = False) -> None:
            self.parts, self.fail = parts, fail

        def __iter__(self) -> Iterator[bytes]:
            yield from self.parts
            if self.fail:
                raise ZeroDivisionError

        def close(self) -> None:
            closed.append("yes")

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("X", "1"), ("x", "2")])
        write(b"w")
        return Body([b"", b"a", b"b"], environ["PATH_INFO"] == "/fail")

    entry = mount(app, "/", interface="wsgi")
    stream = entry(v2(), None)
    assert stream.head["headers"] == {"x": "1, 2"}
    assert list(stream) == [b"w", b"a", b"b"]
    assert closed == ["yes"]
    with pytest.raises(ZeroDivisionError):
        list(entry(v2(path="/fail"), None))
    assert closed == ["yes"] * 2
    entry(v2(), None).close()
    assert closed == ["yes"] * 3


def test_wsgi_apps_that_break_the_protocol() -> None:
    def silent(environ: Any, start_response: Any) -> Any:
        return [b"x"]

    def twice(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    def recovers(environ: Any, start_response: Any) -> Any:
        import sys

        start_response("200 OK", [])
        try:
            raise KeyError("x")
        except KeyError:
            start_response("500 Oops", [("content-type", "text/plain")], sys.exc_info())
        return [b"oops"]

    with pytest.raises(AssertionError, match="without calling start_response"):
        mount(silent, "/")(v2(), None)
    with pytest.raises(AssertionError, match="twice"):
        mount(twice, "/")(v2(), None)
    assert mount(recovers, "/")(v2(), None)["statusCode"] == 500


def test_headers_with_underscores_cannot_pose_as_others() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/plain")])
        return [environ.get("HTTP_X_USER", "nobody").encode()]

    entry = mount(app, "/")
    assert entry(v2(headers={"x_user": "root"}), None)["body"] == "nobody"
    assert entry(v2(headers={"x-user": "ann"}), None)["body"] == "ann"
