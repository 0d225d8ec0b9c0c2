"""examples/shop from outside: real HTTP, a real picture, a purchase in three functions, and what survives a kill -9."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.e2e.conftest import Start
from tests.e2e.driving import EXAMPLES, ROOT, Api, RunningPlatform, eventually

pytestmark = pytest.mark.e2e

ORDER = {
    "product": "cup",
    "quantity": 1,
    "email": "ada@example.com",
    "payment": {"card": "4242 4242 4242 4242", "amount_cents": 1250},
}
PRICES = {"cup": 1250, "kettle": 6400, "tea": 890}


@pytest.fixture(scope="module")
def app_shop(start: Start) -> RunningPlatform:
    return start(EXAMPLES / "shop", "--no-watch")


@pytest.fixture(scope="module", params=["app", "template"])
def shop(request: pytest.FixtureRequest, start: Start, app_shop: RunningPlatform) -> RunningPlatform:
    """The shop in both its forms: as decorators say it, and as a SAM template."""
    if request.param == "app":
        return app_shop
    platform = start(None)
    template = EXAMPLES / "shop-sam/template.yaml"
    done = martlet("deploy", str(template), "--app", "shop", "--data", str(platform.data), "--json")
    assert done.returncode == 0, done.stderr
    platform.app_url = json.loads(done.stdout)["outputs"]["ShopUrl"]  # where its API answers
    return platform


def martlet(*arguments: str) -> subprocess.CompletedProcess[str]:
    entry = "import sys; from martlet.cli import main; sys.exit(main())"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", entry, *arguments], env=environ, capture_output=True, text=True, timeout=55)


def buy(platform: RunningPlatform, product: str, quantity: int = 1, **changes: Any) -> httpx.Response:
    payment = {"card": "4242 4242 4242 4242", "amount_cents": PRICES[product] * quantity}
    order = {**ORDER, "product": product, "quantity": quantity, "payment": payment, **changes}
    return httpx.post(f"{platform.app_url}/purchases", json=order, timeout=30)


def outbox(platform: RunningPlatform) -> dict[str, Any]:
    """What waits to be mailed, by id."""
    items = Api(platform).get("/v1/documents/outbox", app="shop", limit=1000)["items"]
    return {item["id"]: item["value"] for item in items}


def test_the_demo_runs_to_its_end() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        env={**os.environ, "ONCE": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("app   http://127.0.0.1:") and "shop: 7 routes" in line for line in lines)
    assert any(line.startswith("api   http://127.0.0.1:") for line in lines)
    answers = [line.split()[1] for line in lines if line.startswith("< ") and line.endswith(" ms")]
    assert Counter(answers) == {"200": 5, "201": 2, "422": 1}
    assert "! expected" not in done.stdout


def test_products_and_their_pages(shop: RunningPlatform, http: httpx.Client) -> None:
    products = http.get(f"{shop.app_url}/products").json()["products"]
    assert {product["id"]: product["price_cents"] for product in products} == PRICES
    page = http.get(f"{shop.app_url}/products/kettle")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1>Kettle</h1>" in page.text
    missing = http.get(f"{shop.app_url}/products/boat")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert missing.json()["detail"] == "there is no product boat"


@pytest.mark.parametrize(("query", "width"), [("", 320), ("?width=200", 200), ("?width=16", 16), ("?width=800", 800)])
def test_pictures_are_resized(shop: RunningPlatform, http: httpx.Client, query: str, width: int) -> None:
    answer = http.get(f"{shop.app_url}/products/cup/picture{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(answer.content)) as picture, Image.open(EXAMPLES / "shop/pictures/cup.jpg") as original:
        picture.load()
        assert (picture.format, picture.width, picture.height) == ("JPEG", width, original.height * width // original.width)


@pytest.mark.parametrize(("query", "message"), [("width=15", "16"), ("width=801", "800"), ("width=wide", "integer")])
def test_a_width_that_cannot_be_is_a_problem_that_names_it(
    shop: RunningPlatform, http: httpx.Client, query: str, message: str
) -> None:
    answer = http.get(f"{shop.app_url}/products/cup/picture?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    (error,) = answer.json()["errors"]
    assert (error["field"], error["location"]) == ("width", "query")
    assert message in error["message"]


def test_a_purchase_takes_stock_and_leaves_a_confirmation(shop: RunningPlatform, http: httpx.Client) -> None:
    answer = buy(shop, "kettle", 2)
    assert answer.status_code == 201
    confirmation = answer.json()
    assert (confirmation["product"], confirmation["quantity"], confirmation["paid_cents"]) == ("kettle", 2, 12_800)
    assert outbox(shop)[confirmation["id"]] == confirmation
    assert "18 left" in http.get(f"{shop.app_url}/products/kettle").text
    api = Api(shop)
    for function in ("purchase", "validate_payment", "place_order"):
        assert api.status_of(f"shop-{function}")["cold"] >= 1, "each step is a function of its own"


@pytest.mark.parametrize(
    ("changes", "status", "detail"),
    [
        ({"payment": {"card": "4242 4242 4242 4242", "amount_cents": 1}}, 422, "the price is 890 cents, not 1"),
        ({"payment": {"card": "4242 4242 4242 4243", "amount_cents": 890}}, 402, "the card number is not valid"),
        ({"payment": {"card": "none", "amount_cents": 890}}, 422, "payment.card"),
        ({"quantity": 11}, 422, "quantity"),
        ({"email": "nobody"}, 422, "email"),
    ],
)
def test_a_wrong_purchase_changes_nothing(shop: RunningPlatform, changes: dict[str, Any], status: int, detail: str) -> None:
    before = outbox(shop)
    answer = buy(shop, "tea", **changes)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert detail in answer.json()["detail"]
    assert outbox(shop) == before
    assert "20 left" in httpx.get(f"{shop.app_url}/products/tea").text


def test_of_many_buyers_at_once_exactly_as_many_are_served_as_there_is_stock(shop: RunningPlatform) -> None:
    before = len(outbox(shop))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: buy(shop, "cup"), range(30)))
    counts = Counter(answer.status_code for answer in answers)
    assert counts == {201: 20, 409: 10}, [answer.text for answer in answers if answer.status_code not in (201, 409)]
    assert "0 left" in httpx.get(f"{shop.app_url}/products/cup").text
    assert len(outbox(shop)) == before + 20
    sold_out = buy(shop, "cup")
    assert (sold_out.status_code, sold_out.json()["left"]) == (409, 0)


def test_200_buyers_at_once_never_take_more_than_there_is(start: Start) -> None:
    """Through HTTP and sandboxes: each takes 1 to 3 of 20 kettles; what was sold, what is left and the orders agree."""
    shop = start(EXAMPLES / "shop", "--no-watch")
    quantities = [1 + number % 3 for number in range(200)]
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda quantity: buy(shop, "kettle", quantity), quantities))
    assert {answer.status_code for answer in answers} <= {201, 409}, Counter(answer.text for answer in answers)
    sold = [answer.json() for answer in answers if answer.status_code == 201]
    left = Api(shop).get("/v1/documents/stock/kettle", app="shop")["left"]
    assert left >= 0
    assert left + sum(one["quantity"] for one in sold) == 20
    assert left < max(answer.json()["left"] + 1 for answer in answers if answer.status_code == 409)
    orders = Api(shop).get("/v1/documents/orders", app="shop", limit=1000)["items"]
    assert {item["id"]: item["value"]["quantity"] for item in orders} == {one["id"]: one["quantity"] for one in sold}
    assert outbox(shop).keys() >= {one["id"] for one in sold}
    told = eventually(lambda: mails(shop) if len(mails(shop)) == len(sold) else None)
    assert sum(int(line.split(": ")[1].split(" ")[0]) for line in told) == 20 - left


def mails(platform: RunningPlatform) -> list[str]:
    """What `send_confirmation` printed: one line for each order."""
    return [line for lines in Api(platform).records("shop-send_confirmation") for line in lines if "mail to" in line]


def test_reviews_through_fastapi(shop: RunningPlatform, http: httpx.Client) -> None:
    url = f"{shop.app_url}/reviews/tea"
    assert http.get(url).json() == []
    review = {"stars": 5, "text": "Grün und gut ☕"}
    assert (created := http.post(url, json=review)).status_code == 201
    assert created.json() == review
    assert http.get(url).json() == [review]
    assert http.post(url, json={"stars": 6, "text": ""}).json()["detail"][0]["loc"] == ["body", "stars"]
    assert http.post(f"{shop.app_url}/reviews/boat", json=review).status_code == 404


def test_a_function_has_no_right_that_it_did_not_ask_for(app_shop: RunningPlatform) -> None:
    """`picture` uses no collection, so it is given none: seen from the graph that was deployed."""
    functions = {found["name"]: found["config"] for found in Api(app_shop).get("/v1/functions")["functions"]}
    assert functions["shop-place_order"]["documents"] == ["stock", "orders:write", "outbox:write"]
    assert functions["shop-picture"]["documents"] == []
    assert functions["shop-validate_payment"]["uses"] == []
    assert {config["egress"] for config in functions.values()} == {"none"}


def test_the_schedule_is_listed(app_shop: RunningPlatform) -> None:
    (app,) = Api(app_shop).get("/v1/apps")["apps"]
    assert [(found["expression"], found["function"]) for found in app["schedules"]] == [("rate(5 minutes)", "restock_report")]
    assert Api(app_shop).invoke("shop-restock_report")["error"] == ""
    assert "restock-report" in outbox(app_shop)


def test_what_was_acknowledged_survives_kill_9(start: Start) -> None:
    first = start(EXAMPLES / "shop", "--no-watch")
    with ThreadPoolExecutor(4) as pool:
        sold = [answer.json() for answer in pool.map(lambda _: buy(first, "tea"), range(6)) if answer.status_code == 201]
        assert len(sold) == 6
        going = [pool.submit(tried, first, "kettle") for _ in range(20)]
        sold += [done.result() for done in going[:4]]
        first.kill()
        sold += [done.result() for done in going[4:]]
    second = start(None, data=first.data)
    kept = outbox(second)
    acknowledged = [confirmation for confirmation in sold if confirmation is not None]
    assert [kept.get(confirmation["id"]) for confirmation in acknowledged] == acknowledged
    assert "14 left" in httpx.get(f"{second.app_url}/products/tea").text
    confirmed = sum(1 for confirmation in kept.values() if confirmation.get("product") == "kettle")
    left = Api(second).get("/v1/documents/stock/kettle", app="shop")["left"]
    assert left == 20 - confirmed, "stock, order and confirmation are one transaction"
    orders = Api(second).get("/v1/documents/orders", app="shop", limit=1000)["items"]
    assert {item["id"] for item in orders} == {id for id, value in kept.items() if "product" in value}
    assert buy(second, "tea").status_code == 201, "and it sells on"


def tried(platform: RunningPlatform, product: str) -> dict[str, Any] | None:
    """A purchase's confirmation, or None when there was no whole answer."""
    try:
        answer = buy(platform, product)
    except httpx.HTTPError:
        return None
    found: dict[str, Any] | None = answer.json() if answer.status_code == 201 else None
    return found
