"""Sources are read before they replace what serves: every file once, again when it changes, none of it run."""

from __future__ import annotations

from pathlib import Path

import pytest

from martlet.apps.stacks.syntax import Sources
from martlet.errors import DeployFailed


def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "app.py").write_text("raise SystemExit('run')\n")
    sources = Sources(tmp_path, lambda: "")
    sources.check()
    (tmp_path / "a" / "app.py").write_text("x = 1\nx = (\n")
    with pytest.raises(DeployFailed, match=r"^a/app\.py:2: SyntaxError: '\(' was never closed$"):
        sources.check()
    with pytest.raises(DeployFailed):
        sources.check()
    (tmp_path / "a" / "app.py").write_text("x = 1\n")
    sources.check()


@pytest.mark.parametrize("content", [b"\0", b"\xff\xfe", b"(" * 100_000, b"x = " + b"-" * 200_000 + b"1"])
def test_hostile_files_are_errors_of_theirs(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "app.py").write_bytes(content)
    with pytest.raises(DeployFailed, match=r"^app\.py"):
        Sources(tmp_path, lambda: "").check()


def test_other_peoples_code_and_other_languages_are_left_alone(tmp_path: Path) -> None:
    for name in ("node_modules/x/a.py", ".git/a.py", "python/site-packages/a.py", "index.ts", "__pycache__/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("def\n")
    (tmp_path / "index.js").write_text("{{{")  # without a Node.js nobody can tell
    Sources(tmp_path, lambda: "").check()
