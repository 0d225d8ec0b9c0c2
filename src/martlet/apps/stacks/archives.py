"""Zip archives: code and layers as they come from outside, and packages as the functions room takes them.

What is read is not trusted: names that lead out, links, devices, names given twice, encrypted members and bombs are refused
before or while bytes are written. What is written is deterministic, so that the same folder always has the same digest.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from pathlib import Path

from martlet.errors import InvalidInput
from martlet.limits import LIMITS, exceeded

__all__ = ["ARCHIVE", "unpack_zip", "zip_folder"]

ARCHIVE = ".archive.zip"  # the only file of a stored package that was an archive already

_CHUNK = 1 << 20
_STAMP = (1980, 1, 1, 0, 0, 0)
_RATIO = 1_000  # bytes out for one in: deflate's own most is 1,032


def unpack_zip(source: bytes | Path, into: Path, what: str = "the archive") -> None:
    """Write the members below `into`, an empty folder. Blocking. Raises `InvalidInput`, `LimitExceeded` (code_bytes,
    code_files)."""
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    written: set[str] = set()
    try:
        with zipfile.ZipFile(opened) as archive:
            members = archive.infolist()
            if len(members) > LIMITS["code_files"].default:
                raise exceeded("code_files", len(members), what)
            declared = sum(member.file_size for member in members)
            if declared > LIMITS["code_bytes"].default:
                raise exceeded("code_bytes", declared, f"{what}, unpacked")
            left = LIMITS["code_bytes"].default
            for member in members:
                left -= _member(archive, member, into, written, left, what)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{what} is not a zip archive: {error}", remedy="make it again") from error
    except RuntimeError as error:  # what zipfile says of encrypted members
        raise InvalidInput(f"{what} cannot be read: {error}", remedy="make it without a password") from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, into: Path, written: set[str], left: int, what: str) -> int:
    name = _safe_name(member.filename, what)
    mode = member.external_attr >> 16
    if member.is_dir():
        (into / name).mkdir(parents=True, exist_ok=True)
        return 0
    if stat.S_ISLNK(mode):
        return _link(archive, member, name, into, written, what)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise InvalidInput(f"{what} holds {name}, which is not a file or folder", remedy="leave it out")
    if name in written:
        raise InvalidInput(f"{what} holds {name!r} twice", remedy="name every file once")
    written.add(name)
    try:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(into / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInput(f"{what}: the name {name!r} cannot be a file's: {error.strerror}") from error
    size = 0
    with os.fdopen(descriptor, "wb", buffering=0) as stream, archive.open(member) as content:
        while chunk := content.read(_CHUNK):
            size += len(chunk)
            if size > left:  # whatever the directory at the archive's end said
                raise exceeded("code_bytes", None, f"{what}, unpacked")
            if size > _RATIO * max(member.compress_size, _CHUNK):
                raise InvalidInput(f"{what}: {name} is packed more than {_RATIO} to one", remedy="leave it out")
            stream.write(chunk)
        os.fchmod(stream.fileno(), 0o700 if mode & 0o100 else 0o600)
    return size


def _link(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, into: Path, written: set[str], what: str) -> int:
    """A symbolic link inside the package becomes a copy of what it leads to, if that came before it."""
    if member.file_size > 4_096:
        raise InvalidInput(f"{what} holds the link {name} with {member.file_size} bytes")
    target = archive.read(member).decode("utf-8", "replace")
    end = os.path.normpath(os.path.join(os.path.dirname(name), target))
    if target.startswith("/") or end == ".." or end.startswith("../"):
        raise InvalidInput(f"{what}: the symbolic link {name} leads out of the package (to {target})")
    if end not in written:
        raise InvalidInput(f"{what}: the symbolic link {name} leads to {target}, which is not a file before it")
    if name in written:
        raise InvalidInput(f"{what} holds {name!r} twice", remedy="name every file once")
    written.add(name)
    content = (into / end).read_bytes()
    (into / name).parent.mkdir(parents=True, exist_ok=True)
    (into / name).write_bytes(content)
    (into / name).chmod((into / end).stat().st_mode & 0o777)
    return len(content)


def _safe_name(name: str, what: str) -> str:
    if name.startswith("/") or "\0" in name or "\\" in name or ".." in name.split("/"):
        raise InvalidInput(f"{what} holds the name {name!r}, which leads out of the package", remedy="use relative names")
    kept = "/".join(part for part in name.split("/") if part not in ("", "."))
    if not kept:
        raise InvalidInput(f"{what} holds the empty name {name!r}")
    return kept


def zip_folder(folder: Path) -> bytes:
    """A stored package as an archive: the one that it was, else a deterministic one. Blocking."""
    if (folder / ARCHIVE).is_file():
        return (folder / ARCHIVE).read_bytes()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for current, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = Path(current, name)
                _add(archive, str(path.relative_to(folder)), path.read_bytes(), path.stat().st_mode)
    return out.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes, mode: int) -> None:
    member = zipfile.ZipInfo(name, _STAMP)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = (stat.S_IFREG | (0o755 if mode & 0o100 else 0o644)) << 16
    archive.writestr(member, content)
