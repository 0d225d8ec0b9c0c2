"""Installs the peers into bench/.peers, once; again when the versions asked for here change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["NODE", "PEERS", "PYTHON", "install"]

PEERS = Path(__file__).resolve().parent.parent / ".peers"
PYTHON = PEERS / "python" / "bin" / "python"
NODE = PEERS / "node" / "node_modules"

_PYTHON_PACKAGES = (
    *("uvicorn>=0.54,<0.55", "uvloop", "httptools", "functions-framework>=3.10,<4", "pandas", "boto3"),
    *("moto[server,dynamodb]>=5.2,<6", "ministack>=1.4,<2"),
)
# osls is the maintained open-source line of the Serverless Framework (version 4 of the original is not free to run).
_NODE_PACKAGES = ("workerd@1.20261117.1", "osls@4.3.1", "serverless-offline@14.8.2", "dynalite@4.0.0")


def install() -> None:
    """Raises `RuntimeError` with the installer's own words when a package cannot be had."""
    stamp, wanted = PEERS / "installed", "\n".join((sys.version, *_PYTHON_PACKAGES, *_NODE_PACKAGES))
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("installing the peers into bench/.peers …", flush=True)
    (PEERS / "node").mkdir(parents=True, exist_ok=True)
    (PEERS / "node" / "package.json").write_text('{"private": true}\n')
    uv = [sys.executable, "-m", "uv"]
    _run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(PEERS / "python")])
    _run([*uv, "pip", "install", "--quiet", "--python", str(PYTHON), *_PYTHON_PACKAGES])
    npm = [
        "npm",
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--legacy-peer-deps",
    ]  # plugin asks for "serverless"
    _run([*npm, "--prefix", str(PEERS / "node"), *_NODE_PACKAGES])
    stamp.write_text(wanted)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
