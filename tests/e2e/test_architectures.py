"""The reference architectures in examples/, each as an app and as the SAM template of an AWS user: one test for both forms."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import accumulate
from typing import Any, NamedTuple

import httpx
import pytest
from PIL import Image
from tests.e2e.conftest import Start
from tests.e2e.driving import EXAMPLES, eventually
from tests.e2e.test_killed import named
from tests.e2e.test_lambda_control import client_of
from tests.running_platform import RunningPlatform

WEBHOOKS = int(os.environ.get("MARTLET_TEST_WEBHOOKS", "300"))  # 10,000 is the whole burst
WAIT_SECONDS = 120.0  # for what takes a few seconds on an idle machine
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3 * WAIT_SECONDS + WEBHOOKS / 5)]


class Running(NamedTuple):
    """An example that serves."""

    platform: RunningPlatform
    url: str
    outputs: dict[str, str]  # of its template; {} for an app


Run = Callable[[str], Running]


@pytest.fixture(params=["app", "template"])
def run(request: pytest.FixtureRequest, start: Start) -> Iterator[Run]:
    """`run(name)`: `martlet up` of the example, in the form that this test is about."""
    begun: list[RunningPlatform] = []

    def begin(name: str) -> Running:
        form = EXAMPLES / name if request.param == "app" else EXAMPLES / f"{name}-sam/template.yaml"
        begun.append(start(form, "--no-watch"))
        return reached(begun[-1])

    yield begin
    for platform in begun:
        if platform.process.poll() is None:
            assert platform.stop() == 0, platform.printed()


def killed_and_started(service: Running, start: Start) -> Running:
    """The platform after kill -9, started again on the same data."""
    service.platform.kill()
    return reached(start(None, data=service.platform.data))


def reached(platform: RunningPlatform) -> Running:
    outputs = {
        one["OutputKey"]: one["OutputValue"]
        for stack in client_of(platform, "cloudformation").describe_stacks()["Stacks"]
        for one in stack.get("Outputs", ())
    }
    return Running(platform, outputs.get("Url", platform.app_url), outputs)


# --- web-service -----------------------------------------------------------------------------------


def test_a_simple_web_service(run: Run, start: Start, http: httpx.Client) -> None:
    service = run("web-service")
    tasks = f"{service.url}/tasks"
    assert http.get(tasks).json() == []
    created = http.post(tasks, json={"title": "water the plants"})
    assert created.status_code == 201
    task = {"id": created.json()["id"], "title": "water the plants", "done": False}
    assert http.get(f"{tasks}/{task['id']}").json() == task
    done = {**task, "done": True}
    assert http.put(f"{tasks}/{task['id']}", json={"title": task["title"], "done": True}).json() == done
    for wrong in ({}, {"title": ""}, {"title": 1}, {"title": "t", "done": "later"}, {"title": "t" * 201}, ["t"]):
        assert http.post(tasks, json=wrong).status_code == 422, wrong
        assert http.put(f"{tasks}/{task['id']}", json=wrong).status_code == 422, wrong
    assert http.get(tasks).json() == [done], "what was refused has changed nothing"

    service = killed_and_started(service, start)
    tasks = f"{service.url}/tasks"
    assert httpx.get(tasks, timeout=30).json() == [done]
    assert httpx.delete(f"{tasks}/{task['id']}", timeout=30).status_code == 204
    for method in ("GET", "DELETE"):
        assert httpx.request(method, f"{tasks}/{task['id']}", timeout=30).status_code == 404
    assert httpx.put(f"{tasks}/{task['id']}", json={"title": "again"}, timeout=30).status_code == 404
    assert httpx.get(tasks, timeout=30).json() == []


# --- storage-first ---------------------------------------------------------------------------------


def test_storage_first_loses_nothing_when_its_processes_are_killed(run: Run, start: Start, http: httpx.Client) -> None:
    service = run("storage-first")
    assert http.post(f"{service.url}/orders", json={"customer": "ada"}).status_code == 422
    assert http.get(f"{service.url}/orders/none").status_code == 404

    acknowledged: dict[str, int] = {}  # cents, by order
    send_until_some_wait(service, acknowledged)
    for pid in named(service.platform, "zygote"):  # every function's process, that of `process` in the middle
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: http.get(f"{service.url}/orders/none").status_code == 404, WAIT_SECONDS)
    send_until_some_wait(service, acknowledged)

    service = killed_and_started(service, start)
    eventually(lambda: invoiced(service) >= sum(acknowledged.values()), WAIT_SECONDS)
    assert invoiced(service) == sum(acknowledged.values()), "each order counts once"
    for id, cents in acknowledged.items():
        shown = httpx.get(f"{service.url}/orders/{id}", timeout=30).json()
        assert shown == {"state": "done", "invoice": {"customer": "ada", "cents": cents}}


def send_until_some_wait(service: Running, acknowledged: dict[str, int]) -> None:
    """Send orders, twenty at least, until some of all are processed and some are not."""
    enough = len(acknowledged) + 20
    while len(acknowledged) < enough or not 0 < invoiced(service) < sum(acknowledged.values()):
        cents = len(acknowledged) + 1
        answer = httpx.post(f"{service.url}/orders", json={"customer": "ada", "cents": cents}, timeout=30)
        assert answer.status_code == 202, answer.text
        acknowledged[answer.json()["id"]] = cents


def invoiced(service: Running) -> int:
    """The sum of the invoices for ada."""
    cents: int = httpx.get(f"{service.url}/customers/ada", timeout=30).json()["cents"]
    return cents


# --- webhook ---------------------------------------------------------------------------------------


def test_a_burst_of_webhooks_is_accepted_and_each_counts_once(run: Run, http: httpx.Client) -> None:
    service = run("webhook")
    dead = service.outputs.get("FailedQueue", "webhook-hooks-dead")
    bad = [{"event": f"bad-{number}", "account": "a-0", "cents": 0} for number in range(5)]
    good = [{"event": f"e-{number}", "account": f"a-{number % 10}", "cents": number + 1} for number in range(WEBHOOKS)]
    repeated = good[::20]

    assert http.post(f"{service.url}/payments", json={"event": "e", "cents": "many"}).status_code == 422
    with ThreadPoolExecutor(16) as pool:
        sent = list(pool.map(lambda payment: http.post(f"{service.url}/payments", json=payment), bad + good + repeated))
    assert {answer.status_code for answer in sent} == {202}

    expected = Counter[str]()
    for payment in good:
        expected[str(payment["account"])] += int(str(payment["cents"]))
    eventually(lambda: sum(balances(service).values()) >= expected.total(), WAIT_SECONDS + WEBHOOKS / 10)
    sqs = client_of(service.platform, "sqs")
    failed = Counter[str]()

    def all_failed() -> bool:
        failed.update(received(sqs, dead))
        return len(failed) >= len(bad)

    eventually(all_failed, WAIT_SECONDS)
    assert failed.keys() == {payment["event"] for payment in bad}
    assert balances(service) == expected, "each counts once"

    booked = http.get(f"{service.url}/payments").json()
    assert booked.keys() == {payment["event"] for payment in good}
    moments = [(payment["started"], 1) for payment in booked.values()] + [(payment["ended"], -1) for payment in booked.values()]
    assert max(accumulate(step for _, step in sorted(moments))) <= 2, "two consumers at most"


def balances(service: Running) -> dict[str, int]:
    found: dict[str, int] = httpx.get(f"{service.url}/accounts", timeout=30).json()
    return found


def received(sqs: Any, queue: str) -> list[str]:
    """The events of messages that wait in `queue`, which then belong to us for a while."""
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
    return [json.loads(message["Body"])["event"] for message in messages]


# --- circuit-breaker -------------------------------------------------------------------------------


def test_a_circuit_breaker_is_shared_by_all_instances(run: Run, http: httpx.Client) -> None:
    service = run("circuit-breaker")

    def state() -> dict[str, Any]:
        found: dict[str, Any] = http.get(f"{service.url}/breaker").json()
        return found

    assert quotes(service, 1) == {200: 1}
    assert (state()["state"], state()["calls"]) == ("closed", 1)

    http.put(f"{service.url}/provider", json={"down": True}).raise_for_status()
    answers = quotes(service, 50)
    opened = state()
    assert opened["state"] == "open"
    assert set(answers) <= {502, 503}
    assert answers[502] == opened["failed_calls"] >= 5, "who got no 502 has not reached the provider"

    answers = quotes(service, 50)
    eventually(lambda: time.time() > state()["until"])  # so that all of the next callers see that one may probe
    answers += quotes(service, 50)
    still = state()
    assert still["state"] == "open"
    assert answers[503] > 0
    probes = still["probes"] - opened["probes"]
    assert answers[502] == still["failed_calls"] - opened["failed_calls"] == probes > 0, (
        "while it is open only probes get through"
    )

    http.put(f"{service.url}/provider", json={"down": False}).raise_for_status()
    answers = Counter()
    while not answers[200]:
        answers += quotes(service, 20)
    assert set(answers) <= {200, 503}
    closed = state()
    assert (closed["state"], closed["failures"], closed["probes"]) == ("closed", 0, still["probes"] + 1), "one probe closes it"
    assert quotes(service, 50) == {200: 50}
    assert state()["term"] == closed["term"]


def quotes(service: Running, callers: int) -> Counter[int]:
    """Ask for a quote, `callers` at one time: how often each status was answered."""
    with httpx.Client(timeout=60, limits=httpx.Limits(max_connections=callers)) as client, ThreadPoolExecutor(callers) as pool:
        answers = list(pool.map(lambda number: client.get(f"{service.url}/quotes/Q{number}"), range(callers)))
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 503)
    return Counter(answer.status_code for answer in answers)


# --- images ----------------------------------------------------------------------------------------


def test_every_uploaded_picture_gets_its_thumbnail(run: Run, start: Start) -> None:
    service = run("images")
    uploads = service.outputs.get("UploadsBucket", "images-uploads")
    thumbnails = service.outputs.get("ThumbnailsBucket", "images-thumbnails")
    photo = (EXAMPLES / "shop/pictures/cup.jpg").read_bytes()
    drawing = BytesIO()
    Image.new("RGBA", (30, 60), "teal").save(drawing, "PNG")
    s3 = client_of(service.platform, "s3")
    for key, body in {
        "cup.jpg": photo,
        "in/a drawing & more +ü.png": drawing.getvalue(),
        "letter": b"Dear",
        "cut.jpg": photo[:999],
    }.items():
        s3.put_object(Bucket=uploads, Key=key, Body=body)
    done = {"cup.jpg.jpg", "in/a drawing & more +ü.png.jpg", "letter.error.txt", "cut.jpg.error.txt"}
    eventually(lambda: keys(s3, thumbnails) >= done, WAIT_SECONDS)
    assert keys(s3, thumbnails) == done

    with Image.open(BytesIO(photo)) as original, opened(s3, thumbnails, "cup.jpg.jpg") as small:
        assert (small.format, max(small.size)) == ("JPEG", 128)
        assert abs(small.width * original.height - small.height * original.width) <= max(original.size)
    with opened(s3, thumbnails, "in/a drawing & more +ü.png.jpg") as small:
        assert small.size == (30, 60), "what is small already stays as it is"

    for number in range(10):
        s3.put_object(Bucket=uploads, Key=f"late-{number}.jpg", Body=photo)
    service = killed_and_started(service, start)
    s3 = client_of(service.platform, "s3")
    late = {f"late-{number}.jpg.jpg" for number in range(10)}
    eventually(lambda: keys(s3, thumbnails) >= done | late, WAIT_SECONDS)


def keys(s3: Any, bucket: str) -> set[str]:
    return {found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", ())}


def opened(s3: Any, bucket: str, key: str) -> Image.Image:
    found = s3.get_object(Bucket=bucket, Key=key)
    assert found["ContentType"] == "image/jpeg"
    return Image.open(BytesIO(found["Body"].read()))


# --- iot -------------------------------------------------------------------------------------------


def test_readings_become_windows_and_alerts(run: Run, http: httpx.Client) -> None:
    service = run("iot")
    batches = [
        [
            {"sensor": sensor, "at": f"2026-01-31T12:{minute:02}:{second:02}Z", "celsius": celsius + second}
            for second in range(20)
        ]
        for sensor, minute, celsius in (("attic", 0, 25), ("attic", 1, 10), ("cellar", 0, 5))  # hot is only the first minute
    ]
    for wrong in (
        [{"sensor": "attic"}],
        [{**batches[0][0], "celsius": "warm"}],
        [{**batches[0][0], "at": "2026-01-31T12:00:00"}],
    ):
        assert http.post(f"{service.url}/readings", json=wrong).status_code == 422, wrong
    parts = [batch[start : start + 5] for batch in batches for start in range(0, 20, 5)]
    with ThreadPoolExecutor(8) as pool:
        sent = list(
            pool.map(lambda part: http.post(f"{service.url}/readings", json=part), [*parts, *reversed(parts), parts[0] * 2])
        )
    assert {answer.status_code for answer in sent} == {202}

    attic = {
        "2026-01-31T12:00": {"count": 20, "mean": 34.5, "highest": 44, "hot": True},
        "2026-01-31T12:01": {"count": 20, "mean": 19.5, "highest": 29, "hot": False},
    }
    cellar = {"2026-01-31T12:00": {"count": 20, "mean": 14.5, "highest": 24, "hot": False}}
    eventually(lambda: http.get(f"{service.url}/windows/attic").json() == attic, WAIT_SECONDS)
    eventually(lambda: http.get(f"{service.url}/windows/cellar").json() == cellar, WAIT_SECONDS)
    notices = {"attic/2026-01-31T12:00": "attic/2026-01-31T12:00 is too hot"}
    assert eventually(lambda: http.get(f"{service.url}/notices").json(), WAIT_SECONDS) == notices


# --- etl -------------------------------------------------------------------------------------------


def test_csv_files_become_a_report(run: Run, http: httpx.Client) -> None:
    service = run("etl")
    incoming, clean = service.outputs.get("IncomingBucket", "etl-incoming"), service.outputs.get("CleanBucket", "etl-clean")
    s3, functions = client_of(service.platform, "s3"), client_of(service.platform)

    def upload(key: str, *rows: str) -> None:
        s3.put_object(Bucket=incoming, Key=key, Body="\n".join(["product,quantity,cents", *rows, ""]).encode())

    def report() -> dict[str, Any]:
        answer = functions.invoke(FunctionName=service.outputs.get("ReportFunction", "etl-report"))
        assert "FunctionError" not in answer, answer["Payload"].read()
        found: dict[str, Any] = http.get(f"{service.url}/report").json()
        return found

    assert http.get(f"{service.url}/report").status_code == 404
    upload("shops/zürich 1.csv", "cup,2,2500", "tea,1,890", "cup,many,1", ",1,1", "cup,1")
    upload("online.csv", *["cup,1,1250"] * 120)
    upload("notes.txt", "cup,1000,1")
    eventually(lambda: report() == {"cup": {"pieces": 122, "cents": 152_500}, "tea": {"pieces": 1, "cents": 890}}, WAIT_SECONDS)
    errors = s3.get_object(Bucket=clean, Key="shops/zürich 1.csv.errors.txt")["Body"].read().decode()
    assert [line.partition(":")[0] for line in errors.splitlines()] == ["line 4", "line 5", "line 6"]

    upload("online.csv", "cup,1,1250", "kettle,1,6400")
    corrected = {
        "cup": {"pieces": 3, "cents": 3750},
        "kettle": {"pieces": 1, "cents": 6400},
        "tea": {"pieces": 1, "cents": 890},
    }
    eventually(lambda: report() == corrected, WAIT_SECONDS)
