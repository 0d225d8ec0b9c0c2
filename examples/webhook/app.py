"""A scalable webhook: whatever comes is put into a queue and confirmed; two consumers work it off at their own rate."""

import json
import time
from typing import Annotated, Any

from pydantic import BaseModel, Field

from martlet import App, Collection, Queue, Response, Transaction

app = App("webhook")
hooks = Queue("hooks", retries=3, visibility=3)  # what fails three times goes to the queue webhook-hooks-dead
payments = Collection("payments")
accounts = Collection("accounts")

PARTNER_SECONDS = 0.03


class Payment(BaseModel):
    event: Annotated[str, Field(min_length=1, max_length=64)]  # its sender repeats it until we have confirmed
    account: Annotated[str, Field(min_length=1, max_length=64)]
    cents: int


@app.post("/payments", uses=[hooks.send])
def accept(payment: Payment) -> Response:
    return Response({"message": hooks.send(payment)}, status=202)


@app.on(hooks, batch=10, consumers=2, partial=True, timeout=3, uses=[payments, accounts])
def consume(event: dict, context: Any) -> dict:
    """Two run at most, however many messages wait. Only those that failed come again."""
    failed = []
    for record in event["Records"]:
        try:
            credit(json.loads(record["body"]))
        except Exception as error:
            print(f"{record['messageId']}: {error!r}")
            failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}


def credit(payment: dict) -> None:
    """Book a payment once, however often it comes."""
    if payment["cents"] <= 0:
        raise ValueError(f"a payment of {payment['cents']} cents")
    started = time.time()
    time.sleep(PARTNER_SECONDS)  # stands for a system that bears no more than two callers

    def work(tx: Transaction) -> None:
        if tx.read(payments, payment["event"]) is None:
            account = tx.read(accounts, payment["account"])
            tx.put(payments, payment["event"], {**payment, "started": started, "ended": time.time()})
            tx.put(accounts, payment["account"], {"cents": payment["cents"] + (account.value["cents"] if account else 0)})

    payments.transact(work, tries=50)


@app.get("/accounts", uses=[accounts.read])
def balances() -> dict:
    return {found.id: found.value["cents"] for found in accounts.scan()}


@app.get("/payments", uses=[payments.read])
def booked() -> dict:
    return {found.id: found.value for found in payments.scan()}
