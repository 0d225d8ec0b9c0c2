"""moto in server mode: DynamoDB in memory, in Python."""

from __future__ import annotations

from bench.peers.install import PYTHON
from bench.peers.server import Server, free_port

__all__ = ["start"]


def start() -> Server:
    port = free_port()
    program = PYTHON.parent / "moto_server"
    return Server("moto", [str(program), "--host", "127.0.0.1", "--port", str(port)], port, "/moto-api/data.json")
