"""Whether the sources beside a template can be read at all, before they replace what serves.

Lambda takes any code, and so does a deployment. Whoever saves a file half-written wants the code before to go on serving: so
`martlet up` asks first. Only files that changed since they were found to be good are read again. Nothing of them is run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from martlet.apps.ignore import always_skipped
from martlet.errors import DeployFailed

__all__ = ["Sources"]

_SCRIPTS: Final = frozenset({".js", ".mjs", ".cjs"})
_SKIPPED: Final = frozenset({"node_modules", "cdk.out", ".aws-sam", ".serverless", "site-packages"})
_LARGEST: Final = 2_097_152  # a larger file is a bundle that nobody has typed
_SECONDS: Final = 10


class Sources:
    """The Python and JavaScript files of a folder. `node`: the program that reads the latter, "" if there is none."""

    def __init__(self, folder: Path, node: Callable[[], str]) -> None:
        self._folder = folder
        self._node = node
        self._good: dict[str, tuple[int, int]] = {}

    def check(self) -> None:
        """Raises `DeployFailed` with file, line and cause. Blocking."""
        for path in self._files():
            try:
                found = path.stat()
                state = (found.st_mtime_ns, found.st_size)
                if self._good.get(str(path)) != state and found.st_size <= _LARGEST:
                    self._read(path)
            except OSError:
                continue  # gone meanwhile: the deployment tells whether that matters
            self._good[str(path)] = state

    def _files(self) -> Iterator[Path]:
        for here, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if not always_skipped(name) and name not in _SKIPPED]
            for name in files:
                if name.endswith(".py") or os.path.splitext(name)[1] in _SCRIPTS:
                    yield Path(here, name)

    def _read(self, path: Path) -> None:
        if path.suffix == ".py":
            self._read_python(path)
        else:
            self._read_script(path)

    def _read_python(self, path: Path) -> None:
        try:
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except SyntaxError as error:
            raise self._failure(path, error.lineno or 0, f"SyntaxError: {error.msg}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise self._failure(path, 0, f"{type(error).__name__}: {error}") from error

    def _read_script(self, path: Path) -> None:
        node = self._node()
        if not node:
            return
        try:
            done = subprocess.run(
                [node, "--check", str(path)], capture_output=True, text=True, timeout=_SECONDS, check=False, env={}
            )
        except subprocess.TimeoutExpired:
            return
        if done.returncode:
            lines = done.stderr.splitlines()
            cause = next((line for line in lines if "Error" in line and not line.startswith(" ")), "it cannot be read")
            place = next((line.rpartition(":")[2] for line in lines if line.startswith(str(path) + ":")), "")
            raise self._failure(path, int(place) if place.isdigit() else 0, cause)

    def _failure(self, path: Path, line: int, cause: str) -> DeployFailed:
        name = os.path.relpath(path, self._folder)
        return DeployFailed(f"{name}:{line}: {cause}" if line else f"{name}: {cause}", file=str(path), line=line)
