"""Deployments are all or nothing, and nobody who asks meanwhile notices them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import ENTRY, ROOT, Api, Command, RunningPlatform, eventually, save, write_app

pytestmark = pytest.mark.e2e

THREE = """
    import os
    from martlet import App

    app = App("three")
    VERSION = "@version@"

    @app.get("/a")
    def a() -> str:
        return VERSION

    @app.get("/b")
    def b() -> str:
        return VERSION

    @app.get("/c")
    def c() -> str:
        return VERSION

    if os.environ.get("_HANDLER", "").endswith(":@broken@"):
        raise RuntimeError("c cannot be loaded")
"""


def three(version: str, broken: str = "none") -> str:
    return THREE.replace("@version@", version).replace("@broken@", broken)


def served(platform: RunningPlatform) -> list[str]:
    return [httpx.get(f"{platform.app_url}/{path}", timeout=30).json() for path in "abc"]


def test_a_deployment_that_fails_in_one_function_changes_none(start: Start, martlet: Command, tmp_path: Path) -> None:
    folder = write_app(tmp_path / "three", three("one"))
    platform = start(folder, "--no-watch")
    api = Api(platform)
    before = api.get("/v1/apps"), api.get("/v1/functions")
    assert served(platform) == ["one"] * 3
    for broken in "abc":
        save(folder / "app.py", three("two", broken))
        failed = martlet("deploy", folder, data=platform.data)
        assert failed.code == 4
        assert f"function three-{broken}" in failed.err or f"function {broken}" in failed.err
        assert "RuntimeError: c cannot be loaded" in failed.err
        assert served(platform) == ["one"] * 3
    after = api.get("/v1/apps"), api.get("/v1/functions")
    assert after == before
    platform.kill()
    again = start(None, data=platform.data)
    assert served(again) == ["one"] * 3, "nor after a crash"
    save(folder / "app.py", three("two"))
    assert martlet("deploy", folder, data=again.data).code == 0
    assert served(again) == ["two"] * 3


def test_no_request_fails_during_twenty_deployments(start: Start, martlet: Command, tmp_path: Path) -> None:
    folder = write_app(tmp_path / "three", three("0"))
    platform = start(folder, "--no-watch")
    api = Api(platform)
    ended = threading.Event()
    answers: Counter[object] = Counter()

    def ask(path: str) -> None:
        with httpx.Client(timeout=30) as client:
            while not ended.is_set():
                try:
                    answer = client.get(f"{platform.app_url}/{path}")
                    answers[answer.json() if answer.status_code == 200 else answer.text] += 1
                except httpx.HTTPError as error:
                    answers[repr(error)] += 1

    asking = [threading.Thread(target=ask, args=(path,)) for path in "abc"]
    for thread in asking:
        thread.start()
    try:
        for number in range(1, 21):
            save(folder / "app.py", three(str(number)))
            answer = api.request("POST", "/v1/apps/three/deployments", params={"path": str(folder)})
            assert '"type":"result"' in answer.text, answer.text
            eventually(lambda number=number: answers[str(number)] >= 3)
    finally:
        ended.set()
        for thread in asking:
            thread.join()
    assert set(answers) == {str(number) for number in range(21)}, answers
    assert api.get("/v1/apps")["apps"][0]["revision"] == 21
    eventually(lambda: api.get("/v1/status")["instances"] <= 12, seconds=45)
    codes = [path.name for path in (platform.data / "code").iterdir() if len(path.name) == 64]
    assert len(codes) <= 21


def test_a_deployment_does_not_interrupt_what_runs(start: Start, martlet: Command, tmp_path: Path) -> None:
    text = """
        import time
        from martlet import App, Collection
        app = App("long")
        gate = Collection("gate")

        @app.get("/", uses=[gate], timeout=30)
        def index() -> str:
            gate.put("old", "running")
            while gate.get("old").value != "go":
                time.sleep(0.01)
            return "@version@"
    """
    folder = write_app(tmp_path / "long", text.replace("@version@", "old"))
    platform = start(folder, "--no-watch")
    api = Api(platform)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(httpx.get(platform.app_url, timeout=30)))
    asking.start()
    eventually(lambda: api.request("GET", "/v1/documents/gate/old?app=long").status_code == 200)
    save(folder / "app.py", text.replace("@version@", "new"))
    assert martlet("deploy", folder, data=platform.data).code == 0
    api.request("PUT", "/v1/documents/gate/old?app=long", content=b'"go"')
    asking.join()
    assert answers[0].json() == "old", "what has begun ends as it began"


def test_a_failed_function_can_be_removed_and_its_name_given_again(start: Start, martlet: Command, tmp_path: Path) -> None:
    folder = write_app(tmp_path / "three", three("one"))
    platform = start(folder, "--no-watch")
    save(folder / "app.py", three("two").replace('@app.get("/c")\n    def c()', '@app.get("/d")\n    def d()'))
    assert martlet("deploy", folder, data=platform.data).code == 0
    names = [found["name"] for found in Api(platform).get("/v1/functions")["functions"]]
    assert names == ["three-a", "three-b", "three-d"]
    assert httpx.get(f"{platform.app_url}/c").status_code == 404
    save(folder / "app.py", three("three"))
    assert martlet("deploy", folder, data=platform.data).code == 0
    assert served(platform) == ["three"] * 3


def test_an_interrupt_leaves_a_first_deployment_that_hangs(tmp_path: Path) -> None:
    app = write_app(tmp_path / "slow", "import time\ntime.sleep(60)\n")
    command = [*ENTRY, "up", str(app), "--port", "0", "--no-watch"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}) as up:
        assert up.stderr is not None
        next(line for line in up.stderr if "reading the app" in line)
        up.send_signal(signal.SIGINT)
        assert up.wait(20) == 0  # reading a module may take 30 s
