"""Uploads: archives that would write, or read, outside their folder."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from tests.security.stage import Stage

APP = b"from martlet import App\napp = App()\n@app.function()\ndef f(event, context):\n    return 1\n"


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        app = tarfile.TarInfo("app.py")
        app.size = len(APP)
        archive.addfile(app, io.BytesIO(APP))
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if content else None)
    return out.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        found.devmajor, found.devminor = 1, 3
    return found


ESCAPES = {
    "dots": [(_member("../attacked"), b"x")],
    "dots within": [(_member("a/../../attacked"), b"x")],
    "absolute": [(_member("/tmp/martlet-attacked"), b"x")],
    "absolute link": [(_member("link", tarfile.SYMTYPE, "/etc/passwd"), b"")],
    "link out": [(_member("link", tarfile.SYMTYPE, "../../../../etc/passwd"), b"")],
    "through a link": [(_member("d", tarfile.SYMTYPE, "/tmp"), b""), (_member("d/martlet-attacked"), b"x")],
    "through two links": [
        (_member("a", tarfile.SYMTYPE, "b"), b""),
        (_member("b", tarfile.SYMTYPE, ".."), b""),
        (_member("a/attacked"), b"x"),
    ],
    "link chain": [
        (_member("x/y", tarfile.SYMTYPE, ".."), b""),
        (_member("x/z", tarfile.SYMTYPE, "y/.."), b""),
        (_member("w", tarfile.SYMTYPE, "x/z/../../etc"), b""),
    ],
    "hard link out": [(_member("hard", tarfile.LNKTYPE, "/etc/shadow"), b"")],
    "hard link up": [(_member("hard", tarfile.LNKTYPE, "../credentials.json"), b"")],
    "hard link to a link": [
        (_member("s", tarfile.SYMTYPE, "../credentials.json"), b""),
        (_member("h", tarfile.LNKTYPE, "s"), b""),
    ],
    "device": [(_member("null", tarfile.CHRTYPE), b"")],
    "disk": [(_member("disk", tarfile.BLKTYPE), b"")],
    "fifo": [(_member("fifo", tarfile.FIFOTYPE), b"")],
    "twice": [(_member("twice"), b"x"), (_member("twice"), b"y")],
    "backslash": [(_member("..\\..\\attacked"), b"x")],
}


def _outside(stage: Stage) -> set[str]:
    """What lies beside the code folders: nothing of an upload may ever appear here."""
    places = [stage.data, stage.data / "code", stage.folder, Path("/tmp/martlet-attacked").parent]
    return {str(path) for place in places for path in place.glob("*attacked*")}


@pytest.mark.parametrize("name", ESCAPES)
def test_archives_that_lead_out(attacked: Stage, name: str) -> None:
    status, text = attacked.upload("uploaded", _tar(*ESCAPES[name]))
    assert '"type":"result"' not in text.replace(" ", ""), (status, text)
    assert "root:" not in text
    assert _outside(attacked) == set()
    assert not any(path.name.startswith(".tmp-") for path in (attacked.data / "code").iterdir())


def test_privileged_files_lose_their_bits(attacked: Stage) -> None:
    program = _member("run.sh")
    program.mode, program.uid, program.gid = 0o6777, 0, 0
    status, text = attacked.upload("uploaded", _tar((program, b"#!/bin/sh\nid -u\n")))
    try:
        assert '"result"' in text, (status, text)
        assert not [path for path in (attacked.data / "code").rglob("run.sh") if path.stat().st_mode & 0o6022]
    finally:
        assert attacked.martlet("destroy", "uploaded", "--yes").returncode == 0


def test_an_archive_that_unpacks_to_more_than_the_limit(attacked: Stage) -> None:
    """A small upload, half a gigabyte of zeros unpacked."""
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=9) as zipped:
        header = tarfile.TarInfo("zeros")
        header.size = 512 << 20
        zipped.write(header.tobuf())
        for _ in range(128):
            zipped.write(bytes(1 << 20))
    status, text = attacked.upload("uploaded", bomb.getvalue())
    assert '"result"' not in text, (status, text)
    assert not any(path.name.startswith(".tmp-") for path in (attacked.data / "code").iterdir())


@pytest.mark.parametrize("data", [b"", b"garbage" * 100, b"\x1f\x8b" + b"x" * 100, bytes(10_240), b"PK\x03\x04" + bytes(100)])
def test_uploads_that_are_no_archive(attacked: Stage, data: bytes) -> None:
    _, text = attacked.upload("uploaded", data)
    assert '"result"' not in text


@pytest.mark.parametrize("app", ["..", "%2E%2E%2Fx", "victim%2F..", "a" * 300, "A B", "-x", "x%00"])
def test_app_names_that_are_paths(attacked: Stage, app: str) -> None:
    _, text = attacked.upload(app, _tar())
    assert '"result"' not in text
    assert _outside(attacked) == set()
