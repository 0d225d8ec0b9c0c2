"""What the zygote of a template's Python function imports ahead, so that a cold start does not wait for its packages.

Known by the content address of the code, which holds everything as Lambda has it, packages included: that folder is what is
seen at /var/task. A zygote imports from the packages' own folder at the same place, so that paths and tracebacks are Lambda's.
A package may look at the environment while it is imported. So the names that were looked at are known too, and a function
that sets one of them has a zygote with its own environment.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from martlet.clock import token_hex

__all__ = ["PER_INSTANCE", "Ahead", "Known"]

PER_INSTANCE: Final = frozenset(
    {"AWS_ACCESS_KEY_ID", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "_X_AMZN_TRACE_ID"}
)
# Read by libraries in C, where nobody sees it.
_UNSEEN: Final = ("GRPC_", "LC_", "LD_", "MALLOC_", "MKL_", "OMP_", "OPENBLAS_", "OPENSSL_", "PYTHON", "SSL_")
_encode = msgspec.json.Encoder(order="sorted").encode


class Ahead(msgspec.Struct, frozen=True):
    """`python` is "3.12" or the like; `layer` the content address of the packages, "" if they are the platform's own;
    `looked_at` names variables that the imports read, "*" for all of them; `environment` is what they found."""

    python: str
    layer: str
    modules: tuple[str, ...]
    looked_at: tuple[str, ...] = ()
    environment: dict[str, str] = {}

    def environment_for(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """What a zygote's imports must find so that a function with the environment `wanted` has them as it would itself."""
        shared = {name: value for name, value in wanted.items() if name not in PER_INSTANCE}
        changed = {name for name in {*shared, *self.environment} if shared.get(name) != self.environment.get(name)}
        matters = changed if "*" in self.looked_at else changed.intersection(self.looked_at)
        if matters or any(name.startswith(_UNSEEN) for name in changed):
            return shared
        return self.environment


class Known:
    """What is known of code folders, below `<data>/ahead`."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "ahead"
        self._read: dict[str, Ahead | None] = {}

    def get(self, code: str) -> Ahead | None:
        if code not in self._read:
            try:
                found = msgspec.json.decode((self._folder / f"{code}.json").read_bytes(), type=Ahead)
            except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
                found = None  # then its cold starts take longer, and nothing else
            if len(self._read) > 10_000:
                self._read.clear()
            self._read[code] = found
        return self._read[code]

    def put(self, code: str, ahead: Ahead) -> None:
        """Blocking."""
        self._folder.mkdir(exist_ok=True)
        draft = self._folder / f".tmp-{token_hex(8)}"
        draft.write_bytes(_encode(ahead))
        os.replace(draft, self._folder / f"{code}.json")
        self._read[code] = ahead

    def layers(self, codes: set[str]) -> set[str]:
        """The layers that zygotes of these code folders need."""
        return {found.layer for found in map(self.get, codes) if found is not None and found.layer}

    def collect(self, used: set[str]) -> None:
        """Forget the code folders that are gone. Blocking."""
        for path in self._folder.glob("*.json"):
            if path.stem not in used:
                path.unlink(missing_ok=True)
                self._read.pop(path.stem, None)


def digest(*parts: object) -> str:
    return hashlib.sha256(_encode(parts)).hexdigest()[:16]
