"""LogFormat JSON and its levels, in Python and in a custom runtime, as CloudWatch Logs shows them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from tests.e2e.driving import eventually
from tests.e2e.test_lambda_control import ROLE, RUNTIME, client_of
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e
_PYTHON = """
import logging
def handler(event, context):
    logging.getLogger("mine").warning("watch %s", "out", extra={"order": 7})
    logging.info("quiet")
    logging.debug("silent")
    print("printed")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("caught")
    raise ValueError("on purpose")
"""
_BOOTSTRAP = """#!/usr/bin/python3
import http.client, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = api.getresponse(); answer.read()
    print(os.environ["AWS_LAMBDA_LOG_FORMAT"], os.environ["AWS_LAMBDA_LOG_LEVEL"], flush=True)
    print('{"level": "error", "time": "2024-11-02T16:51:31Z", "msg": "kept"}', flush=True)
    id = answer.headers["Lambda-Runtime-Aws-Request-Id"]
    api.request("POST", f"/2018-06-01/runtime/invocation/{id}/response", "1")
    api.getresponse().read()
"""


def _archive(name: str, text: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        member = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
        member.external_attr, member.create_system = 0o755 << 16, 3
        packed.writestr(member, text)
    return out.getvalue()


def _logged(platform: RunningPlatform, name: str, runtime: str, file: str, text: str, **logging: str) -> list[Any]:
    client = client_of(platform)
    client.create_function(
        FunctionName=name, Runtime=runtime, Role=ROLE, Handler="index.handler", Code={"ZipFile": _archive(file, text)},
        LoggingConfig={"LogFormat": "JSON", **logging},
    )  # fmt: skip
    client.get_waiter("function_active_v2").wait(FunctionName=name)
    client.invoke(FunctionName=name, Payload=b"{}")
    logs = client_of(platform, "logs")

    def found() -> list[str]:
        events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        return [event["message"] for event in events]

    lines = eventually(found)
    return [json.loads(line) if line.startswith("{") else line for line in lines]


def test_python_logs_in_json(everything: RunningPlatform) -> None:
    lines = _logged(everything, "json-python", RUNTIME, "index.py", _PYTHON)
    start, warning, quiet, printed, caught, error, done, report = lines
    assert (start["type"], done["type"], report["type"]) == ("platform.start", "platform.runtimeDone", "platform.report")
    id = start["record"]["requestId"]
    stamp = warning.pop("timestamp")
    assert stamp.endswith("Z")
    assert warning == {"level": "WARNING", "message": "watch out", "logger": "mine", "requestId": id, "order": 7}
    assert (quiet["message"], printed) == ("quiet", "printed\n")
    assert (caught["errorType"], caught["errorMessage"]) == ("ZeroDivisionError", "division by zero")
    assert caught["location"].startswith("/var/task/index.py:handler:")
    assert "1 / 0" in caught["stackTrace"][0]
    assert (error["level"], error["errorType"], error["requestId"]) == ("ERROR", "ValueError", id)
    assert (report["record"]["status"], report["record"]["errorType"]) == ("error", "ValueError")


def test_levels_choose_what_is_kept(everything: RunningPlatform) -> None:
    levels = {"ApplicationLogLevel": "ERROR", "SystemLogLevel": "WARN"}
    lines = _logged(everything, "json-errors", RUNTIME, "index.py", _PYTHON, **levels)
    shown = [line.get("message") or line.get("errorMessage") or line["type"] for line in lines]
    assert shown == ["caught", "on purpose", "platform.runtimeDone", "platform.report"]


def test_a_custom_runtime_is_told_and_filtered(everything: RunningPlatform) -> None:
    lines = _logged(everything, "json-own", "provided.al2023", "bootstrap", _BOOTSTRAP, ApplicationLogLevel="WARN")
    assert [line.get("msg") or line["type"] for line in lines] == ["platform.start", "kept", "platform.report"]
