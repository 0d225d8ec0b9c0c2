"""One command starts everything; the others tell and change what runs, in a form that scripts can use."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import ENTRY, EXAMPLES, ROOT, Api, Command, RunningPlatform, eventually, running, write_app
from tests.ports import free_ports

pytestmark = pytest.mark.e2e

COMMANDS = (
    "up",
    "deploy",
    "env",
    "apps",
    "functions",
    "usage",
    "bill",
    "budget",
    "audit",
    "policy",
    "secret",
    "documents",
    "store",
    "status",
    "version",
    "invoke",
    "replay",
    "logs",
    "destroy",
    "runtimes",
)
GREETER = """
    import os
    from martlet import App, Collection, Schedule
    app = App("greeter")
    visits = Collection("visits")

    @app.get("/hello/{name}", uses=[visits])
    def hello(name: str) -> dict:
        seen = visits.update(name, lambda value: (value or 0) + 1)
        print(f"hello {name}")
        return {"hello": name, "visits": seen.value}

    @app.function()
    def shout(event, context):
        if event.get("fail"):
            raise ValueError("hoarse")
        return {"text": str(event.get("text", "")).upper()}

    @app.schedule("rate(1 day)")
    def daily() -> None:
        print("a day has passed")
""".replace(", Schedule", "")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_app(tmp_path_factory.mktemp("apps") / "greeter", GREETER)


@pytest.fixture(scope="module")
def greeter(start: Start, app: Path) -> RunningPlatform:
    return start(app, "--no-watch")


# --- up


def test_without_isolation_it_says_so(start: Start, app: Path, tmp_path: Path) -> None:
    platform = start(app, "--no-watch", "--sandbox", "process", data=tmp_path / "data")
    assert "warning: sandboxes are without every isolation" in platform.printed()


def test_up_prints_both_addresses_and_keeps_its_state_in_the_project(tmp_path: Path) -> None:
    """`--port` P makes `--api-port` P + 1; without `--data` everything is in PATH's .martlet."""
    folder = write_app(tmp_path / "greeter", GREETER)
    port = free_ports(2)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MARTLET_")}
    environ = {**inherited, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    command = [*ENTRY, "up", str(folder), "--port", str(port), "--no-watch"]
    told_errors = tmp_path / "stderr"
    with (
        told_errors.open("wb") as errors,
        running(command, stdout=subprocess.PIPE, stderr=errors, env=environ, cwd=tmp_path) as up,
    ):
        assert up.stdout is not None
        first, second = up.stdout.readline(), up.stdout.readline()
        assert re.fullmatch(rf"app   http://127\.0\.0\.1:{port}     greeter: 1 route\n", first), (
            first or told_errors.read_text()
        )
        told = rf"api   http://127\.0\.0\.1:{port + 1}     AWS_ENDPOINT_URL for boto3 and the AWS CLI; management API\n"
        assert re.fullmatch(told, second), second
        assert httpx.get(f"http://127.0.0.1:{port}/hello/ada").json() == {"hello": "ada", "visits": 1}
        data = folder / ".martlet"
        assert {"code", "layers", "logs", "store", "credentials.json", "endpoint.json"} <= {
            path.name for path in data.iterdir()
        }
        assert data.stat().st_mode & 0o777 == 0o700
        assert (data / "credentials.json").stat().st_mode & 0o777 == 0o600
        up.send_signal(signal.SIGINT)  # Ctrl-C
        assert up.wait(20) == 0
    assert not (data / "endpoint.json").exists()
    assert sorted(path.name for path in folder.iterdir()) == [".martlet", "app.py"], "nothing else is left in the project"


def test_the_default_ports_are_documented(martlet: Command) -> None:
    from martlet.config import Settings, load

    assert (Settings().port, load({}, {}).api_port) == (8700, 8701)
    assert "8700" in martlet("up", "--help").out


def test_a_second_start_on_the_same_folder_is_refused_by_name(greeter: RunningPlatform, martlet: Command) -> None:
    refused = martlet("up", "--port", "0", data=greeter.data)
    assert refused.code == 5
    assert str(greeter.data) in refused.err
    assert str(greeter.pid) in refused.err or "in use" in refused.err
    assert Api(greeter).get("/v1/health") == {"status": "ok"}, "the first is not disturbed"


def test_stopping_and_starting_continues_where_it_was(start: Start, app: Path, martlet: Command) -> None:
    first = start(app, "--no-watch")
    for visits in (1, 2, 3):
        assert httpx.get(f"{first.app_url}/hello/ada").json()["visits"] == visits
    before = Api(first).get("/v1/apps")
    credentials = first.credentials
    assert first.stop() == 0
    second = start(None, data=first.data)
    assert "greeter: 1 route" in second.printed()
    assert second.credentials == credentials
    api = Api(second)
    assert api.get("/v1/apps") == before
    assert api.invocations("greeter-hello") == 3, "a stop writes the ledger"
    assert sum("hello ada" in lines for lines in api.records("greeter-hello")) == 3
    assert httpx.get(f"{second.app_url}/hello/ada").json()["visits"] == 4
    assert api.get("/v1/documents/visits/ada", app="greeter") == 4
    assert second.stop() == 0
    third = start(app, "--no-watch", data=first.data)
    assert "publish function" not in third.printed(), "the same app is not deployed again"
    assert Api(third).get("/v1/apps") == before


def test_a_platform_without_an_app_says_how_to_deploy_one(start: Start, app: Path, martlet: Command) -> None:
    empty = start(None)
    assert "no app yet: martlet deploy PATH" in empty.printed()
    assert httpx.get(empty.app_url).status_code == 404
    assert martlet("apps", data=empty.data).out.strip() == "no apps; deploy one: martlet deploy PATH"
    assert martlet("deploy", app, data=empty.data).code == 0
    assert httpx.get(f"{empty.app_url}/hello/bob").json() == {"hello": "bob", "visits": 1}, "served at once, as the only app"


# --- the others


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(martlet: Command, command: str) -> None:
    told = martlet(command, "--help")
    assert told.code == 0
    assert re.search(rf"example:\n  .*martlet {command}", told.out)
    assert "--data DIR" in told.out


def test_help_lists_all_commands_and_exit_codes(martlet: Command) -> None:
    told = martlet("--help").out
    assert set(COMMANDS) == set(re.findall(r"^    (\w+)", told, re.MULTILINE))
    assert "exit codes: 0 done, 1 " in told


def test_all_json_output_parses(greeter: RunningPlatform, martlet: Command) -> None:
    httpx.get(f"{greeter.app_url}/hello/json")
    for command in ("apps", "functions", "status", "usage", "env", "version"):
        shown = martlet(command, "--json", data=greeter.data)
        assert (shown.code, shown.err) == (0, "")
        assert shown.json, command
    logs = eventually(lambda: martlet("logs", "greeter-hello", "--json", data=greeter.data).out)
    assert "hello json" in json.loads(logs.splitlines()[-1])["lines"]
    invoked = martlet("invoke", "greeter-shout", "--payload", '{"text": "grüezi"}', "--json", data=greeter.data).json
    assert (invoked["payload"], invoked["error"]) == ({"text": "GRÜEZI"}, "")


def test_tables_are_for_people(greeter: RunningPlatform, martlet: Command) -> None:
    assert re.search(r"^greeter +1 +3 +1 +1 ", martlet("apps", data=greeter.data).out, re.MULTILINE)
    functions = martlet("functions", data=greeter.data).out
    assert re.search(r"^greeter-hello +greeter +python3\.\d+ +1 +256 +10 +1 +app:hello ", functions, re.MULTILINE)
    status = martlet("status", data=greeter.data).out.lower()
    assert re.search(r"level: +3", status)
    for word in ("greeter-shout", "cold", "warm", "p50_ms", "p99_ms", "instances"):
        assert word in status, word


def test_invoke(greeter: RunningPlatform, martlet: Command, tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text('{"text": "file"}')
    for payload, given in (('{"text": "line"}', ""), (f"@{tmp_path}/event.json", ""), ("-", '{"text": "input"}')):
        done = martlet("invoke", "greeter-shout", "--payload", payload, "--log", data=greeter.data, input=given)
        assert done.code == 0, done.err
        assert json.loads(done.out)["text"] in ("LINE", "FILE", "INPUT")
        assert "START RequestId: " in done.err
    failed = martlet("invoke", "greeter-shout", "--payload", '{"fail": true}', data=greeter.data)
    assert failed.code == 1
    assert json.loads(failed.out)["errorMessage"] == "hoarse"
    assert "the function failed: ValueError" in failed.err
    assert "martlet logs greeter-shout" in failed.err


def test_env_points_unmodified_boto3_here(greeter: RunningPlatform, martlet: Command, tmp_path: Path) -> None:
    script = (
        "import boto3, json\n"
        "client = boto3.client('lambda')\n"
        "answer = client.invoke(FunctionName='greeter-shout', Payload=b'{\"text\": \"aws\"}')\n"
        "print(json.loads(answer['Payload'].read())['text'])\n"
        "print(sorted(found['FunctionName'] for found in client.list_functions()['Functions']))\n"
    )
    file = tmp_path / "client.py"
    file.write_text(script)
    martlet_command = " ".join(f"'{part}'" for part in ENTRY)
    shell = (
        f"set -e; exports=$({martlet_command} env --data '{greeter.data}'); eval \"$exports\"; exec '{sys.executable}' '{file}'"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MARTLET_"))}
    environ = {**clean, "PYTHONPATH": str(ROOT / "src"), "AWS_CONFIG_FILE": "/dev/null"}
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=50, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["AWS", "['greeter-daily', 'greeter-hello', 'greeter-shout']"]
    exports = martlet("env", data=greeter.data).out.splitlines()
    names = [line.removeprefix("export ").partition("=")[0] for line in exports]
    assert {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("frobnicate",), 2, "frobnicate"),
        (("invoke",), 2, "NAME"),
        (("up", "/no/such/folder"), 2, "/no/such/folder"),
        (("up", "--port", "70000"), 2, "70000"),
        (("invoke", "greeter-nothing"), 1, "no function 'greeter-nothing'"),
        (("invoke", "greeter-shout", "--payload", "{"), 2, "not JSON"),
        (("invoke", "greeter-shout", "--payload", "@/no/file"), 2, "/no/file"),
        (("logs", "greeter-nothing"), 1, "greeter-nothing"),
        (("logs", "--since", "yesterday"), 2, "yesterday"),
        (("destroy", "nothing", "--yes"), 1, "nothing"),
        (("destroy", "greeter"), 2, "--yes"),
        (("deploy", "/no/such/folder"), (2, 4), "/no/such/folder"),
    ],
)
def test_exit_codes_and_messages(
    greeter: RunningPlatform, martlet: Command, arguments: tuple[str, ...], code: int | tuple[int, ...], message: str
) -> None:
    done = martlet(*arguments, data=greeter.data)
    assert done.code in (code if isinstance(code, tuple) else (code,)), done.err
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("up", "version", "runtimes", "store")])
def test_without_a_platform_every_command_says_so(martlet: Command, app: Path, tmp_path: Path, command: str) -> None:
    more = {
        "deploy": [app], "invoke": ["x"], "replay": ["--list"], "destroy": ["x", "--yes"], "documents": ["list", "x"],
        "budget": ["list"], "policy": ["suggest"], "secret": ["list"],
    }  # fmt: skip
    arguments = more.get(command, [])
    done = martlet(command, *arguments, data=tmp_path / "empty")
    assert done.code == 3
    assert f"no platform runs on {tmp_path}/empty" in done.err
    assert "martlet up" in done.err


