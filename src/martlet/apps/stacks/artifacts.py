"""The local code that a template names: built where its source needs it, packed, and stored under its content address.

What `sam build` would do is done here for Python (requirements.txt, by uv) and Node.js (package.json, by npm, whose install
scripts are not run); `Metadata: BuildMethod` makefile runs the target that the template names; esbuild, go1.x and
rust-cargolambda run the compilers of this host (`compilers.py`). A template that `sam build`,
`cdk synth`, `chalice package` or `osls package` wrote is taken as it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from martlet import config
from martlet.apps.layers import Layers, run
from martlet.apps.package import scan, store
from martlet.apps.requirements import read as read_requirements
from martlet.apps.stacks.archives import ARCHIVE, unpack_zip
from martlet.apps.stacks.compilers import COMPILERS, Compilation, esbuild
from martlet.apps.stacks.compiling import Artifact
from martlet.apps.stacks.imports import imported_packages
from martlet.apps.stacks.reading import TemplateFault
from martlet.clock import token_hex
from martlet.errors import Conflict, DeployFailed, MartletError
from martlet.limits import LIMITS, exceeded

__all__ = ["Assets", "LookAhead", "Workshop", "is_built"]

T = TypeVar("T")
_BUILT: Final = frozenset({".aws-sam", "cdk.out", ".serverless"})
_PYTHON: Final = re.compile(r"python3\.(\d{1,2})")
_KEPT_LINES: Final = 40
_SAM_BUILD: Final = "run `sam build` first, and deploy what it made: .aws-sam/build/template.yaml"
Say = Callable[[str], None]
LookAhead = Callable[[str, str, str, tuple[str, ...]], Awaitable[None]]


def _no_interpreter(runtime: str) -> str:
    raise DeployFailed(f"runtime {runtime}: this Python is not installed on this host")


class Workshop:
    """Makes packages below `<data>/code`. `layers` installs Python packages for the platform's own Python.

    `look_ahead` is told (code, layer, runtime, imports): which packages the code of a function imports when it is loaded.
    `nearest` gives, for a runtime, the one that this host has in its place, asked where the owner is lenient; `interpreter` the
    path of another Python, or raises `DeployFailed`. Both block.
    """

    def __init__(
        self,
        data: Path,
        layers: Layers,
        hold: Callable[[str], None] = lambda address: None,
        look_ahead: LookAhead | None = None,
        nearest: Callable[[str], str] = str,
        interpreter: Callable[[str], str] = _no_interpreter,
    ) -> None:
        self._nearest = nearest
        self._interpreter = interpreter
        self._code = data / "code"
        self._data = data
        self._layers = {"": layers}
        self._hold = hold
        self._look_ahead = look_ahead
        self._known: dict[tuple[str, str, str], str] = {}  # packages, source, inner folder → what was made of them

    async def package(self, artifact: Artifact, base: Path, say: Say, *, is_built: bool, is_lenient: bool = False) -> str:
        """The address of the code that `artifact` names, relative to `base`. Raises `DeployFailed` with the template's line."""
        source = (base / artifact.location).resolve()
        where = f"{artifact.logical_id}: {artifact.location}"
        artifact = await self._runnable(artifact, is_lenient)
        try:
            if not source.exists():
                raise TemplateFault(f"{where} does not exist", artifact.line, logical_id=artifact.logical_id)
            if source.is_file():
                return await self._file(source, where)
            return await self._folder(artifact, source, say, is_built)
        except TemplateFault:
            raise
        except MartletError as error:
            raise TemplateFault(
                f"{where}: {error.message}", artifact.line, logical_id=artifact.logical_id, remedy=error.remedy
            ) from error

    async def _runnable(self, artifact: Artifact, is_lenient: bool) -> Artifact:
        if not is_lenient or not artifact.runtime:
            return artifact
        return msgspec.structs.replace(artifact, runtime=await asyncio.to_thread(self._nearest, artifact.runtime))

    async def is_slow(self, artifact: Artifact, base: Path, *, is_lenient: bool = False) -> bool:
        """Whether packaging would run a build, rather than copy files or take what was built before."""
        artifact = await self._runnable(artifact, is_lenient)
        source = (base / artifact.location).resolve()
        if not source.is_dir():
            return False
        method = artifact.build or (artifact.runtime if artifact.what == "function" else "")
        if method.startswith("python"):
            if not (source / "requirements.txt").is_file():
                return False
            found = await (await self._layers_of(method)).known(await asyncio.to_thread(read_requirements, source))
            return not found
        if method.startswith("nodejs"):
            return (source / "package.json").is_file() and not (source / "node_modules").is_dir()
        return method == "makefile"

    async def _file(self, source: Path, where: str) -> str:
        """An archive is kept as it is, since templates may name its digest (CodeSha256); it is unpacked once, to be checked."""

        def fill(folder: Path) -> None:
            if source.suffix not in (".zip", ".jar"):
                shutil.copyfile(source, folder / source.name)
                return
            trial = folder / "trial"
            trial.mkdir()
            unpack_zip(source, trial, where)
            shutil.rmtree(trial)
            shutil.copyfile(source, folder / ARCHIVE)

        return await self._made(fill)

    async def _folder(self, artifact: Artifact, source: Path, say: Say, is_built: bool) -> str:
        method = artifact.build or ("" if is_built else artifact.runtime if artifact.what == "function" else "")
        if is_built or not method:
            return await self._stored(source)
        if method == "makefile":
            return await self._make(artifact, source, say)
        if method.startswith("python"):
            return await self._python(artifact, source, method, say)
        if method == "esbuild" or method.startswith("nodejs"):
            return await self._node(artifact, source, say, bundled=method == "esbuild")
        if method in COMPILERS:
            return await self._compile(artifact, source, say)
        if artifact.build:
            raise DeployFailed(f"BuildMethod {artifact.build} is not run here", remedy=_SAM_BUILD)
        if method.startswith(("java", "dotnet", "ruby", "go1")) and not _looks_built(source):
            raise DeployFailed(f"{method} code has to be built", remedy=_SAM_BUILD)
        return await self._stored(source)

    async def _stored(self, source: Path) -> str:
        attempts = 3
        while True:
            package = await asyncio.to_thread(scan, source, whole=True)
            self._hold(package.address)
            try:
                await asyncio.to_thread(store, package, self._code)
                return package.address
            except Conflict:  # an editor saved between scan and copy
                attempts -= 1
                if not attempts:
                    raise

    async def _made(self, fill: Callable[[Path], None]) -> str:
        async def work(folder: Path) -> Path:
            await asyncio.to_thread(fill, folder)
            return folder

        return await self._built(work)

    async def _built(self, work: Callable[[Path], Awaitable[Path]]) -> str:
        """Store what `work` makes in an empty folder; that is gone afterwards."""
        folder = self._code / f".tmp-{token_hex(8)}"
        await asyncio.to_thread(folder.mkdir, parents=True)
        try:
            return await self._stored(await work(folder))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    # --- builds

    async def _python(self, artifact: Artifact, source: Path, method: str, say: Say) -> str:
        if not (source / "requirements.txt").is_file():
            if artifact.what == "layer":
                return await self._built(lambda folder: _in_thread(_copy_into, source, folder, "python"))
            address = await self._stored(source)
            await self._see(artifact, source, address, "", None)
            return address
        wanted = await asyncio.to_thread(read_requirements, source)
        layers = await self._layers_of(method)
        address = await layers.ensure(wanted, say)
        packages = layers.path(address) if address else None
        inner = "python" if artifact.what == "layer" else ""
        own = await asyncio.to_thread(scan, source, whole=True)
        made = (address or "", own.address, inner)
        known = self._known.get(made)
        if known is not None and (self._code / known).is_dir():  # many functions of a template have the same folder
            self._hold(known)
            await self._see(artifact, source, known, address, packages)
            return known

        async def work(folder: Path) -> Path:
            if packages is not None:
                await asyncio.to_thread(_copy_into, packages, folder, inner, link=True)
            return await _in_thread(_copy_into, source, folder, inner)

        self._known[made] = found = await self._built(work)
        await self._see(artifact, source, found, address, packages)
        return found

    async def _see(self, artifact: Artifact, source: Path, code: str, layer: str, packages: Path | None) -> None:
        """A function's packages can be imported before an event comes: tell the functions room which, if it wants to know."""
        if self._look_ahead is None or artifact.what != "function" or _PYTHON.fullmatch(artifact.runtime) is None:
            return
        imports = await asyncio.to_thread(imported_packages, source, packages)
        if imports:
            await self._look_ahead(code, layer, artifact.runtime, imports)

    async def _layers_of(self, runtime: str) -> Layers:
        """For another version of Python than the platform's own: the interpreter that its functions run on."""
        found = _PYTHON.fullmatch(runtime)
        own = f"3.{sys.version_info.minor}"
        if found is None or f"3.{found[1]}" == own:
            return self._layers[""]
        if runtime not in self._layers:
            self._layers[runtime] = Layers(self._data / "layers", await asyncio.to_thread(self._interpreter, runtime))
        return self._layers[runtime]

    async def _node(self, artifact: Artifact, source: Path, say: Say, *, bundled: bool) -> str:
        wanted = await asyncio.to_thread(_node_dependencies, source, "dependencies")
        tools = await asyncio.to_thread(_node_dependencies, source, "devDependencies") if bundled else frozenset()
        install = bool(wanted or tools) and not (source / "node_modules").is_dir()
        if not install and not bundled:
            return await self._stored(source)
        npm = shutil.which("npm")
        if npm is None and install:
            raise DeployFailed("npm is not installed, and package.json names dependencies", remedy="install Node.js with npm")

        async def work(folder: Path) -> Path:
            inner, out = ("source", folder / "code") if bundled else ("", folder)
            scratch = folder / inner
            await asyncio.to_thread(_copy_into, source, folder, inner)
            if install:
                command = "ci" if (scratch / "package-lock.json").is_file() else "install"
                say(f"npm {command} for {artifact.logical_id}")
                options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--prefix", str(scratch)]
                left_out = [] if "esbuild" in tools else ["--omit=dev"]
                await self._run([str(npm), command, *left_out, *options], f"npm {command}", say, scratch)
            if bundled:
                say(f"esbuild for {artifact.logical_id}")
                await self._ran(esbuild(artifact, scratch, out), "esbuild", say, scratch)
            return out

        return await self._built(work)

    async def _compile(self, artifact: Artifact, source: Path, say: Say) -> str:
        caches = self._data / "caches"

        async def work(folder: Path) -> Path:
            scratch, out = folder / "source", folder / "code"
            await asyncio.to_thread(_copy_into, source, folder, "source")
            await asyncio.to_thread(out.mkdir)
            say(f"{artifact.build} build of {artifact.logical_id}")
            compilation = COMPILERS[artifact.build](artifact, scratch, out, caches)
            await self._ran(compilation, artifact.build, say, scratch)
            if compilation.made is not None:
                await asyncio.to_thread(shutil.copy2, compilation.made, out / compilation.name)
            return out

        return await self._built(work)

    async def _ran(self, compilation: Compilation, name: str, say: Say, folder: Path) -> None:
        await self._run(compilation.command, name, say, folder, compilation.environment)

    async def _make(self, artifact: Artifact, source: Path, say: Say) -> str:
        make = shutil.which("make")
        if make is None or not (source / "Makefile").is_file():
            missing = "make is not installed" if make is None else "there is no Makefile in the code's folder"
            raise DeployFailed(f"BuildMethod makefile: {missing}", remedy=_SAM_BUILD)

        async def work(folder: Path) -> Path:
            scratch, out = folder / "source", folder / "artifacts"
            await asyncio.to_thread(_copy_into, source, folder, "source")
            await asyncio.to_thread(out.mkdir)
            say(f"make build-{artifact.logical_id}")
            target = [f"build-{artifact.logical_id}", f"ARTIFACTS_DIR={out}"]
            await self._run([make, "-C", str(scratch), *target], "make", say, scratch, {"ARTIFACTS_DIR": str(out)})
            return out

        return await self._built(work)

    async def _run(self, command: list[str], name: str, say: Say, folder: Path, extra: Mapping[str, str] | None = None) -> None:
        lines: list[str] = []

        def heard(line: str) -> None:
            del lines[: max(0, len(lines) - _KEPT_LINES)]
            lines.append(line)
            say(line)

        seconds = LIMITS["build_seconds"].default
        try:
            async with asyncio.timeout(seconds):
                status = await run(command, {**_environment(), "HOME": str(folder), **(extra or {})}, heard)
        except TimeoutError as error:
            raise exceeded("build_seconds", None, name) from error
        if status:
            text = "\n".join(lines)[-2_000:]
            raise DeployFailed(f"{name} ended with status {status}: {text}", remedy="fix the build and deploy again")


