"""serverless-offline on osls, with the same handler in Python."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.peers.install import NODE, PYTHON
from bench.peers.server import Server, free_port

__all__ = ["start"]

_SERVICE = """
service: noop
frameworkVersion: "*"
provider: {{name: aws, runtime: python3.11}}
plugins: [serverless-offline]
custom:
  serverless-offline: {{host: 127.0.0.1, httpPort: {http}, lambdaPort: {lambda_}, noPrependStageInUrl: true}}
functions:
  noop: {{handler: handler.noop, events: [{{httpApi: "GET /noop"}}]}}
"""
_HANDLER = """
import json
def noop(event, context):
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps({"ok": True})}
"""


def start() -> Server:
    folder, port = Path(tempfile.mkdtemp(prefix="bench-serverless-offline-")), free_port()
    (folder / "handler.py").write_text(_HANDLER)
    (folder / "serverless.yml").write_text(_SERVICE.format(http=port, lambda_=free_port()))
    (folder / "node_modules").symlink_to(NODE)  # plugins are looked for beside the service
    environ = {
        "PATH": f"{PYTHON.parent}:/usr/local/bin:/usr/bin:/bin",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "SLS_TELEMETRY_DISABLED": "1",
    }
    command = ["node", str(NODE / "osls/bin/serverless.js"), "offline", "start"]
    return Server("serverless-offline", command, port, "/noop", folder=folder, environ=environ, ready_seconds=90)