def test_after_kill_9_commands_say_that_nothing_answers(start: Start, app: Path, martlet: Command) -> None:
    platform = start(None)
    platform.kill()
    done = martlet("apps", data=platform.data)
    assert done.code == 3
    assert "no platform" in done.err
    again = start(None, data=platform.data)
    assert martlet("apps", data=again.data).code == 0


# --- deploy and destroy


def test_a_dry_run_changes_nothing(greeter: RunningPlatform, martlet: Command, tmp_path: Path) -> None:
    folder = write_app(tmp_path / "greeter", GREETER.replace('"/hello/{name}"', '"/moin/{name}"'))
    before = Api(greeter).get("/v1/apps")
    shown = martlet("deploy", folder, "--dry-run", data=greeter.data)
    assert shown.code == 0
    assert "would become" in shown.out
    assert "/moin/{name}" in shown.out
    planned = martlet("deploy", folder, "--dry-run", "--json", data=greeter.data).json
    assert planned["dry_run"] is True
    assert planned["steps"]
    assert Api(greeter).get("/v1/apps") == before
    assert httpx.get(f"{greeter.app_url}/moin/ada").status_code == 404


@pytest.fixture
def second_app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "other", GREETER.replace('App("greeter")', 'App("other")').replace("/hello/", "/moin/"))


