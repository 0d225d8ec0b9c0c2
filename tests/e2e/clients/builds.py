"""Real functions with the official runtime clients, built from the public registries; kept in the user's cache, by version.

A build that is there is not repeated: CI keeps the folder between runs. Each returns the folder of files for a function, and
what is to be published with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from martlet.functions.runtimes.catalogue import RUNTIMES, Programs, RuntimeUnavailable
from martlet.functions.runtimes.install import install

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "martlet-tests"
SOURCES = Path(__file__).parent / "sources"


def built(name: str, build: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache; made by `build`, whole or not at all."""
    target = CACHE / name
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"building-{name}-", dir=CACHE))
    folder.chmod(0o755)
    try:
        build(folder)
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another run was quicker
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def run(*command: str, folder: Path, seconds: float = 900, **environment: str) -> None:
    """A build step; what it printed is in the error."""
    done = subprocess.run(
        ["nice", "-n", "10", *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def _copy(source: str, folder: Path) -> None:
    shutil.copytree(SOURCES / source, folder, dirs_exist_ok=True)


def interpreters() -> Path:
    """A folder as `martlet runtimes install` fills it; what this host has already is not downloaded again."""

    def build(folder: Path) -> None:
        for name in ("nodejs22.x", "nodejs24.x", "python3.13"):
            try:
                Programs((folder,)).program(RUNTIMES[name])
            except RuntimeUnavailable:
                install(name, folder)

    return built("interpreters-1", build)


def python() -> Path:
    """PyPI awslambdaric, started by a `bootstrap` of two lines."""

    def build(folder: Path) -> None:
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "uv"
        run(uv, "pip", "install", "-q", "--target", "lib", "--python", "3.11", "awslambdaric==4.2.2", folder=folder)
        _copy("python", folder)

    return built("awslambdaric-4.2.2", build)


def node() -> Path:
    """npm aws-lambda-ric: builds its C++ client."""

    def build(folder: Path) -> None:
        _copy("node", folder)
        run("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "aws-lambda-ric@3.3.0", folder=folder)
        for heavy in ("deps", "build/Release/obj.target"):
            shutil.rmtree(folder / "node_modules/aws-lambda-ric" / heavy, ignore_errors=True)

    return built("aws-lambda-ric-3.3.0", build)


def graphql_ws() -> Path:
    """npm graphql-ws, over the WebSockets of npm ws, with a script that says what it sees."""

    def build(folder: Path) -> None:
        _copy("graphql-ws", folder)
        packages = ("graphql-ws@6.0.6", "graphql@16.11.0", "ws@8.18.3")
        run("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *packages, folder=folder)

    return built("graphql-ws-6.0.6", build)


def go() -> Path:
    """aws-lambda-go: a static binary."""

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            _copy("go", Path(work))
            run("go", "mod", "tidy", folder=Path(work))
            run(
                "go", "build", "-tags", "lambda.norpc", "-o", str(folder / "bootstrap"), ".", folder=Path(work), CGO_ENABLED="0"
            )

    return built("aws-lambda-go-1.49.0", build)


def c() -> Path:
    """The smallest custom runtime, static: what a start costs apart from the client."""

    def build(folder: Path) -> None:
        run("gcc", "-O2", "-static", "-o", str(folder / "bootstrap"), str(SOURCES / "c" / "bootstrap.c"), folder=folder)

    return built("c-bootstrap-1", build)


def rust() -> Path:
    """crates.io lambda_runtime."""

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            _copy("rust", Path(work))
            run("cargo", "build", "--quiet", folder=Path(work), CARGO_TARGET_DIR=f"{work}/target", CARGO_PROFILE_DEV_DEBUG="0")
            shutil.copy2(f"{work}/target/debug/bootstrap", folder / "bootstrap")

    return built("lambda-runtime-0.14", build)


def java() -> Path:
    """Maven Central's runtime interface client, with a JRE of its own as a custom runtime has one."""

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            _copy("java", Path(work))
            (folder / "lib").mkdir()
            run(
                "mvn",
                "-q",
                "-B",
                "package",
                "dependency:copy-dependencies",
                f"-DoutputDirectory={folder}/lib",
                folder=Path(work),
            )
            modules = "java.base,java.logging,java.management,java.naming,java.sql,java.xml,jdk.unsupported"
            jlink = ("jlink", "--strip-debug", "--no-man-pages", "--no-header-files", "--add-modules", modules)
            run(*jlink, "--output", str(folder / "jre"), folder=Path(work))
            shutil.copy2(f"{work}/target/function.jar", folder / "lib")
            shutil.copy2(f"{work}/bootstrap", folder / "bootstrap")
            (folder / "bootstrap").chmod(0o755)

    return built("aws-lambda-java-ric-2.6.0", build)
