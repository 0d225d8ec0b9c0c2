"""Zip archives of functions and layers: unpacked without trusting them, kept as they were sent.

Every member is counted as it is inflated, whatever its header says, so that a small upload cannot fill the disk; names and
links that lead out of the folder, names given twice, devices and encrypted members are refused. Faults are in Lambda's words.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO, Final

import msgspec

from martlet.apps.package import PackageFile, address_of, publish_folder
from martlet.clock import token_hex
from martlet.errors import ServiceError
from martlet.limits import LIMITS

__all__ = ["Archive", "Zips"]

_CHUNK: Final = 262_144
_MOST: Final = LIMITS["code_bytes"].default
_FILES: Final = LIMITS["code_files"].default
_KNOWN_MOST: Final = 1_000
_LINK_BYTES: Final = 4_096
_FOLDERS: Final = {"code": "code", "layer": "layers-lambda"}
_BROKEN: Final = "Could not unzip uploaded file. Please check your file, then try to upload again."


class Archive(msgspec.Struct, frozen=True):
    """An archive that is kept. `digest` is the SHA-256 of its bytes in hex, `address` the folder with what was in it."""

    address: str
    unzipped_bytes: int
    digest: str


class Zips:
    """Archives below a data folder. All methods block."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._known: dict[tuple[str, str], Archive] = {}  # (kind, digest) of what was stored lately

    def store(self, archive: bytes, kind: str) -> Archive:
        """Keep an archive and what is in it; `kind` is "code" or "layer". Safe against crashes and others that store the same.

        Raises ServiceError InvalidParameterValueException.
        """
        digest = hashlib.sha256(archive).hexdigest()
        folder = self._data / _FOLDERS[kind]
        known = self._known.get((kind, digest))  # many functions of one template are one archive
        if known is not None and (folder / known.address).is_dir() and (self._data / "zips" / f"{digest}.zip").is_file():
            return known
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # sandboxes read it under another uid
        building = folder / f".tmp-{token_hex(8)}"
        building.mkdir()
        try:
            files, size = _Unpacking(building).unpack(archive)
            address = address_of(files)
            publish_folder(building, folder / address)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        self._keep(archive, digest)
        if len(self._known) >= _KNOWN_MOST:
            self._known.clear()
        stored = self._known[(kind, digest)] = Archive(address, size, digest)
        return stored

    def _keep(self, archive: bytes, digest: str) -> None:
        final = self._data / "zips" / f"{digest}.zip"
        if final.is_file():
            return
        final.parent.mkdir(exist_ok=True)
        temporary = final.with_name(f".tmp-{token_hex(8)}")
        with open(temporary, "wb") as stream:
            stream.write(archive)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(final)
        descriptor = os.open(final.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def open(self, digest: str) -> bytes:
        """The archive as it was sent. Raises FileNotFoundError."""
        return (self._data / "zips" / f"{digest}.zip").read_bytes()

    def collect(self, used_archives: set[str], used_layers: set[str]) -> None:
        """Delete archives and layers that nothing refers to any more. Only at start, when nothing is being stored."""
        for path in (self._data / "zips").glob("*"):
            if path.name.removesuffix(".zip") not in used_archives:
                path.unlink()
        for folder in (self._data / "layers-lambda").glob("*"):
            if folder.name not in used_layers:
                shutil.rmtree(folder, ignore_errors=True)


class _Unpacking:
    """One archive on its way into an empty folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[PackageFile] = []
        self._seen: set[str] = set()
        self._links: list[tuple[str, str]] = []
        self._size = 0

    def unpack(self, archive: bytes) -> tuple[list[PackageFile], int]:
        """What is in it, by path, and its size unzipped."""
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as members:
                for info in members.infolist():
                    self._member(members, info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
            raise _refused(_BROKEN) from error
        for name, target in self._links:  # last: nothing is ever written through a link
            self._link(name, target)
        self._files.sort(key=lambda file: file.path.encode())
        return self._files, self._size

    def _member(self, members: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        name = _safe(info.filename)
        if not name:
            return
        mode = info.external_attr >> 16 if info.create_system == 3 else 0
        if info.is_dir() or stat.S_ISDIR(mode):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
            return
        if name in self._seen or len(self._seen) >= _FILES:
            raise _refused(_BROKEN)
        self._seen.add(name)
        kind = stat.S_IFMT(mode)
        if kind not in (0, stat.S_IFREG, stat.S_IFLNK) or info.flag_bits & 0x1:
            raise _refused(_BROKEN)
        with members.open(info) as stream:
            if kind == stat.S_IFLNK:
                self._links.append((name, self._read_link(stream)))
            else:
                self._file(name, stream, 0o755 if mode & 0o111 else 0o644)

    def _file(self, name: str, stream: IO[bytes], mode: int) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as out:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                self._count(len(chunk))
                digest.update(chunk)
                out.write(chunk)
            os.fchmod(out.fileno(), mode)
        self._files.append(PackageFile(name, mode, size, digest.hexdigest(), str(path)))

    def _count(self, size: int) -> None:
        self._size += size
        if self._size >= _MOST:
            raise _refused(f"Unzipped size must be smaller than {_MOST} bytes")

    def _read_link(self, stream: IO[bytes]) -> str:
        raw = stream.read(_LINK_BYTES + 1)
        if len(raw) > _LINK_BYTES:
            raise _refused(_BROKEN)
        self._count(len(raw))
        return raw.decode()

    def _link(self, name: str, target: str) -> None:
        """A link within the archive stays one; others are refused, so that nothing on this host can be read through them."""
        end = os.path.normpath(os.path.join(os.path.dirname(name), target))
        if target.startswith("/") or "\0" in target or end == ".." or end.startswith("../"):
            raise _refused(f"{_BROKEN} (The link {name} leads out of the archive, to {target}.)")
        folder = self._folder
        for part in name.split("/")[:-1]:
            folder = folder / part
            if folder.is_symlink():
                raise _refused(f"{_BROKEN} (The link {name} lies behind another link.)")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.symlink(target, self._folder / name)
        except OSError as error:
            raise _refused(_BROKEN) from error
        digest = hashlib.sha256(target.encode()).hexdigest()
        self._files.append(PackageFile(name, 0o120777, len(target.encode()), digest, ""))


def _safe(name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    if name.startswith("/") or "\0" in name or ".." in parts or len(name.encode("utf-8", "replace")) > 1_024:
        raise _refused(f"{_BROKEN} (The name {name[:200]!r} leads out of the archive.)")
    return "/".join(part for part in parts if part not in ("", "."))


def _refused(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValueException", message, 400, Type="User")
