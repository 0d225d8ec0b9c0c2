"""Dependency layers: the third-party packages of an app, built once by uv, shared by every app with the same requirements.

A layer's address is the SHA-256 over the requirements, the interpreter's version, the platform and the versions (with the
hashes of their files) that uv resolved them to. What uv resolved is kept in `<layers>/locks/`, so an unchanged app gets
the same layer for ever.
A layer is a plain folder `<layers>/<address>/` (goes on `sys.path`) that appears whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import platform
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from martlet import config
from martlet.apps.package import sync_folder
from martlet.apps.ports import Progress
from martlet.apps.requirements import Requirements, check_line, split_hashes
from martlet.clock import token_hex
from martlet.errors import DeployFailed
from martlet.limits import LIMITS, exceeded

__all__ = ["Layers", "folder_bytes", "run"]

T = TypeVar("T")

_KEPT_LINES = 200
_NETWORK_SIGNS = (
    "error sending request", "dns error", "failed to fetch", "could not connect", "connection refused",
    "network is unreachable", "request failed after", "network connectivity is disabled", "timed out",
)  # fmt: skip
_BUILD_SIGNS = (
    "no usable wheels",
    "building source distributions is disabled",
    "no wheels with",
    "no wheels are",
    "has no wheels",
)


class Layers:
    """The layers of one platform, below `folder`. `python` is the interpreter that functions run on."""

    def __init__(self, folder: Path, python: str = "", *, environ: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._python = python or sys.executable
        self._environ = environ
        self._version = "" if python else _own_version()
        self._building: dict[str, asyncio.Task[str]] = {}
        self._listeners: dict[str, list[Progress]] = {}

    async def ensure(self, wanted: Requirements, progress: Progress | None = None) -> str:
        """The address of the layer for `wanted`, built if need be; "" for no requirements.

        Raises `DeployFailed` with uv's own reason and a remedy, `LimitExceeded` (code_bytes). `progress` gets lines of text.
        """
        if not wanted:
            return ""
        key = await self._key(wanted)
        address = await asyncio.to_thread(self._known, key)
        if address:
            return address
        listeners = self._listeners.setdefault(key, [])
        if progress:
            listeners.append(progress)
        task = self._building.get(key)
        if task is None:
            task = self._building[key] = asyncio.create_task(self._build(key, wanted))
            task.add_done_callback(lambda done: self._built(key, done))
        try:
            return await asyncio.shield(task)  # a caller that goes away must not stop the others' build
        finally:
            if progress in listeners:
                listeners.remove(progress)

    async def known(self, wanted: Requirements) -> bool:
        """Whether `ensure` has nothing to build."""
        return not wanted or bool(await asyncio.to_thread(self._known, await self._key(wanted)))

    def path(self, address: str) -> Path:
        return self._folder / address

    async def close(self) -> None:
        """Stop builds that run; they leave nothing behind."""
        tasks = list(self._building.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self, address: str) -> None:
        """Drop the locks that lead to a layer which is about to be deleted. Blocking."""
        for lock in (self._folder / "locks").glob("*.txt"):
            if hashlib.sha256(lock.stem.encode() + b"\0" + lock.read_bytes()).hexdigest() == address:
                lock.unlink(missing_ok=True)

    def _built(self, key: str, task: asyncio.Task[str]) -> None:
        self._building.pop(key, None)
        self._listeners.pop(key, None)
        if not task.cancelled():
            task.exception()  # the callers have it; with none left it must not be reported as lost

    async def _key(self, wanted: Requirements) -> str:
        if not self._version:
            self._version = await self._ask_version()
        parts = [self._version, platform.machine(), platform.libc_ver()[0] or sys.platform, str(wanted.allow_source_builds)]
        parts += wanted.lines
        if wanted.lock_folder is not None:
            parts.append(await asyncio.to_thread(_digest_of_lock, wanted.lock_folder))
        return hashlib.sha256("\0".join(["martlet-layer-1", *parts]).encode()).hexdigest()

    def _lock_file(self, key: str) -> Path:
        return self._folder / "locks" / f"{key}.txt"

    def _known(self, key: str) -> str:
        try:
            lock = self._lock_file(key).read_bytes()
        except FileNotFoundError:
            return ""
        address = hashlib.sha256(key.encode() + b"\0" + lock).hexdigest()
        return address if self.path(address).is_dir() else ""

    # --- building

    async def _build(self, key: str, wanted: Requirements) -> str:
        def say(text: str) -> None:
            for listener in list(self._listeners.get(key, ())):
                listener(text)

        workshop = self._folder / f".tmp-{token_hex(8)}"
        try:
            async with asyncio.timeout(LIMITS["layer_build_seconds"].default):
                await _in_thread(_prepare, self._folder, workshop)
                lock = await self._resolve(key, wanted, workshop, say)
                address = hashlib.sha256(key.encode() + b"\0" + lock).hexdigest()
                if not await _in_thread(self.path(address).is_dir):
                    await self._install(wanted, lock, workshop, say)
                    await _in_thread(_publish, workshop / "site", self.path(address))
                await _in_thread(_write_durably, self._lock_file(key), lock, workshop)
                return address
        except TimeoutError as error:
            limit = LIMITS["layer_build_seconds"].default
            raise DeployFailed(
                f"building the dependencies took longer than limit layer_build_seconds of {limit} seconds",
                remedy="deploy again: what was downloaded is kept",
            ) from error
        finally:
            await _in_thread(shutil.rmtree, workshop, True)

    async def _resolve(self, key: str, wanted: Requirements, workshop: Path, say: Progress) -> bytes:
        """The pinned requirements, with hashes: kept from before, exported from uv.lock, or resolved now."""
        lock_file = self._lock_file(key)
        if await _in_thread(lock_file.is_file):
            return await _in_thread(lock_file.read_bytes)
        say(f"resolving dependencies of {wanted.origin}")
        output = workshop / "lock.txt"
        if wanted.lock_folder is not None:
            await _in_thread(_copy_lock, wanted.lock_folder, workshop)
            command = ["export", "--frozen", "--no-dev", "--no-emit-project", "--format", "requirements.txt"]
            command += ["--project", str(workshop), "--directory", str(workshop)]
        else:
            await _in_thread((workshop / "wanted.txt").write_text, "\n".join(wanted.lines) + "\n")
            command = ["pip", "compile", str(workshop / "wanted.txt"), "--generate-hashes", *_build_options(wanted)]
        command += ["--no-header", "--no-annotate", "--no-config", "--python", self._python, "--output-file", str(output)]
        await self._uv(command, wanted, say, quiet=True)
        lock = await _in_thread(output.read_bytes)
        for line in lock.decode().replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                check_line(line, f"{wanted.origin}, resolved", wanted.allow_source_builds)
        return lock

    async def _install(self, wanted: Requirements, lock: bytes, workshop: Path, say: Progress) -> None:
        pinned, site = workshop / "pinned.txt", workshop / "site"
        await _in_thread(pinned.write_bytes, lock)
        await _in_thread(site.mkdir)
        command = [
            "pip",
            "install",
            "--target",
            str(site),
            "--no-deps",
            "--requirements",
            str(pinned),
            "--python",
            self._python,
        ]
        # copy: uv would hard-link files of its cache, and what changes one would change the other
        command += ["--link-mode", "copy", "--compile-bytecode", "--no-config", *_build_options(wanted)]
        await self._uv(command, wanted, say, quiet=False)
        size = await _in_thread(_finish, site)
        if size > LIMITS["code_bytes"].default:
            raise exceeded("code_bytes", size, "the dependencies")

    async def _uv(self, arguments: list[str], wanted: Requirements, say: Progress, *, quiet: bool) -> None:
        from uv import find_uv_bin  # deferred: only a deployment with dependencies needs it

        lines: list[str] = []

        def heard(line: str) -> None:
            if len(lines) < _KEPT_LINES:
                lines.append(line)
            if not quiet:
                say(line)

        status = await run([str(find_uv_bin()), "--no-progress", "--color", "never", *arguments], self._environment(), heard)
        if status:
            raise _explain(lines, wanted, status)

    def _environment(self) -> dict[str, str]:
        known = config.environment() if self._environ is None else self._environ
        kept = {"PATH", "HOME", "TMPDIR", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME", "NETRC"}
        proxies = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
        return {
            name: value for name, value in known.items() if name in kept or name.lower() in proxies or name.startswith("UV_")
        } | {"UV_NO_PROGRESS": "1", "PYTHONDONTWRITEBYTECODE": ""}

    async def _ask_version(self) -> str:
        lines: list[str] = []
        code = "import sys; print(sys.implementation.cache_tag, '%d.%d.%d' % sys.version_info[:3])"
        try:
            status = await run([self._python, "-I", "-c", code], self._environment(), lines.append)
        except OSError as error:
            raise DeployFailed(
                f"cannot start the interpreter {self._python}: {error.strerror}", remedy="fix MARTLET_PYTHON"
            ) from error
        if status or not lines:
            raise DeployFailed(f"the interpreter {self._python} does not work", remedy="fix MARTLET_PYTHON")
        return lines[-1]


def _own_version() -> str:
    return f"{sys.implementation.cache_tag} {'.'.join(str(part) for part in sys.version_info[:3])}"


def _build_options(wanted: Requirements) -> list[str]:
    return [] if wanted.allow_source_builds else ["--only-binary", ":all:"]


def _digest_of_lock(folder: Path) -> str:
    return hashlib.sha256((folder / "uv.lock").read_bytes() + b"\0" + (folder / "pyproject.toml").read_bytes()).hexdigest()


def _copy_lock(folder: Path, workshop: Path) -> None:
    for name in ("uv.lock", "pyproject.toml"):
        shutil.copyfile(folder / name, workshop / name)


def _prepare(folder: Path, workshop: Path) -> None:
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    workshop.mkdir()


def _finish(site: Path) -> int:
    """Make a built layer readable for every uid and count its bytes (without the bytecode, which is ours)."""
    for current, folders, names in os.walk(site):
        for name in folders + names:
            path = os.path.join(current, name)
            if os.path.islink(path):
                raise DeployFailed(
                    f"a dependency holds the symbolic link {os.path.relpath(path, site)}", remedy="use another release of it"
                )
        for name in names:
            path = os.path.join(current, name)
            os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)
    shutil.rmtree(site / "bin", ignore_errors=True)  # console scripts: their first line names the host's interpreter
    (site / ".lock").unlink(missing_ok=True)
    return folder_bytes(site)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below, without `.pyc`. Blocking."""
    total = 0
    for current, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(current, name)).st_size for name in names if not name.endswith(".pyc"))
    return total


