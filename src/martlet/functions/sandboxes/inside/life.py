"""An instance's life once it is isolated: told what to be (frame INIT), it builds an app or serves a handler, and ends."""

from __future__ import annotations

import gc
import json
import logging
import marshal
import os
import sys
import time
import traceback
from typing import Any, NoReturn

from . import blank, execute, frames, runtime


def main(
    events: int, results: int, overrides: dict[str, str] | None = None, blank_child: blank.Blank | None = None
) -> NoReturn:
    """Serve on these two pipes. `overrides` are environment variables that the host knows better than INIT."""
    channel = runtime.Channel(events, results)
    if blank_child is not None:
        blank.hand_over(blank_child, json.loads(channel.receive()[2]))
    init = _told(channel, overrides or {})
    if init is None:
        os._exit(70)
    stream = runtime.LogStream(1)
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = stream  # type: ignore[assignment,misc]
    if "debug" in init:
        from . import debug

        debug.begin(init["debug"])
    if init["mode"] == "exec":
        execute.run(channel, init)
    if init["environment"].get("TZ") != ":UTC":
        time.tzset()
    if init.get("layers"):
        sys.path[1:1] = [f"/opt/python/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages", "/opt/python"]
    gc.enable()
    if init["mode"] in ("build", "learn"):
        from . import build

        (build.run if init["mode"] == "build" else build.learn)(channel, init, stream)
        os._exit(0)
    shared = runtime.Runtime(channel, init, stream)
    try:
        _load(shared, init)
    except runtime.Failure as failure:
        shared.fail(0, "", failure, frames.INIT_ERROR)
        os._exit(1)
    channel.send(frames.READY, 0, b'{"at":%d}' % time.monotonic_ns())
    try:
        if init["concurrency"] > 1:
            from . import concurrent  # asyncio costs 30 ms: only for those who ask for it

            concurrent.serve(shared)
        shared.serve()
    except SystemExit as stop:
        stream.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1)
    except BaseException as error:  # KeyboardInterrupt and the like end the process, as they do in Lambda
        stream.record("".join(traceback.format_exception(error)))
        os._exit(1)


def _load(shared: runtime.Runtime, init: dict[str, Any]) -> None:
    """Everything before the first event. Raises `Failure`."""
    if "debug" in init:
        from . import debug

        debug.wait(init["debug"])
    shared.load()
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        runtime.run_snapshot_hooks()


def _told(channel: runtime.Channel, overrides: dict[str, str]) -> dict[str, Any] | None:
    """Take INIT, and with it the environment. None: something else came first."""
    kind, _, payload = channel.receive()
    init: dict[str, Any] = json.loads(payload)
    if kind != frames.INIT:
        return None
    wanted = {**init["environment"], **overrides}
    if "AWS_LAMBDA_RUNTIME_API" not in init["environment"]:
        wanted.pop("AWS_LAMBDA_RUNTIME_API", None)  # the native runtime has none
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    return init


_REHEARSED = """
import time
from martlet import App
app = App("rehearsal")
@app.get("/{id}")
def handler(id: str) -> dict:
    return {"id": id, "age": time.monotonic()}
"""
_REHEARSED_EVENT = {
    "version": "2.0",
    "routeKey": "GET /{id}",
    "rawPath": "/a",
    "rawQueryString": "",
    "headers": {"host": "127.0.0.1", "user-agent": "rehearsal", "accept": "*/*"},
    "requestContext": {"http": {"method": "GET", "path": "/a"}, "routeKey": "GET /{id}"},
    "pathParameters": {"id": "a"},
    "isBase64Encoded": False,
}


def rehearse() -> None:
    """One start and one event of a function of our own, before anybody waits for them.

    A fork shares its memory with the zygote until it writes to it, and each first write, like each first use of a page of
    a library, is a fault (2 µs and more; a start has hundreds). A stem cell that has gone through the motions has had them.
    Everything that it changed on the way is put back. Measured: bench/cold_start.
    """
    events, give = os.pipe2(os.O_CLOEXEC)
    take, results = os.pipe2(os.O_CLOEXEC)
    environment, handlers = dict(os.environ), logging.getLogger().handlers
    known = {f"REHEARSAL_{number}": "x" * 24 for number in range(12)}
    init = {"environment": {**environment, **known}, "function_name": "", "function_version": "", "memory_mb": 0}
    init.update(log_group="", log_stream="", response_bytes=1 << 20, handler="", mode="serve", concurrency=1)
    line = b"\x1f".join((b"0" * 36, b"0", b"arn", b"", b""))
    event = line + b"\n" + json.dumps(_REHEARSED_EVENT).encode()
    os.write(give, frames.pack(frames.INIT, 0, json.dumps(init).encode()))
    channel = runtime.Channel(events, results)
    try:
        _told(channel, {})
        sys.meta_path.insert(2, runtime.CompiledModules(os.path.dirname(os.path.abspath(__file__))))
        try:
            __import__("frames")  # a module of this folder stands for one of an app
        except ImportError:
            pass  # nobody has compiled it yet
        shared = runtime.Runtime(channel, init, runtime.LogStream(results))
        code = compile(_REHEARSED, "rehearsal", "exec") if "martlet" in sys.modules else None
        if code is not None:
            names: dict[str, Any] = {"__name__": "rehearsal"}
            exec(marshal.loads(marshal.dumps(code)), names)
            shared.entry = names["handler"].__martlet_entry__()
            os.write(give, frames.pack(frames.INVOKE, 1, event))
            shared.serve_one()
    finally:
        sys.meta_path[2:] = [one for one in sys.meta_path[2:] if not isinstance(one, runtime.CompiledModules)]
        sys.modules.pop("frames", None)
        logging.getLogger().handlers = handlers
        for name in known:
            os.environ.pop(name, None)
        runtime.LogStream.wrote = 0
        for fd in (events, give, take, results):
            os.close(fd)
