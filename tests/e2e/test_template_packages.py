"""Packages of a template's Python function: imported before an event comes, and as if they lay beside its code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e.conftest import Start
from tests.e2e.test_lambda_control import ROLE, RUNTIME, archive, client_of
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e

_TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Plain:
    Type: AWS::Serverless::Function
    Properties: {FunctionName: plain, CodeUri: plain/, Handler: app.handler, Runtime: python3.11, Timeout: 20}
  Shadowed:
    Type: AWS::Serverless::Function
    Properties: {FunctionName: shadowed, CodeUri: shadowed/, Handler: app.handler, Runtime: python3.11, Timeout: 20}
  Sdk:
    Type: AWS::Serverless::Function
    Properties: {FunctionName: sdk, CodeUri: sdk/, Handler: app.handler, Runtime: python3.11, Timeout: 20}
"""
_APP = """
import sys
ahead = sorted(name for name in ("iniconfig", "boto3") if name in sys.modules)
import iniconfig
from iniconfig import IniConfig
import local
def handler(event, context):
    import inspect, os
    return {"ahead": ahead, "file": iniconfig.__file__, "listed": "iniconfig" in os.listdir("/var/task"), "local": local.NAME,
            "path": sys.path[0], "opt": os.listdir("/opt"), "source": "class IniConfig" in inspect.getsource(IniConfig)}
"""
_SHADOWED = """
import iniconfig
import local
def handler(event, context):
    return {"file": iniconfig.__file__, "mine": getattr(iniconfig, "MINE", False)}
"""


def _ask(platform: RunningPlatform, name: str) -> Any:
    return json.load(client_of(platform).invoke(FunctionName=name, Payload=b"{}")["Payload"])


@pytest.fixture(scope="module")
def packaged(start: Start, tmp_path_factory: pytest.TempPathFactory) -> RunningPlatform:
    folder = tmp_path_factory.mktemp("packaged")
    files = {
        "template.yaml": _TEMPLATE,
        "plain/app.py": _APP,
        "plain/local.py": "NAME = 'mine'\n",
        "plain/requirements.txt": "iniconfig>=2,<3\n",
        "shadowed/app.py": _SHADOWED,
        "shadowed/iniconfig/__init__.py": "MINE = True\n",
        "shadowed/local.py": "import iniconfig\n",
        "shadowed/requirements.txt": "iniconfig>=2,<3\n",
        "sdk/app.py": "import sys\nahead = 'boto3' in sys.modules\nimport boto3\ndef handler(e, c): return ahead\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return start(folder / "template.yaml", "--no-watch")


def test_packages_are_imported_ahead_and_seem_to_lie_beside_the_code(packaged: RunningPlatform) -> None:
    found = _ask(packaged, "plain")
    assert found["ahead"] == ["iniconfig"], "what the code imports, and nothing else"
    assert found["file"] == "/var/task/iniconfig/__init__.py", "as Lambda has it"
    assert found["listed"], "as Lambda has it"
    assert found["source"], "as Lambda has it"
    assert (found["local"], found["path"], found["opt"]) == ("mine", "/var/task", [])


def test_a_module_of_the_code_hides_a_package_of_its_name(packaged: RunningPlatform) -> None:
    assert _ask(packaged, "shadowed") == {"file": "/var/task/iniconfig/__init__.py", "mine": True}


def test_the_platforms_sdk_is_imported_ahead_as_well(packaged: RunningPlatform) -> None:
    assert _ask(packaged, "sdk") is True


def test_an_archive_of_the_lambda_api_stays_as_it_is(packaged: RunningPlatform) -> None:
    client = client_of(packaged)
    code = archive("import sys\nahead = 'boto3' in sys.modules\nimport boto3\ndef handler(e, c): return ahead\n")
    client.create_function(FunctionName="sent", Runtime=RUNTIME, Role=ROLE, Handler="index.handler", Code={"ZipFile": code})
    client.get_waiter("function_active_v2").wait(FunctionName="sent")
    assert _ask(packaged, "sent") is False