def _environment() -> dict[str, str]:
    known = config.environment()
    kept = {"PATH", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "HOME", "NODE_EXTRA_CA_CERTS"}
    proxies = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    return {
        name: value
        for name, value in known.items()
        if name in kept or name.lower() in proxies or name.lower().startswith("npm_config_")
    }


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(work, *arguments)


def _copy_into(source: Path, folder: Path, inner: str, *, link: bool = False) -> Path:
    """Copy `source` over what is in `folder/inner`; returns `folder`. `link`: nobody writes to these files. Blocking."""
    target = folder / inner if inner else folder
    ignore = shutil.ignore_patterns(".git", ".martlet", ".aws-sam", "__pycache__")
    copy = _replace_by_link if link else _replace_by_copy
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore, copy_function=copy)
    return folder


def _replace_by_link(source: str, target: str) -> None:
    os.link(source, target)


def _replace_by_copy(source: str, target: str) -> None:
    """The code's own file goes over a package's of the same name, and not into it: that one may be a link to a layer's."""
    Path(target).unlink(missing_ok=True)
    shutil.copy2(source, target)


def _node_dependencies(source: Path, kind: str) -> frozenset[str]:
    """The names of a kind of packages that package.json wants."""
    file = source / "package.json"
    if not file.is_file():
        return frozenset()
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise DeployFailed(f"package.json is not JSON: {error}", remedy="fix the file") from error
    wanted = found.get(kind) if isinstance(found, dict) else None
    return frozenset(wanted) if isinstance(wanted, dict) else frozenset()


