"""uvicorn with uvloop and httptools, one process, a plain ASGI callable: what Python's usual server reaches without a platform."""

from __future__ import annotations

from bench.peers.install import PYTHON
from bench.peers.server import Server, free_port

__all__ = ["start"]

_APP = """
import json
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), (b"content-length", b"12")]}
async def app(scope, receive, send):
    await send(HEAD)
    await send({"type": "http.response.body", "body": json.dumps({"ok": True}).encode()})
"""
_SERVE = "import sys, types, uvicorn; m = types.ModuleType('noop'); exec(sys.argv[1], m.__dict__); uvicorn.run(m.app, host='127.0.0.1', port=int(sys.argv[2]), loop='uvloop', http='httptools', access_log=False, log_level='warning', lifespan='off')"


def start() -> Server:
    port = free_port()
    return Server("uvicorn", [str(PYTHON), "-c", _SERVE, _APP, str(port)], port)
