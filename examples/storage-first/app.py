"""Storage first: an order is stored and confirmed at once; its change runs what is slow, and the result is stored beside it."""

import time
from typing import Annotated, Any

from pydantic import BaseModel, Field

from martlet import App, Collection, HTTPError, Response, Transaction

app = App("storage-first")
orders = Collection("orders")
invoices = Collection("invoices")
totals = Collection("totals")

BACK_OFFICE_SECONDS = 0.05


class Order(BaseModel):
    customer: Annotated[str, Field(min_length=1, max_length=100)]
    cents: Annotated[int, Field(gt=0)]


@app.post("/orders", uses=[orders.write])
def take(order: Order) -> Response:
    """Nothing here can fail but the store itself, so nothing is lost when something behind it is slow or down."""
    return Response({"id": orders.insert(order)}, status=202)


@app.on(orders.changed, batch=5, consumers=2, start="oldest", retries=-1, uses=[invoices, totals])
def process(event: dict, context: Any) -> None:
    for record in event["Records"]:
        if record["operation"] == "put" and invoices.get(record["id"]) is None:
            write_invoice(record["id"], record["value"])


def write_invoice(id: str, order: dict) -> None:
    """The invoice and the customer's total in one transaction: a change that comes twice, as it may, counts once."""
    time.sleep(BACK_OFFICE_SECONDS)  # stands for a slow system: a warehouse, a bank, a model

    def work(tx: Transaction) -> None:
        if tx.read(invoices, id) is None:
            total = tx.read(totals, order["customer"])
            tx.put(invoices, id, order)
            tx.put(totals, order["customer"], {"cents": order["cents"] + (total.value["cents"] if total else 0)})

    invoices.transact(work, tries=50)


@app.get("/orders/{id}", uses=[orders.read, invoices.read])
def show(id: str) -> dict:
    if orders.get(id) is None:
        raise HTTPError(404, f"there is no order {id}")
    invoice = invoices.get(id)
    return {"state": "received"} if invoice is None else {"state": "done", "invoice": invoice.value}


@app.get("/customers/{name}", uses=[totals.read])
def customer(name: str) -> dict:
    total = totals.get(name)
    return {"cents": 0 if total is None else total.value["cents"]}
