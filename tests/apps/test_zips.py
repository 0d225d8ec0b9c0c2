"""Zip archives of functions: what is in them is kept, what is hostile is refused in Lambda's words, and nothing is left."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from martlet.apps import zips
from martlet.apps.zips import Zips
from martlet.errors import ServiceError

BROKEN = "Could not unzip uploaded file. Please check your file, then try to upload again."


def packed(*members: tuple[str, bytes, int], deflate: bool = True) -> bytes:
    """A zip of (name, content, Unix mode; 0 for none)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = mode << 16
            info.compress_type = archive.compression
            archive.writestr(info, content)
    return out.getvalue()


LINK = stat.S_IFLNK | 0o777


def test_files_modes_and_links_are_kept(tmp_path: Path) -> None:
    data = packed(
        ("bootstrap", b"#!/bin/sh\n", 0o755), ("a/b.py", b"x = 1\n", 0o600), ("a/c.py", b"b.py", LINK), ("d/", b"", 0)
    )
    stored = Zips(tmp_path).store(data, "code")
    folder = tmp_path / "code" / stored.address
    assert (folder / "bootstrap").stat().st_mode & 0o777 == 0o755
    assert (folder / "a" / "b.py").stat().st_mode & 0o777 == 0o644
    assert os.readlink(folder / "a" / "c.py") == "b.py"
    assert stored.unzipped_bytes == 10 + 6 + 4
    assert stored.digest == hashlib.sha256(data).hexdigest()
    assert Zips(tmp_path).open(stored.digest) == data


def test_the_same_content_has_one_address_whatever_the_archive(tmp_path: Path) -> None:
    one = Zips(tmp_path).store(packed(("a", b"1", 0o644), ("b", b"2", 0)), "code")
    two = Zips(tmp_path).store(packed(("b", b"2", 0), ("a", b"1", 0o644), deflate=False), "code")
    three = Zips(tmp_path).store(packed(("b", b"2", 0o755), ("a", b"1", 0)), "code")
    assert one.address == two.address != three.address
    assert one.digest != two.digest
    assert len(list((tmp_path / "code").iterdir())) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 no zip",
        packed(("a", b"1", 0o644))[:-10],
        packed(("../a", b"1", 0o644)),
        packed(("/etc/a", b"1", 0o644)),
        packed(("a/../../b", b"1", 0o644)),
        packed(("..\\a", b"1", 0o644)),
        packed(("a", b"/etc/passwd", LINK)),
        packed(("a/b", b"../../etc", LINK)),
        packed(("a", b"b", LINK), ("a/c", b"1", 0o644)),
        packed(("b", b".", LINK), ("b/c", b"..", LINK)),
        packed(("a", b"1", stat.S_IFIFO | 0o644)),
        packed(("a", b"1", 0o644), ("a/b", b"1", 0o644)),
        packed(("x" * 300, b"1", 0o644)),
        packed(("a", b"x" * 5_000, LINK)),
    ],
)
def test_what_is_broken_or_leads_out_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        Zips(tmp_path).store(data, "code")
    assert caught.value.name == "InvalidParameterValueException"
    assert caught.value.message.startswith(BROKEN)
    assert list((tmp_path / "code").iterdir()) == []
    assert not (tmp_path / "zips").exists()


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = packed(("a", b"1", 0o644), ("a", b"2", 0o644))
    with pytest.raises(ServiceError, match="Could not unzip"):
        Zips(tmp_path).store(data, "code")


def test_a_bomb_is_stopped_while_it_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "_MOST", 1_000_000)
    data = packed(*((f"f{number}", bytes(400_000), 0o644) for number in range(4)))
    assert len(data) < 5_000
    with pytest.raises(ServiceError, match=r"Unzipped size must be smaller than 1000000 bytes"):
        Zips(tmp_path).store(data, "code")
    assert list((tmp_path / "code").iterdir()) == []


def test_a_header_that_lies_about_its_size_is_found_out(tmp_path: Path) -> None:
    data = bytearray(packed(("a", bytes(100_000), 0o644)))
    for place in (data.find(b"PK\x03\x04") + 22, data.find(b"PK\x01\x02") + 24):
        data[place : place + 4] = (10).to_bytes(4, "little")
    with pytest.raises(ServiceError, match="Could not unzip"):
        Zips(tmp_path).store(bytes(data), "code")


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "_FILES", 2)
    with pytest.raises(ServiceError, match="Could not unzip"):
        Zips(tmp_path).store(packed(*((str(number), b"", 0o644) for number in range(3))), "code")


def test_archives_and_layers_that_nobody_uses_are_deleted_at_start(tmp_path: Path) -> None:
    keeper = Zips(tmp_path)
    one, two = (keeper.store(packed(("a", text, 0o644)), "layer") for text in (b"1", b"2"))
    keeper.collect({one.digest}, {one.address})
    assert [path.name for path in (tmp_path / "layers-lambda").iterdir()] == [one.address]
    assert keeper.open(one.digest)
    with pytest.raises(FileNotFoundError):
        keeper.open(two.digest)
