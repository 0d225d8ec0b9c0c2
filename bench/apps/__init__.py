"""The apps under measurement: folders here, and apps with many functions, written on demand."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["copy", "many", "versioned"]

_HERE = Path(__file__).parent


def copy(name: str, folder: Path) -> Path:
    """The app `name` of this folder, copied below `folder`."""
    return Path(shutil.copytree(_HERE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")))


def many(folder: Path, count: int, package: str = "") -> Path:
    """An app of `count` functions at /f0, /f1 …; each answers how often its instance was called and how old it is in seconds.

    Each function has a module of its own, as distinct functions have: a cold start pays for its own code and not for that of
    its hundred neighbours. With `package` each imports it at module level, as users do.
    """
    folder.mkdir(parents=True)
    (folder / "base.py").write_text('from martlet import App\napp = App("bench")\n')
    (folder / "app.py").write_text("from base import app\n" + "".join(f"import f{number}\n" for number in range(count)))
    for number in range(count):
        lines = [
            "import time",
            f"import {package}" if package else "",
            "from base import app",
            "born, calls = time.monotonic(), 0",
            f'@app.get("/f{number}")',
            f"def f{number}() -> dict:",
            "    global calls",
            "    calls += 1",
            '    return {"n": calls, "age": time.monotonic() - born}',
        ]
        (folder / f"f{number}.py").write_text("\n".join(lines) + "\n")
    if package:
        (folder / "requirements.txt").write_text(f"{package}\n")
    return folder


def versioned(folder: Path, version: int) -> Path:
    """An app whose /version answers `version`; writing it again is a redeploy. Replaced in one step, as editors do."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / "app.py.new"
    beside.write_text(
        "from martlet import App\n"
        'app = App("bench")\n'
        '@app.get("/version")\n'
        "def version() -> dict:\n"
        f'    return {{"version": {version}}}\n'
    )
    beside.rename(folder / "app.py")
    return folder
