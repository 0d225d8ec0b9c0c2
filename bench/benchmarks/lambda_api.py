"""The Lambda API over HTTP: asynchronous events acknowledged a second, and what an Invoke takes from boto3.

The platform runs as users run it, isolated, in a process of its own. The asynchronous load is `wrk` with requests that were
signed before, each with a payload of its own; an acknowledgement follows the commit. boto3 asks our null server in turns with
Martlet: most of what such a call takes is spent in boto3.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from tests.running_platform import RunningPlatform

from bench import apps, signed
from bench.context import Context
from bench.load import Rate
from bench.peers import null_lambda
from bench.table import Row

__all__ = ["run"]

_CLIENTS = 16
_SECONDS = 4
_ROUNDS = 3
_SIGNED = 512  # requests, signed before; wrk sends them again and again
_CALLS = 400
_HANDLER = 'def handler(event, context):\n    return {"ok": True}\n'
_FUNCTION = "bench-echo"


def run(ctx: Context) -> list[Row]:
    with ctx.platform(apps.copy("noop", ctx.new_folder("app"))) as platform, null_lambda.start() as null:
        ours = _client(platform.api_url, platform.credentials)
        _create(ours, _FUNCTION)
        ratios = _in_turns(ours, _client(f"http://127.0.0.1:{null.port}", platform.credentials))
        rates = []
        for number in range(_ROUNDS):
            rates.append(_accepted(platform, ctx.new_folder(f"load{number}")))
            time.sleep(3)  # what was accepted runs now
    return [_invoke_row(ratios), _accepted_row(rates)]


def _client(url: str, credentials: dict[str, Any]) -> Any:
    return boto3.client(
        "lambda",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=credentials["access_key_id"],
        aws_secret_access_key=credentials["secret_access_key"],
        config=Config(retries={"max_attempts": 0}),
    )


def _create(client: Any, name: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", _HANDLER)
    client.create_function(
        FunctionName=name,
        Runtime=f"python{sys.version_info[0]}.{sys.version_info[1]}",
        Handler="index.handler",
        Code={"ZipFile": packed.getvalue()},
        Role="arn:aws:iam::000000000000:role/r",
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name)


# --- boto3


def _in_turns(ours: Any, null: Any) -> list[tuple[float, float]]:
    """(milliseconds of a call to Martlet, to the null server): medians of each round, call by call in turns."""
    found = []
    for client in (ours, null):
        _times([client], 50)
    for _ in range(_ROUNDS):
        mine, other = _times([ours, null], _CALLS)
        found.append((statistics.median(mine) * 1000, statistics.median(other) * 1000))
    return found


def _times(clients: list[Any], count: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in clients]
    for _ in range(count):
        for at, client in enumerate(clients):
            began = time.perf_counter()
            answer = client.invoke(FunctionName=_FUNCTION, Payload=b'{"a": 1}')
            body = answer["Payload"].read()
            times[at].append(time.perf_counter() - began)
            if answer["StatusCode"] != 200 or json.loads(body) != {"ok": True}:
                raise RuntimeError(f"Invoke was answered with {answer['StatusCode']}: {body[:200]!r}")
    return times


def _invoke_row(found: list[tuple[float, float]]) -> Row:
    mine, other = (statistics.median(column) for column in zip(*found, strict=True))
    ratio = statistics.median(one / two for one, two in found)
    return Row(
        "boto3 Invoke, warm, one client, against the null server",
        "≤ 1.3 × its time",
        f"p50 {mine:.2f} ms, {other:.2f} ms",
        f"{ratio:.2f} ×",
        ratio <= 1.3,
    )


# --- asynchronous


def _accepted(platform: RunningPlatform, folder: Path) -> Rate:
    return signed.load(platform.api_url, _signed(platform), folder, connections=_CLIENTS, seconds=_SECONDS)


def _signed(platform: RunningPlatform) -> list[bytes]:
    path = f"/2015-03-31/functions/{_FUNCTION}/invocations"
    fields = {"X-Amz-Invocation-Type": "Event", "Content-Type": "application/json"}
    found = []
    for number in range(_SIGNED):
        body = json.dumps({"order": number, "items": ["a", "b", "c"], "note": "x" * 200}).encode()
        found.append(signed.request(platform.api_url, path, "lambda", platform.credentials, fields, body))
    return found


def _accepted_row(rates: list[Rate]) -> Row:
    rate, p50, p99 = (statistics.median(column) for column in zip(*((r.per_second, r.p50, r.p99) for r in rates), strict=True))
    failed = sum(one.failed for one in rates)
    return Row(
        f"asynchronous events acknowledged, {_CLIENTS} clients over HTTP",
        "≥ 4,000/s, 0 failed",
        f"{rate:,.0f}/s · p50 {p50:.2f} · p99 {p99:.2f} ms, {failed} failed",
        "",
        rate >= 4_000 and not failed,
    )