def _publish(site: Path, final: Path) -> None:
    sync_folder(site)
    try:
        site.rename(final)
    except OSError:
        if not final.is_dir():
            raise
    _sync_entry(final.parent)


def _write_durably(file: Path, content: bytes, workshop: Path) -> None:
    draft = workshop / "lock.durable"
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(file)
    _sync_entry(file.parent)


def _sync_entry(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    """`asyncio.to_thread` that is over when it ends: a thread cannot be cancelled, and what it still writes after its caller
    has cleaned up would stay, or be published half-deleted."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()
        raise


async def run(command: list[str], environ: dict[str, str], heard: Callable[[str], None]) -> int:
    """Run a program in a process group of its own, its output line by line to `heard`; killed whole if we are cancelled."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environ,
        start_new_session=True,
        limit=1 << 20,
    )
    stream = process.stdout
    assert stream is not None
    try:
        while line := await stream.readline():
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                heard(text)
        return await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await _settled(process.wait())
        raise


async def _settled(waiting: Awaitable[int]) -> None:
    await asyncio.shield(asyncio.ensure_future(waiting))


def _explain(lines: list[str], wanted: Requirements, status: int) -> DeployFailed:
    """uv's complaint as ours: which requirement, why, what to do."""
    text = "\n".join(lines)
    reason = " ".join(line.strip(" ×╰─▶│├┬·").removeprefix("error: ") for line in lines if not line.startswith("warning:"))
    reason = " ".join(reason.split()).replace(" cause: ", ": ")[:2_000] or f"uv ended with status {status}"
    lower = text.lower()
    named = [line for line in wanted.lines if _bare_name(line) in lower.replace("_", "-")]
    subject = f"the dependency {', '.join(split_hashes(line)[0] for line in named)}" if named else "the dependencies"
    if any(sign in lower for sign in _NETWORK_SIGNS):
        remedy = "check the network, or point UV_DEFAULT_INDEX to an index within reach"
        return DeployFailed(f"cannot reach the package index for {subject}: {reason}", remedy=remedy, step="dependencies")
    if any(sign in lower for sign in _BUILD_SIGNS) and not wanted.allow_source_builds:
        remedy = (
            "pin a version that has wheels, or set allow-source-builds = true under [tool.martlet] in pyproject.toml "
            "(runs its code on the host)"
        )
    else:
        remedy = f"fix it in {wanted.origin}"
    return DeployFailed(f"cannot install {subject}: {reason}", remedy=remedy, step="dependencies")


def _bare_name(line: str) -> str:
    return line.split(" ")[0].split("[")[0].split("=")[0].split("<")[0].split(">")[0].split("!")[0].split("~")[0]
