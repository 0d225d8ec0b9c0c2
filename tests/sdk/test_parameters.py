"""What clients send, as typed parameters; and what they are told when it does not fit."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict

import msgspec
import pydantic
import pytest
from annotated_types import Gt

from martlet import App, Header, Request

from .events import v1, v2


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Item(pydantic.BaseModel):
    sku: str
    quantity: int = pydantic.Field(gt=0)


class Order(pydantic.BaseModel):
    items: list[Item]


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclass
class Address:
    street: str
    tags: list[str] = field(default_factory=list)
    inner: Address | None = None

    def __post_init__(self) -> None:
        if not self.street:
            raise ValueError("the street is empty")


class Box(TypedDict, total=False):
    label: str
    weight: float


Cents = NewType("Cents", int)


def call(function: Any, event: dict[str, Any]) -> tuple[int, Any]:
    answer = function.__martlet_entry__()(event, None)
    return answer["statusCode"], json.loads(answer["body"]) if answer["body"] else None


def errors_of(function: Any, event: dict[str, Any], status: int = 422) -> list[tuple[str, str, str]]:
    code, body = call(function, event)
    assert (code, body["status"]) == (status, status), body
    assert set(body) >= {"type", "title", "status", "detail"}
    return [(error["location"], error["field"], error["message"]) for error in body["errors"]]


def handler(path: str, function: Any, method: str = "GET") -> Any:
    return App("t").route(method, path)(function)


SCALARS = [
    (int, "7", 7),
    (int, "-7", -7),
    (int, "+7", 7),
    (float, "1e3", 1000.0),
    (float, "5", 5.0),
    (bool, "true", True),
    (bool, "0", False),
    (bool, "TRUE", True),
    (str, "", ""),
    (str, " x ", " x "),
    (uuid.UUID, "6fa459ea-ee8a-3ca4-894e-db77e160355e", uuid.UUID("6fa459ea-ee8a-3ca4-894e-db77e160355e")),
    (datetime, "2024-02-29T12:00:00Z", datetime.fromisoformat("2024-02-29T12:00:00+00:00")),
    (date, "2024-02-29", date(2024, 2, 29)),
    (Decimal, "10.10", Decimal("10.10")),
    (Size, "l", Size.LARGE),
    (Level, "2", Level.HIGH),
    (Literal["a", 3], "3", 3),
    (Optional[int], "3", 3),  # noqa: UP045
    (int | None, "3", 3),
    (int | str, "x", "x"),
    (Cents, "250", 250),
    (Annotated[int, "a remark"], "3", 3),
    (Annotated[int, Gt(2)], "3", 3),
    (Annotated[int, msgspec.Meta(gt=2)], "3", 3),
]

NOT = [
    (int, "x"),
    (int, ""),
    (int, "1.0"),
    (int, "1_0"),
    (int, " 1"),
    (int, "٣"),
    (int, "--1"),
    (int, "9" * 5000),
    (float, "nan"),
    (float, "inf"),
    (float, "1e999"),
    (float, "1_0.0"),
    (float, "0x10"),
    (bool, "yes"),
    (bool, ""),
    (uuid.UUID, "{6fa459ea-ee8a-3ca4-894e-db77e160355e}"),
    (uuid.UUID, "6fa459eaee8a3ca4894edb77e160355e"),
    (datetime, "yesterday"),
    (date, "2023-02-29"),
    (Decimal, "NaN"),
    (Decimal, "1_0"),
    (Size, "LARGE"),
    (Level, "3"),
    (Literal["a", 3], "b"),
    (int | None, ""),
    (int | bool, "x"),
    (Annotated[int, Gt(2)], "2"),
    (Annotated[int, msgspec.Meta(gt=2)], "2"),
]


@pytest.mark.parametrize(("kind", "text", "value"), SCALARS)
def test_a_scalar_is_read_from_path_and_query(kind: Any, text: str, value: Any) -> None:
    seen: list[Any] = []

    def typed(a: Any, b: Any = None) -> None:
        seen.extend((a, b))

    typed.__annotations__ = {"a": kind, "b": kind}
    from urllib.parse import quote

    event = v2(path="/x", parameters={"a": text}, query=f"b={quote(text)}")
    assert call(handler("/{a}", typed), event) == (204, None)
    assert seen == [value, value]
    assert [type(one) for one in seen] == [type(value)] * 2


@pytest.mark.parametrize(("kind", "text"), NOT)
def test_what_is_no_such_scalar_is_refused_by_name(kind: Any, text: str) -> None:
    def typed(a: Any, b: Any = None) -> None:
        raise AssertionError("called")

    typed.__annotations__ = {"a": kind, "b": kind}
    from urllib.parse import quote

    errors = errors_of(handler("/{a}", typed), v2(path="/x", parameters={"a": text}, query=f"b={quote(text)}"))
    assert [error[:2] for error in errors] == [("path", "a"), ("query", "b")]


def test_defaults_and_missing() -> None:
    def find(q: str, limit: int = 10, after: str | None = None) -> dict[str, Any]:
        return {"q": q, "limit": limit, "after": after}

    function = handler("/", find)
    assert call(function, v2(query="q=a+b%26&utm_source=x")) == (200, {"q": "a b&", "limit": 10, "after": None})
    assert errors_of(function, v2()) == [("query", "q", "is missing")]
    assert errors_of(function, v2(query="q=1&limit=x&limit=2")) == [("query", "limit", "is given 2 times")]
    code, body = call(function, v2(query="q=%ff"))
    assert (code, body["detail"]) == (400, "the query string is not UTF-8")


def test_all_mistakes_are_told_at_once() -> None:
    def make(id: int, order: Order, dry: bool = False) -> None:
        raise AssertionError("called")

    event = v2("POST", "/x", parameters={"id": "x"}, query="dry=maybe", body='{"items": [{"sku": 1, "quantity": 0}]}')
    found = errors_of(handler("/{id}", make, "POST"), event)
    assert [error[:2] for error in found] == [
        ("path", "id"),
        ("body", "items[0].sku"),
        ("body", "items[0].quantity"),
        ("query", "dry"),
    ]


def test_repeated_query_parameters_are_arrays() -> None:
    def tags(tag: list[str], size: set[int] = frozenset(), pair: tuple[int, ...] = ()) -> list[Any]:  # type: ignore[assignment]
        return [tag, sorted(size), list(pair)]

    function = handler("/", tags)
    assert call(function, v2(query="tag=a,b&tag=c&size=2&size=2&pair=1")) == (200, [["a,b", "c"], [2], [1]])
    assert call(function, v1(query={"tag": ["a", "b"]})) == (200, [["a", "b"], [], []])
    assert errors_of(function, v2(query="tag=a&size=1&size=x")) == [("query", "size[1]", "must be an integer")]


def test_headers_are_read_by_their_name() -> None:
    def secret(key: Annotated[str, Header("X-Api-Key")], depth: Annotated[int, Header("x-depth")] = 0) -> list[Any]:
        return [key, depth]

    function = handler("/", secret)
    assert call(function, v2(headers={"x-api-key": "k", "x-depth": "3"})) == (200, ["k", 3])
    assert call(function, v1(headers={"X-Api-KEY": ["a", "b"]})) == (200, ["a, b", 0])
    assert errors_of(function, v2(headers={"x-depth": "x"})) == [
        ("header", "x-api-key", "is missing"),
        ("header", "x-depth", "must be an integer"),
    ]


BODIES: list[tuple[Any, str, Any]] = [
    (Order, '{"items": [{"sku": "a", "quantity": 1}]}', Order(items=[Item(sku="a", quantity=1)])),
    (list[Item], '[{"sku": "a", "quantity": 1}]', [Item(sku="a", quantity=1)]),
    (Point, '{"x": 1}', Point(1)),
    (list[Point], '[{"x": 1, "y": 2}]', [Point(1, 2)]),
    (Address, '{"street": "x", "inner": {"street": "y"}}', Address("x", inner=Address("y"))),
    (Box, '{"weight": 1}', {"weight": 1.0}),
    (dict, '{"a": [1]}', {"a": [1]}),
    (dict[str, int], '{"a": 1}', {"a": 1}),
    (dict[str, Size], '{"a": "l"}', {"a": Size.LARGE}),
    (list[dict], '[{"a": 1}]', [{"a": 1}]),  # type: ignore[type-arg]
    (Address | None, "null", None),
]


@pytest.mark.parametrize(("kind", "text", "value"), BODIES)
def test_a_body_is_read(kind: Any, text: str, value: Any) -> None:
    seen: list[Any] = []

    def make(thing: Any) -> None:
        seen.append(thing)

    make.__annotations__ = {"thing": kind}
    function = handler("/", make, "POST")
    for event in (v2("POST", body=text), v2("POST", body=text.encode()), v1("POST", body=text)):
        assert call(function, event) == (204, None)
    assert seen == [value] * 3


WRONG_BODIES: list[tuple[Any, str, list[tuple[str, str]]]] = [
    (Order, '{"items": 3}', [("items", "Input should be a valid array")]),
    (Point, '{"x": "1"}', [("x", "Expected `int`, got `str`")]),
    (Address, "[]", [("", "must be an object")]),
    (Address, "{}", [("street", "is missing")]),
    (Address, '{"street": ""}', [("", "the street is empty")]),
    (Address, '{"street": 1, "tags": [1, "a"], "colour": 2}', [
        ("street", "must be a string"), ("tags[0]", "must be a string"), ("colour", "is not a known member")]),
    (Address, '{"street": "x", "inner": {"street": true}}', [("inner.street", "must be a string")]),
    (Box, '{"weight": "1"}', [("weight", "must be a finite number")]),
    (Box, '{"weight": 1e999}', [("weight", "must be a finite number")]),
    (dict, "[]", [("", "must be an object")]),
    (dict[str, int], '{"a": true}', [("a", "must be an integer")]),
    (dict[str, int], '{"a": 1.0}', [("a", "must be an integer")]),
    (dict[str, Size], '{"a": ["l"]}', [("a", "must be one of s, l")]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "expected"), WRONG_BODIES)
def test_a_body_that_does_not_fit_names_the_field(kind: Any, text: str, expected: list[tuple[str, str]]) -> None:
    def make(thing: Any) -> None:
        raise AssertionError("called")

    make.__annotations__ = {"thing": kind}
    found = errors_of(handler("/", make, "POST"), v2("POST", body=text))
    assert found == [("body", place, message) for place, message in expected]


@pytest.mark.parametrize("kind", [Order, Point, Address, dict])
@pytest.mark.parametrize("text", ["{", "nope", '{"a": 1} x', "[" * 100_000, b"\xff\xfe{}"])
def test_malformed_json_is_400(kind: Any, text: str | bytes) -> None:
    def make(thing: Any) -> None:
        raise AssertionError("called")

    make.__annotations__ = {"thing": kind}
    if kind is Point and text in ('{"a": 1} x', "[" * 100_000):  # msgspec checks as it reads: what comes first is told first
        assert errors_of(handler("/", make, "POST"), v2("POST", body=text), 422)
        return
    found = errors_of(handler("/", make, "POST"), v2("POST", body=text), 400)
    assert found[0][:2] == ("body", "")
    assert found[0][2].startswith("JSON is malformed")


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}'])
def test_constants_that_are_not_json_are_refused(text: str) -> None:
    def make(thing: dict) -> None:  # type: ignore[type-arg]
        raise AssertionError("called")

    assert errors_of(handler("/", make, "POST"), v2("POST", body=text), 400)


def test_a_missing_body_and_a_body_of_another_type() -> None:
    def make(thing: Order) -> None:
        raise AssertionError("called")

    function = handler("/", make, "POST")
    assert errors_of(function, v2("POST")) == [("body", "thing", "is missing")]
    code, body = call(function, v2("POST", body="{}", headers={"content-type": "application/x-www-form-urlencoded"}))
    assert (code, body["status"]) == (415, 415)
    assert "application/json" in body["detail"]
    assert call(function, v2("POST", body="{}", headers={"content-type": "application/ld+json; charset=utf-8"}))[0] == 422
    broken = v2("POST", body="abc") | {"isBase64Encoded": True}
    assert call(function, broken)[0] == 400


def test_bytes_event_context_and_request() -> None:
    def take(data: bytes, request: Request, event: dict[str, Any], context: Any) -> list[Any]:
        assert request.event is event
        return [data.decode(), request.method, request.cookies, request.client, context]

    event = v2("PUT", body=b"\x00\x01", cookies=["a=1", "b=2; c=3"])
    assert call(handler("/", take, "PUT"), event) == (
        200,
        ["\x00\x01", "PUT", {"a": "1", "b": "2", "c": "3"}, "192.0.2.7", None],
    )
    old = v1("PUT", body="x", headers={"Cookie": ["a=1"]})
    assert call(handler("/", take, "PUT"), old) == (200, ["x", "PUT", {"a": "1"}, "192.0.2.8", None])


def test_a_parameter_called_event_may_be_data() -> None:
    def book(event: Address) -> str:
        return event.street

    assert call(handler("/", book, "POST"), v2("POST", body='{"street": "x"}')) == (200, "x")


def test_event_and_context_alone_are_raw() -> None:
    def raw(event: dict[str, Any], context: Any) -> dict[str, Any]:
        return {"statusCode": 299, "body": event["rawPath"]}

    function = handler("/x", raw)
    assert function.__martlet_entry__() is raw or function.__martlet_entry__()(v2(path="/x"), None)["statusCode"] == 299

    def named_otherwise(e, c):  # type: ignore[no-untyped-def]
        return {"statusCode": 298}

    assert App("t").get("/x", raw=True)(named_otherwise).__martlet_entry__()({}, None) == {"statusCode": 298}


def test_text_annotations_resolve_in_closures() -> None:
    class Local(pydantic.BaseModel):
        n: int

    def make(thing: Local) -> int:
        _ = Local
        return thing.n

    assert call(handler("/", make, "POST"), v2("POST", body='{"n": 3}')) == (200, 3)


def test_two_paths_one_handler() -> None:
    app = App("t")

    @app.get("/orders")
    @app.get("/orders/{id}")
    def orders(id: int | None = None) -> Any:
        return {"id": id}

    assert call(orders, v2(path="/orders")) == (200, {"id": None})
    assert call(orders, v2(path="/orders/3", parameters={"id": "3"})) == (200, {"id": 3})


def test_an_event_that_is_not_http_is_an_error_not_an_answer() -> None:
    entry = handler("/", lambda: None).__martlet_entry__()
    with pytest.raises(ValueError, match="not an HTTP event"):
        entry({"detail-type": "Scheduled Event"}, None)
