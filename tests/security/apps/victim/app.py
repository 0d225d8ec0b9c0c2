"""The neighbour that every attack must leave alone: a secret, a document, a file in /tmp, and an answer that can be checked."""

import os
from pathlib import Path

from martlet import App, Collection

app = App("victim")
ledger = Collection("ledger")
SECRET = "victim-code-secret-5f2c"  # in the victim's code; no other sandbox may ever see it


@app.get("/check/{number}", env={"VICTIM_SECRET": "victim-env-secret-77ab"}, uses=[ledger], memory=128)
def check(number: int) -> dict:
    kept = Path("/tmp/victim-file")
    kept.write_text(SECRET)
    balance = ledger.get("balance")
    return {"double": number * 2, "balance": balance.value if balance else None, "secret": len(os.environ["VICTIM_SECRET"])}


@app.function(uses=[ledger])
def deposit(event, context):
    ledger.put("balance", event["amount"])
    return event["amount"]


@app.function(concurrency=4)
def private(event, context):
    return SECRET
