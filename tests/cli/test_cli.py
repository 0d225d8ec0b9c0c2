"""The command line against the real protocols on a real socket; only the rooms behind them are stand-ins."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.fakes import TOKEN, Record, World, served

import martlet
from martlet.cli import main
from martlet.cli.arguments import parser
from martlet.cli.commands import _deployment_of
from martlet.cli.failure import Failure
from martlet.cli.output import age_ms, table
from martlet.errors import StartFailed, Throttled
from martlet.protocols import app

SOURCE = {**os.environ, "PYTHONPATH": str(Path(martlet.__file__).parents[1])}
COMMANDS = (
    "up",
    "env",
    "deploy",
    "apps",
    "functions",
    "invoke",
    "replay",
    "logs",
    "usage",
    "documents",
    "destroy",
    "status",
    "version",
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, an app of its own."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "app.py").write_text("x = 1\n")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MARTLET_DATA", raising=False)
    return folder


def write_endpoint(data: Path, port: int, token: str = TOKEN) -> None:
    data.mkdir(exist_ok=True)
    (data / "endpoint.json").write_text(
        json.dumps({"pid": 1, "host": "127.0.0.1", "port": port - 1, "api_port": port, "region": "eu-west-1"})
    )
    (data / "credentials.json").write_text(
        json.dumps({"access_key_id": "AKID", "secret_access_key": "se cret", "token": token})
    )


@pytest.fixture
def running(world: World, project: Path) -> Iterator[int]:
    with served(lambda: app(world.rooms)) as (port, _):
        write_endpoint(project / ".martlet", port)
        yield port


Capture = pytest.CaptureFixture[str]


def ran(capsys: Capture, *arguments: str, code: int = 0) -> tuple[str, str]:
    ended = main(arguments)
    captured = capsys.readouterr()
    assert ended == code, captured
    assert "Traceback (most recent" not in captured.err
    return captured.out, captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: Capture) -> None:
    out, _ = ran(capsys, command, "--help")
    assert f"martlet {command}" in out
    assert "example:" in out
    assert "--data DIR" in out


def test_help_lists_every_command_and_exit_code(capsys: Capture) -> None:
    out, _ = ran(capsys, "--help")
    assert {line.split()[0] for line in out.splitlines() if line.startswith("    ") and line.strip()} >= set(COMMANDS)
    assert "exit codes: 0 done" in out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nope"],
        ["deploy"],
        ["invoke"],
        ["up", "--port", "x"],
        ["up", "--port", "70000"],
        ["up", "--sandbox", "vm"],
        ["apps", "--nope"],
        ["deploy", "--dry", "."],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: Capture) -> None:
    _, err = ran(capsys, *arguments, code=2)
    assert "usage:" in err


def test_help_loads_no_more_than_it_needs() -> None:
    code = "import sys; from martlet.cli import main; main(['--help']); print(sorted(m for m in sys.modules if m in (%s)))"
    heavy = "'asyncio', 'msgspec', 'http.client', 'ssl', 'martlet.apps', 'martlet.server', 'martlet.up', 'json'"
    done = subprocess.run([sys.executable, "-c", code % heavy], env=SOURCE, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["apps"],
        ["env"],
        ["functions"],
        ["invoke", "f"],
        ["replay", "--list"],
        ["logs"],
        ["usage"],
        ["status"],
        ["deploy", "."],
        ["destroy", "a", "--yes"],
    ],
)
def test_not_running(arguments: list[str], project: Path, capsys: Capture) -> None:
    _, err = ran(capsys, *arguments, code=3)
    assert len(err.splitlines()) == 2
    assert "martlet up" in err


def test_nobody_at_the_address(project: Path, capsys: Capture) -> None:
    write_endpoint(project / ".martlet", 9)
    _, err = ran(capsys, "apps", code=3)
    assert "no platform answers at http://127.0.0.1:9" in err


@pytest.mark.parametrize("content", ["", "[]", "{", '{"port": "x"}'])
def test_broken_endpoint(content: str, project: Path, capsys: Capture) -> None:
    write_endpoint(project / ".martlet", 9)
    (project / ".martlet" / "endpoint.json").write_text(content)
    ran(capsys, "apps", code=3)


def test_other_credentials(running: int, project: Path, capsys: Capture) -> None:
    write_endpoint(project / ".martlet", running, token="other")
    _, err = ran(capsys, "apps", code=1)
    assert "check --data" in err


def test_apps(running: int, capsys: Capture) -> None:
    out, _ = ran(capsys, "apps")
    assert [line.split() for line in out.splitlines()] == [
        ["APP", "REVISION", "FUNCTIONS", "ROUTES", "SCHEDULES", "DEPLOYED"],
        ["shop", "2", "1", "1", "0", "2023-11-14", "22:13:20Z"],
    ]
    out, _ = ran(capsys, "apps", "--json")
    assert json.loads(out)["apps"][0]["name"] == "shop"


def test_no_apps(running: int, world: World, capsys: Capture) -> None:
    world.apps.records.clear()
    assert "martlet deploy PATH" in ran(capsys, "apps")[0]


def test_functions_usage_status_version(running: int, capsys: Capture) -> None:
    listed = ran(capsys, "functions")[0]
    assert "shop-echo" in listed
    assert [line.split()[:4] for line in listed.splitlines() if "stack" in line] == [["stack-node", "stack", "nodejs22.x", "3"]]
    assert "stack-node:1" in ran(capsys, "functions", "--versions", "--app", "stack")[0]
    assert ran(capsys, "functions", "--app", "none")[0] == "no functions\n"
    assert ran(capsys, "usage")[0].splitlines()[1].split() == [
        "shop-echo", "1", "1970-01-01", "00:00", "7", "2", "1", "3", "600", "70", "1.5", "64",
    ]  # fmt: skip
    assert "functions" in json.loads(ran(capsys, "usage", "--since", "3000d", "--json")[0])
    status = ran(capsys, "status")[0]
    assert "instances: 2" in status
    assert "  level: 3" in status
    assert "functions:\n  FUNCTION  BUSY\n  f            1\n" in status
    assert json.loads(ran(capsys, "status", "--json")[0])["version"] == "9.9.9"
    assert ran(capsys, "version")[0].startswith("martlet ")


def test_env_can_be_evaluated_by_a_shell(running: int, capsys: Capture) -> None:
    out, _ = ran(capsys, "env")
    script = out + 'printf "%s|" "$AWS_ENDPOINT_URL" "$AWS_SECRET_ACCESS_KEY" "$AWS_REGION"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"http://127.0.0.1:{running}|se cret|eu-west-1|"
    assert json.loads(ran(capsys, "env", "--json")[0])["AWS_ACCESS_KEY_ID"] == "AKID"


def test_deploy(running: int, world: World, project: Path, capsys: Capture) -> None:
    out, err = ran(capsys, "deploy", ".")
    assert out == "shop revision 1: 1 function, 0 routes, 12 ms\n  publish function  shop-echo  (new)\n"
    assert err == "packed 2 files\npublished\n"
    out, _ = ran(capsys, "deploy", str(project), "--app", "other", "--dry-run", "--json")
    assert json.loads(out)["dry_run"] is True
    assert all(b"app.py" in source for source in world.apps.sources)
    assert "other" not in world.apps.records
    out, _ = ran(capsys, "deploy", ".", "--dry-run")
    assert out.startswith("shop: dry run, nothing was changed; it would become 1 function, 0 routes\n")


def test_deploy_finds_the_platform_of_the_working_folder(running: int, world: World, tmp_path: Path, capsys: Capture) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "main.py").write_text("")
    ran(capsys, "deploy", str(elsewhere / "main.py"))
    assert "main" in world.apps.records


@pytest.mark.parametrize("says", [[], ["packed"]])
def test_deploy_that_fails(running: int, world: World, says: list[str], capsys: Capture) -> None:
    world.deploy_fails(says)
    _, err = ran(capsys, "deploy", ".", code=4)
    assert err.endswith("martlet: app.py:3: invalid syntax\nTraceback (yours)\n         fix it\n")


def test_deploy_that_is_refused_here(running: int, project: Path, world: World, capsys: Capture) -> None:
    (project / "leak").symlink_to("/etc/passwd")
    assert "leak leaves the folder" in ran(capsys, "deploy", ".", code=4)[1]
    assert "there is no folder" in ran(capsys, "deploy", "absent", code=4)[1]
    assert "cannot name an app" in ran(capsys, "deploy", ".", "--app", "A!", code=2)[1]
    assert world.apps.sources == []


def test_invoke(running: int, world: World, project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(capsys, "invoke", "shop-echo", "--payload", '{"a": "é"}')[0] == '{"a": "é"}\n'
    (project / "event.json").write_text("[1]")
    assert ran(capsys, "invoke", "shop-echo", "--payload", "@event.json")[0] == "[1]\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'"in"')))
    assert ran(capsys, "invoke", "shop-echo", "--payload", "-")[0] == '"in"\n'
    shown = json.loads(ran(capsys, "invoke", "shop-echo", "--event", "sqs", "--set", "Records.0.body=hi", "--show")[0])
    assert shown["Records"][0]["body"] == "hi"
    assert "two events" in ran(capsys, "invoke", "shop-echo", "--event", "s3", "--payload", "{}", code=2)[1]
    assert "--set" in ran(capsys, "invoke", "shop-echo", "--event", "s3", "--set", "Records.9.x=1", code=2)[1]
    out, err = ran(capsys, "invoke", "shop-echo", "--log", "--json")
    assert json.loads(out)["version"] == 3
    assert err == "START\nhello\\x1b[31m\nEND\n"  # no control character of a function reaches the terminal
    assert [call["payload"] for call in world.functions.calls] == ['{"a": "é"}'.encode(), b"[1]", b'"in"', b"{}"]
    sent = json.loads(ran(capsys, "invoke", "shop-echo", "--event", "sqs", "--set", "Records.0.body=hi")[0])
    assert sent["Records"][0]["body"] == "hi"


def test_invoke_that_fails(running: int, world: World, capsys: Capture) -> None:
    out, err = ran(capsys, "invoke", "shop-fail", code=1)
    assert json.loads(out)["errorType"] == "ValueError"
    assert err.startswith("martlet: the function failed: ValueError\n")
    world.functions.refusal = Throttled("limit reserved is 0")
    assert "limit reserved is 0" in ran(capsys, "invoke", "shop-busy", code=1)[1]


def test_invoke_with_a_bad_payload(project: Path, capsys: Capture) -> None:
    assert "not JSON" in ran(capsys, "invoke", "f", "--payload", "{", code=2)[1]
    assert "cannot read absent" in ran(capsys, "invoke", "f", "--payload", "@absent", code=2)[1]


def test_replay(running: int, world: World, capsys: Capture) -> None:
    out, _ = ran(capsys, "replay", "--list")
    assert [line.split() for line in out.splitlines()] == [
        ["REQUEST_ID", "FUNCTION", "FAILED", "SOURCE", "ERROR", "BYTES"],
        ["r1", "shop-fail", "2023-11-14", "22:13:20Z", "http", "ValueError", "7"],
        ["r2", "shop-echo:1", "2023-11-14", "22:13:20Z", "http", "ValueError", "7"],
    ]
    assert "r2" not in ran(capsys, "replay", "--list", "shop-fail")[0]
    assert ran(capsys, "replay", "--list", "shop-busy")[0] == "no failed events\n"
    assert json.loads(ran(capsys, "replay", "--list", "--json")[0])["failures"][0]["request_id"] == "r1"
    assert ran(capsys, "replay", "r2")[0] == '{"n": 1}\n'
    out, err = ran(capsys, "replay", "r1", "--log", code=1)
    assert json.loads(out)["errorType"] == "ValueError"
    assert "hello" in err
    assert "martlet: the function failed: ValueError" in err
    assert "no failed event r3" in ran(capsys, "replay", "r3", code=1)[1]
    assert "--list" in ran(capsys, "replay", code=2)[1]
    assert "there is no function" in ran(capsys, "replay", "--list", "none", code=1)[1]


def test_a_function_that_is_not_there_is_answered_with_those_that_are(running: int, capsys: Capture) -> None:
    assert "did you mean shop-echo" in ran(capsys, "invoke", "shop-ecko", code=1)[1]
    err = ran(capsys, "invoke", "nope", code=1)[1]
    assert "there is no function 'nope'" in err
    assert "there are: shop-" in err


def test_a_deployment_that_breaks_off_is_told_by_how_far_it_came() -> None:
    for events, remedy in (([], "nothing was changed"), ([{"type": "begun"}], "it goes on")):
        with pytest.raises(Failure) as caught:
            _deployment_of(iter(events), "nothing was changed", "it goes on")
        assert caught.value.remedy == remedy


def test_a_file_is_no_data_folder(project: Path, capsys: Capture) -> None:
    _, err = ran(capsys, "apps", "--data", str(project / "app.py"), code=3)
    assert "app.py is a file, not a folder" in err


def test_the_two_ports_differ(project: Path, capsys: Capture) -> None:
    _, err = ran(capsys, "up", "--port", "9000", "--api-port", "9000", code=2)
    assert "port and api_port are both 9000" in err
    assert "65536 must be from 0 to 65535" in ran(capsys, "up", "--port", "65535", code=2)[1]


def test_logs(running: int, world: World, capsys: Capture) -> None:
    world.logs.records = [Record("shop-echo", "1", "a\x1b]0;title\x07\rb"), Record("shop-fail", "2", "b")]
    out, _ = ran(capsys, "logs", "shop-echo", "--since", "1h")
    assert out == "START RequestId: 1\na\\x1b]0;title\\x07\nb\nEND RequestId: 1\n"
    assert world.logs.asked[-1][1] is not None
    out, _ = ran(capsys, "logs", "--json")
    assert [json.loads(line)["request_id"] for line in out.splitlines()] == ["1", "2"]
    assert "there is no function" in ran(capsys, "logs", "none", code=1)[1]
    assert "--since" in ran(capsys, "logs", "--since", "soon", code=2)[1]


def test_logs_follow(running: int, world: World, capsys: Capture) -> None:
    world.logs.records = [Record("shop-echo", "1", "a")]
    world.logs.fresh.put_nowait(None)
    assert "START RequestId: 1" in ran(capsys, "logs", "-f")[0]


def test_destroy(running: int, world: World, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--yes" in ran(capsys, "destroy", "shop", code=2)[1]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    ran(capsys, "destroy", "shop", code=1)
    assert "shop" in world.apps.records
    monkeypatch.setattr("sys.stdin", Terminal("shop\n"))
    assert ran(capsys, "destroy", "shop")[0] == "removed shop\n"
    assert "there is no app" in ran(capsys, "destroy", "shop", "--yes", code=1)[1]


def test_data_folder(running: int, project: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    ran(capsys, "apps")
    monkeypatch.chdir(tmp_path)
    ran(capsys, "apps", code=3)
    ran(capsys, "apps", "--data", str(project / ".martlet"))
    monkeypatch.setenv("MARTLET_DATA", str(project / ".martlet"))
    ran(capsys, "apps")
    ran(capsys, "apps", "--data", str(tmp_path), code=3)


class FakeServer:
    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[Any, Any, bool]] = []
        self.error = error

    def run(self, settings: Any, path: Any, *, watching: bool) -> int:
        self.calls.append((settings, path, watching))
        if self.error:
            raise self.error
        return 0


def test_up(project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    monkeypatch.setitem(sys.modules, "martlet.up", server)  # type: ignore[arg-type]
    ran(capsys, "up", ".", "--port", "0", "--no-watch", "--sandbox", "process")
    ran(capsys, "up", "app.py", "--data", "elsewhere", "--port", "9000")
    ran(capsys, "up")
    (first, path, watching), (second, file, _), (third, none, _) = server.calls
    assert (first.data, first.port, first.api_port, first.sandbox) == (str(project / ".martlet"), 0, 0, "process")
    assert (path, watching) == (project, False)
    assert (second.data, second.port, second.api_port, file) == ("elsewhere", 9000, 9001, project / "app.py")
    assert (third.data, none) == (str(project / ".martlet"), None)
    assert "there is no folder or file absent" in ran(capsys, "up", "absent", code=2)[1]


def test_up_that_cannot_start(project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(StartFailed("port 8700 is taken", remedy="choose another: --port"))
    monkeypatch.setitem(sys.modules, "martlet.up", server)  # type: ignore[arg-type]
    _, err = ran(capsys, "up", code=5)
    assert err == "martlet: port 8700 is taken\n         choose another: --port\n"
    monkeypatch.setenv("MARTLET_PORT", "many")
    assert "MARTLET_PORT" in ran(capsys, "up", code=2)[1]


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupted(arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("martlet.cli.commands.run", interrupted)
    ran(capsys, "apps", code=130)


def test_output_into_a_closed_pipe(running: int, world: World, project: Path) -> None:
    world.logs.records = [Record("shop-echo", str(number), "x" * 1_000) for number in range(500)]
    command = f"{sys.executable} -c 'import sys; from martlet.cli import main; sys.exit(main([\"logs\"]))' | head -n 1"
    done = subprocess.run(["sh", "-c", command], env=SOURCE, capture_output=True, text=True, cwd=project)
    assert done.stdout == "START RequestId: 0\n"
    assert done.stderr == ""


def test_table_is_aligned() -> None:
    text = table(("NAME", "N"), [("a", 1), ("long\x1b", 22)], empty="none")
    assert text.splitlines() == ["NAME       N", "a          1", "long\\x1b  22"]
    assert table(("NAME",), [], empty="none") == "none"


@pytest.mark.parametrize(("text", "value"), [("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000)])
def test_ages(text: str, value: int) -> None:
    assert age_ms(text) == value


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 m", "1.5h", "٣m", "9999999999d"])
def test_bad_ages(text: str) -> None:
    with pytest.raises(ValueError, match="is not an age"):
        age_ms(text)


def test_parser_takes_no_abbreviations() -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["apps", "--js"])
