"""AWS emulators that need no container: moto's server and ministack. Both keep everything in memory."""

from __future__ import annotations

from bench.peers.install import PYTHON
from bench.peers.server import Server, free_port

__all__ = ["ministack", "moto"]


def moto() -> Server:
    port = free_port()
    return Server("moto", [str(PYTHON.parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], port, "/moto-api/")


def ministack() -> Server:
    port = free_port()
    return Server(
        "ministack", [str(PYTHON.parent / "ministack")], port, "/_ministack/health", environ={"GATEWAY_PORT": str(port)}
    )
