"""dynalite on LevelDB: DynamoDB's protocol in Node.js, on disk, without syncing what it acknowledges."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.peers.install import NODE
from bench.peers.server import Server, free_port

__all__ = ["start"]


def start() -> Server:
    folder, port = Path(tempfile.mkdtemp(prefix="bench-dynalite-")), free_port()
    program = ["node", str(NODE / "dynalite/cli.js"), "--host", "127.0.0.1", "--createTableMs", "0"]
    return Server("dynalite", [*program, "--port", str(port), "--path", str(folder / "level")], port)
