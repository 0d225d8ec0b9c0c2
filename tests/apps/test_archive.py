"""Uploads are hostile until shown otherwise."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from martlet.apps import archive as module
from martlet.apps.archive import pack, unpack
from martlet.apps.package import scan
from martlet.errors import DeployFailed, InvalidInput, LimitExceeded, MartletError
from martlet.limits import LIMITS, Limit

Member = tuple[str, bytes, str, str]  # name, type, link target, content


def tar(*members: tuple[str, bytes, str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, target, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


def file(name: str, content: str = "x") -> Member:
    return name, tarfile.REGTYPE, "", content


def link(name: str, target: str) -> Member:
    return name, tarfile.SYMTYPE, target, ""


def hard(name: str, target: str) -> Member:
    return name, tarfile.LNKTYPE, target, ""


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "outer" / "into"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_round_trip(tmp_path: Path, into: Path, wrap: object) -> None:
    source = tmp_path / "app"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "app.py").write_text("x = 1\n")
    (source / "deep" / "er" / ("n" * 150 + "é.txt")).write_text("long name")
    (source / "run").write_text("")
    (source / "run").chmod(0o755)
    package = scan(source)
    data = pack(package)
    assert data == pack(scan(source))
    unpack(wrap(data), into)  # type: ignore[operator]
    assert scan(into).address == package.address


@pytest.mark.parametrize(
    "members",
    [
        (file("/etc/passwd"),),
        (file("../out"),),
        (file("a/../../out"),),
        (file("a\\b"),),
        (("dev", tarfile.CHRTYPE, "", ""),),
        (("dev", tarfile.BLKTYPE, "", ""),),
        (("pipe", tarfile.FIFOTYPE, "", ""),),
        (file("a"), file("a")),
        (file("a"), file("./a")),
        (file("a"), file("a/b")),
        (file("a/b"), file("a")),
        (link("a", "/etc"),),
        (link("a", ".."),),
        (link("d/a", "../../x"),),
        (link("a", "d/../.."),),
        (file("a"), link("a", "b")),
        (link("a", "sub"), link("a/b", "c"), file("sub/x")),
        (hard("a", "/etc/passwd"),),
        (hard("a", "../out"),),
        (hard("a", "later"), file("later")),
        (link("s", "f"), hard("h", "s"), file("f")),
        (file("x" * 300),),
        (),
    ],
)
def test_refused(into: Path, members: tuple[Member, ...]) -> None:
    with pytest.raises(InvalidInput):
        unpack(tar(*members), into)
    assert [path.name for path in into.parent.iterdir()] == ["into"]
    assert not any(path.is_symlink() for path in into.rglob("*") if path.resolve().parent == into.parent)


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\x1f\x8b broken", b"\0" * 5_000, gzip.compress(b"no")])
def test_not_a_tar(into: Path, data: bytes) -> None:
    with pytest.raises(InvalidInput):
        unpack(data, into)


def test_every_cut_of_a_tar_is_refused_or_whole(into: Path, tmp_path: Path) -> None:
    data = tar(file("a", "a" * 600), file("b", "b" * 10))
    for end in range(0, len(data), 97):
        target = tmp_path / f"cut{end}"
        target.mkdir()
        try:
            unpack(data[:end], target)
        except InvalidInput:
            continue
        for name, content in (("a", "a" * 600), ("b", "b" * 10)):
            if (target / name).exists():
                assert (target / name).read_text() == content


def _unpack_and_scan(data: bytes, into: Path) -> None:
    unpack(data, into)
    scan(into)


def test_a_chain_of_links_that_leads_out_is_found(into: Path) -> None:
    """Each link looks fine by its text: `wide` leaves only because `deep/er` is a link itself."""
    data = tar(file("top/f"), file("deep/x"), link("deep/er", "../top"), link("wide", "deep/er/../../../outer"))
    with pytest.raises(MartletError):
        _unpack_and_scan(data, into)
    assert not (into.parent / "f").exists()


def test_nothing_is_written_through_a_link(into: Path) -> None:
    data = tar(link("door", "room/../.."), file("door/loot"))
    with pytest.raises(InvalidInput):
        unpack(data, into)
    assert not (into.parent / "loot").exists()


def test_links_inside_are_kept(into: Path) -> None:
    unpack(tar(file("d/a.py", "1"), link("b.py", "d/a.py"), hard("c.py", "d/a.py")), into)
    assert (into / "b.py").read_text() == (into / "c.py").read_text() == "1"
    assert len(scan(into).files) == 3


def test_link_into_a_missing_file_fails_at_the_scan(into: Path) -> None:
    unpack(tar(link("a", "missing"), file("b")), into)
    with pytest.raises(DeployFailed, match="cannot read a"):
        scan(into)


def test_size_is_checked_before_it_is_written(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "code_bytes", Limit("code_bytes", 100, "bytes", "test"))
    with pytest.raises(LimitExceeded, match="code_bytes is 100"):
        unpack(tar(file("a", "x" * 60), file("b", "x" * 60)), into)
    assert not (into / "b").exists()


def test_number_of_members(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "code_files", Limit("code_files", 2, "files", "test"))
    with pytest.raises(LimitExceeded, match="code_files"):
        unpack(tar(file("a"), file("b"), file("c")), into)


def test_gzip_bomb(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UPLOAD_BYTES", 100_000)
    with pytest.raises(LimitExceeded, match="code_bytes"):
        unpack(gzip.compress(tar(file("a", "x" * 1_000_000))), into)


def test_a_size_that_is_a_lie(into: Path) -> None:
    data = bytearray(tar(file("a", "x")))
    member = tarfile.TarInfo("a")
    member.size = 10**12
    data[:512] = member.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(MartletError):
        unpack(bytes(data), into)
