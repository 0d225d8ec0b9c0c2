"""The attacker: each function runs the attack that its event names ("module.function") and returns what it achieved.

The functions differ in what they are given: memory, time, concurrency, rights, egress.
"""

import importlib
import time

from martlet import App, Collection
from martlet.sdk.answer import Response

app = App("attacker")
mine = Collection("mine")


def run(event, context):
    module, _, name = event["attack"].partition(".")
    return getattr(importlib.import_module(module), name)(**event.get("with", {}))


@app.function(memory=128, timeout=8, tmp=16)
def small(event, context):
    return run(event, context)


@app.function(memory=128, timeout=1)
def hurried(event, context):
    return run(event, context)


@app.function(memory=256, timeout=8, concurrency=4)
def several(event, context):
    return run(event, context)


@app.function(memory=128, timeout=8, uses=[mine, small])
def trusted(event, context):
    return run(event, context)


@app.function(memory=128, timeout=8, egress="all")
def anywhere(event, context):
    return run(event, context)


@app.function(memory=128, timeout=8, egress=["allowed.test", "*.inner.test", "localhost", "127.0.0.1", "2130706433"])
def listed(event, context):
    return run(event, context)


@app.function(memory=512, timeout=8)
def roomy(event, context):
    return run(event, context)


@app.function(memory=128, timeout=8)
def sibling(event, context):
    """Events that come together each get an instance of their own, because every one of them takes its time."""
    result = run(event, context)
    time.sleep(1.5)
    return result


@app.function(memory=128, timeout=8)
def cold(event, context):
    """Each instance serves one event: the next one is a fresh fork of the zygote."""
    result = run(event, context)
    time.sleep(0.2)
    return result


@app.get("/stream")
def stream():
    return Response(iter([b"one", b"two"]), headers={"content-type": "text/plain"})


@app.get("/headers/{name}", raw=True)
def headers(event, context):
    value = {"split": "a\r\nset-cookie: forged=1", "length": "7", "upgrade": "chunked"}[event["pathParameters"]["name"]]
    key = {"split": "x-a", "length": "content-length", "upgrade": "transfer-encoding"}[event["pathParameters"]["name"]]
    return {"statusCode": 200, "headers": {key: value}, "body": "body"}
