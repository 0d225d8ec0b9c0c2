"""Packages: the same bytes give the same address, nothing outside the folder gets in, and a store is whole or absent."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from martlet.apps import package as module
from martlet.apps.ignore import is_ignored, parse
from martlet.apps.package import DigestCache, app_name, folders_of, martlet_settings, scan, store
from martlet.clock import Clock
from martlet.errors import Conflict, DeployFailed, InvalidInput, LimitExceeded
from martlet.limits import LIMITS, Limit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    (root / "pkg").mkdir(parents=True)
    (root / "app.py").write_text("x = 1\n")
    (root / "pkg" / "__init__.py").write_text("")
    return root


def paths(root: Path) -> list[str]:
    return [file.path for file in scan(root).files]


def lower(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    monkeypatch.setitem(LIMITS, name, Limit(name, value, "units", "test"))


def test_address_is_of_path_mode_and_content_only(folder: Path, tmp_path: Path) -> None:
    first = scan(folder).address
    os.utime(folder / "app.py", (1, 1))
    assert scan(folder).address == first
    (folder / "app.py").chmod(0o755)
    executable = scan(folder).address
    assert executable != first
    (folder / "app.py").chmod(0o600)
    assert scan(folder).address == first
    (folder / "app.py").rename(folder / "main.py")
    assert scan(folder).address not in (first, executable)


def test_where_one_file_ends_and_the_next_begins_matters(tmp_path: Path) -> None:
    for name, files in {"one": {"a": "bc", "d": ""}, "two": {"a": "b", "cd": ""}}.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    assert scan(tmp_path / "one").address != scan(tmp_path / "two").address


def test_skipped_names(folder: Path) -> None:
    for name in (".git", ".venv", "venv", "node_modules", "__pycache__", ".martlet"):
        (folder / "pkg" / name).mkdir()
        (folder / "pkg" / name / "f").write_text("")
    (folder / "old.pyc").write_bytes(b"")
    assert paths(folder) == ["app.py", "pkg/__init__.py"]
    assert all(part not in found for found in folders_of(folder) for part in (".git", "node_modules"))


def test_ignore_files(folder: Path) -> None:
    (folder / ".gitignore").write_text("*.log\nbuild/\n/secret.txt\n!keep.log\n")
    (folder / ".martletignore").write_text(".gitignore\n.martletignore\n!special.log\n")
    (folder / "pkg" / ".gitignore").write_text("/local\n")
    for name in ("a.log", "keep.log", "special.log", "secret.txt", "pkg/secret.txt", "pkg/local", "local"):
        (folder / name).write_text("")
    (folder / "build").mkdir()
    (folder / "build" / "keep.log").write_text("")
    assert paths(folder) == ["app.py", "keep.log", "local", "pkg/__init__.py", "pkg/secret.txt", "special.log"]


PATTERNS = (
    "a", "/a", "a/", "a/b", "/a/b", "**/a", "a/**", "a/**/b", "*.py", "a*b", "a?b", "[ab]c", "[!ab]c", "[a-c]x", "\\!a",
    "\\#a", "#a", "!a", "a\\ ", "a  ", "**", "*", "**/a/*", "a/*", "[]]x", "[z-a]x", "a\\*", "x[", "*/b", "/**/b",
    "a**b", "[^a]c", "[a&&b]c",
)  # fmt: skip
NAMES = (
    "a",
    "b",
    "ab",
    "axb",
    "a/b",
    "a/c/b",
    "c/a",
    "c/a/b",
    "x.py",
    "d/x.py",
    "ac",
    "bc",
    "cc",
    "bx",
    "!a",
    "#a",
    "a ",
    "]x",
    "a*",
    "x[",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ignore_patterns_mean_what_git_says(pattern: str, tmp_path: Path) -> None:
    """The oracle is git itself. Files only, and their folders, as a walk meets them."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text(pattern + "\n")
    asked = subprocess.run(
        ["git", "-C", str(tmp_path), "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "--stdin", "-z"],
        input="\0".join(NAMES),
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert asked.returncode in (0, 1), asked.stderr
    rules = tuple(parse(pattern + "\n"))
    ours = set()
    for name in NAMES:
        parts = name.split("/")
        if any(is_ignored("/".join(parts[: end + 1]), end < len(parts) - 1, rules) for end in range(len(parts))):
            ours.add(name)
    assert ours == set(asked.stdout.split("\0")) - {""}


def test_link_out_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (folder / "pkg" / "leak").symlink_to(tmp_path / "secret")
    with pytest.raises(DeployFailed, match="pkg/leak leaves the folder"):
        scan(folder)
    (folder / ".martletignore").write_text("leak\n")
    assert "pkg/leak" not in paths(folder)


def test_link_to_a_sibling_that_shares_the_name_is_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "app-secret").mkdir()
    (folder / "leak").symlink_to(tmp_path / "app-secret")
    with pytest.raises(DeployFailed, match="leak leaves the folder"):
        scan(folder)


def test_links_inside_become_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    (folder / "alias.py").symlink_to("app.py")
    (folder / "again").symlink_to("pkg")
    stored = store(scan(folder), tmp_path / "code")
    assert (stored / "alias.py").read_text() == "x = 1\n"
    assert not (stored / "alias.py").is_symlink()
    assert (stored / "again" / "__init__.py").is_file()


def test_link_circle_is_refused(folder: Path) -> None:
    (folder / "pkg" / "up").symlink_to("..")
    with pytest.raises(DeployFailed, match="pkg/up leads back"):
        scan(folder)


def test_links_that_double_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, "code_files", 50)
    for number in range(20):
        here, below = folder / f"d{number}", folder / f"d{number + 1}"
        here.mkdir(exist_ok=True)
        below.mkdir(exist_ok=True)
        (here / "x").symlink_to(below)
        (here / "y").symlink_to(below)
    with pytest.raises(LimitExceeded, match="code_files"):
        scan(folder)


