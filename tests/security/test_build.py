"""Builds: a module that attacks while the platform asks it what the app is."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest
from tests.security.stage import Stage

FRAME = """
import os, struct, json
def frame(kind, payload, sequence=0):
    os.write(4, struct.pack("<IIBxxx", len(payload), sequence, kind) + payload)
"""
ANSWER = """
def answer(graph, imports=()):
    frame(13, json.dumps({"graph": graph, "imports": list(imports), "compiled": 0}).encode())
    os._exit(0)
"""


def _graph(**changes: object) -> str:
    function = {"name": "f", "handler": "app:f"}
    graph: dict[str, object] = {"functions": [function], "routes": [], "schedules": [], **changes}
    return f"{FRAME}{ANSWER}answer({graph!r})\n"


def _deploy(stage: Stage, folder: Path, code: str) -> tuple[int, str]:
    folder.mkdir()
    (folder / "app.py").write_text(textwrap.dedent(code))
    done = stage.martlet("deploy", str(folder), "--app", "built")
    return done.returncode, done.stdout + done.stderr


ENDS = {
    "exit": "import os; os._exit(0)",
    "exit 7": "import os; os._exit(7)",
    "SystemExit": "raise SystemExit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "kill": "import os; os.kill(0, 9); os.kill(-1, 9); os._exit(1)",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "memory": "x = [bytearray(1 << 20) for _ in range(4000)]",
    "recursion": "def f(): f()\nf()",
    "fork bomb": """
import os, time
for _ in range(1000):
    try:
        if not os.fork(): time.sleep(60); os._exit(0)
    except OSError: break
os._exit(1)
""",
    "garbage": "import os; os.write(4, os.urandom(5000)); os._exit(0)",
    "huge": "import os, struct; os.write(4, struct.pack('<IIBxxx', 0xffffffff, 0, 13)); import time; time.sleep(20)",
    "closed": "import os; os.close(3); os.close(4); raise SystemExit(0)",
    "no graph": FRAME + "frame(13, b'{}'); os._exit(0)",
    "no object": FRAME + "frame(13, b'[]'); os._exit(0)",
}


@pytest.mark.parametrize("end", [name for name in ENDS if name not in ("no graph", "no object")])
def test_a_module_that_ends_its_build(attacked: Stage, own_folder: Path, end: str) -> None:
    before = time.monotonic()
    code, text = _deploy(attacked, own_folder / "built", ENDS[end])
    assert code == 4, text
    assert "Traceback (most recent call last)" not in text or "app.py" in text
    assert time.monotonic() - before < 15
    assert "built" not in {app["name"] for app in attacked.api.get("/v1/apps").json()["apps"]}


def test_others_deploy_while_a_build_hangs(attacked: Stage, own_folder: Path) -> None:
    """The session's endless build (see conftest) has begun; how it ends is looked at in the aftermath."""
    (own_folder / "other").mkdir()
    (own_folder / "other" / "app.py").write_text("def lambda_handler(event, context):\n    return 1\n")
    attacked.deploy(own_folder / "other", "other")
    assert attacked.martlet("destroy", "other", "--yes").returncode == 0


