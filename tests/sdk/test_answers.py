"""Return values as answers."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import pydantic
import pytest

from martlet import App, HTTPError, Response

from .events import body_of, v1, v2


class Model(pydantic.BaseModel):
    at: datetime


class Struct(msgspec.Struct):
    n: int


@dataclass
class Data:
    inner: Struct


class Colour(Enum):
    RED = "red"


def answer(result: Any, event: dict[str, Any] | None = None) -> dict[str, Any]:
    def handler() -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    found = App("t").get("/")(handler).__martlet_entry__()(event or v2(), None)
    assert isinstance(found, dict)
    return found


JSON = [
    ({"a": [1, None, True]}, {"a": [1, None, True]}),
    ([], []),
    ((1, 2), [1, 2]),
    ("text", "text"),
    (0, 0),
    (False, False),
    (Model(at=datetime(2024, 1, 2)), {"at": "2024-01-02T00:00:00"}),  # noqa: DTZ001
    ([Model(at=datetime(2024, 1, 2))], [{"at": "2024-01-02T00:00:00"}]),  # noqa: DTZ001
    ({"deep": [Data(Struct(1))]}, {"deep": [{"inner": {"n": 1}}]}),
    ({Colour.RED.value: Colour.RED}, {"red": "red"}),
    ({"id": uuid.UUID(int=1), "price": Decimal("1.10")}, {"id": str(uuid.UUID(int=1)), "price": "1.10"}),
    ({3}, [3]),
    ("\ud800", "\ud800"),
]


@pytest.mark.parametrize(("value", "expected"), JSON)
def test_values_are_json_200(value: Any, expected: Any) -> None:
    found = answer(value)
    assert (found["statusCode"], found["headers"]) == (200, {"content-type": "application/json"})
    assert json.loads(body_of(found)) == expected


def test_none_is_204() -> None:
    assert answer(None) == {"statusCode": 204, "headers": {}, "body": ""}


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, {"a": b"x"}, object(), {"a": object()}])
def test_what_has_no_json_form_is_an_error(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        answer(value)


def test_bytes_are_binary() -> None:
    found = answer(b"\x89PNG\x00")
    assert found["isBase64Encoded"] is True
    assert body_of(found) == b"\x89PNG\x00"
    assert found["headers"] == {"content-type": "application/octet-stream"}


def test_response_says_everything() -> None:
    response = Response("héllo", 201, {"X-One": "1", "Content-Type": "text/html"}, ["a=1; HttpOnly", "b=2"])
    assert answer(response) == {
        "statusCode": 201,
        "headers": {"x-one": "1", "content-type": "text/html"},
        "cookies": ["a=1; HttpOnly", "b=2"],
        "body": "héllo",
    }
    old = answer(response, v1())
    assert "cookies" not in old
    assert old["multiValueHeaders"] == {"set-cookie": ["a=1; HttpOnly", "b=2"]}
    assert answer(Response("x"))["headers"] == {"content-type": "text/plain; charset=utf-8"}
    assert answer(Response({"a": 1}, 202))["body"] == '{"a":1}'
    assert answer(Response(status=304)) == {"statusCode": 304, "headers": {}, "body": ""}


@pytest.mark.parametrize(
    "response",
    [
        Response(headers={"x": "a\r\nset-cookie: evil=1"}),
        Response(headers={"x\ny": "a"}),
        Response(headers={"": "a"}),
        Response(cookies=["a=1\r\nx: y"]),
        Response(status=99),
        Response(status=101),
        Response(status=600),
        Response(status=True),
        Response(status="200"),  # type: ignore[arg-type]
    ],
)
def test_answers_that_would_break_http_are_errors(response: Response) -> None:
    with pytest.raises(ValueError, match=r"status|HTTP"):
        answer(response)


def test_text_that_is_not_utf8_stays_exact() -> None:
    found = answer(Response("é".encode("latin-1"), headers={"content-type": "text/plain; charset=latin-1"}))
    assert body_of(found) == b"\xe9"
    gzip = answer(Response(b"{}", headers={"content-type": "application/json", "content-encoding": "br"}))
    assert gzip["isBase64Encoded"] is True


def test_http_error_is_a_problem() -> None:
    found = answer(HTTPError(409, "sold out", headers={"retry-after": "3"}, left=0))
    assert found["statusCode"] == 409
    assert found["headers"] == {"content-type": "application/problem+json", "retry-after": "3"}
    assert json.loads(found["body"]) == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "sold out",
        "left": 0,
    }
    assert json.loads(answer(HTTPError(599))["body"]) == {"type": "about:blank", "title": "Error", "status": 599}
    with pytest.raises(ValueError, match="400 to 599"):
        HTTPError(200)


def test_other_exceptions_reach_the_runtime() -> None:
    with pytest.raises(ZeroDivisionError):
        answer(ZeroDivisionError())


def test_a_generator_streams() -> None:
    closed = []

    def numbers() -> Iterator[str | bytes]:
        try:
            yield "a"
            yield b"b"
            yield "ü"
        finally:
            closed.append(True)

    entry = App("t").get("/")(numbers).__martlet_entry__()
    stream = entry(v2(), None)
    assert stream.__martlet_stream__ is True
    assert stream.head == {"statusCode": 200, "headers": {"content-type": "application/octet-stream"}, "cookies": []}
    assert list(stream) == [b"a", b"b", "ü".encode()]
    assert closed == [True]
    early = entry(v2(), None)
    assert next(iter(early)) == b"a"
    early.close()
    assert closed == [True, True]


def test_a_generator_that_fails_at_once_is_still_an_error_answer() -> None:
    def refuse() -> Iterator[str]:
        raise HTTPError(404, "nothing")
        yield ""

    assert App("t").get("/")(refuse).__martlet_entry__()(v2(), None)["statusCode"] == 404

    def nothing() -> Iterator[str]:
        yield from ()

    assert list(App("t").get("/")(nothing).__martlet_entry__()(v2(), None)) == []

    def wrong() -> Iterator[Any]:
        yield {"a": 1}

    with pytest.raises(TypeError, match="bytes or str"):
        list(App("t").get("/")(wrong).__martlet_entry__()(v2(), None))


async def test_asynchronous_handlers() -> None:
    app = App("t")

    @app.get("/one")
    async def one(n: int = 1) -> dict[str, int]:
        return {"n": n}

    @app.get("/many")
    async def many() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    @app.get("/typed")
    async def typed() -> Response:
        return Response(many.target(), headers={"content-type": "text/event-stream"})

    @app.get("/no")
    async def no() -> AsyncIterator[str]:
        raise HTTPError(403, "no")
        yield ""

    assert (await one.__martlet_entry__()(v2(query="n=2"), None))["body"] == '{"n":2}'
    assert (await one.__martlet_entry__()(v2(query="n=x"), None))["statusCode"] == 422
    stream = await many.__martlet_entry__()(v2(), None)
    assert [chunk async for chunk in stream] == [b"a", b"b"]
    stream = await typed.__martlet_entry__()(v2(), None)
    assert stream.head["headers"] == {"content-type": "text/event-stream"}
    await stream.aclose()
    assert (await no.__martlet_entry__()(v2(), None))["statusCode"] == 403
    assert await one.target(3) == {"n": 3}


def test_functions_for_invoke() -> None:
    app = App("t")
    two = app.function()(lambda event, context: [event, context])
    one = app.function(name="one")(lambda event: event["a"])
    zero = app.function(name="zero")(lambda: "done")
    only_context = app.function(name="ctx")(lambda context: context)
    assert two.__martlet_entry__()({"a": 1}, "c") == [{"a": 1}, "c"]
    assert one.__martlet_entry__()({"a": 1}, "c") == 1
    assert zero.__martlet_entry__()({}, None) == "done"
    assert only_context.__martlet_entry__()({}, "c") == "c"

    @app.function()
    def typed(thing: Struct) -> dict[str, list[Struct]]:
        return {"things": [thing]}

    assert typed.__martlet_entry__()({"n": 3}, None) == {"things": [{"n": 3}]}
    with pytest.raises(ValueError, match="the event does not fit: n Expected `int`"):
        typed.__martlet_entry__()({"n": "3"}, None)
    assert typed(Struct(1)) == {"things": [Struct(1)]}  # called locally it is the plain function
