"""Two errands of a sandbox before there is anything to serve: a build, and a look at what can be imported ahead.

A build: compile the code, import the entry module once, and say what the app is and what it imports.

Runs in an instance like any handler, because it executes user code. Answers: one CHUNK a compiled module ("path\\n" and
the .pyc), then RESULT {"graph", "imports"} or ERROR with the error object.
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import sys
from typing import Any, ClassVar

from . import frames, runtime

_UNCHECKED_HASH = (0b01).to_bytes(4, "little") + bytes(8)  # PEP 552: hash-based, never checked: the folder never changes
_FILES_AT_MOST = 2_000


def run(channel: runtime.Channel, init: dict[str, Any], stream: runtime.LogStream) -> None:
    shared = runtime.Runtime(channel, init, stream)
    try:
        compiled = _compile(channel, init["module"])
        before = frozenset(runtime._baseline)
        module = runtime.import_user_module(init["module"])
        try:
            from martlet.sdk.graph import emit  # the user's face of the platform, mounted in every image

            graph = emit(module, init["app"])
        except Exception as error:
            raise runtime.failure_of(error) from error
        shared.answer(0, "", {"graph": graph, "imports": _imported(before), "compiled": compiled})
    except runtime.Failure as failure:
        shared.fail(0, "", failure)
    except SystemExit as stop:
        shared.fail(0, "", runtime.Failure("Runtime.ExitError", f"the module ended the process while imported: {stop.code!r}"))


class _Watched(os._Environ):  # type: ignore[type-arg]
    """os.environ that remembers the names it was asked for. A change of it is noted as well."""

    looked_at: ClassVar[set[str]] = set()
    changed = False

    def __getitem__(self, key: Any) -> Any:
        _Watched.looked_at.add(key if isinstance(key, str) else os.fsdecode(key))
        return super().__getitem__(key)

    def __iter__(self) -> Any:
        _Watched.looked_at.add("*")
        return super().__iter__()

    def __setitem__(self, key: Any, value: Any) -> None:
        _Watched.changed = True
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        _Watched.changed = True
        super().__delitem__(key)


def learn(channel: runtime.Channel, init: dict[str, Any], stream: runtime.LogStream) -> None:
    """Import the packages that `init["imports"]` names and say which modules came of it, which variables were read, and
    whether what they left in the process is bound to it: threads, children, a changed environment, open files."""
    shared = runtime.Runtime(channel, init, stream)
    before = _bonds()
    for environ in (os.environ, os.environb):
        environ.__class__ = _Watched
    names: dict[str, None] = {}
    for wanted in init["imports"]:
        name, _, attributes = wanted.partition(":")
        try:
            __import__(name, fromlist=[one for one in attributes.split(",") if one] or ["_"])
        except BaseException:
            failed = True  # then it is imported by the function itself, which is told why it cannot be
        else:
            failed = False
        if not failed:
            names[name] = None
            names.update((f"{name}.{one}", None) for one in attributes.split(",") if f"{name}.{one}" in sys.modules)
    is_bound = _Watched.changed or _bonds() != before
    shared.answer(0, "", {"modules": list(names), "looked_at": sorted(_Watched.looked_at), "is_bound": is_bound})


def _bonds() -> tuple[Any, ...]:
    children = f"/proc/self/task/{os.getpid()}/children"
    try:
        with open(children, encoding="ascii") as file:
            started = file.read()
    except OSError:
        started = ""
    return sorted(os.listdir("/proc/self/task")), started, len(os.listdir("/proc/self/fd")), os.getcwd()


def _compile(channel: runtime.Channel, entry: str) -> int:
    count = 0
    for folder, folders, files in os.walk(runtime.TASK):
        folders[:] = [name for name in folders if name not in ("__pycache__", "node_modules") and not name.startswith(".")]
        for name in files:
            if not name.endswith(".py") or count >= _FILES_AT_MOST:
                continue
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, runtime.TASK)
            try:
                with open(path, "rb") as file:
                    code = compile(file.read(), path, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                if relative == entry.replace(".", "/") + ".py":
                    line = getattr(error, "lineno", 0)
                    message = f"{relative}:{line}: {getattr(error, 'msg', error)}"
                    raise runtime.Failure(
                        "Runtime.UserCodeSyntaxError", message, [f'  File "{path}", line {line}\n']
                    ) from error
                continue  # it may never be imported; if it is, Python says so itself
            cached = importlib.util.cache_from_source(relative)
            channel.send(
                frames.CHUNK, 0, cached.encode() + b"\n" + importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + marshal.dumps(code)
            )
            count += 1
    return count


def _imported(before: frozenset[str]) -> list[str]:
    """Modules that user code brought in, its own and the platform's left out, in the order of their import."""
    found = []
    for name, module in list(sys.modules.items()):
        if name in before or name.startswith(("martlet", "__main__", "__mp_main__")):
            continue
        spec = getattr(module, "__spec__", None)
        if spec is None or spec.name != name:
            continue
        origin = spec.origin or ""
        if origin.startswith(runtime.TASK + "/") or (origin in ("", None) and spec.submodule_search_locations):
            continue
        found.append(name)
    text = json.dumps(found)
    return found if len(text) < 100_000 else [name for name in found if "." not in name]
