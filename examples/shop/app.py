"""An online shop: a catalogue with pictures, purchases in one transaction, reviews, a look at the stock every five minutes."""

from io import BytesIO
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from fastapi import FastAPI, HTTPException
from PIL import Image
from pydantic import BaseModel, Field

from martlet import App, Collection, Conflict, Document, DocumentField, HTTPError, NotFound, Response

app = App("shop")
stock = Collection("stock", schema={"left": DocumentField("int", required=True)}, checks={"not oversold": "left >= 0"})
orders = Collection(
    "orders",
    indexes={"by_product": ["product", "-quantity"]},
    schema={
        "product": DocumentField("text", required=True),
        "quantity": DocumentField("int", required=True, check="quantity > 0"),
        "paid_cents": DocumentField("int", required=True),
        "unit_cents": DocumentField(computed="paid_cents / quantity"),
    },
)
outbox = Collection("outbox")  # confirmations and reports, for whoever sends mail
reviews = Collection("reviews")

STOCK_AT_OPENING = 20
PRODUCTS = {
    "cup": {"name": "Cup", "price_cents": 1250},
    "kettle": {"name": "Kettle", "price_cents": 6400},
    "tea": {"name": "Green tea, 100 g", "price_cents": 890},
}


class Payment(BaseModel):
    card: str = Field(pattern=r"^[0-9 ]{12,23}$")
    amount_cents: int


class Purchase(BaseModel):
    product: str
    quantity: int = Field(ge=1, le=10)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    payment: Payment


# --- the catalogue ---------------------------------------------------------------------------------


@app.get("/products")
def product_list() -> dict:
    return {"products": [{"id": id, **product} for id, product in PRODUCTS.items()]}


@app.get("/products/{id}", uses=[stock.read])
def product_page(id: str) -> Response:
    product, left = find(id), left_of(stock.get(id))
    page = f"""<!doctype html><title>{product["name"]}</title>
<h1>{product["name"]}</h1><img src="{id}/picture?width=400" alt="">
<p>{product["price_cents"] / 100:.2f}, {left} left</p>"""
    return Response(page, headers={"content-type": "text/html; charset=utf-8"})


@app.get("/products/{id}/picture", memory=512)
def picture(id: str, width: Annotated[int, Field(ge=16, le=800)] = 320) -> Response:
    find(id)
    with Image.open(Path(__file__).parent / "pictures" / f"{id}.jpg") as source:
        resized = source.resize((width, source.height * width // source.width))
    out = BytesIO()
    resized.save(out, "JPEG", quality=85)
    return Response(out.getvalue(), headers={"content-type": "image/jpeg", "cache-control": "public, max-age=86400"})


# --- a purchase: functions with only the rights that they need, and one transaction ----------------


@app.function()
def validate_payment(payment: Payment) -> dict:
    return {"valid": luhn(payment.card) and payment.amount_cents > 0}


@app.function(uses=[stock, orders.write, outbox.write])
def place_order(event: dict, context: Any) -> dict:
    """Take the goods from the stock, write the order and its confirmation: all of it, or nothing when too few are left."""
    order = {name: event[name] for name in ("product", "quantity", "paid_cents")}
    for _ in range(2):
        try:
            with stock.transaction() as tx:
                tx.patch(
                    stock,
                    event["product"],
                    increment={"left": -event["quantity"]},
                    condition="left >= $wanted",
                    parameters={"wanted": event["quantity"]},
                )
                tx.put(orders, event["id"], order, version=0)
                tx.put(outbox, event["id"], event, version=0)
            return {"done": True}
        except NotFound:
            open_stock(event["product"])  # its first order ever
        except Conflict:
            break
    return {"done": False, "left": left_of(stock.get(event["product"]))}


@app.post("/purchases", uses=[validate_payment, place_order])
def purchase(order: Purchase) -> Response:
    price = find(order.product)["price_cents"] * order.quantity
    if order.payment.amount_cents != price:
        raise HTTPError(422, f"the price is {price} cents, not {order.payment.amount_cents}")
    if not validate_payment.invoke(order.payment)["valid"]:
        raise HTTPError(402, "the card number is not valid")
    confirmation = {
        "id": str(uuid4()),
        "to": order.email,
        "product": order.product,
        "quantity": order.quantity,
        "paid_cents": price,
    }
    placed = place_order.invoke(confirmation)
    if not placed["done"]:
        raise HTTPError(409, f"only {placed['left']} left", left=placed["left"])
    return Response(confirmation, status=201)


@app.on(outbox.changed, filter={"operation": ["put"], "value": {"to": [{"exists": True}]}})
def send_confirmation(event: dict, context: Any) -> None:
    """Runs once the purchase is durable, again if it fails, and in the order in which they were made."""
    for record in event["Records"]:
        print(f"mail to {record['value']['to']}: {record['value']['quantity']} × {record['value']['product']}")


# --- reviews: a whole FastAPI application as one function ------------------------------------------

api = FastAPI(title="Reviews")


class Review(BaseModel):
    stars: int = Field(ge=1, le=5)
    text: str = Field(max_length=2000)


@api.get("/{product}")
def list_reviews(product: str) -> list[Review]:
    return [Review(**found.value) for found in reviews.scan(f"{product}:")]


@api.post("/{product}", status_code=201)
def add_review(product: str, review: Review) -> Review:
    if product not in PRODUCTS:
        raise HTTPException(404, f"there is no product {product}")
    reviews.put(f"{product}:{uuid4()}", review, version=0)
    return review


web = app.mount("/reviews", api, uses=[reviews], concurrency=8)


# --- every five minutes ----------------------------------------------------------------------------


@app.schedule("rate(5 minutes)", uses=[stock.read, outbox.write])
def restock_report() -> None:
    low = {found.id: left_of(found) for found in stock.scan() if left_of(found) < 5}
    outbox.put("restock-report", {"low": low})
    print(f"{len(low)} products are running low: {low}")


# --- what the functions share ----------------------------------------------------------------------


def find(id: str) -> dict:
    if id not in PRODUCTS:
        raise HTTPError(404, f"there is no product {id}")
    return PRODUCTS[id]


def left_of(found: Document | None) -> int:
    return STOCK_AT_OPENING if found is None else found.value["left"]


def open_stock(product: str) -> None:
    try:
        stock.put(product, {"left": STOCK_AT_OPENING}, version=0)
    except Conflict:
        pass  # somebody else was first


def luhn(card: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    digits = [int(digit) for digit in reversed(card.replace(" ", ""))]
    return sum(digits[0::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0
