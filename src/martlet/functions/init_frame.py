"""The INIT frame of a version, made once, and for each instance filled with what is its own: log stream and session keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from martlet.clock import token_hex
from martlet.functions.sandboxes.inside import frames

__all__ = ["InitFrame"]

_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_PROVISIONED: Final = b'"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"'
_ON_DEMAND: Final = b'"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"'.ljust(len(_PROVISIONED))


class InitFrame:
    """`init` is the frame's content for one instance that may be."""

    def __init__(self, init: dict[str, Any]) -> None:
        self._frame = frames.pack(frames.INIT, 0, json.dumps(init).encode())
        self._stream = str(init.get("log_stream", ""))
        environment = init.get("environment", {})
        self._keys = [environment[name].encode() for name in _KEYS if name in environment]

    def of_instance(self, new_keys: Callable[[], tuple[str, str, str]], *, beyond: bool = False) -> tuple[str, bytes]:
        """(the name of its log stream, the frame). All that is filled in has the length of what was there. `beyond`: one more
        than are provisioned."""
        stream = self._stream[:-32] + token_hex(16)  # each instance has its own, as in Lambda
        frame = self._frame.replace(self._stream.encode(), stream.encode()) if self._stream else self._frame
        if len(self._keys) == len(_KEYS):
            for old, new in zip(self._keys, new_keys(), strict=True):
                frame = frame.replace(old, new.encode())
        if beyond:
            frame = frame.replace(_PROVISIONED, _ON_DEMAND)
        return stream, frame
