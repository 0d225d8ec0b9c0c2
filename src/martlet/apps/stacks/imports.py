"""Which packages the modules of a folder import when they are loaded, read from their source; nothing of it runs."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["imported_packages"]

_FILES_MOST: Final = 2_000
_FILE_BYTES_MOST: Final = 1_048_576
_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules", "test", "tests", "venv"})
# What Lambda's Python brings along, and so does Martlet, at /var/runtime.
BROUGHT: Final = frozenset({"boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3"})


def imported_packages(source: Path, packages: Path | None) -> tuple[str, ...]:
    """Imports of the code in `source` that lead to the folder `packages` (None: there are none) or to the platform's boto3:
    "package.module" or "package.module:name,name". () if the code has a module that hides one of theirs. Blocking.
    """
    own = _names(source)
    there = _names(packages) if packages is not None else frozenset()
    if own & (there | BROUGHT | sys.stdlib_module_names):
        return ()
    wanted = there | BROUGHT
    found: dict[str, set[str]] = {}
    for path in _modules(source):
        for name, attributes in _imports(path):
            if name.partition(".")[0] in wanted:
                found.setdefault(name, set()).update(attributes)
    return tuple(f"{name}:{','.join(sorted(attributes))}" if attributes else name for name, attributes in sorted(found.items()))


def _names(folder: Path) -> frozenset[str]:
    """Top-level names that can be imported from a folder."""
    names = set()
    for entry in os.scandir(folder):
        if entry.is_dir():
            names.add(entry.name)
        elif entry.name.endswith((".py", ".pyc", ".so")):
            names.add(entry.name.partition(".")[0])
    return frozenset(names - {"__pycache__"})


def _modules(source: Path) -> Iterator[Path]:
    count = 0
    for current, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".py") and count < _FILES_MOST:
                count += 1
                yield Path(current, name)


def _imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(module, names taken from it) of each import that runs when the module is loaded."""
    try:
        with path.open("rb") as stream:
            tree = ast.parse(stream.read(_FILE_BYTES_MOST))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # its own import will say what is wrong with it
    yield from _of(tree.body)


def _of(body: Iterable[ast.stmt]) -> Iterator[tuple[str, list[str]]]:
    for statement in body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield alias.name, []
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            yield statement.module, [alias.name for alias in statement.names if alias.name != "*"]
        elif isinstance(statement, ast.Try | ast.With | ast.ClassDef):
            yield from _of(statement.body)
