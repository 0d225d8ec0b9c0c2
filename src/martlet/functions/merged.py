"""Lambda layers merged: one folder for each combination, mounted at /opt. Later layers win, as they are unzipped in order.

Files are hard links to the layers' own (which nothing ever writes to), so that a combination costs no disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from martlet.clock import token_hex

__all__ = ["merge", "merged_name"]


def merged_name(layers: tuple[str, ...]) -> str:
    """The folder's name below `<data>/opt`: depends on the layers' content addresses and their order."""
    return hashlib.sha256("\0".join(layers).encode()).hexdigest()


def merge(data: Path, layers: tuple[str, ...]) -> Path:
    """Make `<data>/opt/<name>` hold the layers at `<data>/layers-lambda/<address>`. Blocking; whole or not at all."""
    final = data / "opt" / merged_name(layers)
    if final.is_dir():
        return final
    final.parent.mkdir(exist_ok=True)
    final.parent.chmod(0o755)
    building = final.with_name(f".tmp-{token_hex(8)}")
    building.mkdir()
    try:
        for address in layers:
            _lay(data / "layers-lambda" / address, building)
        building.chmod(0o755)
        try:
            building.rename(final)
        except OSError:
            if not final.is_dir():  # another function has made the same one meanwhile
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return final


def _lay(layer: Path, target: Path) -> None:
    """Put one layer over what is there. Links are copied, never followed."""
    for current, folders, files in os.walk(layer):
        here = target / os.path.relpath(current, layer)
        if here.is_symlink() or not here.is_dir():
            here.unlink(missing_ok=True)
            here.mkdir(mode=0o755)
        for name in [*files, *(one for one in folders if os.path.islink(os.path.join(current, one)))]:
            path = here / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            os.link(os.path.join(current, name), path, follow_symlinks=False)
