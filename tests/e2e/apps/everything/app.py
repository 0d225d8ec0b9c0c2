"""One function for each thing that an e2e test wants to see happen."""

import asyncio
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from martlet import App, Collection, NotFound, Response

app = App("all")
gates = Collection("gates")
log = logging.getLogger()
log.setLevel(logging.INFO)


# --- events and answers


@app.function(memory=128, timeout=20)
def echo(event, context):
    return event


@app.function(memory=192, timeout=7)
def context_of(event, context):
    client = context.client_context
    return {
        "aws_request_id": context.aws_request_id,
        "function_name": context.function_name,
        "function_version": context.function_version,
        "invoked_function_arn": context.invoked_function_arn,
        "memory_limit_in_mb": context.memory_limit_in_mb,
        "log_group_name": context.log_group_name,
        "log_stream_name": context.log_stream_name,
        "identity": context.identity,
        "remaining": context.get_remaining_time_in_millis(),
        "client": client and {"custom": client.custom, "env": client.env, "app": client.client.app_title},
        "trace": os.environ.get("_X_AMZN_TRACE_ID", ""),
    }


@app.function(env={"GREETING": "grüezi"})
def environment(event, context):
    return dict(os.environ)


@app.function()
def returns(event, context):
    from datetime import UTC, datetime
    from decimal import Decimal

    loop = []
    loop.append(loop)
    values = {
        "bytes": b"\xff",
        "set": {1},
        "datetime": datetime(2026, 1, 1, tzinfo=UTC),
        "nan": {"x": float("nan")},
        "infinity": [float("inf")],
        "object": object(),
        "loop": loop,
        "decimal": {"price": Decimal("12.50"), "count": Decimal(3)},
        "none": None,
        "text": "Zürich 東京 \N{SNOWMAN}",
        "surrogate": "\ud800",
        "keys": {1: "a", None: "b", False: "c"},
        "large": "x" * event.get("size", 0),
    }
    return values[event["what"]]


# --- how a function can fail


class Rejected(Exception):
    pass


def deeper(reason):
    raise Rejected(reason)


@app.function()
def fails(event, context):
    print("about to fail")
    deeper(event.get("reason", "not today"))


@app.function()
def leaves(event, context):
    print("leaving")
    if event["how"] == "exit":
        sys.exit(event["code"])
    if event["how"] == "fault":
        import ctypes

        ctypes.string_at(0)
    if event["how"] == "stay":
        return "stayed"
    os._exit(event["code"])


@app.function(timeout=1)
def sleeps(event, context):
    print("going to sleep", flush=True)
    if event.get("child"):
        subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; sleep 300"], start_new_session=True)
    time.sleep(event.get("seconds", 60))
    return "slept"


@app.function(memory=96)
def eats(event, context):
    kept = bytearray()
    for _ in range(event["megabytes"]):
        kept += b"x" * 1_048_576
    return len(kept)


@app.function(tmp=8)
def fills(event, context):
    file = Path("/tmp/full")
    try:
        with file.open("wb") as out:
            for _ in range(event["megabytes"]):
                out.write(b"x" * 1_048_576)
        return {"written": file.stat().st_size}
    except OSError as error:
        return {"errno": error.errno, "text": error.strerror}
    finally:
        file.unlink(missing_ok=True)


if "_HANDLER" in os.environ and os.environ["_HANDLER"].endswith(":breaks"):
    # Serving, not building: a module that can be loaded until somebody throws the switch.
    try:
        if gates.get("switch").value == "broken":
            raise RuntimeError("the switch is broken")
    except (NotFound, AttributeError):
        pass


@app.function(uses=[gates])
def breaks(event, context):
    if event.get("leave"):
        os._exit(0)
    return "ready"


# --- concurrency


def pass_gate(name):
    """Say that we are here, and wait until the test opens."""
    gates.put(name, "waiting")
    deadline = time.monotonic() + 25
    while gates.get(name).value != "open" and time.monotonic() < deadline:
        time.sleep(0.01)


@app.function(reserved=1, uses=[gates], timeout=30)
def one_at_a_time(event, context):
    pass_gate(event["gate"])
    return "passed"


@app.function(uses=[gates], timeout=30)
def gated(event, context):
    print("at the gate")
    pass_gate(event["gate"])
    return {"pid": os.getpid(), "gate": event["gate"]}


@app.function(reserved=0)
def off(event, context):
    return "never"


@app.function(provisioned=2)
def kept(event, context):
    if event.get("leave"):
        os._exit(0)
    return os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]


here = 0
meeting = None


@app.function(concurrency=8, timeout=20)
async def meets(event, context):
    """Nobody leaves before all have come, so that one at a time would never end."""
    global here, meeting
    meeting = meeting or asyncio.Condition()
    async with meeting:
        here += 1
        meeting.notify_all()
        await meeting.wait_for(lambda: here >= event["people"])
    print(f"met {context.aws_request_id}")
    return {"people": here, "instance": context.log_stream_name, "request": context.aws_request_id}


