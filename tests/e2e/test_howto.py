"""What docs/how-to/test.md says is done, word for word: its four pieces of code are files, and pytest runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.driving import ENTRY, ROOT

pytestmark = pytest.mark.e2e


def test_the_page_on_testing_is_true(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "test.md").read_text()
    blocks = re.findall(r"^```python\n((?:.*\n)*?)```$", text, re.MULTILINE)
    names = ("app.py", "test_functions.py", "conftest.py", "test_http.py")
    project = tmp_path / "project"
    project.mkdir()
    for name, block in zip(names, blocks, strict=True):
        (project / name).write_text(block)
    command = tmp_path / "bin" / "martlet"  # the installed command, but of this tree
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nexec '" + "' '".join(ENTRY) + '\' "$@"\n')
    command.chmod(0o755)
    environ = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    plain = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(project)]
    done = subprocess.run(plain, cwd=project, env=environ, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
