"""Several platforms on one PostgreSQL database: each serves all, and what one at a time may do goes on when that one dies."""

from __future__ import annotations

import io
import json
import signal
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from tests.e2e.driving import Api, Command, eventually, write_app
from tests.postgres_server import Schemas
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e

APP = """
    from martlet import App, Collection, Queue

    app = App("shared")
    seen = Collection("seen")
    jobs = Queue("jobs", visibility=15)

    @app.get("/hello")
    def hello() -> str:
        return "@version@"

    @app.function(uses=[seen])
    def noted(event, context):
        seen.insert({"cause": event["cause"]})

    @app.on(jobs, uses=[seen])
    def works(event, context):
        for record in event["Records"]:
            seen.insert({"cause": record["body"]})
"""
Start = Callable[[str, str], RunningPlatform]
_TAKE_OVER_SECONDS = 120.0  # a dead node's leases end after ten, its messages come back after fifteen; the machine may be busy


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(name, url)`: a node with a data folder of that name."""
    started: list[RunningPlatform] = []

    def begin(name: str, url: str) -> RunningPlatform:
        started.append(RunningPlatform(None, tmp_path / name, "--no-watch", environ={"MARTLET_STORE": url}, ready_seconds=90))
        return started[-1]

    yield begin
    running = [node for node in started if node.process.poll() is None]
    codes = [(node.stop(60), node.printed()) for node in running]
    assert all(code == 0 for code, _ in codes), codes


def client(node: RunningPlatform, service: str) -> Any:
    found = node.credentials
    return boto3.client(
        service,
        endpoint_url=node.api_url,
        region_name="us-east-1",
        aws_access_key_id=found["access_key_id"],
        aws_secret_access_key=found["secret_access_key"],
        config=Config(retries={"max_attempts": 0}, read_timeout=60, parameter_validation=False),
    )


def causes(node: RunningPlatform) -> Counter[str]:
    """How often what has run."""
    found: Counter[str] = Counter()
    query: dict[str, str] | None = {"app": "shared", "limit": "1000"}
    while query is not None:
        page = Api(node).get("/v1/documents/seen", **query)
        found.update(one["value"]["cause"] for one in page["items"])
        query = {**query, "after": page["next"]} if page["next"] else None
    return found


def ran(node: RunningPlatform, *wanted: str) -> bool:
    found = causes(node)
    return all(found[cause] for cause in wanted)


def deployed(martlet: Command, node: RunningPlatform, folder: Path, version: str) -> None:
    write_app(folder, APP.replace("@version@", version))
    done = martlet("deploy", folder, data=node.data)
    assert done.code == 0, done.err


def hello(node: RunningPlatform) -> str:
    answer = httpx.get(f"{node.app_url}/hello", timeout=30)
    return str(answer.json()) if answer.status_code == 200 else f"{answer.status_code}"


@pytest.mark.timeout(120)
def test_every_node_serves_what_any_of_them_was_given(start: Start, schemas: Schemas, martlet: Command, tmp_path: Path) -> None:
    url = schemas()
    one = start("one", url)
    deployed(martlet, one, tmp_path / "app", "first")
    two = start("two", url)
    assert hello(two) == "first"
    assert {node["place"].rpartition(":")[2] for node in Api(two).get("/v1/status")["nodes"]} == {str(one.data)}

    deployed(martlet, one, tmp_path / "app", "second")
    began = time.monotonic()
    eventually(lambda: hello(two) == "second")
    print(f"deployed on one, served by two after {time.monotonic() - began:.3f} s")
    deployed(martlet, two, tmp_path / "app", "third")
    eventually(lambda: hello(one) == "third")

    for number in range(50):  # acknowledged by one node, read from the other at once
        writer, reader = (one, two) if number % 2 else (two, one)
        path = "/v1/documents/things/same"
        Api(writer).request("PUT", f"{path}?app=shared", json=number).raise_for_status()
        assert Api(reader).get(path, app="shared") == number
    assert Api(one).invoke("shared-noted", {"cause": "asked"})["error"] == ""
    assert causes(two) == Counter({"asked": 1})
    assert client(two, "sts").get_caller_identity()["Arn"] == client(one, "sts").get_caller_identity()["Arn"]


TEMPLATE = """
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: "sts:AssumeRole"}]
  Says:
    Type: AWS::Lambda::Function
    Properties:
      FunctionName: stacked
      Runtime: python3.11
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Code:
        ZipFile: |
          def handler(event, context):
              return "@version@"
"""


def zipped(text: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("index.py", text)
    return out.getvalue()


def said(node: RunningPlatform, function: str) -> str:
    try:
        answer = client(node, "lambda").invoke(FunctionName=function)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return answer["Payload"].read().decode().strip('"')


@pytest.mark.timeout(180)
def test_the_lambda_api_and_stacks_of_all_nodes_are_one(start: Start, schemas: Schemas) -> None:
    url = schemas()
    one, two = start("one", url), start("two", url)
    here, there = client(one, "lambda"), client(two, "lambda")
    layer = here.publish_layer_version(LayerName="base", Content={"ZipFile": zipped("LAYERED = 'layered'\n")})
    code = "import sys; sys.path.append('/opt')\ndef handler(event, context):\n    return '@'\n"
    there.create_function(
        FunctionName="made",
        Runtime="python3.11",
        Handler="index.handler",
        Role="arn:aws:iam::000000000000:role/any",
        Layers=[layer["LayerVersionArn"]],
        Code={"ZipFile": zipped(code.replace("@", "first"))},
    )
    for node in (one, two):
        eventually(lambda node=node: said(node, "made") == "first")
    there.get_waiter("function_active_v2").wait(FunctionName="made")
    here.update_function_code(FunctionName="made", ZipFile=zipped(code.replace("@", "second")))
    eventually(lambda: said(two, "made") == "second")
    here.get_waiter("function_updated_v2").wait(FunctionName="made")
    version = there.publish_version(FunctionName="made")["Version"]
    there.create_alias(FunctionName="made", Name="live", FunctionVersion=version)
    eventually(lambda: said(one, "made:live") == "second")
    location = there.get_function(FunctionName="made")["Code"]["Location"]
    assert b"PK" in httpx.get(location, timeout=30).content[:4]
    here.delete_function(FunctionName="made")
    eventually(lambda: said(two, "made") == "ResourceNotFoundException")

    stacks = [client(node, "cloudformation") for node in (one, two)]
    given = {"StackName": "shared", "Capabilities": ["CAPABILITY_IAM"]}
    stacks[0].create_stack(TemplateBody=TEMPLATE.replace("@version@", "first"), **given)
    stacks[1].get_waiter("stack_create_complete").wait(StackName="shared", WaiterConfig={"Delay": 1})
    eventually(lambda: said(two, "stacked") == "first")
    stacks[1].update_stack(TemplateBody=TEMPLATE.replace("@version@", "second"), **given)
    stacks[0].get_waiter("stack_update_complete").wait(StackName="shared", WaiterConfig={"Delay": 1})
    eventually(lambda: said(one, "stacked") == "second")


@pytest.mark.timeout(120)
def test_messages_events_and_schedules_cross_nodes(start: Start, schemas: Schemas, martlet: Command, tmp_path: Path) -> None:
    url = schemas()
    one, two = start("one", url), start("two", url)
    deployed(martlet, one, tmp_path / "app", "first")
    sender, receiver = client(one, "sqs"), client(two, "sqs")
    queue = sender.create_queue(QueueName="crossing")["QueueUrl"]
    with ThreadPoolExecutor(1) as pool:
        for number in range(10):  # a long poll there hears of what is sent here; lost wake-ups would take it 20 seconds
            polled = pool.submit(receiver.receive_message, QueueUrl=queue, WaitTimeSeconds=20)
            sender.send_message(QueueUrl=queue, MessageBody=str(number))
            (message,) = polled.result()["Messages"]
            assert message["Body"] == str(number)
            receiver.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    attributes = sender.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == "0"

    wanted = Counter()
    for number in range(20):
        node = (one, two)[number % 2]
        event = json.dumps({"cause": f"event-{number}"}).encode()
        client(node, "lambda").invoke(FunctionName="shared-noted", InvocationType="Event", Payload=event)
        client(node, "sqs").send_message(QueueUrl=f"{node.api_url}/000000000000/shared-jobs", MessageBody=f"job-{number}")
        wanted.update((f"event-{number}", f"job-{number}"))

    for number in range(3):
        due = (datetime.now(UTC) + timedelta(seconds=2 + number)).strftime("%Y-%m-%dT%H:%M:%S")
        client((one, two)[number % 2], "scheduler").create_schedule(
            Name=f"once-{number}",
            ScheduleExpression=f"at({due})",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={
                "Arn": "arn:aws:lambda:us-east-1:000000000000:function:shared-noted",
                "RoleArn": "arn:aws:iam::000000000000:role/any",
                "Input": json.dumps({"cause": f"schedule-{number}"}),
            },
        )
        wanted.update((f"schedule-{number}",))
    eventually(lambda: ran(two, *wanted))
    assert causes(one) == wanted  # each once


@pytest.mark.timeout(240)
def test_the_others_go_on_when_a_node_is_killed_under_load(
    start: Start, schemas: Schemas, martlet: Command, tmp_path: Path
) -> None:
    """Whatever either had acknowledged is done, by the one that lives; only what was running may have run twice."""
    url = schemas()
    one, two = start("one", url), start("two", url)
    deployed(martlet, one, tmp_path / "app", "first")
    eventually(lambda: hello(two) == "first")
    due = (datetime.now(UTC) + timedelta(seconds=8)).strftime("%Y-%m-%dT%H:%M:%S")
    client(one, "scheduler").create_schedule(
        Name="later",
        ScheduleExpression=f"at({due})",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": "arn:aws:lambda:us-east-1:000000000000:function:shared-noted",
            "RoleArn": "arn:aws:iam::000000000000:role/any",
            "Input": json.dumps({"cause": "schedule"}),
        },
    )
    acknowledged: list[str] = ["schedule"]
    is_over = threading.Event()

    def load(node: RunningPlatform, name: str) -> None:
        events, queues = client(node, "lambda"), client(node, "sqs")
        for number in range(10_000):
            cause = f"{name}-{number}"
            try:
                event = json.dumps({"cause": f"event-{cause}"}).encode()
                events.invoke(FunctionName="shared-noted", InvocationType="Event", Payload=event)
                acknowledged.append(f"event-{cause}")
                queues.send_message(QueueUrl=f"{node.api_url}/000000000000/shared-jobs", MessageBody=f"job-{cause}")
                acknowledged.append(f"job-{cause}")
            except (EndpointConnectionError, ConnectionClosedError, ReadTimeoutError):
                return  # it was killed
            if is_over.is_set():
                return

    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load, one, "one"), pool.submit(load, two, "two")]
        try:
            eventually(lambda: len(acknowledged) > 100, 60)
            one.process.send_signal(signal.SIGKILL)
            loads[0].result()
            before = len(acknowledged)
            eventually(lambda: len(acknowledged) > before + 50 or loads[1].done(), 60)  # the other one serves meanwhile
        finally:
            is_over.set()
        loads[1].result()
    one.kill()
    began = time.monotonic()
    eventually(lambda: ran(two, *acknowledged), _TAKE_OVER_SECONDS)
    print(f"{len(acknowledged)} acknowledged; all done {time.monotonic() - began:.1f} s after the load ended")
    found = causes(two)
    assert max(found.values()) <= 3
    assert found["schedule"] <= 2
    assert sum(count > 1 for count in found.values()) < len(acknowledged) / 2
    again = start("one", url)  # it comes back as one of them
    assert hello(again) == "first"
    assert Api(two).invoke("shared-noted", {"cause": "afterwards"})["error"] == ""
    assert causes(again)["afterwards"] == 1