@app.function(concurrency=8, timeout=20)
def meets_in_threads(event, context):
    global here
    here += 1
    while here < event["people"]:
        time.sleep(0.01)
    return here


# --- logs


@app.function()
def writes(event, context):
    print("one line")
    print("two\nlines")
    sys.stderr.write("to stderr\n")
    print("no line end", end="")
    log.info("logged %s", "information")
    try:
        deeper("logged")
    except Rejected:
        log.exception("caught")
    os.write(1, b"raw bytes \xff\xfe\n")
    return "written"


@app.function()
def floods(event, context):
    line = "x" * 99
    for _ in range(event["lines"]):
        print(line)
    return "flooded"


# --- HTTP


@app.get("/event/{name}", raw=True)
def event_2(event, context):
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json_of(event)}


@app.route(["POST", "PUT", "PATCH", "DELETE"], "/event/{name}", raw=True)
def event_2_body(event, context):
    return {"statusCode": 201, "headers": {"content-type": "application/json"}, "body": json_of(event)}


@app.route("ANY", "/old/{proxy+}", payload="1.0", raw=True)
def event_1(event, context):
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "multiValueHeaders": {"set-cookie": ["a=1", "b=2; Path=/"], "x-many": ["one", "two"]},
        "body": json_of(event),
    }


@app.post("/bytes", raw=True)
def mirror(event, context):
    """The body as it came, bytes as bytes."""
    return {
        "statusCode": 200,
        "headers": {
            "content-type": event["headers"].get("content-type", "text/plain"),
            "x-encoded": str(event["isBase64Encoded"]),
        },
        "cookies": ["first=1; HttpOnly", "second=2"],
        "body": event.get("body", ""),
        "isBase64Encoded": event["isBase64Encoded"],
    }


@app.get("/answer/{kind}", raw=True)
def answer(event, context):
    """Answers that are not the usual object."""
    answers = {
        "text": "plain text",
        "list": [1, 2],
        "number": 7,
        "object": {"hello": "world"},
        "null": None,
        "empty": {"statusCode": 204},
        "bad-status": {"statusCode": "many"},
        "bad-body": {"statusCode": 200, "body": "%%%", "isBase64Encoded": True},
        "split": {"statusCode": 200, "headers": {"x-evil": "a\r\nx-injected: yes"}, "body": ""},
    }
    kind = event["pathParameters"]["kind"]
    if kind == "error":
        raise Rejected("over HTTP")
    if kind == "exit":
        os._exit(3)
    return answers[kind]


@app.get("/typed/{number}")
def typed(number: int, loud: bool = False, tag: list[str] = []) -> dict:  # noqa: B006
    return {"number": number, "loud": loud, "tags": tag}


@app.get("/traced", raw=True)
def traced(event, context):
    return {"statusCode": 200, "body": json_of({"trace": os.environ.get("_X_AMZN_TRACE_ID", ""), "headers": event["headers"]})}


@app.get("/cors", cors={"origins": ["https://shop.example"], "methods": ["GET"], "credentials": True, "max_age_seconds": 600})
def cors() -> dict:
    return {"cors": True}


@app.get("/throttled", throttle={"rate": 0.01, "burst": 2})
def throttled() -> str:
    return "in"


@app.get("/throttled/each", throttle={"rate": 0.01, "burst": 2, "per": "client"})
def throttled_each() -> str:
    return "in"


@app.get("/slow", timeout=20)
def slow(seconds: float = 1.0) -> dict:
    print("serving slowly", flush=True)
    time.sleep(seconds)
    return {"slow": seconds}


@app.get("/late", timeout=1)
def late() -> str:
    time.sleep(30)
    return "late"


@app.get("/busy", timeout=20, reserved=4)
def busy() -> dict:
    time.sleep(0.05)
    return {"pid": os.getpid()}


@app.get("/stream/{count}")
def stream(count: int) -> Response:
    return Response((f"line {number}\n" for number in range(count)), headers={"content-type": "text/plain"})


@app.get("/stream-gated/{gate}", uses=[gates], timeout=30)
def stream_gated(gate: str) -> Response:
    def lines():
        yield "before\n"
        pass_gate(gate)
        yield "after\n"

    return Response(lines(), headers={"content-type": "text/plain"})


@app.get("/stream-breaks")
def stream_breaks() -> Response:
    def lines():
        yield "before\n"
        raise Rejected("in the middle")

    return Response(lines(), headers={"content-type": "text/plain"})


@app.head("/only-head")
def only_head() -> Response:
    return Response("the length counts", headers={"x-head": "yes"})


def json_of(value):
    import json

    return json.dumps(value, ensure_ascii=False)