def test_deploy_beside_another_app_and_destroy(greeter: RunningPlatform, martlet: Command, second_app: Path) -> None:
    done = martlet("deploy", second_app, data=greeter.data)
    assert done.code == 0, done.err
    assert "other revision 1: 3 functions, 1 route," in done.out
    assert [app["name"] for app in martlet("apps", "--json", data=greeter.data).json["apps"]] == ["greeter", "other"]
    assert httpx.get(f"{greeter.app_url}/moin/eva", headers={"host": "other.localhost"}).json()["hello"] == "eva"
    assert httpx.get(f"{greeter.app_url}/hello/eva", headers={"host": "greeter.localhost"}).json()["hello"] == "eva"
    staging = martlet("deploy", second_app, "--app", "staging", "--json", data=greeter.data)
    assert staging.json["functions"] == ["staging-hello", "staging-shout", "staging-daily"]
    for name in ("other", "staging"):
        assert martlet("destroy", name, "--yes", data=greeter.data).out == f"removed {name}\n"
    assert [app["name"] for app in martlet("apps", "--json", data=greeter.data).json["apps"]] == ["greeter"]
    assert martlet("invoke", "other-shout", data=greeter.data).code == 1
    assert httpx.get(f"{greeter.app_url}/hello/eva").status_code == 200


