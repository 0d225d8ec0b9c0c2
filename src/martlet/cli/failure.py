"""Why a command ends without success, in a line of cause and a line of remedy."""

from __future__ import annotations

from typing import TextIO

__all__ = ["DEPLOY_FAILED", "REFUSED", "START_FAILED", "UNREACHABLE", "USAGE", "Failure", "printable"]

REFUSED, USAGE, UNREACHABLE, DEPLOY_FAILED, START_FAILED = 1, 2, 3, 4, 5

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def printable(text: str) -> str:
    """Text from elsewhere without what would steer a terminal: control characters but tab and newline become "\\x1b"."""
    return text.translate(_CONTROLS)


class Failure(Exception):
    """Ends the command. `stack` is the app's own traceback, never Martlet's."""

    def __init__(self, exit_code: int, cause: str, remedy: str = "", stack: str = "") -> None:
        super().__init__(cause)
        self.exit_code = exit_code
        self.cause = cause
        self.remedy = remedy
        self.stack = stack

    def show(self, stream: TextIO) -> None:
        print(f"martlet: {printable(self.cause).rstrip()}", file=stream)
        if self.stack:
            print(printable(self.stack).rstrip(), file=stream)
        if self.remedy:
            print(f"         {printable(self.remedy)}", file=stream)
