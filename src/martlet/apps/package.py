"""A folder of source code as a deterministic package: what is in it, its content address, its stored copy, its tar form.

The address is the SHA-256 over path, mode and content of every file in order of path; nothing else of the machine it was
made on (times, owners, order of folders) enters. A stored package is a plain folder `<code>/<address>/` that appears
whole or not at all: written beside, fsynced, renamed.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import stat
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from martlet.apps.ignore import Rule, always_skipped, is_ignored, rules_of
from martlet.clock import Clock, token_hex
from martlet.errors import Conflict, DeployFailed, InvalidInput
from martlet.limits import LIMITS, exceeded

__all__ = [
    "DigestCache",
    "Package",
    "PackageFile",
    "address_of",
    "app_name",
    "folders_of",
    "project_settings",
    "publish_folder",
    "scan",
    "store",
    "sync_folder",
]

ENTRY_MODULES = ("app", "main", "function")  # of an app by decorators, in this order
_NEVER = frozenset({".git", ".martlet", ".aws-sam", "__pycache__"})  # even of a whole folder
_CHUNK = 1 << 20
_SETTLED_NS = 50_000_000  # a file written in the last 50 ms may change again without a new time stamp
_STAMP_SECONDS = 315_532_800  # 1980-01-01: stored files carry no time of their own
_PYPROJECT_BYTES = 1_048_576


class PackageFile(msgspec.Struct, frozen=True):
    """One file: `path` in the package with "/" between, `mode` 0o644 or 0o755, SHA-256 hex `digest`; `source` to read it."""

    path: str
    mode: int
    size: int
    digest: str
    source: str


class Package(msgspec.Struct, frozen=True):
    """What a folder (or one file) holds. `folders` are the absolute paths that were walked: what a watcher watches."""

    root: Path
    files: tuple[PackageFile, ...]
    address: str
    size: int
    folders: tuple[str, ...]

    def names(self) -> frozenset[str]:
        return frozenset(file.path for file in self.files)


class DigestCache:
    """Digests of files whose size, times and inode have not changed: a save rehashes one file, not the folder.

    A digest is kept only if the file had been at rest when it was read (git's "racy" rule): else a second write within
    the file system's clock tick would go unseen.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}

    def digest(self, path: str, status: os.stat_result) -> str | None:
        known = self._known.get(path)
        return known[1] if known is not None and known[0] == _stamp(status) else None

    def remember(self, path: str, status: os.stat_result, digest: str) -> None:
        settled = self._clock.now_ms() * 1_000_000 - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS
        if settled:
            self._known[path] = (_stamp(status), digest)
        else:
            self._known.pop(path, None)

    def keep_only(self, paths: set[str]) -> None:
        """Forget what is no longer in the folder."""
        self._known = {path: value for path, value in self._known.items() if path in paths}


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


# --- scanning


class _Walk:
    """One walk over a source folder, with what it counts."""

    def __init__(self, root: Path, cache: DigestCache | None, *, files: bool = True, whole: bool = False) -> None:
        self.real_root = os.path.realpath(root)
        self.cache = cache
        self.wants_files = files
        self.is_whole = whole
        self.files: list[PackageFile] = []
        self.folders: list[str] = []
        self.size = 0

    def folder(self, real: str, base: str, rules: tuple[Rule, ...], above: tuple[str, ...]) -> None:
        if real in above:
            raise DeployFailed(
                f"the symbolic link {base.rstrip('/')} leads back to a folder above it", remedy="remove the link"
            )
        self.folders.append(real)
        if len(self.folders) > LIMITS["code_files"].default:
            raise exceeded("code_files", len(self.folders), "folders of the package")
        rules = () if self.is_whole else (*rules, *rules_of(Path(real), base))
        with os.scandir(real) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name not in _NEVER if self.is_whole else not always_skipped(entry.name):
                self._entry(entry, base + entry.name, rules, (*above, real))

    def _entry(self, entry: os.DirEntry[str], path: str, rules: tuple[Rule, ...], above: tuple[str, ...]) -> None:
        is_folder = entry.is_dir()
        if is_ignored(path, is_folder, rules):
            return
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise DeployFailed(
                f"the name of {path!r} is not UTF-8", remedy="rename it, or list it in .martletignore"
            ) from error
        real = entry.path
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            if real != self.real_root and not real.startswith(self.real_root + os.sep):
                raise DeployFailed(
                    f"the symbolic link {path} leaves the folder (it leads to {real})",
                    remedy="copy the file into the app, or list the link in .martletignore",
                )
        if is_folder:
            self.folder(real, path + "/", rules, above)
        elif self.wants_files:
            self.file(real, path)

    def file(self, real: str, path: str) -> None:
        try:
            status = os.stat(real)
        except OSError as error:
            raise DeployFailed(
                f"cannot read {path}: {error.strerror}", remedy="fix it, or list it in .martletignore"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise DeployFailed(f"{path} is not a regular file", remedy="remove it, or list it in .martletignore")
        self.size += status.st_size
        if self.size > LIMITS["code_bytes"].default:
            raise exceeded("code_bytes", self.size, f"the package, at {path}")
        if len(self.files) >= LIMITS["code_files"].default:
            raise exceeded("code_files", len(self.files) + 1, f"the package, at {path}")
        digest = self.cache.digest(real, status) if self.cache else None
        if digest is None:
            digest, status = _hash(real, path)
            if self.cache:
                self.cache.remember(real, status, digest)
        mode = 0o755 if status.st_mode & 0o100 else 0o644
        self.files.append(PackageFile(path, mode, status.st_size, digest, real))


def scan(source: Path, cache: DigestCache | None = None, *, whole: bool = False) -> Package:
    """Walk a folder, or take one `.py` file, and compute its content address. Blocking. `whole`: everything that is there,
    whatever ignore files say (a template's own code, which SAM packs so too).

    Raises `DeployFailed` (no such folder, a link that leaves it, a device, an unreadable file), `LimitExceeded` (code_bytes,
    code_files), `Conflict` (a file went away meanwhile).
    """
    walk = _Walk(source, cache, whole=whole)
    _walk(walk, source)
    if cache:
        cache.keep_only({file.source for file in walk.files})
    files = tuple(sorted(walk.files, key=lambda file: file.path.encode()))
    return Package(source, files, address_of(files), walk.size, tuple(walk.folders))


def folders_of(source: Path) -> tuple[str, ...]:
    """The absolute paths of the folders that belong to the app in `source`, itself first. Blocking; reads no file's content."""
    walk = _Walk(source, None, files=False)
    _walk(walk, source)
    return tuple(walk.folders)


def _walk(walk: _Walk, source: Path) -> None:
    try:
        if source.is_dir():
            walk.folder(walk.real_root, "", (), ())
        elif source.is_file():
            if source.suffix != ".py":
                raise DeployFailed(f"{source} is not a folder and not a .py file", remedy="give the app's folder")
            walk.file(os.path.realpath(source), source.name)
        else:
            raise DeployFailed(f"there is no folder or file {source}", remedy="check the path")
    except PermissionError as error:
        raise DeployFailed(
            f"cannot read {error.filename}: permission denied", remedy="fix its mode, or list it in .martletignore"
        ) from error
    except FileNotFoundError as error:
        raise Conflict(f"{error.filename} went away while the folder was read", remedy="deploy again") from error


def address_of(files: Sequence[PackageFile]) -> str:
    """The content address of files in order of their path."""
    total = hashlib.sha256(b"martlet-code-1\0")
    for file in files:
        total.update(f"{file.path}\0{file.mode:o}\0{file.size}\0".encode())
        total.update(bytes.fromhex(file.digest))
    return total.hexdigest()


def _open(real: str, path: str) -> int:
    try:  # O_NONBLOCK: a pipe put in the file's place must not hang the deploy; O_NOFOLLOW: nor a link lead it elsewhere
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DeployFailed(f"cannot read {path}: {error.strerror}", remedy="fix it, or list it in .martletignore") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DeployFailed(f"{path} is not a regular file", remedy="remove it, or list it in .martletignore")
    return descriptor


def _hash(real: str, path: str) -> tuple[str, os.stat_result]:
    digest = hashlib.sha256()
    with os.fdopen(_open(real, path), "rb", buffering=0) as stream:
        status = os.fstat(stream.fileno())
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest(), status


def read_chunks(file: PackageFile) -> Iterator[bytes]:
    """The file's bytes, which are those its digest names: raises `Conflict` at the end if it has changed since the scan."""
    digest = hashlib.sha256()
    size = 0
    with os.fdopen(_open(file.source, file.path), "rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if size > file.size:
                break
            yield chunk
    if size != file.size or digest.hexdigest() != file.digest:
        raise Conflict(f"{file.path} changed while it was read", remedy="deploy again")


# --- storing


def store(package: Package, code: Path) -> Path:
    """Make `<code>/<address>/` hold the package; returns it. Blocking; safe against crashes and against others that store
    the same. Raises `Conflict` if a file changed since the scan; nothing is left behind then."""
    final = code / package.address
    if final.is_dir():
        return final
    code.mkdir(parents=True, exist_ok=True)
    code.chmod(0o755)  # sandboxes read it under another uid
    building = code / f".tmp-{token_hex(8)}"
    building.mkdir()
    try:
        for file in package.files:
            _store_file(file, building)
        publish_folder(building, final)
    finally:
        if building.exists():
            shutil.rmtree(building)
    return final


def publish_folder(building: Path, final: Path) -> None:
    """Give a folder its name, durably and whole; if the name is taken, by the same content, nothing happens. Blocking."""
    if not final.is_dir():
        sync_folder(building)
        try:
            building.rename(final)
        except OSError:
            if not final.is_dir():  # another deploy stored the same first
                raise
    _fsync(final.parent)


def _store_file(file: PackageFile, folder: Path) -> None:
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        for chunk in read_chunks(file):
            stream.write(chunk)
        os.fchmod(stream.fileno(), file.mode)
    os.utime(target, (_STAMP_SECONDS, _STAMP_SECONDS))


def sync_folder(folder: Path) -> None:
    """fsync every file and folder below and make the folders world-readable. Called before the rename that publishes them."""
    for current, _, names in os.walk(folder):
        for name in names:
            if not os.path.islink(os.path.join(current, name)):
                _fsync(Path(current, name))
        os.chmod(current, 0o755)
        _fsync(Path(current))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- the project's own settings


def project_settings(folder: Path) -> dict[str, Any]:
    """The whole `pyproject.toml` of a folder as a dict, {} without one. Raises `DeployFailed` if it is not TOML."""
    file = folder / "pyproject.toml"
    if not file.is_file():
        return {}
    with file.open("rb") as stream:
        raw = stream.read(_PYPROJECT_BYTES + 1)
    if len(raw) > _PYPROJECT_BYTES:
        raise DeployFailed(f"pyproject.toml is larger than {_PYPROJECT_BYTES} bytes", remedy="shorten it")
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DeployFailed(f"pyproject.toml is not valid TOML: {error}", remedy="fix the file") from error


def martlet_settings(folder: Path) -> dict[str, Any]:
    """The `[tool.martlet]` table, its keys and types checked. Raises `DeployFailed` by key."""
    tool = project_settings(folder).get("tool", {})
    table = tool.get("martlet", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise DeployFailed("pyproject.toml: tool.martlet is not a table", remedy="write it as [tool.martlet]")
    known: dict[str, type] = {"module": str, "name": str, "allow-source-builds": bool}
    for key, value in table.items():
        if key not in known:
            raise DeployFailed(
                f"pyproject.toml: [tool.martlet] has no setting {key!r}", remedy=f"known settings: {', '.join(known)}"
            )
        if not isinstance(value, known[key]):
            raise DeployFailed(
                f"pyproject.toml: [tool.martlet] {key} must be of type {known[key].__name__}", remedy="fix the file"
            )
    return table


def app_name(source: Path) -> str:
    """The app's name where none is given: `[tool.martlet] name`, else the one that the code says (`App("shop")`), else the
    folder's or file's name in lower case, its other characters as "-".

    Raises `DeployFailed` (bad pyproject), `InvalidInput` when nothing usable is left.
    """
    source = source.absolute()
    if source.is_dir() and (given := martlet_settings(source).get("name")):
        return check_app_name(str(given))
    declared = _declared_name(source)
    if declared:
        return check_app_name(declared)
    stem = os.path.realpath(source).rsplit(os.sep, 1)[-1]
    stem = stem.removesuffix(".py") if source.is_file() else stem
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-")
    if not name:
        raise InvalidInput(f"cannot make an app's name from {source}", remedy="give one: --app NAME")
    return check_app_name(name)


def _declared_name(source: Path) -> str:
    """The literal in `App("name")` of the entry module, read without running it; "" where there is none."""
    candidates = [source] if source.is_file() else [source / f"{name}.py" for name in ENTRY_MODULES]
    if source.is_dir() and (module := martlet_settings(source).get("module")):
        candidates = [source / (str(module).replace(".", "/") + ".py")]
    entry = next((path for path in candidates if path.is_file()), None)
    if entry is None:
        return ""
    try:
        tree = ast.parse(entry.read_bytes())
    except (SyntaxError, ValueError):
        return ""  # the build says what is wrong with it
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "App" and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                return first.value
    return ""


def check_app_name(name: str) -> str:
    """`name` itself if it can name an app: lower-case letters, digits and "-", 1 to 40, starting with a letter or digit."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
        raise InvalidInput(
            f"{name!r} cannot name an app", remedy='use 1 to 40 lower-case letters, digits and "-"', field="name"
        )
    return name
