"""The sandbox's side of a debugger: a relay that leads debuggers in, and for Python the debugger itself.

Nothing can connect into the instance's network, so the relay connects out to the egress port, says that it is there and
waits for a byte; then it connects to where the debugger listens in here, and passes on what comes from either side.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
import time
from typing import Any

from . import runtime

_EGRESS_PORT = 9002
_HELLO = b"DEBUG\n"
_PATIENCE_SECONDS = 60.0


def begin(order: dict[str, Any]) -> None:
    """Start the relay, if one is needed. `order`: "port", "relay", "kind", "path"."""
    if order["relay"] and os.fork() == 0:
        try:
            os.closerange(3, 1024)  # the pipes must end with the instance
            _relay(order["port"])
        finally:
            os._exit(0)


def wait(order: dict[str, Any]) -> None:
    """Wait until a debugger has attached and set its breakpoints. Raises `Failure`."""
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # what it says about frozen modules is not about user code
    try:
        try:
            debugpy: Any = importlib.import_module("debugpy")  # the app's own, from its layer
        except ImportError:
            sys.path.append(order["path"])
            debugpy = importlib.import_module("debugpy")
        debugpy.configure(subProcess=False, python=sys.executable)
        debugpy.listen(("127.0.0.1", order["port"]))
        debugpy.wait_for_client()
    except Exception as error:
        message = f"the debugger could not be started: {type(error).__name__}: {error}"
        raise runtime.Failure("Martlet.DebuggerFailed", message) from error
    finally:
        if order["path"] in sys.path:
            sys.path.remove(order["path"])


def _relay(port: int) -> None:
    while True:
        with socket.create_connection(("127.0.0.1", _EGRESS_PORT)) as out:
            out.sendall(_HELLO)
            if not out.recv(1):
                return
            threading.Thread(target=_lead, args=(out.dup(), port), daemon=True).start()


def _lead(out: socket.socket, port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            inner = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:  # it is about to listen
            if time.monotonic() > deadline:
                out.close()
                return
            time.sleep(0.05)
    threading.Thread(target=_pump, args=(inner, out), daemon=True).start()
    _pump(out, inner)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
    except OSError:
        pass  # the other side is gone, and is told below
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed already
