"""Encryption of values: AES-256-GCM under a data key of the store, which the platform's own key wraps.

The platform's key is no part of the store: it comes from a file (made at first use, mode 0600), an environment variable or the
output of a command. Each holds one key or several, 32 bytes in base64 a line: the first wraps; the others are older ones, which
may still unwrap. So rotation is to put a new key before the old one and start again: what was wrapped by the old key is wrapped
by the new one, values stay as they are, and the old key can go. A value is bound to its place (its name and version are
authenticated with it), so rows cannot be exchanged for each other.

Source: NIST SP 800-38D (nonces of 96 random bits: at most 2^32 values under one data key).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import shlex
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from martlet.errors import StartFailed, StoreFailed
from martlet.store import Store, Tx, keys

__all__ = ["Vault", "is_in_use", "key_source"]

_WRAPPED: Final = "secrets.key"  # -> nonce and data key, wrapped
_NONCE: Final = 12
_KEY_BYTES: Final = 32
_COMMAND_SECONDS: Final = 30
_PLACE: Final = b"martlet data key"


def is_in_use(store: Store) -> bool:
    """Whether something was encrypted already, so that a new key would open nothing."""
    return store.get(keys.encode(_WRAPPED)) is not None


class Vault:
    """`read_keys` gives the platform's keys, the current one first; it may block, and is asked once."""

    def __init__(self, store: Store, read_keys: Callable[[], list[bytes]]) -> None:
        self._store = store
        self._read_keys = read_keys
        self._cipher: Any = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Make it ready to seal and unseal. Raises `StartFailed` for keys that cannot be read, `StoreFailed` for wrong ones."""
        if self._cipher is not None:
            return
        async with self._opening:
            if self._cipher is None:
                found = await asyncio.to_thread(self._read_keys)
                self._cipher = await self._load(found)

    async def _load(self, platform_keys: list[bytes]) -> Any:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        row = keys.encode(_WRAPPED)

        def wrap(tx: Tx, data_key: bytes) -> None:
            nonce = os.urandom(_NONCE)
            tx.put(row, nonce + AESGCM(platform_keys[0]).encrypt(nonce, data_key, _PLACE))

        def load(tx: Tx) -> bytes:
            wrapped = tx.get(row)
            if wrapped is None:
                made = os.urandom(_KEY_BYTES)
                wrap(tx, made)
                return made
            for number, key in enumerate(platform_keys):
                try:
                    data_key = AESGCM(key).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _PLACE)
                except InvalidTag:
                    continue
                if number:
                    wrap(tx, data_key)
                return data_key
            raise StoreFailed(
                "the key of the secrets is not the one that they were encrypted by",
                remedy="give the right key, or put it on a line after the new one",
            )

        return AESGCM(await self._store.transact(load))

    def seal(self, value: bytes, *place: str) -> bytes:
        """The value encrypted, bound to its place. Call `open` before."""
        nonce = os.urandom(_NONCE)
        return nonce + bytes(self._cipher.encrypt(nonce, value, _bound(place)))

    def unseal(self, sealed: bytes, *place: str) -> bytes:
        """Raises `StoreFailed` for what was changed, or comes from another place."""
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(place)))
        except InvalidTag:
            raise StoreFailed(f"the value of {place[-2] if len(place) > 1 else 'a secret'} cannot be decrypted") from None


def _bound(place: tuple[str, ...]) -> bytes:
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in place)


def key_source(
    setting: str, default: Path, environment: Mapping[str, str], *, may_make: bool = True
) -> Callable[[], list[bytes]]:
    """What reads the platform's keys: `setting` is "file:PATH", "env:NAME", "command:PROGRAM ARGUMENT …", or "" for the file
    at `default`, which is made if it is not there and nothing was encrypted yet (`may_make`). Raises `StartFailed` for another
    one."""
    kind, _, rest = setting.partition(":")
    if not setting:
        return lambda: _keys_of(_file(default, make=may_make), str(default))
    if kind == "file" and rest:
        return lambda: _keys_of(_file(Path(rest), make=False), rest)
    if kind == "env" and rest:
        return lambda: _keys_of(environment.get(rest, ""), f"the environment variable {rest}")
    if kind == "command" and rest:
        return lambda: _keys_of(_command(rest), "the output of the command for the secrets' key")
    raise StartFailed("MARTLET_SECRET_KEY names no key", remedy="give file:PATH, env:NAME or command:PROGRAM")


def _keys_of(text: str, where: str) -> list[bytes]:
    found = []
    for line in text.split():
        try:
            key = base64.b64decode(line, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _KEY_BYTES:
            raise StartFailed(f"{where}: a line is not a key", remedy="a key is 32 bytes in base64: openssl rand -base64 32")
        found.append(key)
    if not found:
        raise StartFailed(f"{where} holds no key", remedy="a key is 32 bytes in base64: openssl rand -base64 32")
    return found


def _file(path: Path, *, make: bool) -> str:
    if make and not path.exists():
        _make(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        remedy = "put your copy of it back: without this key nothing that is encrypted can be read"
        raise StartFailed(f"the key {path} of what is encrypted here is not there", remedy=remedy) from error
    except OSError as error:
        raise StartFailed(f"key file {path}: {error.strerror}", remedy="make it a plain file of your own") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StartFailed(f"key file {path} is not a plain file", remedy="move away what is there")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise StartFailed(f"key file {path} can be read by others", remedy=f"chmod 600 {path}")
        return os.read(descriptor, 65_536).decode("ascii", "replace")
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    """A new key, durable before anything is encrypted by it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # never over a key that is there
    except FileExistsError:
        pass  # another one was quicker, and its key is as good
    draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _command(text: str) -> str:
    try:
        done = subprocess.run(shlex.split(text), capture_output=True, timeout=_COMMAND_SECONDS, check=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise StartFailed(
            f"the command for the secrets' key failed: {type(error).__name__}", remedy="see MARTLET_SECRET_KEY"
        ) from None
    return done.stdout.decode("ascii", "replace")
