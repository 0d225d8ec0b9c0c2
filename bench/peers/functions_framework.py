"""Google's functions-framework for Python as it is deployed: its command line, its production server."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.peers.install import PYTHON
from bench.peers.server import Server, free_port

__all__ = ["start"]

_MAIN = """
import functions_framework
@functions_framework.http
def noop(request):
    return {"ok": True}
"""


def start() -> Server:
    folder, port = Path(tempfile.mkdtemp(prefix="bench-functions-framework-")), free_port()
    (folder / "main.py").write_text(_MAIN)
    program = PYTHON.parent / "functions-framework"
    command = [str(program), "--target", "noop", "--host", "127.0.0.1", "--port", str(port)]
    return Server("functions-framework", command, port, folder=folder)
