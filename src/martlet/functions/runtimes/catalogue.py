"""The runtimes by Lambda's identifiers, and where this host has the programs for them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from martlet.errors import DeployFailed

__all__ = ["PLATFORM_PYTHON", "RUNTIMES", "Programs", "Runtime", "RuntimeUnavailable", "available"]

PLATFORM_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_ZYGOTE_OLDEST = (3, 9)  # what the code in a sandbox is written for


class Runtime(msgspec.Struct, frozen=True):
    """`kind` says how: "python": a zygote of that interpreter; "node": our bootstrap; "provided": the function's own."""

    identifier: str
    kind: Literal["python", "node", "provided", "absent"]
    version: str = ""  # "3.12", "22"; of an absent one the language


class RuntimeUnavailable(DeployFailed):
    """This host lacks the program that a runtime needs."""

    code = "runtime_unavailable"


def _table() -> dict[str, Runtime]:
    found = [Runtime("", "python", PLATFORM_PYTHON)]
    found += [Runtime(f"python3.{minor}", "python", f"3.{minor}") for minor in range(8, 15)]
    found += [Runtime(f"nodejs{major}.x", "node", str(major)) for major in (16, 18, 20, 22, 24)]
    found += [Runtime(name, "provided") for name in ("provided", "provided.al2", "provided.al2023")]
    found.append(Runtime("go1.x", "absent", "Go"))
    found += [Runtime(name, "absent", "Java") for name in ("java8", "java8.al2", "java11", "java17", "java21", "java25")]
    found += [Runtime(name, "absent", ".NET") for name in ("dotnet6", "dotnet8", "dotnet9", "dotnet10")]
    found += [Runtime(name, "absent", "Ruby") for name in ("ruby3.2", "ruby3.3", "ruby3.4")]
    return {runtime.identifier: runtime for runtime in found}


RUNTIMES = _table()


class Programs:
    """Where interpreters are. `folders` are ours, searched first; `node` is the setting MARTLET_NODE."""

    def __init__(self, folders: tuple[Path, ...], node: str = "", home: Path | None = None) -> None:
        self._folders = folders
        self._node = node
        self._home = home or Path.home()
        self._found: dict[str, str] = {}

    def program(self, runtime: Runtime) -> str:
        """The interpreter's path; "" for a runtime that brings its own. Raises RuntimeUnavailable: how to install it."""
        if runtime.kind == "provided" or (runtime.kind == "python" and runtime.version == PLATFORM_PYTHON):
            return ""
        known = self._found.get(runtime.identifier)
        if known is None or not os.path.exists(known):
            known = self._found[runtime.identifier] = self._search(runtime)
        return known

    def _search(self, runtime: Runtime) -> str:
        if runtime.kind == "absent":
            raise RuntimeUnavailable(
                f"runtime {runtime.identifier}: Martlet brings no {runtime.version} runtime",
                remedy="package the function with its runtime interface client and a `bootstrap`, as provided.al2023",
            )
        if runtime.kind == "python" and tuple(int(part) for part in runtime.version.split(".")) < _ZYGOTE_OLDEST:
            raise RuntimeUnavailable(f"runtime {runtime.identifier} is too old to be run here", remedy="use python3.9 or newer")
        candidates = self._nodes(runtime) if runtime.kind == "node" else self._pythons(runtime)
        for path in candidates:
            if _version(path).startswith(runtime.version + "."):
                return path
        language = "Node.js" if runtime.kind == "node" else "Python"
        raise RuntimeUnavailable(
            f"runtime {runtime.identifier}: {language} {runtime.version} is not installed on this host",
            remedy=f"martlet runtimes install {runtime.identifier}",
        )

    def _nodes(self, runtime: Runtime) -> Iterator[str]:
        if self._node:
            yield self._node
        for folder in self._folders:
            yield from _files(
                folder / runtime.identifier, "node_modules/node/bin/node", "node_modules/node-*/bin/node", "bin/node"
            )
        yield from _files(self._home, *(f"{place}/v{runtime.version}.*/{rest}" for place, rest in _NODE_PLACES))
        yield from _files(
            Path("/"), f"opt/node*{runtime.version}*/bin/node", f"usr/local/n/versions/node/{runtime.version}.*/bin/node"
        )
        yield from filter(None, (shutil.which("node"), shutil.which(f"node{runtime.version}")))

    def _pythons(self, runtime: Runtime) -> Iterator[str]:
        name = f"python{runtime.version}"
        for folder in self._folders:
            yield from _files(
                folder / "python", f"cpython-{runtime.version}.*/bin/{name}", f"cpython-{runtime.version}-*/bin/{name}"
            )
        places = (
            f".local/share/uv/python/cpython-{runtime.version}*/bin/{name}",
            f".pyenv/versions/{runtime.version}.*/bin/{name}",
        )
        yield from _files(self._home, *places)
        for place in os.get_exec_path():
            path = os.path.join(place, name)
            if os.access(path, os.X_OK) and not _is_script(path):
                yield os.path.realpath(path)


_NODE_PLACES = (
    (".nvm/versions/node", "bin/node"),
    (".local/share/fnm/node-versions", "installation/bin/node"),
    (".volta/tools/image/node", "bin/node"),
    (".asdf/installs/nodejs", "bin/node"),
)


def _files(folder: Path, *patterns: str) -> Iterator[str]:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern), reverse=True):
            if path.is_file() and os.access(path, os.X_OK):
                yield os.path.realpath(path)


def _is_script(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


@functools.lru_cache(256)
def _version(path: str) -> str:
    """What `path --version` says, e.g. "22.11.0"; "" when it does not run."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False, env={}).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"(\d+\.\d+\.\d+)", said)
    return match[1] if match else ""


def available(programs: Programs) -> list[dict[str, str]]:
    """Every runtime with the program for it, or what is missing: for `martlet runtimes` and `status`."""
    rows = []
    for runtime in RUNTIMES.values():
        if not runtime.identifier:
            continue
        row = {"runtime": runtime.identifier, "program": "", "missing": "", "install": ""}
        try:
            row["program"] = programs.program(runtime) or ("bootstrap" if runtime.kind == "provided" else sys.executable)
        except RuntimeUnavailable as error:
            row["missing"], row["install"] = error.message, error.remedy
        rows.append(row)
    return rows
