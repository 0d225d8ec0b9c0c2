"""`martlet up template.yaml`: what is saved is served, whatever the runtime; what cannot be read is not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import Api, Command, RunningPlatform, eventually, save

pytestmark = pytest.mark.e2e

NODE_MAJOR = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.split(".")[0].lstrip("v")
TEMPLATE = f"""
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Greeting: {{Type: String, Default: hello}}
Globals:
  Function: {{Timeout: 5, MemorySize: 128}}
Resources:
  Js:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: watched-js
      Runtime: nodejs{NODE_MAJOR}.x
      Handler: index.handler
      CodeUri: js/
      Environment: {{Variables: {{GREETING: !Ref Greeting}}}}
      Events:
        Get: {{Type: HttpApi, Properties: {{Path: /js, Method: get}}}}
  Py:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: watched-py
      Runtime: python3.11
      Handler: app.handler
      CodeUri: py/
      AutoPublishAlias: live
      Events:
        Get: {{Type: HttpApi, Properties: {{Path: /py, Method: get}}}}
  Native:
    Type: AWS::Serverless::Function
    Properties: {{FunctionName: watched-native, Runtime: provided.al2023, Handler: any, CodeUri: native/}}
Outputs:
  Url: {{Value: !Sub "https://${{ServerlessHttpApi}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}/"}}
"""
JS = "exports.handler = async () => `${process.env.GREETING} from TEXT`;\n"
PY = 'def handler(event, context):\n    print("asked")\n    return "from TEXT"\n'
BOOTSTRAP = """\
#!/bin/sh
while true; do
  curl -sS -D /tmp/head -o /dev/null "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next"
  id=$(grep -i lambda-runtime-aws-request-id /tmp/head | tr -d '\\r' | cut -d' ' -f2)
  curl -sS -o /dev/null -d '"from TEXT"' "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$id/response"
done
"""


class Watched:
    def __init__(self, platform: RunningPlatform, folder: Path) -> None:
        self.platform, self.folder = platform, folder
        line = next(line for line in platform.printed().splitlines() if line.startswith("  Url  "))
        self.url = line.split()[1].rstrip("/")

    def said(self, path: str) -> str:
        answer = httpx.get(f"{self.url}/{path}", timeout=30)
        assert answer.status_code == 200, "no request fails while code is exchanged"
        return answer.text


def write(folder: Path, text: str) -> None:
    save(folder / "js" / "index.js", JS.replace("TEXT", text))
    save(folder / "py" / "app.py", PY.replace("TEXT", text))
    (folder / "native" / "bootstrap").write_text(BOOTSTRAP.replace("TEXT", text))
    (folder / "native" / "bootstrap").chmod(0o755)


@pytest.fixture(scope="module")
def watched(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("template") / "watched"
    for name in ("js", "py", "native"):
        (folder / name).mkdir(parents=True)
    (folder / "template.yaml").write_text(TEMPLATE)
    write(folder, "first")
    return Watched(start(folder / "template.yaml", "--param", "Greeting=moin"), folder)


def test_what_the_template_prints_answers(watched: Watched) -> None:
    assert watched.said("js") == "moin from first"
    assert watched.said("py") == "from first"
    assert "watched: 2 routes" in watched.platform.printed()


def test_saved_code_is_served_whatever_the_runtime(watched: Watched) -> None:
    write(watched.folder, "second")
    api = Api(watched.platform)
    eventually(lambda: watched.said("js") == "moin from second")
    eventually(lambda: watched.said("py") == "from second")
    eventually(lambda: api.invoke("watched-native")["payload"] == "from second")
    assert "deployed watched revision" in watched.platform.printed()


def test_functions_of_templates_are_listed_and_called_by_name(watched: Watched, martlet: Command) -> None:
    data = watched.platform.data
    rows = {line.split()[0]: line.split()[1:3] for line in martlet("functions", "--app", "watched", data=data).out.splitlines()}
    assert rows["watched-js"] == ["watched", f"nodejs{NODE_MAJOR}.x"]
    assert rows["watched-py"] == ["watched", "python3.11"]
    assert "watched-py:1" in martlet("functions", "--versions", data=data).out
    assert "from " in martlet("invoke", "watched-py:live", data=data).out
    assert "function 'watched-py' has no version or alias 'dead'" in martlet("invoke", "watched-py:dead", data=data).err
    assert "asked" in martlet("logs", "watched-py", data=data).out
    assert "watched-py:" in martlet("status", data=data).out


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("js/index.js", "exports.handler = async () => {{{\n", "js/index.js:"),
        ("py/app.py", "def handler(event, context)\n    return 1\n", "py/app.py:1: SyntaxError"),
        ("template.yaml", TEMPLATE.replace("AWS::Serverless::Function", "AWS::Nothing", 1), "AWS::Nothing"),
    ],
)
def test_what_cannot_be_read_keeps_the_old_code_serving_and_says_where(
    watched: Watched, file: str, text: str, told: str
) -> None:
    write(watched.folder, "good")
    eventually(lambda: watched.said("js") == "moin from good" and watched.said("py") == "from good")
    path, before = watched.folder / file, len(watched.platform.printed())
    good = path.read_text()
    save(path, text)
    eventually(lambda: told in watched.platform.printed()[before:])
    assert "deploy failed, the version before still serves" in watched.platform.printed()[before:]
    assert (watched.said("js"), watched.said("py")) == ("moin from good", "from good")
    save(path, good)
    write(watched.folder, "repaired")
    eventually(lambda: watched.said("js") == "moin from repaired" and watched.said("py") == "from repaired")
    assert watched.platform.printed()[before:].count("deploy failed") == 1


def test_a_first_deployment_that_fails_ends_up(tmp_path: Path, martlet: Command, watched: Watched) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(watched.folder, folder)
    save(folder / "py" / "app.py", "def\n")
    done = martlet("up", folder / "template.yaml", "--port", "0", "--api-port", "0", data=tmp_path / "data")
    assert done.code == 4
    assert "py/app.py:1: SyntaxError" in done.err
    done = martlet("up", folder / "py" / "app.py", "--param", "A=1", "--port", "0", "--api-port", "0", data=tmp_path / "data")
    assert done.code == 2
    assert "--param" in done.err