def test_the_examples_deploy_as_they_are(start: Start, martlet: Command) -> None:
    platform = start(EXAMPLES / "hello", "--no-watch")
    assert httpx.get(f"{platform.app_url}/hello/ada").json() == {"message": "Hello, ada", "visits": 1}
    assert httpx.get(f"{platform.app_url}/health").json() == "ok"


# --- replay


def test_a_failed_request_is_run_again(start: Start, martlet: Command, tmp_path: Path) -> None:
    """Over HTTP, by hand and asynchronously: what failed is there, also after kill -9, and runs on the code of now."""
    text = """
    from martlet import App
    app = App("flaky")

    @app.get("/divide/{n}")
    def divide(n: int) -> dict:
        return {"result": 1 // n}

    @app.function()
    def plain(event, context):
        return event["must"]
    """
    folder = write_app(tmp_path / "flaky", text)
    platform = start(folder, "--no-watch")
    assert httpx.get(f"{platform.app_url}/divide/0").status_code >= 500
    failed = martlet("invoke", "flaky-plain", "--payload", '{"a": 1}', "--json", data=platform.data).json["request_id"]
    rows = {row["function"]: row for row in martlet("replay", "--list", "--json", data=platform.data).json["failures"]}
    assert (rows["flaky-divide"]["source"], rows["flaky-divide"]["error_type"]) == ("http", "ZeroDivisionError")
    assert (rows["flaky-plain"]["request_id"], rows["flaky-plain"]["error_type"]) == (failed, "KeyError")
    again = martlet("replay", failed, "--log", data=platform.data)
    assert (again.code, "KeyError" in again.err, "REPORT RequestId" in again.err) == (1, True, True)
    platform.kill()
    write_app(folder, text.replace('event["must"]', '{"had": event}').replace("1 // n", "n"))
    platform = start(folder, "--no-watch", data=platform.data)
    assert json.loads(martlet("replay", failed, data=platform.data).out) == {"had": {"a": 1}}
    answered = json.loads(martlet("replay", rows["flaky-divide"]["request_id"], data=platform.data).out)
    assert json.loads(answered["body"]) == {"result": 0}
    assert martlet("destroy", "flaky", "--yes", data=platform.data).code == 0
    gone = martlet("replay", failed, data=platform.data)
    assert (gone.code, f"no failed event {failed}" in gone.err) == (1, True)
