"""Builds: one instance that compiles an app's code, imports its module once, and says what the app is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec

from martlet.errors import DeployFailed
from martlet.functions.instance import Instance
from martlet.functions.pool import Pool
from martlet.functions.runtimes import PER_INSTANCE, RUNTIMES, Ahead, native_environment
from martlet.functions.sandbox import Ended
from martlet.functions.sandboxes.inside import frames
from martlet.types import FunctionConfig, FunctionVersion

__all__ = ["Build", "Builder"]

_SECONDS = 30
_ADD_IT = "if it is a package, name it in requirements.txt or in pyproject.toml's dependencies; if it is yours, add its file"
_COMPILED_BYTES_AT_MOST = 67_108_864


class Build(msgspec.Struct, frozen=True):
    """What a build found: the resource graph as the module's SDK emitted it (untrusted), the modules that it imports."""

    graph: dict[str, Any]
    imports: tuple[str, ...] = ()


class _Learned(msgspec.Struct, frozen=True):
    modules: list[str]
    looked_at: list[str]
    is_bound: bool


class _BuildPool(Pool):
    """A pool of one instance that gets no events; collects what it sends."""

    def __init__(self, version: FunctionVersion, around: Any, init: dict[str, Any], folder: Path) -> None:
        super().__init__(version, around, init)
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.compiled: dict[str, bytes] = {}
        self._folder = folder
        self._bytes = 0

    def on_frame(self, instance: Instance, kind: int, sequence: int, payload: bytes) -> None:
        if kind == frames.CHUNK:
            name, _, content = payload.partition(b"\n")
            self._bytes += len(payload)
            if self._bytes > _COMPILED_BYTES_AT_MOST:
                self.on_broken(instance, f"more than {_COMPILED_BYTES_AT_MOST} bytes of compiled modules")
                return
            self.compiled[name.decode("utf-8", "replace")] = content
        elif kind == frames.RESULT and not self.done.done():
            self.done.set_result(payload)
        elif kind == frames.ERROR and not self.done.done():
            self.done.set_exception(_failure(payload, instance.take_log(0).decode("utf-8", "replace")))

    def on_broken(self, instance: Instance, reason: str) -> None:
        if reason and not self.done.done():
            self.done.set_exception(DeployFailed(f"the build broke the protocol: {reason}"))
        super().on_broken(instance, "")

    def on_ended(self, instance: Instance, ended: Ended) -> None:
        if not instance.closed:
            instance.drain_results()
        if not self.done.done():
            cause = ended.error or (
                "out of memory" if ended.out_of_memory else f"exit status {ended.code}, signal {ended.signal}"
            )
            self.done.set_exception(DeployFailed(f"the module could not be imported: its sandbox ended ({cause})"))
        instance.close()