NAMES = {
    "up": {"functions": [{"name": "../victim-check", "handler": "app:f"}]},
    "slash": {"functions": [{"name": "a/b", "handler": "app:f"}]},
    "empty": {"functions": [{"name": "", "handler": "app:f"}]},
    "newline": {"functions": [{"name": "a\nb", "handler": "app:f"}]},
    "long": {"functions": [{"name": "a" * 5_000, "handler": "app:f"}]},
    "nul": {"functions": [{"name": "a\0b", "handler": "app:f"}]},
    "unknown field": {"functions": [{"name": "f", "handler": "app:f", "privileged": True}]},
    "unknown kind": {"databases": [{"name": "x"}]},
    "negative memory": {"functions": [{"name": "f", "handler": "app:f", "memory_mb": -1}]},
    "much memory": {"functions": [{"name": "f", "handler": "app:f", "memory_mb": 10**9}]},
    "text for memory": {"functions": [{"name": "f", "handler": "app:f", "memory_mb": "128"}]},
    "endless": {"functions": [{"name": "f", "handler": "app:f", "timeout_seconds": 1e300}]},
    "provisioned": {"functions": [{"name": "f", "handler": "app:f", "provisioned": 10**6}]},
    "others' functions": {"functions": [{"name": "f", "handler": "app:f", "uses": ["victim-private"]}]},
    "patterns": {"functions": [{"name": "f", "handler": "app:f", "uses": ["*"]}]},
    "others' documents": {"functions": [{"name": "f", "handler": "app:f", "documents": ["../victim/ledger"]}]},
    "all documents": {"functions": [{"name": "f", "handler": "app:f", "documents": ["*"]}]},
    "egress": {"functions": [{"name": "f", "handler": "app:f", "egress": ["*"]}]},
    "route to another": {"routes": [{"method": "GET", "path": "/x", "function": "victim-private"}]},
    "route of another": {"routes": [{"method": "GET", "path": "/check/{number}", "function": "../victim/check"}]},
    "schedule of another": {"schedules": [{"name": "s", "expression": "rate(1 minute)", "function": "victim-private"}]},
    "path tricks": {"routes": [{"method": "GET", "path": "/../x y", "function": "f"}]},
    "reserved variable": {"functions": [{"name": "f", "handler": "app:f", "environment": {"AWS_LAMBDA_FUNCTION_NAME": "x"}}]},
    "loader variable": {"functions": [{"name": "f", "handler": "app:f", "environment": {"A=B": "x"}}]},
    "handler elsewhere": {"functions": [{"name": "f", "handler": "/etc/passwd"}]},
    "many functions": {"functions": [{"name": f"f{number}", "handler": "app:f"} for number in range(3_000)]},
    "many routes": {"routes": [{"method": "GET", "path": f"/{number}", "function": "f"} for number in range(10_000)]},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_hostile_graphs(attacked: Stage, own_folder: Path, name: str) -> None:
    code, text = _deploy(attacked, own_folder / "built", _graph(**NAMES[name]))
    assert code == 4, text
    assert "Martlet; its log has the details" not in text, "the refusal has no name"
    assert "built" not in {app["name"] for app in attacked.api.get("/v1/apps").json()["apps"]}
    assert not [path for path in (attacked.data / "logs").iterdir() if ".." in path.name]


def test_a_graph_for_another_app_is_ones_own(attacked: Stage, own_folder: Path) -> None:
    """What a build says about its app's name counts for nothing; names that look like a neighbour's lead nowhere."""
    code, text = _deploy(attacked, own_folder / "built", _graph(app="victim") + "\ndef f(event, context): return 1\n")
    assert code == 4 or "victim" not in text, text
    attacked.victim_is_well()
    if code == 0:
        attacked.martlet("destroy", "built", "--yes")


def test_compiled_code_for_other_places(attacked: Stage, own_folder: Path) -> None:
    """Compiled modules come from the sandbox: they are written beside their sources, or not at all."""
    stored = {path: path.read_bytes() for path in (attacked.data / "code").rglob("*") if path.is_file()}
    for number, target in enumerate(("../../../attacked.pyc", "/tmp/martlet-attacked.pyc", "../x/__pycache__/a.pyc", "app.py")):
        chunk = f"frame(16, {target.encode()!r} + b'\\n' + b'x' * 100)\n"
        graph = _graph().replace("answer(", chunk + "answer(", 2).replace(chunk, "", 1)
        code, text = _deploy(attacked, own_folder / f"built-{number}", graph)
        assert code == 4, text
    for path, content in stored.items():
        assert path.read_bytes() == content, path
    assert not Path("/tmp/martlet-attacked.pyc").exists()


def test_names_to_import_ahead_do_no_harm(attacked: Stage, own_folder: Path) -> None:
    """What the zygote is to import comes from the build too: whatever it is, events are served."""
    imports = [
        "../x",
        "app",
        "os.path.join",
        "",
        "x" * 1000,
        "antigravity",
        "test.__main__",
        "martlet_inside.boot.main",
        "__main__",
    ]
    code = f"""
import os, struct, json, sys
def frame(kind, payload): os.write(4, struct.pack('<IIBxxx', len(payload), 0, kind) + payload)
def f(event, context): return "served"
if not os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
    graph = {{"functions": [{{"name": "f", "handler": "app:f"}}], "routes": [], "schedules": []}}
    frame(13, json.dumps({{"graph": graph, "imports": {imports!r}, "compiled": 0}}).encode())
    os._exit(0)
"""
    exit_code, text = _deploy(attacked, own_folder / "built", code)
    try:
        assert exit_code in (0, 4), text
        if exit_code == 0:
            assert attacked.invoke("built-f", {}).payload == "served"
    finally:
        attacked.martlet("destroy", "built", "--yes")
