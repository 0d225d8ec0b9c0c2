"""Runtimes that are programs: this process, isolated by now, becomes the function's `bootstrap`."""

from __future__ import annotations

import json
import os
import signal
from typing import Any, NoReturn

from . import frames, runtime


def run(channel: runtime.Channel, init: dict[str, Any]) -> NoReturn:
    """Execute the first of `init["programs"]` that is there. The environment is set already."""
    programs = [_placed(path) for path in init["programs"]]
    found = next((path for path in programs if os.path.isfile(path)), None)
    if found is None:
        fail(channel, f"Couldn't find valid bootstrap(s): [{' '.join(init['programs'])}]")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and an ignored signal stays so
    extensions = _extensions()
    if extensions:
        from . import launcher

        launcher.run(channel, found, init["arguments"], extensions)
    try:
        os.execve(found, [found, *init["arguments"]], dict(os.environ))
    except OSError as error:
        fail(channel, f"fork/exec {found}: {(error.strerror or 'cannot be executed').lower()}")


def _extensions() -> list[str]:
    """Programs of /opt/extensions, in the order of their names."""
    try:
        names = sorted(os.listdir("/opt/extensions"))
    except OSError:
        return []
    paths = [f"/opt/extensions/{name}" for name in names]
    return [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)][:10]


def fail(channel: runtime.Channel, message: str) -> NoReturn:
    payload = {"errorType": "Runtime.InvalidEntrypoint", "errorMessage": f"Error: {message}"}
    channel.send(frames.INIT_ERROR, 0, json.dumps(payload).encode())
    os._exit(1)


def _placed(path: str) -> str:
    """Where a path of the sandbox's image is: elsewhere only without isolation."""
    return runtime.TASK + path[len("/var/task") :] if path.startswith("/var/task/") else path
