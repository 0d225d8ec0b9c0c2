"""The examples: their graphs, and the shop end to end against a stand-in of what a sandbox sees."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest
from PIL import Image

from martlet.sdk.graph import emit
from martlet.types import AppGraph

from .events import body_of, v2
from .platform import Platform

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module: Any = load("shop")
    with Platform(module.app) as platform:
        monkeypatch.setenv("MARTLET_API", platform.address)
        monkeypatch.setenv("MARTLET_APP", "shop")
        module.platform = platform
        yield module
    sys.modules.pop("example_shop")


def answer(function: Any, event: dict[str, Any]) -> tuple[int, Any]:
    found = function.__martlet_entry__()(event, None)
    found = asyncio.run(found) if hasattr(found, "__await__") else found
    body = body_of(found)
    return found["statusCode"], json.loads(body) if "json" in found["headers"].get("content-type", "") else body


def order(**changes: Any) -> dict[str, Any]:
    body = {
        "product": "cup",
        "quantity": 2,
        "email": "ada@example.com",
        "payment": {"card": "4242 4242 4242 4242", "amount_cents": 2500},
    } | changes
    return v2("POST", "/purchases", body=json.dumps(body), headers={"content-type": "application/json"})


@pytest.mark.parametrize("name", ["hello", "lambda", "shop"])
def test_every_example_declares_a_graph(name: str) -> None:
    graph = emit(load(name), name)
    assert graph.pop("app") == name
    assert msgspec.json.decode(json.dumps(graph), type=AppGraph).functions


def test_the_shops_functions_have_only_the_rights_they_need() -> None:
    functions = {function["name"]: function for function in emit(load("shop"), "x")["functions"]}
    rights = {name: (one.get("uses", []), one.get("documents", [])) for name, one in functions.items()}
    assert rights == {
        "product_list": ([], []),
        "product_page": ([], ["stock:read"]),
        "picture": ([], []),
        "validate_payment": ([], []),
        "place_order": ([], ["stock", "orders:write", "outbox:write"]),
        "purchase": (["validate_payment", "place_order"], []),
        "send_confirmation": ([], []),
        "reviews": ([], ["reviews"]),
        "restock_report": ([], ["stock:read", "outbox:write"]),
    }
    assert not any("egress" in one for one in functions.values())


def test_the_lambda_example() -> None:
    context = SimpleNamespace(function_name="lambda-handler", aws_request_id="r-1")
    found = load("lambda").lambda_handler(v2(query="name=Ada"), context)
    assert json.loads(found["body"]) == {"hello": "Ada", "function": "lambda-handler", "request": "r-1"}


def test_catalogue_and_picture(shop: Any) -> None:
    code, body = answer(shop.product_list, v2(path="/products"))
    assert (code, [product["id"] for product in body["products"]]) == (200, ["cup", "kettle", "tea"])
    code, page = answer(shop.product_page, v2(parameters={"id": "cup"}))
    assert (code, b"12.50, 20 left" in page) == (200, True)
    code, picture = answer(shop.picture, v2(parameters={"id": "tea"}, query="width=200"))
    with Image.open(io.BytesIO(picture)) as image:
        assert (code, image.format, image.size) == (200, "JPEG", (200, 200))
    for query in ("width=15", "width=801", "width=x", "width=9999999"):
        assert answer(shop.picture, v2(parameters={"id": "tea"}, query=query))[0] == 422
    for id in ("nothing", "../app", ""):
        assert answer(shop.picture, v2(parameters={"id": id}))[0] == 404
        assert answer(shop.product_page, v2(parameters={"id": id}))[0] == 404


def test_a_purchase(shop: Any) -> None:
    code, body = answer(shop.purchase, order())
    assert (code, body["paid_cents"], body["to"]) == (201, 2500, "ada@example.com")
    assert shop.platform.documents["stock"]["cup"][1] == {"left": 18}
    assert shop.platform.documents["orders"][body["id"]][1] == {"product": "cup", "quantity": 2, "paid_cents": 2500}
    assert shop.platform.documents["outbox"][body["id"]][1] == body


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({"payment": {"card": "4242 4242 4242 4241", "amount_cents": 2500}}, 402, "card"),
        ({"payment": {"card": "4242-4242-4242-4242", "amount_cents": 2500}}, 422, "payment.card"),
        ({"payment": {"card": "4242 4242 4242 4242", "amount_cents": 2499}}, 422, "2500"),
        ({"quantity": 0}, 422, "quantity"),
        ({"quantity": 11}, 422, "quantity"),
        ({"quantity": -1}, 422, "quantity"),
        ({"email": "nobody"}, 422, "email"),
        ({"product": "house"}, 404, "house"),
    ],
)
def test_a_refused_purchase_takes_nothing(shop: Any, changes: dict[str, Any], status: int, word: str) -> None:
    code, body = answer(shop.purchase, order(**changes))
    assert (code, word in body["detail"]) == (status, True), body
    assert not shop.platform.documents.get("stock", {})
    assert not shop.platform.documents.get("outbox", {})


def test_the_last_cups_are_sold_once(shop: Any) -> None:
    shop.stock.put("cup", {"left": 5})
    codes: list[int] = []
    entry = shop.purchase.__martlet_entry__()
    buyers = [threading.Thread(target=lambda: codes.append(entry(order(), None)["statusCode"])) for _ in range(4)]
    for buyer in buyers:
        buyer.start()
    for buyer in buyers:
        buyer.join()
    assert sorted(codes) == [201, 201, 409, 409]
    assert shop.platform.documents["stock"]["cup"][1] == {"left": 1}
    assert len(shop.platform.documents["outbox"]) == 2
    code, body = answer(shop.purchase, order())
    assert (code, body["left"]) == (409, 1)


def test_what_cannot_be_confirmed_takes_no_stock(shop: Any) -> None:
    """One transaction: an order that is there already (here: its confirmation) leaves everything as it is."""
    event = {"id": "1", "to": "a@b", "product": "cup", "quantity": 1, "paid_cents": 1250}
    assert shop.place_order.target(event, None) == {"done": True}
    assert shop.place_order.target(event, None)["done"] is False
    assert shop.platform.documents["stock"]["cup"][1] == {"left": 19}
    assert len(shop.platform.documents["orders"]) == 1


def test_mails_go_out_for_what_the_outbox_got(shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    record = {"operation": "put", "value": {"to": "a@b", "product": "cup", "quantity": 2}}
    shop.send_confirmation.__martlet_entry__()({"Records": [record]}, None)
    assert capsys.readouterr().out == "mail to a@b: 2 × cup\n"


def test_reviews_and_report(shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    reviews = vars(shop.app.functions)["reviews"]
    json_type = {"content-type": "application/json"}
    review = {"stars": 5, "text": "Holds tea."}
    assert answer(reviews, v2("POST", "/reviews/cup", body=json.dumps(review), headers=json_type)) == (201, review)
    assert answer(reviews, v2("POST", "/reviews/cup", body='{"stars": 6, "text": ""}', headers=json_type))[0] == 422
    assert answer(reviews, v2("POST", "/reviews/house", body=json.dumps(review), headers=json_type))[0] == 404
    assert answer(reviews, v2(path="/reviews/cup")) == (200, [review])
    assert answer(reviews, v2(path="/reviews/tea")) == (200, [])
    shop.stock.put("tea", {"left": 2})
    shop.stock.put("cup", {"left": 9})
    shop.restock_report.__martlet_entry__()({}, None)
    assert shop.platform.documents["outbox"]["restock-report"][1] == {"low": {"tea": 2}}
    assert "1 products are running low" in capsys.readouterr().out


def test_the_plain_functions_are_plain(shop: Any) -> None:
    assert shop.validate_payment(shop.Payment(card="4242 4242 4242 4242", amount_cents=1)) == {"valid": True}
    assert [shop.luhn(card) for card in ("79927398713", "79927398710", "0")] == [True, False, True]
