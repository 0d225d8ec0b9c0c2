"""boto3 against a running platform: a function's whole life, with waiters, versions, streams and asynchronous events."""

from __future__ import annotations

import base64
import io
import json
import sys
import time
import urllib.request
import zipfile
from typing import Any

import boto3
import pytest
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e
RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"
ROLE = "arn:aws:iam::000000000000:role/r"
HANDLER = """
import os
def handler(event, context):
    print("hello", event)
    if event.get("fail"):
        raise ValueError("on purpose")
    return {"event": event, "version": context.function_version, "env": os.environ.get("NN")}
"""


def archive(text: str = HANDLER, name: str = "index.py") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return out.getvalue()


def client_of(platform: RunningPlatform, service: str = "lambda") -> Any:
    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=platform.api_url,
        region_name="us-east-1",
        aws_access_key_id=platform.credentials["access_key_id"],
        aws_secret_access_key=platform.credentials["secret_access_key"],
    )


def create(client: Any, name: str) -> Any:
    code = {"ZipFile": archive()}
    return client.create_function(FunctionName=name, Runtime=RUNTIME, Role=ROLE, Handler="index.handler", Code=code)


def test_a_functions_whole_life(everything: RunningPlatform) -> None:
    client = client_of(everything)
    made = create(client, "life")
    assert made["State"] == "Pending"
    client.get_waiter("function_active_v2").wait(FunctionName="life")
    layer = client.publish_layer_version(LayerName="l", Content={"ZipFile": archive("N = 7", "python/l.py")})
    client.update_function_configuration(
        FunctionName="life", Environment={"Variables": {"NN": "1"}}, Layers=[layer["LayerVersionArn"]]
    )
    client.get_waiter("function_updated_v2").wait(FunctionName="life")
    version = client.publish_version(FunctionName="life")["Version"]
    client.create_alias(FunctionName="life", Name="live", FunctionVersion=version)
    answer = client.invoke(FunctionName="life:live", Payload=b'{"a": 1}', LogType="Tail")
    assert json.load(answer["Payload"]) == {"event": {"a": 1}, "version": version, "env": "1"}
    assert b"hello {'a': 1}" in base64.b64decode(answer["LogResult"])
    code = client.get_function(FunctionName="life")["Code"]["Location"]
    with urllib.request.urlopen(code) as got:
        assert got.read() == archive()
    client.update_function_code(FunctionName="life", ZipFile=archive("import missing_module"))
    client.get_waiter("function_updated_v2").wait(FunctionName="life")
    broken = client.invoke(FunctionName="life", Payload=b"{}")
    assert broken["FunctionError"] == "Unhandled"
    assert json.load(broken["Payload"])["errorType"] == "Runtime.ImportModuleError"
    assert json.load(client.invoke(FunctionName="life", Qualifier=version, Payload=b"{}")["Payload"])["version"] == version
    names = [one["FunctionName"] for page in client.get_paginator("list_functions").paginate() for one in page["Functions"]]
    assert "life" in names
    client.delete_function(FunctionName="life")
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="Function not found"):
        client.get_function(FunctionName="life")


def test_streams_and_asynchronous_events(everything: RunningPlatform) -> None:
    client = client_of(everything)
    for name in ("work", "after"):
        create(client, name)
        client.get_waiter("function_active_v2").wait(FunctionName=name)
    stream = client.invoke_with_response_stream(FunctionName="work", Payload=b'{"s": 1}')["EventStream"]
    events = list(stream)
    assert json.loads(b"".join(one["PayloadChunk"]["Payload"] for one in events[:-1]))["event"] == {"s": 1}
    assert "InvokeComplete" in events[-1]
    after = client.get_function(FunctionName="after")["Configuration"]["FunctionArn"]
    client.put_function_event_invoke_config(
        FunctionName="work", MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": after}}
    )
    answer = client.invoke(FunctionName="work", InvocationType="Event", Payload=b'{"fail": true}')
    assert (answer["StatusCode"], answer["Payload"].read(), "ExecutedVersion" in answer) == (202, b"", False)
    logs = client_of(everything, "logs")
    for _ in range(100):
        try:
            until_ms = int(time.time() * 1000) + 60_000
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/after", endTime=until_ms)
            found = [event for page in pages for event in page["events"]]
        except logs.exceptions.ResourceNotFoundException:
            found = []
        if any("RetriesExhausted" in event["message"] for event in found):
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"the record of the failure did not come: {found}")
    for name in ("work", "after"):
        client.delete_function(FunctionName=name)
