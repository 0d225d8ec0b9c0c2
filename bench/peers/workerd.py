"""workerd, Cloudflare's runtime: one warm isolate at /, and at every other path a new isolate made by its worker loader."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.peers.install import NODE
from bench.peers.server import Server, free_port

__all__ = ["start"]

_CONFIG = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .main)],
  sockets = [(name = "http", address = "127.0.0.1:{port}", http = (), service = "main")],
);
const main :Workerd.Worker = (
  modules = [(name = "main.js", esModule = embed "main.js")],
  compatibilityDate = "2026-01-01",
  bindings = [(name = "loader", workerLoader = (id = "bench"))],
);
"""
_MAIN = """
const inner = "export default { async fetch() { return Response.json({ ok: true }); } };";
export default {
  async fetch(request, env) {
    const path = new URL(request.url).pathname;
    if (path === "/") return Response.json({ ok: true });
    const code = async () => ({ compatibilityDate: "2026-01-01", mainModule: "inner.js", modules: { "inner.js": inner } });
    return env.loader.get(path, code).getEntrypoint().fetch("http://inner/");  // each name is an isolate of its own
  },
};
"""


def start() -> Server:
    folder, port = Path(tempfile.mkdtemp(prefix="bench-workerd-")), free_port()
    (folder / "config.capnp").write_text(_CONFIG.format(port=port))
    (folder / "main.js").write_text(_MAIN)
    program = next(NODE.glob("@cloudflare/workerd-*/bin/workerd"))
    return Server("workerd", [str(program), "serve", "--experimental", "config.capnp"], port, folder=folder)