def test_broken_link_and_special_files_are_refused(folder: Path) -> None:
    (folder / "gone").symlink_to("nowhere")
    with pytest.raises(DeployFailed, match="cannot read gone"):
        scan(folder)
    (folder / "gone").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(DeployFailed, match="pipe is not a regular file"):
        scan(folder)


def test_name_that_is_not_utf8(folder: Path) -> None:
    with open(os.fsencode(folder) + b"/\xff.txt", "w"):
        pass
    with pytest.raises(DeployFailed, match="not UTF-8"):
        scan(folder)


@pytest.mark.parametrize(("name", "limit"), [("code_bytes", 5), ("code_files", 1)])
def test_limits(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int) -> None:
    lower(monkeypatch, name, limit)
    with pytest.raises(LimitExceeded, match=f"limit {name} is {limit}"):
        scan(folder)


def test_one_file(folder: Path) -> None:
    (folder / "other.py").write_text("")
    found = scan(folder / "app.py")
    assert [file.path for file in found.files] == ["app.py"]
    (folder / "notes.txt").write_text("")
    with pytest.raises(DeployFailed, match=r"not a \.py file"):
        scan(folder / "notes.txt")
    with pytest.raises(DeployFailed, match="there is no folder or file"):
        scan(folder / "absent")


def test_stored_files_are_readable_by_all_and_nothing_is_left_over(folder: Path, tmp_path: Path) -> None:
    (folder / "run.sh").write_text("")
    (folder / "run.sh").chmod(0o700)
    (folder / "app.py").chmod(0o600)
    before = os.umask(0o077)
    try:
        stored = store(scan(folder), tmp_path / "code")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (stored, *stored.rglob("*"))}
    assert modes == {stored.name: 0o755, "app.py": 0o644, "run.sh": 0o755, "pkg": 0o755, "__init__.py": 0o644}
    assert scan(stored).address == stored.name
    assert store(scan(folder), tmp_path / "code") == stored
    assert [entry.name for entry in (tmp_path / "code").iterdir()] == [stored.name]


def test_change_between_scan_and_store(folder: Path, tmp_path: Path) -> None:
    found = scan(folder)
    (folder / "app.py").write_text("x = 2\n")
    with pytest.raises(Conflict, match=r"app\.py changed"):
        store(found, tmp_path / "code")
    assert list((tmp_path / "code").iterdir()) == []


def test_link_put_in_a_files_place_after_the_scan(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x = 1\n")
    found = scan(folder)
    (folder / "app.py").unlink()
    (folder / "app.py").symlink_to(tmp_path / "secret")
    with pytest.raises(DeployFailed, match=r"cannot read app\.py"):
        store(found, tmp_path / "code")


def test_killed_while_storing_leaves_no_folder_under_the_address(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(path: Path) -> None:
        raise Killed

    monkeypatch.setattr(module, "sync_folder", die)
    monkeypatch.setattr(module.shutil, "rmtree", lambda path: None)  # a killed process cleans nothing
    found = scan(folder)
    with pytest.raises(Killed):
        store(found, tmp_path / "code")
    monkeypatch.undo()
    assert not (tmp_path / "code" / found.address).exists()
    assert scan(store(found, tmp_path / "code")).address == found.address


class CountingClock(Clock):
    """Far enough ahead that every file is at rest."""

    def now_ms(self) -> int:
        return super().now_ms() + 10_000


def test_unchanged_files_are_not_hashed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DigestCache(CountingClock())
    scan(folder, cache)
    hashed: list[str] = []
    real = module._hash
    monkeypatch.setattr(module, "_hash", lambda path, name: (hashed.append(name), real(path, name))[1])
    scan(folder, cache)
    assert hashed == []
    (folder / "app.py").write_text("x = 3\n")
    assert scan(folder, cache).address == scan(folder).address
    assert hashed.count("pkg/__init__.py") == 1  # by the scan without a cache


def test_a_file_that_was_just_written_is_not_trusted(folder: Path) -> None:
    """Two writes of one size within the file system's clock tick look the same."""
    cache = DigestCache(Clock())
    first = scan(folder, cache)
    status = (folder / "app.py").stat()
    (folder / "app.py").write_text("x = 9\n")
    os.utime(folder / "app.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert scan(folder, cache).address != first.address


def test_app_name(tmp_path: Path) -> None:
    folder = tmp_path / "My Shop_2"
    folder.mkdir()
    assert app_name(folder) == "my-shop-2"
    (folder / "Fast.API.py").write_text("")
    assert app_name(folder / "Fast.API.py") == "fast-api"
    (folder / "pyproject.toml").write_text('[tool.martlet]\nname = "shop"\n')
    assert app_name(folder) == "shop"
    (folder / "pyproject.toml").write_text('[tool.martlet]\nname = "Shop!"\n')
    with pytest.raises(InvalidInput, match="Shop!"):
        app_name(folder)
    odd = tmp_path / "___"
    odd.mkdir()
    with pytest.raises(InvalidInput, match="cannot make an app's name") as caught:
        app_name(odd)
    assert "--app NAME" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[tool.martlet\n", "not valid TOML"),
        ("[tool]\nmartlet = 1\n", "not a table"),
        ('[tool.martlet]\nmodul = "x"\n', "no setting 'modul'"),
        ("[tool.martlet]\nmodule = 1\n", "module must be of type str"),
        ('[tool.martlet]\nallow-source-builds = "yes"\n', "must be of type bool"),
    ],
)
def test_bad_settings(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(DeployFailed, match=reason):
        martlet_settings(tmp_path)
