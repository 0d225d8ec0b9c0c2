"""AWS's services on the real platform: boto3 from outside and from within a function."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.e2e.conftest import Start
from tests.e2e.driving import eventually
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e

APP = """
import os
from martlet import App

app = App("logged")


@app.function()
def speak(event):
    print(json.dumps({"level": event["level"], "text": event["text"]}))
    return {"stream": os.environ["AWS_LAMBDA_LOG_STREAM_NAME"], "group": os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]}
"""


@pytest.fixture(scope="module")
def platform(start: Start, tmp_path_factory: pytest.TempPathFactory) -> RunningPlatform:
    folder: Path = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text("import json" + APP)
    return start(folder, "--no-watch")


@pytest.fixture
def aws(platform: RunningPlatform) -> Iterator[Any]:
    made = []

    def client(service: str, **credentials: str) -> Any:
        keys = credentials or {
            "aws_access_key_id": platform.credentials["access_key_id"],
            "aws_secret_access_key": platform.credentials["secret_access_key"],
        }
        config = Config(retries={"max_attempts": 0}, inject_host_prefix=False)  # else live tail goes to host "stream-127..."
        found = boto3.client(  # type: ignore[call-overload]
            service, endpoint_url=platform.api_url, region_name="us-east-1", config=config, **keys
        )
        made.append(found)
        return found

    yield client
    for found in made:
        found.close()


def spoken(client: Any, level: str, text: str) -> dict[str, str]:
    answer = client.invoke(FunctionName="logged-speak", Payload=json.dumps({"level": level, "text": text}))
    found: dict[str, str] = json.loads(answer["Payload"].read())
    return found


def test_cloudwatch_shows_what_a_function_wrote(aws: Any) -> None:
    logs = aws("logs")
    place = spoken(aws("lambda"), "ERROR", "it broke")
    spoken(aws("lambda"), "INFO", "all is well")
    assert place["group"] == "/aws/lambda/logged-speak"

    def errors() -> list[dict[str, Any]]:
        found = logs.filter_log_events(logGroupName=place["group"], filterPattern='{ $.level = "ERROR" }')
        events: list[dict[str, Any]] = found["events"]
        return events

    (event,) = eventually(errors)
    assert json.loads(event["message"]) == {"level": "ERROR", "text": "it broke"}
    assert event["logStreamName"] == place["stream"]  # what the function was told is what is listed
    streams = [stream["logStreamName"] for stream in logs.describe_log_streams(logGroupName=place["group"])["logStreams"]]
    assert place["stream"] in streams
    lines = logs.get_log_events(logGroupName=place["group"], logStreamName=place["stream"], startFromHead=True)["events"]
    assert lines[0]["message"].startswith("START RequestId: ")
    assert any(line["message"].startswith("REPORT RequestId: ") for line in lines)


def test_a_live_tail_of_a_function(aws: Any) -> None:
    arn = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/logged-speak"
    spoken(aws("lambda"), "INFO", "first")
    tail = aws("logs").start_live_tail(logGroupIdentifiers=[arn], logEventFilterPattern="tailed")["responseStream"]
    events = iter(tail)
    assert next(events)["sessionStart"]["logGroupIdentifiers"] == [arn]
    spoken(aws("lambda"), "INFO", "tailed")
    for event in events:
        results = event["sessionUpdate"]["sessionResults"]
        if results:
            assert json.loads(results[0]["message"])["text"] == "tailed"
            break
    tail.close()


def test_roles_and_sessions_outlive_a_restart_of_the_client(aws: Any) -> None:
    trust = {"Statement": {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}}
    role = aws("iam").create_role(RoleName="invoker", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    arn = "arn:aws:lambda:us-east-1:000000000000:function:logged-speak"
    policy = {"Statement": {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn}}
    aws("iam").put_role_policy(RoleName="invoker", PolicyName="p", PolicyDocument=json.dumps(policy))
    keys = aws("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="ci")["Credentials"]
    session = {
        "aws_access_key_id": keys["AccessKeyId"],
        "aws_secret_access_key": keys["SecretAccessKey"],
        "aws_session_token": keys["SessionToken"],
    }
    assert spoken(aws("lambda", **session), "INFO", "as a role")["group"] == "/aws/lambda/logged-speak"
    with pytest.raises(ClientError, match="AccessDenied"):
        aws("iam", **session).list_roles()
