"""Passwords: what one may be, and Argon2id over it, in few threads of its own.

A hash costs 19 MiB and some 20 ms on purpose (OWASP Password Storage Cheat Sheet: m=19456, t=2, p=1; RFC 9106). A flood of
sign-ins must stop neither the loop nor the machine: `_THREADS` run at a time, `users_hashing` may be under way, and the rest is
told to come again.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from martlet.errors import InvalidInput, Overloaded
from martlet.limits import LIMITS

__all__ = ["Passwords", "password_of"]

T = TypeVar("T")
_THREADS: Final = 2
_LEAST: Final = 8  # NIST SP 800-63B section 5.1.1.2
_BYTES_MOST: Final = 512


def password_of(text: str, email: str) -> str:
    """The password as it is hashed: in Unicode's NFKC, as NIST says. Raises `InvalidInput`."""
    found = unicodedata.normalize("NFKC", text) if len(text) <= _BYTES_MOST else text
    if len(found.encode("utf-8", "surrogatepass")) > _BYTES_MOST:
        raise InvalidInput(f"a password has at most {_BYTES_MOST} bytes", field="password")
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in found):
        raise InvalidInput("a password is text without NUL", field="password")
    if len(found) < _LEAST:
        raise InvalidInput(f"a password has at least {_LEAST} characters", field="password")
    if len(set(found)) < 3 or found.lower() in (email, email.partition("@")[0]):
        raise InvalidInput("this password is the first that anybody would try", field="password")
    return found


class Passwords:
    """Makes and checks hashes. The library is imported with the first one."""

    def __init__(self) -> None:
        self._hasher: Any = None
        self._decoy = ""
        self._threads: ThreadPoolExecutor | None = None
        self._under_way = 0

    async def hash(self, password: str) -> str:
        """The hash, with salt and parameters. Raises `Overloaded`."""
        return await self._run(lambda: str(self._tool().hash(password)))

    async def check(self, hashed: str, password: str) -> bool:
        """Whether it is the password of `hashed`; for "" it is none, and takes as long. Raises `Overloaded`."""

        def check() -> bool:
            from argon2.exceptions import Argon2Error, InvalidHashError

            tool = self._tool()
            try:
                return bool(tool.verify(hashed or self._decoy, password)) and bool(hashed)
            except (Argon2Error, InvalidHashError):
                return False

        return await self._run(check)

    def _tool(self) -> Any:
        if self._hasher is None:
            from argon2 import PasswordHasher

            hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
            self._decoy = hasher.hash("a password that nobody has")
            self._hasher = hasher
        return self._hasher

    async def _run(self, work: Callable[[], T]) -> T:
        most = LIMITS["users_hashing"].default
        if self._under_way >= most:
            raise Overloaded(f"limit users_hashing: {most} passwords are being checked", retry_after_seconds=2)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="passwords")
        self._under_way += 1
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        running.add_done_callback(self._ended)  # a caller that leaves does not end the thread's work
        return await asyncio.shield(running)

    def _ended(self, _: object) -> None:
        self._under_way -= 1

    def close(self) -> None:
        """Let the threads end."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