def _looks_built(source: Path) -> bool:
    """A folder that holds what such a runtime loads, not what it is compiled from."""
    names = {path.name for path in source.iterdir()}
    sources = {"pom.xml", "build.gradle", "build.gradle.kts", "go.mod", "Gemfile"}
    return not names & sources and not any(name.endswith((".csproj", ".fsproj")) for name in names)


def is_built(template: Path) -> bool:
    """Whether the template was written by a tool that has built its code."""
    return any(part in _BUILT for part in template.absolute().parts)


class Assets:
    """Code that packaging tools left beside a template, which names it as if it were uploaded already."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._by_key = _cdk_assets(folder, stem)

    def find(self, raw: Mapping[str, Any], code: Mapping[str, Any], evaluate: Callable[[Any], Any]) -> str | None:
        """The local path of a resource's code, relative to the template; None if nothing here is it."""
        metadata = raw.get("Metadata")
        if isinstance(metadata, Mapping) and isinstance(metadata.get("aws:asset:path"), str):
            path = metadata["aws:asset:path"]
            if (self._folder / path).exists():
                return str(path)
        try:
            key = evaluate(code.get("S3Key"))
        except MartletError:
            return None
        if not isinstance(key, str):
            return None
        if key in self._by_key:
            return self._by_key[key]
        name = key.rpartition("/")[2]
        if name.endswith((".zip", ".jar")) and (self._folder / name).is_file():
            return name
        return None


def _cdk_assets(folder: Path, stem: str) -> dict[str, str]:
    """Keys of uploaded assets to local paths, of `<stem>.assets.json`."""
    file = folder / f"{stem.removesuffix('.template')}.assets.json"
    if not file.is_file():
        return {}
    try:
        files = json.loads(file.read_bytes()).get("files", {})
        return {
            where["objectKey"]: asset["source"]["path"]
            for asset in files.values()
            for where in asset.get("destinations", {}).values()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeployFailed(f"{file.name} cannot be read: {error!r}", remedy="run `cdk synth` again") from error
