"""What `Metadata: BuildMethod` names besides makefile: esbuild, Go and Rust, with the host's own compilers.

Sources: SAM developer guide, "Building Node.js Lambda functions with esbuild", "Building Go Lambda functions with
custom runtimes", "Building Rust Lambda functions with Cargo Lambda" (Cargo itself is run here: the target is this machine).
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from martlet import config
from martlet.apps.stacks.compiling import Artifact
from martlet.errors import DeployFailed

__all__ = ["COMPILERS", "Compilation", "esbuild"]

_ESBUILD_TARGET: Final = "es2020"
_GO_ARCHITECTURES: Final = {"": "amd64", "x86_64": "amd64", "arm64": "arm64"}


class Compilation(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a compiler. `made` is its result, which becomes `name` in the code; None: it writes to the code itself."""

    command: list[str]
    environment: dict[str, str]
    made: Path | None = None
    name: str = ""


def esbuild(artifact: Artifact, source: Path, out: Path) -> Compilation:
    """Bundle the entry points of `source`, whose packages are installed, into `out`."""
    local = source / "node_modules" / ".bin" / "esbuild"
    program = (
        str(local) if local.exists() else _program("esbuild", "name esbuild in package.json's dependencies, or install it")
    )
    given = _properties(artifact)
    entries = [str(source / entry) for entry in _texts(given, "EntryPoints") or ["app.js"]]
    for entry in entries:
        if not Path(entry).is_file():
            raise DeployFailed(
                f"BuildMethod esbuild: the entry point {Path(entry).name} is not there", remedy="see EntryPoints"
            )
    command = [program, *entries, "--bundle", "--platform=node", f"--outdir={out}", "--log-level=warning"]
    command += [f"--format={given.get('Format', 'cjs')}", f"--target={_joined(given, 'Target') or _ESBUILD_TARGET}"]
    if _is_true(given.get("Minify", True)):
        command.append("--minify")
    if "Sourcemap" in given and str(given["Sourcemap"]).lower() != "false":
        command.append("--sourcemap" if _is_true(given["Sourcemap"]) else f"--sourcemap={given['Sourcemap']}")
    if _is_true(given.get("KeepNames", False)):
        command.append("--keep-names")
    if "SourcesContent" in given:
        command.append(f"--sources-content={str(_is_true(given['SourcesContent'])).lower()}")
    if "MainFields" in given:
        command.append(f"--main-fields={_joined(given, 'MainFields')}")
    for name, option in (
        ("External", "external"),
        ("Loader", "loader"),
        ("OutExtension", "out-extension"),
        ("Banner", "banner"),
    ):
        command += [f"--{option}:{one}" for one in _texts(given, name)]
    return Compilation(command=command, environment={})


def _go(artifact: Artifact, source: Path, out: Path, caches: Path) -> Compilation:
    go = _program("go", "install Go")
    is_provided = artifact.runtime.startswith("provided") or not artifact.handler
    made = out / ("bootstrap" if is_provided else artifact.handler)
    command = [go, "build", "-C", str(source), "-trimpath", "-o", str(made), "."]
    architecture = _GO_ARCHITECTURES.get(artifact.architecture, artifact.architecture)
    folders = {"GOCACHE": str(caches / "go-build"), "GOMODCACHE": str(caches / "go-mod"), "GOFLAGS": "-modcacherw"}
    own = {name: value for name, value in config.environment().items() if name.startswith("GO")}
    return Compilation(command=command, environment={**own, **folders, "GOOS": "linux", "GOARCH": architecture, **_home()})


def _cargo(artifact: Artifact, source: Path, out: Path, caches: Path) -> Compilation:
    cargo = _program("cargo", "install Rust")
    binary = str(_properties(artifact).get("Binary") or "") or _binary_of(source)
    target = caches / "cargo" / binary
    command = [cargo, "build", "--release", "--quiet", "--manifest-path", str(source / "Cargo.toml")]
    command += ["--target-dir", str(target), "--bin", binary]
    own = {name: value for name, value in config.environment().items() if name.startswith(("CARGO", "RUST"))}
    return Compilation(command=command, environment={**own, **_home()}, made=target / "release" / binary, name="bootstrap")


def _binary_of(source: Path) -> str:
    """The name of the crate's only program."""
    try:
        manifest = tomllib.loads((source / "Cargo.toml").read_text("utf-8"))
        named = [str(one["name"]) for one in manifest.get("bin", ())]
        named += [path.stem for path in sorted((source / "src" / "bin").glob("*.rs"))]
        own = [str(manifest["package"]["name"])] if (source / "src" / "main.rs").is_file() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeployFailed(
            f"BuildMethod rust-cargolambda: Cargo.toml cannot be read: {error!r}", remedy="fix the file"
        ) from error
    found = list(dict.fromkeys(named or own))
    if len(found) != 1:
        what = f"the programs {', '.join(found)}" if found else "no program"
        raise DeployFailed(f"BuildMethod rust-cargolambda: the crate has {what}", remedy="name one: BuildProperties: Binary")
    return found[0]


# BuildMethod → (artifact, its source, where the code goes, a folder that is kept between builds)
COMPILERS: Final[Mapping[str, Callable[[Artifact, Path, Path, Path], Compilation]]] = {"go1.x": _go, "rust-cargolambda": _cargo}


def _program(name: str, remedy: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise DeployFailed(f"{name} is not installed", remedy=f"{remedy}, or deploy what `sam build` made")
    return found


def _home() -> dict[str, str]:
    """Toolchains live below the home folder."""
    return {"HOME": config.environment().get("HOME", "/")}


def _properties(artifact: Artifact) -> Mapping[str, Any]:
    given = artifact.metadata.get("BuildProperties") if isinstance(artifact.metadata, Mapping) else None
    return given if isinstance(given, Mapping) else {}


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name, [])
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _joined(given: Mapping[str, Any], name: str) -> str:
    return ",".join(_texts(given, name))


def _is_true(value: object) -> bool:
    return value is True or str(value).lower() == "true"
