"""ministack: AWS services in memory, in Python, on its own ASGI server."""

from __future__ import annotations

from bench.peers.install import PYTHON
from bench.peers.server import Server, free_port

__all__ = ["start"]


def start() -> Server:
    port = free_port()
    environ = {"GATEWAY_PORT": str(port), "SERVICES": "dynamodb", "LOG_LEVEL": "ERROR"}
    return Server("ministack", [str(PYTHON.parent / "ministack")], port, "/_ministack/health", environ=environ)
