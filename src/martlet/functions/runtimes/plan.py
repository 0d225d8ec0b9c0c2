"""What a function version needs to run: its zygote, its kind of instance, its environment, its `/opt`."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from martlet.clock import token_hex
from martlet.errors import DeployFailed, Unsupported
from martlet.functions.instance import Instance
from martlet.functions.runtimes.ahead import Known, digest
from martlet.functions.runtimes.catalogue import PLATFORM_PYTHON, RUNTIMES, Programs, Runtime
from martlet.functions.runtimes.channel import ApiInstance
from martlet.functions.sandbox import ZygoteSpec
from martlet.types import FunctionConfig, FunctionVersion

__all__ = ["Plan", "Runtimes", "native_environment"]

RUNTIME_API = "127.0.0.1:9001"
BOOTSTRAPS = ("/var/task/bootstrap", "/opt/bootstrap")
_NODE = "/var/lang/bin/node"
_SESSION = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_NO_SESSION = ("MARTLETSANDBOX000000", "the-socket-says-who-calls", "the-socket-says-who-calls")
_DEBUG_FOLDER = "/var/martlet/debug"
_BOOTSTRAP_JS = "/var/martlet/inside/node/bootstrap.js"
# Variables that Node.js reads once, when it starts: a process that was started ahead cannot take them any more.
_EARLY = frozenset(
    {
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "NODE_DEBUG",
        "NODE_EXTRA_CA_CERTS",
        "NODE_ICU_DATA",
        "NODE_OPTIONS",
        "NODE_V",
        "_COVERAGE",
        "NODE_COMPILE_CACHE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "UV_THREADPOOL_SIZE",
    }
)


class Plan(msgspec.Struct, frozen=True):
    """How one version runs. `api`: its runtime polls the Runtime API; else it is the native one, with frames on pipes."""

    runtime: Runtime
    zygote: ZygoteSpec
    api: bool
    opt: str  # folder on the host that is seen at /opt, or ""

    @property
    def instance(self) -> type[Instance]:
        return ApiInstance if self.api else Instance


class Runtimes:
    """`data` is the platform's folder; `node` the setting of that name."""

    def __init__(self, data: Path, *, region: str, node: str = "", home: Path | None = None) -> None:
        self._data = data
        self._region = region
        self.programs = Programs((data / "runtimes", (home or Path.home()) / ".martlet" / "runtimes"), node, home)
        self.ahead = Known(data)

    def check(self, config: FunctionConfig) -> None:
        """Raises DeployFailed for a runtime that is unknown, not installed, or cannot do what the configuration asks."""
        runtime = self._runtime(config)
        self.programs.program(runtime)
        if config.concurrency > 1 and runtime.kind != "python":
            raise DeployFailed(
                f"function {config.name}: runtime {runtime.identifier} takes one event at a time in one instance",
                remedy="remove `concurrency`: another event gets another instance",
            )

    def prepare(self, version: FunctionVersion) -> None:
        """What a version needs on disk: its layers as one folder. May take a while: call it from a thread."""
        if version.config.layers:
            self._merge(version)

    def bare(self) -> ZygoteSpec:
        """The zygote with nothing but the platform's own Python: what every start can use."""
        return ZygoteSpec(_key("", "", ""))

    def plan(self, version: FunctionVersion) -> Plan:
        """Raises RuntimeUnavailable when a program is gone since the version was published."""
        config = version.config
        runtime = self._runtime(config)
        program = self.programs.program(runtime)
        layer = str(self._data / "layers" / version.layer) if version.layer else ""
        opt = str(self._opt(version)) if config.layers else ""
        extensions = bool(opt) and any((Path(opt) / "extensions").glob("*"))
        if runtime.kind == "python" and extensions:
            remedy = "package the function with awslambdaric and a `bootstrap`, as provided.al2023, or leave the layer out"
            raise DeployFailed(
                f"function {config.name}: external extensions do not run beside {runtime.identifier}", remedy=remedy
            )
        if runtime.kind == "python":
            key = _key(
                runtime.version if program else "", version.app if version.layer else "", version.layer, *version.imports
            )
            spec = self._with_imports(version, runtime, program) or ZygoteSpec(key, layer, version.imports, python=program)
            return Plan(runtime, spec, False, opt)
        if runtime.kind == "provided":
            return Plan(runtime, self.bare(), True, opt)
        binds = ((program, _NODE),)
        if extensions or _EARLY.intersection(config.environment):
            return Plan(runtime, ZygoteSpec(_key(runtime.identifier, program), binds=binds), True, opt)
        argv = (_NODE, *_node_flags(config.memory_mb), _BOOTSTRAP_JS, "blank")
        key = _key(runtime.identifier, program, str(config.memory_mb))
        defaults, platform = self._unassigned(runtime, config.memory_mb)
        environment = tuple({**defaults, **platform}.items())
        return Plan(runtime, ZygoteSpec(key, binds=binds, blank=argv, environment=environment), True, opt)

    def _with_imports(self, version: FunctionVersion, runtime: Runtime, program: str) -> ZygoteSpec | None:
        """The zygote that has imported the packages of a template's function; None for one that is like all others.

        Lambda layers may hold what a package looks for while it is imported, so with them there is none.
        """
        ahead = self.ahead.get(version.code) if runtime.identifier and not version.config.layers else None
        if ahead is None or ahead.python != runtime.version or not ahead.modules:
            return None
        folder = str(self._data / "layers" / ahead.layer) if ahead.layer else ""
        if folder and not os.path.isdir(folder):
            return None
        native = native_environment(version, self._region, "")
        environment = ahead.environment_for({**native, "AWS_EXECUTION_ENV": f"AWS_Lambda_python{runtime.version}"})
        key = digest(runtime.version, program, version.app if ahead.layer else "", ahead.layer, ahead.modules, environment)
        return ZygoteSpec(
            f"ahead-{key}", imports=ahead.modules, python=program, task=folder, environment=tuple(sorted(environment.items()))
        )

    def _runtime(self, config: FunctionConfig) -> Runtime:
        runtime = RUNTIMES.get(config.runtime)
        if runtime is None:
            known = ", ".join(sorted(name for name, one in RUNTIMES.items() if name and one.kind != "absent"))
            raise DeployFailed(
                f"function {config.name}: there is no runtime {config.runtime!r}", remedy=f"choose one of: {known}"
            )
        return runtime

    # --- INIT -----------------------------------------------------------------------------------------------------------

    def init(self, version: FunctionVersion, plan: Plan, native: dict[str, Any], now_ms: int) -> dict[str, Any]:
        """The INIT frame's content: `native`, which is that of the platform's own Python, for this runtime."""
        runtime = plan.runtime
        if plan.opt:
            native = {**native, "layers": True}
        if not plan.api:
            if runtime.version != PLATFORM_PYTHON or runtime.identifier:
                environment = {**native["environment"], "AWS_EXECUTION_ENV": f"AWS_Lambda_python{runtime.version}"}
                return {**native, "environment": environment}
            return native
        environment = self._environment(version, runtime, native["environment"], now_ms)
        if runtime.kind == "provided":
            return {**native, "mode": "exec", "programs": list(BOOTSTRAPS), "arguments": [], "environment": environment}
        arguments = [*_node_flags(version.config.memory_mb), _BOOTSTRAP_JS]
        return {**native, "mode": "exec", "programs": [_NODE], "arguments": arguments, "environment": environment}

    def debugged(
        self, version: FunctionVersion, native: dict[str, Any], now_ms: int, where: dict[str, Any]
    ) -> tuple[Plan, dict[str, Any]]:
        """`plan` and `init` for an instance that waits for a debugger, which listens in there at `where["port"]`.

        Raises Unsupported for a runtime that is the function's own, DeployFailed when there is no debugger."""
        plan = self.plan(version)
        kind, key = plan.runtime.kind, _key("debug", token_hex(16))
        if kind == "node":
            binds = ((self.programs.program(plan.runtime), _NODE),)
            plan = msgspec.structs.replace(plan, zygote=ZygoteSpec(key, binds=binds))
            init = self.init(version, plan, native, now_ms)
            arguments = [f"--inspect-brk=127.0.0.1:{where['port']}", *init["arguments"]]
            return plan, {**init, "arguments": arguments, "debug": {**where, "kind": kind, "path": ""}}
        if kind != "python":
            raise Unsupported(
                f"function {version.name}: Martlet has no debugger for {plan.runtime.identifier}",
                remedy="start one in `bootstrap`; `martlet invoke --debug` is for Python and Node.js",
            )
        bundled = "" if (Path(plan.zygote.layer or "/nowhere") / "debugpy").is_dir() else _debugpy(version)
        more = ((bundled, f"{_DEBUG_FOLDER}/debugpy"),) if bundled else ()
        plan = msgspec.structs.replace(plan, zygote=msgspec.structs.replace(plan.zygote, key=key, binds=more))
        path = _DEBUG_FOLDER if where["relay"] else os.path.dirname(bundled)
        return plan, {**self.init(version, plan, native, now_ms), "debug": {**where, "kind": kind, "path": path}}

    def _environment(self, version: FunctionVersion, runtime: Runtime, native: dict[str, str], now_ms: int) -> dict[str, str]:
        """Lambda's, variable for variable (recorded from the real service), and the address of the platform's own API."""
        config = version.config
        qualifier = str(getattr(version, "qualifier", "$LATEST"))
        day = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y/%m/%d")
        defaults, platform = self._unassigned(runtime, config.memory_mb)
        own = {
            **{name: native[name] for name in _SESSION},
            "AWS_LAMBDA_FUNCTION_NAME": version.name,
            "AWS_LAMBDA_FUNCTION_VERSION": qualifier,
            "AWS_LAMBDA_INITIALIZATION_TYPE": native["AWS_LAMBDA_INITIALIZATION_TYPE"],
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{version.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{day}/[{qualifier}]{token_hex(16)}",
            "_HANDLER": config.handler,
        }
        proxy = {name: value for name, value in native.items() if name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")}
        customer = {name: value for name, value in config.environment.items() if not name.startswith("_")}
        return {**defaults, **proxy, **customer, **platform, **own}

    def _unassigned(self, runtime: Runtime, memory_mb: int) -> tuple[dict[str, str], dict[str, str]]:
        """What every function of a runtime has: what it may override, and what it may not. A blank process starts with both."""
        defaults = {
            "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
            "LANG": "en_US.UTF-8",
            "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
            "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
            "TZ": ":UTC",
        }
        platform = {
            "AWS_DEFAULT_REGION": self._region,
            "AWS_ENDPOINT_URL": f"http://{RUNTIME_API}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
            "AWS_LAMBDA_RUNTIME_API": RUNTIME_API,
            "AWS_REGION": self._region,
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "LAMBDA_TASK_ROOT": "/var/task",
            "PWD": "/var/task",
            "SHLVL": "0",
        }
        if runtime.kind == "node":
            platform["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{runtime.identifier}"
            modules = (
                f"/opt/nodejs/node{runtime.version}/node_modules",
                "/opt/nodejs/node_modules",
                "/var/runtime/node_modules",
            )
            defaults["NODE_PATH"] = ":".join(modules)
        return defaults, platform

    # --- layers -----------------------------------------------------------------------------------------------------------

    def _opt(self, version: FunctionVersion) -> Path:
        layers = version.config.layers
        if len(layers) == 1 and not version.layer:
            return self._data / "layers-lambda" / layers[0]
        merged = self._data / "layers-lambda" / ("merged-" + _key(version.layer, *layers))
        if not merged.is_dir():
            self._merge(version)
        return merged

    def _merge(self, version: FunctionVersion) -> None:
        """All layers as one folder of hard links, later ones over earlier ones, as Lambda unpacks them into /opt."""
        parts = [(self._data / "layers-lambda" / layer, "") for layer in version.config.layers]
        for folder, _ in parts:
            if not folder.is_dir():
                raise DeployFailed(f"function {version.config.name}: layer {folder.name} is not stored here")
        if version.layer:
            parts.append((self._data / "layers" / version.layer, "python"))
        if len(parts) == 1:
            return
        target = self._data / "layers-lambda" / ("merged-" + _key(version.layer, *version.config.layers))
        if target.is_dir():
            return
        building = Path(tempfile.mkdtemp(prefix="merging-", dir=target.parent))
        try:
            building.chmod(0o755)
            for folder, below in parts:
                _lay_over(folder, building / below)
            building.rename(target)
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            if not target.is_dir():  # else another one was quicker
                raise DeployFailed(f"function {version.config.name}: its layers cannot be merged: {error}") from error


def native_environment(
    version: FunctionVersion, region: str, stream: str, session: tuple[str, str, str] = _NO_SESSION
) -> dict[str, str]:
    """Lambda's environment for the platform's own Python. `stream` is the name of its log stream, `session` are its keys."""
    config = version.config
    own = {
        **dict(zip(_SESSION, session, strict=True)),
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9001",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": version.name,
        "AWS_LAMBDA_FUNCTION_VERSION": version.qualifier,
        "AWS_LAMBDA_INITIALIZATION_TYPE": _initialization(config),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{version.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "AWS_REGION": region,
        "HOME": "/tmp",
        "LAMBDA_TASK_ROOT": "/var/task",
        "MARTLET_API": "127.0.0.1:9001",
        "MARTLET_APP": version.app,
        "_HANDLER": config.handler,
    }
    defaults = {
        "LANG": "en_US.UTF-8",
        "LD_LIBRARY_PATH": "/var/lang/lib:/var/task/lib:/opt/lib",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "PYTHONPATH": "/var/task:/opt/python",
        "TZ": ":UTC",
    }
    if config.egress != "none":
        proxy = "http://127.0.0.1:9002"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        defaults.update(dict.fromkeys(names, proxy), NO_PROXY="127.0.0.1,localhost", no_proxy="127.0.0.1,localhost")
    customer = {name: value for name, value in config.environment.items() if not name.startswith("_")}
    return {**defaults, **customer, **own}


def _initialization(config: FunctionConfig) -> str:
    """AWS_LAMBDA_INITIALIZATION_TYPE."""
    return "snap-start" if config.snap_start else "provisioned-concurrency" if config.provisioned else "on-demand"


def _debugpy(version: FunctionVersion) -> str:
    """The folder of the debugger that is installed beside Martlet."""
    found = importlib.util.find_spec("debugpy")
    if found is None or found.origin is None:
        raise DeployFailed(
            f"function {version.name}: debugpy is not installed beside Martlet, nor is it among the app's dependencies",
            remedy="pip install debugpy where Martlet is installed, or add debugpy to the app's requirements",
        )
    return os.path.dirname(os.path.realpath(found.origin))


def _node_flags(memory_mb: int) -> tuple[str, ...]:
    """The heap's limits: 32 MB and a tenth of the memory are for what is not on it. They can be given at a start only."""
    return (f"--max-old-space-size={max(32, memory_mb * 9 // 10 - 32)}", f"--max-semi-space-size={max(1, memory_mb // 20)}")


def _lay_over(source: Path, target: Path) -> None:
    for folder, folders, files in os.walk(source):
        here = target / os.path.relpath(folder, source)
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            here.unlink()
        here.mkdir(parents=True, exist_ok=True, mode=0o755)
        for name in [*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            place = here / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
            os.link(os.path.join(folder, name), place, follow_symlinks=False)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
