"""Logs, metrics, the ledger and trace ids: what happened is told, exactly, also after a crash."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import APPS, ENTRY, ROOT, Api, RunningPlatform, eventually, running

pytestmark = pytest.mark.e2e
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
AMAZON = "Root=1-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8;Sampled=1"


@pytest.fixture
def api(everything: RunningPlatform) -> Api:
    return Api(everything)


# --- logs


def test_logs_follow_shows_lines_while_they_come(everything: RunningPlatform, api: Api) -> None:
    command = [*ENTRY, "logs", "all-gated", "-f", "--data", str(everything.data)]
    environ = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
    seen: list[str] = []
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ) as follower:
        stdout = follower.stdout
        assert stdout is not None
        reading = threading.Thread(target=lambda: seen.extend(iter(stdout.readline, "")))
        reading.start()
        api.request("PUT", "/v1/documents/gates/open?app=all", content=b'"open"')
        took = []
        for _ in range(5):  # the first ones may come before it follows
            begun = time.perf_counter()
            id = eventually(lambda: seen_id(api, seen), seconds=40)
            took.append((time.perf_counter() - begun) * 1000)
            assert any(id in line for line in seen)
        print(f"followed: {', '.join(f'{ms:.0f}' for ms in took)} ms")
        assert any(line == "at the gate\n" for line in seen)
        follower.terminate()
        reading.join()


def seen_id(api: Api, seen: list[str]) -> str:
    """Invoke once; its request id once the follower has shown its last line, "" if that takes a while."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(api.invoke, "all-gated", {"gate": "followed"})
        eventually(lambda: api.request("GET", "/v1/documents/gates/followed?app=all").text == '"waiting"')
        api.request("PUT", "/v1/documents/gates/followed?app=all", content=b'"open"')
        id = str(running.result()["request_id"])
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if any(line.startswith(f"REPORT RequestId: {id}") for line in seen):
            return id
        time.sleep(0.005)
    return ""


def test_logs_of_one_function_since_a_while_ago(api: Api, everything: RunningPlatform) -> None:
    first = api.invoke("all-writes")["request_id"]
    api.log_of("all-writes", first)
    now = int(time.time() * 1000)
    late = api.request("GET", "/v1/logs", params={"function": "all-writes", "since_ms": now + 60_000})
    assert late.text == ""
    records = [json.loads(line) for line in api.request("GET", "/v1/logs", params={"function": "all-writes"}).text.splitlines()]
    assert {record["function"] for record in records} == {"all-writes"}
    own = next(record for record in records if record["request_id"] == first)
    assert (own["source"], own["error_type"]) == ("api", "")
    assert own["duration_us"] > 0
    assert abs(own["started_at_ms"] - now) < 60_000


def test_a_failed_start_is_in_the_log(api: Api) -> None:
    found = api.invoke("all-fails")
    lines = api.log_of("all-fails", found["request_id"])
    assert lines[0].startswith("START RequestId: ")
    assert any(line.startswith("[ERROR] Rejected: not today") for line in lines)
    assert lines[-1].endswith("Status: error\tError Type: Rejected\t")


def test_logs_survive_kill_9(start: Start) -> None:
    first = start(APPS / "everything", "--no-watch")
    api = Api(first)
    ids = [api.invoke("all-writes")["request_id"] for _ in range(5)]
    kept = [api.log_of("all-writes", id) for id in ids]
    first.kill()
    second = Api(start(None, data=first.data))
    assert [second.log_of("all-writes", id) for id in ids] == kept


# --- traces


@pytest.mark.parametrize(
    ("headers", "root"),
    [
        ({"traceparent": TRACEPARENT}, "1-4bf92f35-77b34da6a3ce929d0e0e4736"),
        ({"x-amzn-trace-id": AMAZON}, "1-67891233-abcdef012345678912345678"),
        ({}, None),
    ],
)
def test_trace_ids_reach_the_handler_and_the_log(
    everything: RunningPlatform, api: Api, http: httpx.Client, headers: dict[str, str], root: str | None
) -> None:
    answer = http.get(f"{everything.app_url}/traced", headers=headers)
    found = answer.json()
    if root is None:
        match = re.search(r"Root=(1-[0-9a-f]{8}-[0-9a-f]{24})", found["trace"])
        assert match, "a request without a trace begins one"
        root = match[1]
    assert f"Root={root}" in found["trace"]
    assert f"Root={root}" in found["headers"]["x-amzn-trace-id"]
    if "traceparent" in headers:
        assert found["headers"]["traceparent"] == TRACEPARENT
    id = answer.headers["x-amzn-requestid"]
    record = eventually(lambda: record_of(api, "all-traced", id))
    assert f"Root={root}" in record["trace_id"]


