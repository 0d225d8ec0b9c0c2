"""Sends to queues in each way that user code can: by itself, and by a transaction whose changes are relayed."""

from martlet import App, Collection, Queue

app = App("enqueues")
jobs = Queue("jobs", retries=None)
lines = Queue("lines", fifo=True, retries=None)
outbox = Collection("outbox")


@app.post("/jobs", uses=[jobs, lines])
def enqueue(asked: dict) -> dict:
    return {"done": len(jobs.send_many(asked["bodies"]))}


@app.post("/notes", uses=[outbox])
def note(asked: dict) -> dict:
    with outbox.transaction() as tx:
        for body in asked["bodies"]:
            tx.put(outbox, body, {"body": body})
    return {"done": len(asked["bodies"])}


@app.on(outbox.changed, start="oldest", retries=-1, uses=[jobs])
def relay(event, context):
    jobs.send_many([record["value"]["body"] for record in event["Records"]])
