"""From a save, or from the command, to the answer that shows it: one changed function, and a SAM template of 20 resources.

The template is deployed by `martlet deploy`, timed from its start to its end, on a platform that has not translated anything
before (cold), and once more with every function changed; then each of its routes is asked.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.running_platform import RunningPlatform

from bench import apps
from bench.context import Context
from bench.load import Connection, Latencies
from bench.table import Row, milliseconds

__all__ = ["run"]

_SAVES = 20
_GAP_SECONDS = 0.4
_PATIENCE_SECONDS = 30
_ROUNDS = 3
_FUNCTIONS = 10  # with an API and nine log groups: 20 resources
_ENTRY = "import sys; from martlet.cli import main; sys.exit(main())"


def run(ctx: Context) -> list[Row]:
    saved = _saves(ctx)
    cold, again = zip(*(_template(ctx, number) for number in range(_ROUNDS)), strict=True)
    first, second = Latencies(list(cold)), Latencies(list(again))
    return [
        Row("a changed function: save → served", "p50 ≤ 300 ms", milliseconds(saved), "", saved.p50 <= 300),
        Row(
            "SAM template of 20 resources, `martlet deploy`, cold",
            "p50 ≤ 1.5 s",
            f"p50 {first.p50 / 1000:.2f} s ({', '.join(f'{one:.2f}' for one in cold)})",
            "",
            first.p50 <= 1500,
        ),
        Row("… again, every function changed", "", f"p50 {second.p50 / 1000:.2f} s"),
    ]


def _saves(ctx: Context) -> Latencies:
    folder = ctx.new_folder("app")
    found = []
    with ctx.platform(apps.versioned(folder, 0)) as platform:
        for version in range(1, _SAVES + 1):
            time.sleep(_GAP_SECONDS)
            began = time.perf_counter()
            apps.versioned(folder, version)
            _wait_for(platform.port, b'{"version":%d}' % version)
            found.append(time.perf_counter() - began)
    return Latencies(found)


def _wait_for(port: int, body: bytes) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with Connection(port) as connection:
        while time.monotonic() < deadline:
            answer = connection.get("/version")
            if answer.status == 200 and answer.body.replace(b" ", b"") == body:
                return
            time.sleep(0.002)
    raise RuntimeError(f"{body!r} was not served within {_PATIENCE_SECONDS} s of its save")


def _template(ctx: Context, number: int) -> tuple[float, float]:
    """Seconds of the first deploy and of the second."""
    folder = ctx.new_folder("sam")
    with ctx.platform(apps.copy("noop", ctx.new_folder("app"))) as platform:
        times = []
        for version in (1, 2):
            _write(folder, version)
            began = time.perf_counter()
            url = _deploy(platform, folder / "template.yaml")
            times.append(time.perf_counter() - began)
            _check(url, version)
    return times[0], times[1]


def _write(folder: Path, version: int) -> None:
    lines = ["AWSTemplateFormatVersion: '2010-09-09'", "Transform: AWS::Serverless-2016-10-31", "Resources:"]
    lines += ["  Api:", "    Type: AWS::Serverless::HttpApi"]
    for number in range(_FUNCTIONS):
        code = folder / f"f{number}"
        code.mkdir(parents=True, exist_ok=True)
        (code / "index.py").write_text(f'def handler(event, context):\n    return {{"version": {version}}}\n')
        lines += [
            f"  F{number}:",
            "    Type: AWS::Serverless::Function",
            "    Properties:",
            f"      CodeUri: f{number}/",
            "      Handler: index.handler",
            f"      Runtime: python{sys.version_info[0]}.{sys.version_info[1]}",
            "      Events:",
            "        Get:",
            "          Type: HttpApi",
            f"          Properties: {{ApiId: !Ref Api, Method: GET, Path: /f{number}}}",
        ]
    for number in range(_FUNCTIONS - 1):
        lines += [
            f"  Log{number}:",
            "    Type: AWS::Logs::LogGroup",
            f"    Properties: {{LogGroupName: !Sub '/aws/lambda/${{F{number}}}', RetentionInDays: 7}}",
        ]
    lines += ["Outputs:", "  Url:", "    Value: !Sub 'https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/'"]
    (folder / "template.yaml").write_text("\n".join(lines) + "\n")


def _martlet(platform: RunningPlatform, *arguments: str) -> str:
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", _ENTRY, *arguments, "--data", str(platform.data)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin"},
    )
    if done.returncode:
        raise RuntimeError(f"martlet {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _deploy(platform: RunningPlatform, template: Path) -> str:
    """The address of the API that the template makes."""
    printed = _martlet(platform, "deploy", str(template), "--app", "sam")
    return next(line.split()[1] for line in printed.splitlines() if line.startswith("Url "))


def _check(url: str, version: int) -> None:
    """Every route answers with this version."""
    host, _, path = url.removeprefix("http://").partition("/")
    for number in range(_FUNCTIONS):
        with Connection(int(host.rpartition(":")[2])) as connection:
            answer = connection.get(f"/{path.rstrip('/')}/f{number}")
        if answer.status != 200 or answer.body.replace(b" ", b"") != b'{"version":%d}' % version:
            raise RuntimeError(f"f{number} answered {answer.status} {answer.body[:200]!r}, not version {version}")
