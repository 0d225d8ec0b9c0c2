"""Bad input: each a clear error that names the cause and the remedy; nothing acknowledged is lost; the platform stays up."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import EXAMPLES, ROOT, Api, Command, Ran, RunningPlatform, eventually, write_app

pytestmark = pytest.mark.e2e

GOOD = """
    from martlet import App, Collection

    app = App("good")
    notes = Collection("notes")

    @app.get("/")
    def index() -> str:
        return "good"

    @app.put("/notes/{id}", uses=[notes])
    def write(id: str, text: dict) -> dict:
        return {"version": notes.put(id, text)}

    @app.get("/notes/{id}", uses=[notes])
    def read(id: str) -> dict:
        return notes.get(id).value
"""


@pytest.fixture(scope="module")
def good(start: Start, tmp_path_factory: pytest.TempPathFactory) -> RunningPlatform:
    """A platform that must serve on, whatever the tests of this module throw at it."""
    return start(write_app(tmp_path_factory.mktemp("apps") / "good", GOOD), "--no-watch")


@pytest.fixture(autouse=True)
def still_up(good: RunningPlatform) -> Iterator[None]:
    yield
    assert httpx.get(good.app_url, timeout=30).json() == "good"
    assert good.process.poll() is None


# --- apps that cannot be deployed


CASES = {
    "nothing to deploy": ({"README_md": "hello"}, ["no app.py, main.py or function.py"], "[tool.martlet] module"),
    "no app": ({"app_py": "x = 1"}, ["no App found in module app"], "lambda_handler"),
    "missing handler": (
        {"app_py": "from martlet import App\napp = App('bad')\n"},
        ["app declares nothing"],
        "@app.get",
    ),
    "handler that goes away": (
        {
            "app_py": """
                import os
                from martlet import App
                app = App("bad")
                @app.get("/")
                def index() -> str:
                    return "x"
                if "_HANDLER" in os.environ:
                    del index
            """
        },
        ["function index", "Runtime.HandlerNotFound", "Handler 'index' missing on module 'app'"],
        "",
    ),
    "syntax error": ({"app_py": "def broken(:\n    pass\n"}, ["app.py:1", "invalid syntax"], ""),
    "syntax error in another file": (
        {"app_py": "from martlet import App\nimport other\n", "other_py": "x = (\n"},
        ["other", "was never closed"],
        "",
    ),
    "error at import": (
        {"app_py": "from martlet import App\napp = App('bad')\nraise RuntimeError('no database')\n"},
        ["RuntimeError: no database", 'File "/var/task/app.py", line 3'],
        "",
    ),
    "module that is not there": ({"app_py": "import pandaz\n"}, ["No module named 'pandaz'"], "requirements.txt"),
    "module that ends the process": ({"app_py": "import os\nos._exit(3)\n"}, ["could not be imported", "3"], ""),
    "route declared twice": (
        {
            "app_py": """
                from martlet import App
                app = App("bad")
                @app.get("/orders/{id}")
                def one(id: str) -> str:
                    return id
                @app.get("/orders/{number}")
                def two(number: str) -> str:
                    return number
            """
        },
        ["GET /orders/{", "app.py:7", "app.py:4"],
        "",
    ),
    "function declared twice": (
        {
            "app_py": """
                from martlet import App
                app = App("bad")
                @app.get("/a")
                def same() -> str:
                    return "a"
                @app.get("/b")
                def same() -> str:
                    return "b"
            """
        },
        ["the function same is declared at app.py:4 already"],
        "rename one",
    ),
    "dependency that does not exist": (
        {"app_py": "x = 1", "requirements_txt": "martlet-no-such-package-ever==1.0\n"},
        ["martlet-no-such-package-ever"],
        "requirements.txt",
    ),
    "dependency that is not one": ({"app_py": "x = 1", "requirements_txt": "!!!\n"}, ["requirements.txt", "!!!"], ""),
    "bad schedule": (
        {
            "app_py": """
                from martlet import App
                app = App("bad")
                @app.schedule("every now and then")
                def tick() -> None: ...
            """
        },
        ["every now and then", "tick"],
        "",
    ),
    "too much memory": (
        {
            "app_py": """
                from martlet import App
                app = App("bad")
                @app.function(memory=999999)
                def large(event, context): ...
            """
        },
        ["function_memory_mb_max", "10240", "999999"],
        "",
    ),
    "option that does not exist": (
        {
            "app_py": """
                from martlet import App
                app = App("bad")
                @app.function(memroy=1)
                def f(event, context): ...
            """
        },
        ["app.py:4", "unknown option memroy"],
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_app_that_cannot_be_deployed(good: RunningPlatform, martlet: Command, tmp_path: Path, case: str) -> None:
    files, causes, remedy = CASES[case]
    folder = tmp_path / "bad"
    folder.mkdir()
    app_py = files.get("app_py")
    if app_py is not None:
        write_app(folder, app_py, **{name: text for name, text in files.items() if name != "app_py"})
    else:
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)
    done = martlet("deploy", folder, "--app", "bad", data=good.data)
    assert done.code == 4, done.err + done.out
    for cause in causes:
        assert cause in done.err, done.err
    assert remedy in done.err
    assert "/src/martlet/" not in done.err, "no traceback of ours"
    assert [app["name"] for app in Api(good).get("/v1/apps")["apps"]] == ["good"]


def test_up_on_an_app_that_cannot_be_deployed_ends_with_the_reason(martlet: Command, tmp_path: Path) -> None:
    folder = write_app(tmp_path / "bad", "def broken(:\n")
    done = martlet("up", folder, "--no-watch", data=tmp_path / "data", environ={"MARTLET_PORT": "0"})
    assert done.code == 4
    assert "app.py:1" in done.err


# --- places where it cannot start


def test_a_port_that_is_taken(martlet: Command, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option, other in (("--port", "--api-port"), ("--api-port", "--port")):
            done = martlet("up", option, str(port), other, "0", data=tmp_path / "data")
            assert done.code == 5
            assert f"port {port} of 127.0.0.1 is taken" in done.err
            assert option in done.err, "and says which option chooses another"
            assert "Traceback" not in done.err


@pytest.fixture
def mounted() -> Iterator[list[Path]]:
    """Mount points to undo."""
    points: list[Path] = []
    yield points
    for point in reversed(points):
        subprocess.run(["umount", "-l", str(point)], check=True)


def up_refused(martlet: Command, data: Path, **environ: str) -> Ran:
    done = martlet("up", data=data, environ={"MARTLET_PORT": "0", **environ})
    assert done.code == 5, done.err + done.out
    assert "Traceback" not in done.err
    assert str(data) in done.err
    return done


def test_a_data_folder_that_is_read_only(martlet: Command, tmp_path: Path, mounted: list[Path], start: Start) -> None:
    data = tmp_path / "data"
    first = start(None, data=data)
    assert first.stop() == 0
    subprocess.run(["mount", "--bind", str(data), str(data)], check=True)
    mounted.append(data)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
    done = up_refused(martlet, data)
    assert "read-only" in done.err.lower()
    assert "--data DIR" in done.err or "writable" in done.err


def test_a_data_folder_that_is_a_file(martlet: Command, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("here first")
    assert "--data DIR" in up_refused(martlet, tmp_path / "data").err
    assert (tmp_path / "data").read_text() == "here first"


def test_a_full_disk_refuses_writes_by_name_and_serves_on(start: Start, tmp_path: Path, mounted: list[Path]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "martlet-test", str(disk)], check=True)
    mounted.append(disk)
    platform = start(write_app(tmp_path / "good", GOOD), "--no-watch", data=disk / "data")
    url = f"{platform.app_url}/notes"
    kept = {f"before-{number}": {"text": "x" * 1000} for number in range(5)}
    for id, note in kept.items():
        assert httpx.put(f"{url}/{id}", json=note, timeout=30).status_code == 200
    with (disk / "filler").open("wb") as filler:
        try:
            while True:
                filler.write(b"\0" * 65_536)
                filler.flush()
        except OSError:
            pass  # now it is full
    try:
        api = Api(platform)
        refused = None
        for number in range(60):  # until what the store had set aside is used up
            answer = api.request("PUT", f"/v1/documents/notes/more-{number}?app=good", json={"text": "y" * 300_000})
            if answer.status_code != 201:
                refused = answer
                break
            kept[f"more-{number}"] = {"text": "y" * 300_000}
        assert refused is not None
        assert refused.status_code == 507, refused.text
        assert refused.json()["type"] == "urn:martlet:error:store_full"
        assert "no space" in refused.json()["detail"].lower()
        assert refused.json()["remedy"]
        assert httpx.get(platform.app_url, timeout=30).json() == "good", "what needs no disk is served"
        assert httpx.get(f"{url}/before-0", timeout=30).json() == kept["before-0"], "and reads are"
    finally:
        (disk / "filler").unlink()
    eventually(lambda: httpx.put(f"{url}/after", json={"text": "z"}, timeout=30).status_code == 200)
    platform.kill()
    again = start(None, data=disk / "data")
    for id, note in kept.items():
        assert httpx.get(f"{again.app_url}/notes/{id}", timeout=30).json() == note
    assert again.stop() == 0


def test_a_disk_that_is_full_at_start(martlet: Command, tmp_path: Path, mounted: list[Path]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "martlet-test", str(disk)], check=True)
    mounted.append(disk)
    (disk / "filler").write_bytes(b"\0" * 60_000)
    done = up_refused(martlet, disk / "data")
    assert "space" in done.err.lower() or "full" in done.err.lower()


@pytest.fixture
def stopped(start: Start, tmp_path: Path) -> Path:
    """A data folder with something in it."""
    platform = start(EXAMPLES / "hello", "--no-watch", data=tmp_path / "data")
    assert httpx.get(f"{platform.app_url}/hello/ada").status_code == 200
    assert platform.stop() == 0
    return tmp_path / "data"


def database(data: Path) -> Path:
    (found,) = [path for path in (data / "store").iterdir() if path.suffix in (".db", ".sqlite", ".sqlite3")]
    return found


def test_data_written_by_a_newer_version(martlet: Command, stopped: Path) -> None:
    with sqlite3.connect(database(stopped)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        assert version > 0, "the store says which format it has"
        connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.close()
    done = up_refused(martlet, stopped)
    assert "newer" in done.err
    with sqlite3.connect(database(stopped)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version + 1,), "it is left as it is"
    connection.close()


@pytest.mark.parametrize("damage", ["not a database", "holes", "cut"])
def test_a_corrupt_database_file(martlet: Command, stopped: Path, damage: str) -> None:
    file = database(stopped)
    content = bytearray(file.read_bytes())
    assert len(content) >= 8192
    if damage == "not a database":
        content[:100] = b"this is not a database".ljust(100)
    elif damage == "holes":
        content[4096:] = os.urandom(len(content) - 4096)
    else:
        del content[len(content) // 2 :]
    file.write_bytes(content)
    done = up_refused(martlet, stopped)
    assert "corrupt" in done.err or "damaged" in done.err or "not a database" in done.err, done.err
    assert "backup" in done.err or "restore" in done.err or "another" in done.err, done.err
    assert file.read_bytes() == bytes(content), "nothing is made worse"


def test_a_credentials_file_that_is_damaged(martlet: Command, stopped: Path) -> None:
    (stopped / "credentials.json").write_text("{")
    done = martlet("env", data=stopped)
    assert done.code == 3
    assert "Traceback" not in done.err


def test_settings_that_make_no_sense(martlet: Command, tmp_path: Path) -> None:
    for name, value in (("MARTLET_PORT", "many"), ("MARTLET_SANDBOX", "none"), ("MARTLET_PYTHON", "/no/python")):
        done = martlet("up", data=tmp_path / "data", environ={"MARTLET_PORT": "0", name: value})
        assert done.code in (2, 5), done.err
        assert value in done.err
        assert "Traceback" not in done.err


# --- an unprivileged user


def test_an_unprivileged_user_gets_sandboxes_or_a_refusal_by_name(tmp_path: Path) -> None:
    """User nobody, who may not enter root's home: a copy of the code, the system's interpreter where ours is out of reach."""
    home = Path("/tmp") / f"martlet-nobody-{os.getpid()}"
    home.mkdir(mode=0o755)
    try:
        os.chown(home, 65_534, 65_534)
        done = as_nobody(home)
    finally:
        shutil.rmtree(home)
    told = done.stdout + done.stderr
    if done.returncode == 0:
        assert '"level": ' in told
        assert json.loads(done.stdout)["level"] >= 2
        assert "NOT enforced" in done.stderr, "nobody has control groups, and is told so"
    else:
        assert done.returncode == 5, told
        assert "does not allow isolated sandboxes" in told
        assert "--sandbox process" in told
    assert "Traceback" not in told


def as_nobody(home: Path) -> subprocess.CompletedProcess[str]:
    shutil.copytree(ROOT / "src", home / "src", ignore=shutil.ignore_patterns("__pycache__"))
    packages = sysconfig.get_paths()["purelib"]
    script = home / "drive.py"
    script.write_text(DRIVE_AS_NOBODY)
    python, libraries = interpreter_for_everybody(home)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": f"{home}/src:{home}/packages"}
    environ |= {"PYTHONUNBUFFERED": "1", "LD_LIBRARY_PATH": libraries}
    wanted = (
        "apsw",
        "httptools",
        "msgspec",
        "orjson",
        "re2",
        "uvloop",
        "watchfiles",
        "anyio",
        "idna",
        "sniffio",
        "typing_extensions.py",
        "uv",
    )
    (home / "packages").mkdir()
    for name in wanted:
        for found in Path(packages).glob(f"{name}*"):
            if found.is_dir():
                shutil.copytree(found, home / "packages" / found.name, dirs_exist_ok=True)
            else:
                shutil.copy(found, home / "packages" / found.name)
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    return subprocess.run([*drop, python, str(script)], env=environ, capture_output=True, text=True, timeout=50, cwd=home)


def interpreter_for_everybody(home: Path) -> tuple[str, str]:
    """A Python of our version that any user may run, and its libraries' folder: ours, the system's, or a copy of ours."""
    ours = Path(os.path.realpath(sys.executable))
    if all(folder.stat().st_mode & 0o001 for folder in ours.parents):
        return str(ours), ""
    system = "/usr/bin/python3"
    asked = subprocess.run([system, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
    if asked.stdout.strip() == str(sys.version_info[:2]):
        return system, ""
    copy = home / "python"
    left_out = shutil.ignore_patterns("test", "__pycache__", "*.a", "site-packages")
    shutil.copytree(ours.parents[1], copy, symlinks=True, ignore=left_out)
    return str(copy / "bin" / ours.name), str(copy / "lib")


DRIVE_AS_NOBODY = """
import json, os, signal, subprocess, sys, urllib.request
from pathlib import Path