def test_boto3s_trace_header_reaches_the_handler(api: Api) -> None:
    path = "/2015-03-31/functions/all-context_of/invocations"
    answer = api.request("POST", path, content=b"{}", headers={"x-amzn-trace-id": AMAZON})
    trace = answer.json()["trace"]
    assert trace == AMAZON or trace.startswith(f"{AMAZON};Lineage=")  # its way so far, against endless recursion


def record_of(api: Api, function: str, request_id: str) -> dict[str, object] | None:
    text = api.request("GET", "/v1/logs", params={"function": function}).text
    return next((found for line in text.splitlines() if (found := json.loads(line))["request_id"] == request_id), None)


# --- metrics


def test_metrics_are_prometheus_text(api: Api) -> None:
    api.invoke("all-echo")
    answer = api.request("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    values = samples(answer.text)
    assert values["martlet_invocations_total"] >= 1
    of_echo = [(name, value) for name, value in values.items() if 'function="all-echo"' in name]
    assert len([name for name, _ in of_echo if name.startswith("martlet_invocation_duration_seconds_bucket{")]) > 10
    buckets = [value for name, value in of_echo if "_bucket{" in name]
    assert buckets == sorted(buckets), "each holds the ones before"
    assert buckets[-1] == values['martlet_invocation_duration_seconds_count{function="all-echo"}'] >= 1
    before = values["martlet_invocations_total"], values["martlet_function_errors_total"], values["martlet_refusals_total"]
    api.invoke("all-echo")
    api.invoke("all-fails")
    api.request("POST", "/v1/functions/all-off/invocations", json={})
    values = samples(api.request("GET", "/metrics").text)
    after = values["martlet_invocations_total"], values["martlet_function_errors_total"], values["martlet_refusals_total"]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1, 1]


def samples(text: str) -> dict[str, float]:
    """Parse the text format (prometheus.io/docs/instrumenting/exposition_formats), strictly."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    found: dict[str, float] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram)", line):
            assert match[1] not in kinds, "one TYPE a metric"
            kinds[match[1]] = match[2]
        elif not line.startswith("# HELP "):
            match = re.fullmatch(r'([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*\})? (\S+)', line)
            assert match, line
            family = re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert kinds.get(match[1]) or kinds.get(family) == "histogram", line
            assert match[1] + (match[2] or "") not in found, line
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


# --- the ledger


def test_the_ledger_is_exact_after_a_restart_and_after_kill_9(start: Start) -> None:
    first = start(APPS / "everything", "--no-watch")
    api = Api(first)
    for _ in range(7):
        api.invoke("all-echo")
    for _ in range(3):
        api.invoke("all-fails")
    api.request("POST", "/v1/functions/all-off/invocations", json={})
    assert first.stop() == 0, "right after the last answer"
    second = start(None, data=first.data)
    api = Api(second)
    rows = {row["function"]: row for row in api.get("/v1/usage")["functions"]}
    assert (rows["all-echo"]["invocations"], rows["all-echo"]["errors"]) == (7, 0)
    assert (rows["all-fails"]["invocations"], rows["all-fails"]["errors"]) == (3, 3)
    assert (rows["all-off"]["invocations"], rows["all-off"]["throttled"]) == (0, 1)
    assert rows["all-echo"]["gb_ms"] == rows["all-echo"]["duration_ms"] * 128 / 1024
    assert rows["all-echo"]["duration_ms"] >= 7, "each started millisecond counts"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: api.invoke("all-echo"), range(50)))
    eventually(lambda: api.invocations("all-echo") == 57)  # what is shown is durable: from here on nothing of it may be lost
    second.kill()
    third = Api(start(None, data=first.data))
    assert third.invocations("all-echo") == 57
    assert third.invocations("all-fails") == 3


def test_status_tells_level_instances_and_percentiles(api: Api) -> None:
    for _ in range(3):
        api.invoke("all-echo")
    status = api.get("/v1/status")
    assert status["sandbox"]["level"] >= 2
    assert status["sandbox"]["missing"] == [] or status["sandbox"]["level"] == 2
    row = api.status_of("all-echo")
    assert row["cold"] >= 1
    assert row["warm"] >= 1
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert status["instances"] >= row["instances"] >= 1
