"""rclone, as people sync folders to buckets with it: copy, sync, check, listings, several streams, its own test of a remote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.conftest import Start
from tests.running_platform import RunningPlatform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
Rclone = Callable[..., str]


@pytest.fixture(scope="module")
def platform(start: Start) -> RunningPlatform:
    return start(None)


@pytest.fixture(scope="module")
def program() -> str:
    if shutil.which("rclone") is None:
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in ("update -qq", "install -y -qq --no-install-recommends rclone"):
            subprocess.run(["apt-get", *command.split()], check=True, env=environ, stdout=subprocess.DEVNULL)
    found = shutil.which("rclone")
    assert found is not None
    return found


@pytest.fixture
def rclone(platform: RunningPlatform, program: str, tmp_path: Path) -> Rclone:
    keys = platform.credentials
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},  # its own settings only
        "RCLONE_CONFIG": str(tmp_path / "none.conf"),
        "RCLONE_CONFIG_M_TYPE": "s3",
        "RCLONE_CONFIG_M_PROVIDER": "Other",
        "RCLONE_CONFIG_M_ENDPOINT": platform.api_url,
        "RCLONE_CONFIG_M_ACCESS_KEY_ID": keys["access_key_id"],
        "RCLONE_CONFIG_M_SECRET_ACCESS_KEY": keys["secret_access_key"],
        "RCLONE_CONFIG_M_REGION": "us-east-1",
        "RCLONE_CONFIG_M_FORCE_PATH_STYLE": "true",
    }

    def run(*arguments: str) -> str:
        command = [program, "--retries", "1", "--low-level-retries", "1", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=240)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Names that are hard, files that are empty, small, and large enough for parts."""
    root = tmp_path / "files"
    for name in ("a.txt", "deep/er/b.txt", "spaces and + signs/ä ö?.txt", "deep/empty", "quote'\"%41&.txt", "~/.hidden"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name.endswith("empty") else os.urandom(1_000) + name.encode())
    (root / "large.bin").write_bytes(os.urandom(17_000_000))
    return root


def test_a_folder_goes_up_comes_back_and_is_the_same(rclone: Rclone, folder: Path, tmp_path: Path) -> None:
    rclone("mkdir", "m:copies")
    rclone(
        "copy", str(folder), "m:copies/in", "--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", "--s3-upload-concurrency", "4"
    )
    rclone("check", str(folder), "m:copies/in", "--download")
    back = tmp_path / "back"
    rclone("copy", "m:copies/in", str(back), "--multi-thread-cutoff", "5M", "--multi-thread-streams", "4")
    rclone("check", str(folder), str(back), "--download")
    listed = {one["Path"]: one["Size"] for one in json.loads(rclone("lsjson", "-R", "--files-only", "m:copies/in"))}
    assert listed == {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    times = rclone("lsl", "m:copies/in/a.txt")
    assert str(int((folder / "a.txt").stat().st_mtime) % 60).zfill(2) in times, "the file's own time is kept with it"


def test_sync_makes_the_same_and_deletes_the_rest(rclone: Rclone, folder: Path) -> None:
    rclone("mkdir", "m:synced")
    rclone("sync", str(folder), "m:synced")
    (folder / "a.txt").write_text("another")
    shutil.rmtree(folder / "deep")
    rclone("sync", str(folder), "m:synced")
    rclone("check", str(folder), "m:synced", "--download")
    rclone("sync", "m:synced", "m:synced-again")
    rclone("check", "m:synced", "m:synced-again")
    rclone("moveto", "m:synced/a.txt", "m:synced/moved/a.txt")
    assert rclone("cat", "m:synced/moved/a.txt") == "another"
    assert rclone("cat", "--offset", "2", "--count", "3", "m:synced/moved/a.txt") == "oth"
    rclone("purge", "m:synced")
    assert "synced-again" in rclone("lsd", "m:")
    assert "synced\n" not in rclone("lsd", "m:")


def test_links_versions_and_its_own_test_of_names(rclone: Rclone, folder: Path) -> None:
    rclone("mkdir", "m:names")
    rclone("copy", str(folder / "a.txt"), "m:names")
    link = rclone("link", "--expire", "1h", "m:names/a.txt").strip()
    got = subprocess.run(["curl", "-s", "--fail", link], capture_output=True, check=True).stdout
    assert got == (folder / "a.txt").read_bytes()
    found = rclone("test", "info", "--check-length=false", "--check-streaming", "--check-normalization", "m:names/info")
    assert found is not None
    assert int(json.loads(rclone("size", "--json", "m:names/a.txt"))["count"]) == 1
