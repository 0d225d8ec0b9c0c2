"""uvicorn with uvloop and httptools, one process, a plain ASGI callable: Python's usual server without a platform."""

from __future__ import annotations

from bench.peers.install import PYTHON
from bench.peers.server import Server, free_port

__all__ = ["start"]

_APP = """
import json
import sys

import uvicorn

FIELDS = [(b"content-type", b"application/json"), (b"content-length", b"12")]


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
    await send({"type": "http.response.body", "body": json.dumps({"ok": True}).encode()})


options = {"loop": "uvloop", "http": "httptools", "lifespan": "off", "access_log": False, "log_level": "warning"}
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), **options)
"""


def start() -> Server:
    port = free_port()
    return Server("uvicorn", [str(PYTHON), "-c", _APP, str(port)], port)
