"""Code and layer folders that nothing refers to any more are deleted, but not while an invocation may still read them."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from martlet.clock import Clock, token_hex
from martlet.limits import LIMITS

__all__ = ["Garbage"]

_ADDRESS = re.compile(r"[0-9a-f]{64}")


class Garbage:
    """Collects below `code` and `layers`. A folder goes once it has been unreferenced for as long as an invocation may
    last (function_timeout_seconds_max), since an instance of the old version may still import from it; at start, at once.
    """

    def __init__(self, code: Path, layers: Path, clock: Clock, forget_layer: Callable[[str], None]) -> None:
        self._code = code
        self._layers = layers
        self._clock = clock
        self._forget_layer = forget_layer
        self._released_ns: dict[Path, int] = {}

    async def collect(self, referenced: Callable[[], set[str]], *, at_once: bool = False) -> list[Path]:
        """Delete what is due; returns those folders. `referenced` is asked again at the moment of deletion."""
        folders = await asyncio.to_thread(self._folders)
        now = self._clock.monotonic_ns()
        grace_ns = 0 if at_once else LIMITS["function_timeout_seconds_max"].default * 1_000_000_000
        used = referenced()  # from here to the renames there is no await: no deployment can begin to use a folder between
        doomed: list[Path] = []
        gone: list[Path] = []
        for folder in folders:
            if folder.name in used:
                self._released_ns.pop(folder, None)
            elif now - self._released_ns.setdefault(folder, now) >= grace_ns:
                if folder.parent == self._layers:
                    self._forget_layer(folder.name)
                # renamed first: a crash must not leave half a folder under an address
                target = folder.with_name(f".tmp-{token_hex(8)}")
                folder.rename(target)
                self._released_ns.pop(folder, None)
                gone.append(folder)
                doomed.append(target)
        for target in doomed:
            await asyncio.to_thread(shutil.rmtree, target, True)
        return gone

    def _folders(self) -> list[Path]:
        return [
            entry
            for parent in (self._code, self._layers)
            if parent.is_dir()
            for entry in parent.iterdir()
            if _ADDRESS.fullmatch(entry.name)
        ]

    def clean_leftovers(self) -> None:
        """Delete what a killed process left half-built. Blocking; only at start, when nothing is being built."""
        for parent in (self._code, self._layers):
            if parent.is_dir():
                for entry in parent.glob(".tmp-*"):
                    shutil.rmtree(entry, ignore_errors=True)