class Builder:
    """Runs builds on the sandboxes of `functions`."""

    def __init__(self, functions: Any, data: Path) -> None:
        self._functions = functions
        self._data = data

    async def build(self, *, app: str, code: str, layer: str, module: str, imports: tuple[str, ...]) -> Build:
        config = FunctionConfig(name="build", handler=f"{module}:", memory_mb=1024, tmp_mb=256, timeout_seconds=_SECONDS)
        version = FunctionVersion(
            name=f"{app}-build", app=app, version=0, config=config, code=code, layer=layer, imports=imports
        )
        environment = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/tmp", "TZ": ":UTC", "MARTLET_APP": app}
        init = {
            "mode": "build",
            "module": module,
            "app": app,
            "handler": "",
            "environment": environment,
            "function_name": version.name,
            "function_version": "0",
            "memory_mb": config.memory_mb,
            "log_group": "",
            "log_stream": "",
            "response_bytes": 16_777_216,
        }
        try:
            answer, compiled = await self._run(version, init)
        except TimeoutError:
            raise DeployFailed(f"importing module {module} took longer than {_SECONDS} s") from None
        folder = self._data / "code" / code
        graph, learned = _found(answer)
        await asyncio.get_running_loop().run_in_executor(None, _write_compiled, folder, compiled)
        return Build(graph, tuple(dict.fromkeys([*imports, *learned])))

    async def learn(self, code: str, layer: str, runtime: str, imports: tuple[str, ...], region: str) -> Ahead:
        """Import packages in a sandbox that has this code, and see what came of it. Without modules, if they cannot be
        imported before a function is known: they take too long, start threads, change or keep what is an instance's own."""
        config = FunctionConfig(name="ahead", handler="", runtime=runtime, memory_mb=1024, timeout_seconds=_SECONDS)
        version = FunctionVersion(name="ahead", app="", version=0, config=config, code=code, region=region)
        keys = self._functions.keys_of(version)
        environment = native_environment(version, region, "", keys) | {"AWS_EXECUTION_ENV": f"AWS_Lambda_{runtime}"}
        python = RUNTIMES[runtime].version
        init = {"mode": "learn", "imports": imports, "environment": environment, "response_bytes": 1_048_576}
        told = {"handler": "", "function_name": "", "function_version": "", "memory_mb": 0, "log_group": "", "log_stream": ""}
        try:
            answer, _ = await self._run(version, init | told)
            found = msgspec.json.decode(answer, type=_Learned)
        except (TimeoutError, DeployFailed, msgspec.DecodeError):
            return Ahead(python, layer, ())
        if found.is_bound or PER_INSTANCE.intersection(found.looked_at):
            return Ahead(python, layer, ())
        kept = {name: value for name, value in environment.items() if name not in PER_INSTANCE}
        return Ahead(python, layer, tuple(found.modules), tuple(found.looked_at), kept)

    async def _run(self, version: FunctionVersion, init: dict[str, Any]) -> tuple[bytes, dict[str, bytes]]:
        folder = self._data / "code" / version.code
        pool = _BuildPool(version, self._functions, init, folder)
        if not pool._start():
            raise DeployFailed("no room for another sandbox on this host")
        instance = next(iter(pool.instances.values()))
        instance.ready = True  # the build has its own, longer limit below
        pool._starts.clear()
        try:
            return await asyncio.wait_for(pool.done, _SECONDS), pool.compiled
        finally:
            self._functions.kill_instance(instance)


def _found(answer: bytes) -> tuple[dict[str, Any], list[str]]:
    """The graph and the imports of a build's answer. It comes from a sandbox: its form is checked, its content is later."""
    try:
        found = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError):
        found = None
    graph = found.get("graph") if isinstance(found, dict) else None
    imports = found.get("imports") if isinstance(found, dict) else None
    if not isinstance(graph, dict) or not isinstance(imports, list):
        raise DeployFailed("the build answered something that is no resource graph")
    return {name: value for name, value in graph.items() if name != "app"}, [one for one in imports if isinstance(one, str)]


def _failure(payload: bytes, log: str) -> DeployFailed:
    """A build's error object as an error; whatever else a sandbox sends, too."""
    try:
        error = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        error = None
    if not isinstance(error, dict):
        return DeployFailed("the build failed with an error that is none", log=log[-4000:])
    frames_of = error.get("stackTrace")
    stack = "".join(line for line in frames_of if isinstance(line, str)) if isinstance(frames_of, list) else ""
    kind = str(error.get("errorType", ""))
    prefix = "" if kind in ("AppError", "Runtime.UserCodeSyntaxError") else f"{kind}: "
    message = f"{prefix}{error.get('errorMessage')}"
    remedy = _ADD_IT if "No module named" in message else ""
    return DeployFailed(message, remedy=remedy, error_type=kind, stack=stack, log=log[-4000:])


def _write_compiled(folder: Path, compiled: dict[str, bytes]) -> None:
    """Put compiled modules beside their sources. Names come from a sandbox: only `__pycache__` folders below are written."""
    root = folder.resolve()
    for name, content in compiled.items():
        path = Path(os.path.normpath(root / name))
        if root not in path.parents or path.parent.name != "__pycache__" or path.suffix != ".pyc":
            raise DeployFailed(f"the build named a file outside its folder: {name!r}")
        if path.exists() or not path.parent.parent.is_dir() or path.parent.parent.resolve() != path.parent.parent:
            continue
        path.parent.mkdir(exist_ok=True, mode=0o755)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(content)
        temporary.chmod(0o644)
        temporary.rename(path)
