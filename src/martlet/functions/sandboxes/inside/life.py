"""An instance's life once it is isolated: told what to be (frame INIT), it builds an app or serves a handler, and ends."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from typing import NoReturn

from . import blank, frames, runtime


def main(
    events: int, results: int, overrides: dict[str, str] | None = None, blank_child: blank.Blank | None = None
) -> NoReturn:
    """Serve on these two pipes. `overrides` are environment variables that the host knows better than INIT."""
    channel = runtime.Channel(events, results)
    kind, _, payload = channel.receive()
    init = json.loads(payload)
    if kind != frames.INIT:
        os._exit(70)
    if blank_child is not None:
        blank.hand_over(blank_child, init)
    stream = runtime.LogStream(1)
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = stream  # type: ignore[assignment,misc]
    _set_environment(init["environment"], overrides or {})
    if init["mode"] == "exec":
        from . import execute

        execute.run(channel, init)
    gc.enable()
    if init["mode"] == "build":
        from . import build

        build.run(channel, init, stream)
        os._exit(0)
    shared = runtime.Runtime(channel, init, stream)
    try:
        shared.load()
    except runtime.Failure as failure:
        shared.fail(0, "", failure, frames.INIT_ERROR)
        os._exit(1)
    channel.send(frames.READY, 0, b"{}")
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


def _set_environment(given: dict[str, str], overrides: dict[str, str]) -> None:
    wanted = {**given, **overrides}
    if "AWS_LAMBDA_RUNTIME_API" not in given:
        wanted.pop("AWS_LAMBDA_RUNTIME_API", None)  # the native runtime has none
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if given.get("TZ") != ":UTC":
        time.tzset()