home = Path(os.environ["HOME"])
(home / "app").mkdir()
(home / "app" / "app.py").write_text('''
import os
from martlet import App
app = App("nobody")
@app.get("/")
def index() -> dict:
    processes = [name for name in os.listdir("/proc") if name.isdigit()]
    return {"uid": os.getuid(), "etc": os.path.exists("/etc/shadow"), "processes": len(processes)}
''')
entry = "import sys; from martlet.cli import main; sys.exit(main())"
command = [sys.executable, "-c", entry, "up", str(home / "app"), "--data", str(home / "data"), "--port", "0", "--no-watch"]
process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
urls = {}
for line in process.stdout:
    words = line.split()
    if words and words[0] in ("app", "api"):
        urls[words[0]] = words[1]
    if len(urls) == 2:
        break
else:
    sys.exit(process.wait())
answer = json.load(urllib.request.urlopen(urls["app"], timeout=30))
token = json.loads((home / "data" / "credentials.json").read_text())["token"]
request = urllib.request.Request(urls["api"] + "/v1/status", headers={"authorization": "Bearer " + token})
status = json.load(urllib.request.urlopen(request, timeout=30))
process.send_signal(signal.SIGTERM)
assert process.wait(30) == 0
assert answer["etc"] is False and answer["processes"] <= 3, answer
print(json.dumps({"level": status["sandbox"]["level"], **answer}))
"""
