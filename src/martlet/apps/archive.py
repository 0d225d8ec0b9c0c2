"""Packages as tar bytes: what `martlet deploy` uploads, and what the platform unpacks without trusting it.

Reading accepts plain or gzip tar with regular files, folders, hard links to earlier members and symbolic links that stay
inside; everything else (absolute names, "..", devices, sparse files, names given twice, links out) is refused by name.
Sizes are checked before bytes are written, and the decompressed stream is bounded, so that a small upload cannot fill the disk.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from pathlib import Path

from martlet.apps.package import Package, read_chunks
from martlet.errors import InvalidInput, MartletError
from martlet.limits import LIMITS, exceeded

__all__ = ["UPLOAD_BYTES", "pack", "unpack"]

_BLOCK = 512
# The longest tar that can hold an allowed package: its bytes and, for each file, a header, a long name and padding.
UPLOAD_BYTES = LIMITS["code_bytes"].default + LIMITS["code_files"].default * 4 * _BLOCK


def pack(package: Package) -> bytes:
    """The package as a deterministic plain tar. Blocking. Raises `Conflict` if a file changed since the scan."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for file in package.files:
            member = tarfile.TarInfo(file.path)
            member.size, member.mode = file.size, file.mode
            archive.addfile(member, io.BytesIO(b"".join(read_chunks(file))))
    return out.getvalue()


def unpack(data: bytes, into: Path) -> None:
    """Write the members of a tar below `into`, an empty folder. Blocking. Raises `InvalidInput`, `LimitExceeded`."""
    links: list[tuple[str, str]] = []
    written: set[str] = set()
    size = count = 0
    try:
        with tarfile.open(fileobj=_Bounded(data), mode="r|", encoding="utf-8") as archive:
            for member in archive:
                count += 1
                if count > LIMITS["code_files"].default:
                    raise exceeded("code_files", count, "the upload")
                name = _safe_name(member.name)
                size += member.size if member.isreg() else 0
                if size > LIMITS["code_bytes"].default:
                    raise exceeded("code_bytes", size, f"the upload, at {name}")
                _member(archive, member, name, into, written, links)
    except MartletError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as error:
        raise InvalidInput(
            f"the upload is not a tar archive: {error}", remedy="send a tar or tar.gz of the app's folder"
        ) from error
    if not count:
        raise InvalidInput("the upload is an empty tar archive", remedy="send a tar or tar.gz of the app's folder")
    for name, target in links:  # last: no member is ever written through a link
        _link(into, name, target)


def _member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, into: Path, written: set[str], links: list[tuple[str, str]]
) -> None:
    if member.isdir():
        _make_folders(into / name, name)
        return
    if name in written or not name:
        raise InvalidInput(f"the upload holds {member.name!r} twice", remedy="name every file once")
    written.add(name)
    if member.issym():
        links.append((name, member.linkname))
    elif member.islnk():
        origin = _safe_name(member.linkname)
        if origin not in written or not (into / origin).is_file():
            raise InvalidInput(f"the upload's hard link {name} leads to {origin}, which is not before it")
        _make_folders((into / name).parent, name)
        _write(into / name, name, (into / origin).read_bytes(), (into / origin).stat().st_mode)
    elif member.isreg() and not member.issparse():
        stream = archive.extractfile(member)
        _make_folders((into / name).parent, name)
        _write(into / name, name, stream.read() if stream else b"", member.mode)
    else:
        raise InvalidInput(f"the upload holds {name}, which is not a file, folder or link", remedy="leave it out")


def _safe_name(name: str) -> str:
    if name.startswith("/") or "\0" in name or "\\" in name or ".." in name.split("/"):
        raise InvalidInput(
            f"the upload holds the name {name!r}, which leads out of the app's folder", remedy="use relative names"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the upload holds the name {name!r}, which is not UTF-8") from error
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _make_folders(folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidInput(f"the upload holds {name!r} both as a file and as a folder") from error
    except OSError as error:
        raise InvalidInput(f"the upload's name {name!r} cannot be a file's: {error.strerror}") from error


def _write(path: Path, name: str, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInput(f"the upload's name {name!r} cannot be a file's: {error.strerror}") from error
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        stream.write(content)
        os.fchmod(stream.fileno(), 0o700 if mode & 0o100 else 0o600)


def _link(into: Path, name: str, target: str) -> None:
    """A link that leads out is found again by the scan that follows; here the plain cases are refused early and by name."""
    end = os.path.normpath(os.path.join(os.path.dirname(name), target))
    if target.startswith("/") or end == ".." or end.startswith("../"):
        raise InvalidInput(f"the upload's symbolic link {name} leads out of the app's folder (to {target})")
    folder = into
    for part in name.split("/")[:-1]:
        folder = folder / part
        if folder.is_symlink():  # before anything is made: a chain of links could lead out
            raise InvalidInput(f"the upload's symbolic link {name} lies behind another link")
    _make_folders(folder, name)
    try:
        os.symlink(target, into / name)
    except OSError as error:
        raise InvalidInput(f"the upload's symbolic link {name} cannot be made: {error.strerror}") from error


class _Bounded(io.RawIOBase):
    """The tar's bytes, gunzipped if need be, never more than `UPLOAD_BYTES` of them."""

    def __init__(self, data: bytes) -> None:
        raw = io.BytesIO(data)
        self._stream: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if data[:2] == b"\x1f\x8b" else raw
        self._left = UPLOAD_BYTES

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(chunk)
        if self._left < 0:
            raise exceeded("code_bytes", None, "the upload, unpacked")
        return chunk
