"""Install an interpreter for a runtime into a folder of ours: Node.js from the npm registry, Python by uv."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from martlet.functions.runtimes.catalogue import RUNTIMES, Programs, Runtime, RuntimeUnavailable

__all__ = ["install"]

_SECONDS = 600


def install(identifier: str, folder: Path) -> str:
    """Download what `identifier` needs into `folder`; returns the interpreter's path. Raises RuntimeUnavailable."""
    runtime = RUNTIMES.get(identifier)
    if runtime is None or runtime.kind not in ("node", "python") or not identifier:
        known = ", ".join(name for name, one in RUNTIMES.items() if name and one.kind in ("node", "python"))
        raise RuntimeUnavailable(f"{identifier!r} is not a runtime that can be installed", remedy=f"choose one of: {known}")
    folder.mkdir(parents=True, exist_ok=True)
    if runtime.kind == "node":
        _npm(runtime, folder / identifier)
    else:
        _uv(runtime, folder / "python")
    return Programs((folder,)).program(runtime) or sys.executable


def _npm(runtime: Runtime, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeUnavailable("npm is not installed on this host", remedy="apt-get install npm")
    folder.mkdir(exist_ok=True)
    quiet = ("--no-audit", "--no-fund", "--no-save", "--loglevel=error")
    _run([npm, "install", *quiet, "--prefix", str(folder), f"node@{runtime.version}"])


def _uv(runtime: Runtime, folder: Path) -> None:
    from uv import find_uv_bin  # deferred: only this needs it

    _run([str(find_uv_bin()), "python", "install", "--no-bin", "--install-dir", str(folder), runtime.version])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeUnavailable(
            f"{command[0]} took longer than {_SECONDS} s", remedy="see whether its registry answers"
        ) from None
    if done.returncode:
        raise RuntimeUnavailable(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-600:]}")
