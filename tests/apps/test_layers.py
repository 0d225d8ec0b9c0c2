"""Dependency layers, built by the real uv from wheels that the tests make: no network."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import stat
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from martlet.apps.layers import Layers, folder_bytes
from martlet.apps.requirements import Requirements
from martlet.errors import DeployFailed, LimitExceeded
from martlet.limits import LIMITS, Limit


def listed(folder: Path, name: str) -> None:
    """List the project's files in the index (PEP 503), which is a folder: uv reads it by a file: address."""
    page = folder / "simple" / name
    page.mkdir(parents=True, exist_ok=True)
    links = "".join(f'<a href="../../{file.name}">{file.name}</a>\n' for file in sorted(folder.glob(f"{name}-*")))
    (page / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


def wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), content: str = "value = 1\n") -> None:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {r}\n" for r in requires)
    files = {
        f"{name}/__init__.py": content,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}={name}:value\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    listed(folder, name)


def source_distribution(folder: Path, name: str, version: str, mark: Path) -> None:
    """One whose build would leave a mark on the host."""
    setup = f"open({str(mark)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name={name!r}, version={version!r})\n"
    with tarfile.open(folder / f"{name}-{version}.tar.gz", "w:gz") as archive:
        for path, text in {"setup.py": setup, "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    listed(folder, name)


def wanted(*lines: str) -> Requirements:
    return Requirements(lines, None, False, "requirements.txt")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    wheel(folder, "alpha", "1.0", ("beta>=1",))
    wheel(folder, "beta", "1.5")
    return folder


@pytest.fixture
def environ(tmp_path: Path, index: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_DEFAULT_INDEX": f"file://{index}/simple",
    }


@pytest.fixture
def layers(tmp_path: Path, environ: dict[str, str]) -> Layers:
    return Layers(tmp_path / "layers", environ=environ)


def entries(tmp_path: Path) -> set[str]:
    """What is in the layers' folder besides locks."""
    return {entry.name for entry in (tmp_path / "layers").iterdir()} - {"locks"}


async def test_builds_once_with_what_the_requirements_need(layers: Layers, tmp_path: Path) -> None:
    told: list[str] = []
    address = await layers.ensure(wanted("alpha"), told.append)
    site = layers.path(address)
    assert {"alpha", "beta"} <= {entry.name for entry in site.iterdir()}
    assert not (site / "bin").exists()
    assert (site / "alpha" / "__pycache__" / f"__init__.{sys.implementation.cache_tag}.pyc").is_file()
    assert all(stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644) for path in (site, *site.rglob("*")))
    assert any("beta==1.5" in text for text in told)
    told.clear()
    assert await layers.ensure(wanted("alpha"), told.append) == address
    assert told == []
    assert entries(tmp_path) == {address}


async def test_no_requirements_no_layer(layers: Layers, tmp_path: Path) -> None:
    assert await layers.ensure(wanted()) == ""
    assert not (tmp_path / "layers").exists()


async def test_versions_stay_as_they_were_resolved(layers: Layers, index: Path, tmp_path: Path) -> None:
    first = await layers.ensure(wanted("alpha"))
    wheel(index, "beta", "2.0")
    assert await layers.ensure(wanted("alpha")) == first
    other = await layers.ensure(wanted("alpha", "beta>=1"))
    assert other != first
    assert (layers.path(other) / "beta-2.0.dist-info").is_dir()


async def test_a_layer_that_went_is_rebuilt_to_the_same(layers: Layers, index: Path, tmp_path: Path) -> None:
    address = await layers.ensure(wanted("alpha"))
    layers.path(address).rename(tmp_path / "away")
    wheel(index, "beta", "2.0")
    assert await layers.ensure(wanted("alpha")) == address
    assert (layers.path(address) / "beta-1.5.dist-info").is_dir()
    layers.forget(address)
    layers.path(address).rename(tmp_path / "away2")
    assert await layers.ensure(wanted("alpha")) != address


async def test_a_file_that_changed_behind_the_lock_is_refused(
    layers: Layers, index: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    address = await layers.ensure(wanted("beta"))
    layers.path(address).rename(tmp_path / "away")
    wheel(index, "beta", "1.5", content="value = 'stolen'\n")
    layers = Layers(tmp_path / "layers", environ=environ | {"UV_CACHE_DIR": str(tmp_path / "other-cache")})
    with pytest.raises(DeployFailed, match=r"(?i)hash"):
        await layers.ensure(wanted("beta"))


async def test_builds_of_one_layer_become_one(layers: Layers, tmp_path: Path) -> None:
    told: list[list[str]] = [[], [], []]
    found = await asyncio.gather(*(layers.ensure(wanted("alpha"), lines.append) for lines in told))
    assert len(set(found)) == 1
    assert told[0] == told[1] == told[2]
    assert sum(text.startswith("resolving") for text in told[0]) == 1


async def test_unknown_dependency(layers: Layers, tmp_path: Path) -> None:
    with pytest.raises(DeployFailed, match="no-such-thing") as caught:
        await layers.ensure(wanted("alpha", "no-such-thing==3"))
    assert "the dependency no-such-thing==3" in caught.value.message
    assert "requirements.txt" in caught.value.remedy
    assert entries(tmp_path) == set()
    assert list((tmp_path / "layers" / "locks").iterdir()) == []


async def test_conflict_is_explained(layers: Layers, index: Path) -> None:
    with pytest.raises(DeployFailed, match=r"beta.*unsatisfiable"):
        await layers.ensure(wanted("alpha", "beta<1"))


async def test_no_network_says_so(tmp_path: Path, environ: dict[str, str]) -> None:
    layers = Layers(
        tmp_path / "layers", environ=environ | {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    )
    with pytest.raises(DeployFailed, match="cannot reach the package index") as caught:
        await layers.ensure(wanted("alpha"))
    assert "network" in caught.value.remedy


async def test_source_distributions_are_not_built(layers: Layers, index: Path, tmp_path: Path) -> None:
    mark = tmp_path / "the-build-ran"
    source_distribution(index, "gamma", "1.0", mark)
    with pytest.raises(DeployFailed, match="gamma") as caught:
        await layers.ensure(wanted("gamma"))
    assert "allow-source-builds = true" in caught.value.remedy
    assert not mark.exists()


async def test_uv_lock_is_followed(layers: Layers, index: Path, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["beta"]\n'
    )
    digest = hashlib.sha256((index / "beta-1.5-py3-none-any.whl").read_bytes()).hexdigest()
    (app / "uv.lock").write_text(
        'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n\n'
        '[[package]]\nname = "app"\nversion = "1"\nsource = { virtual = "." }\ndependencies = [{ name = "beta" }]\n\n'
        '[package.metadata]\nrequires-dist = [{ name = "beta" }]\n\n'
        '[[package]]\nname = "beta"\nversion = "1.5"\nsource = { registry = "https://pypi.org/simple" }\n'
        f'wheels = [{{ url = "https://example.invalid/beta-1.5-py3-none-any.whl", hash = "sha256:{digest}" }}]\n'
    )
    wheel(index, "beta", "2.0")
    address = await layers.ensure(Requirements((), app, False, "uv.lock"))
    assert (layers.path(address) / "beta-1.5.dist-info").is_dir()


async def test_limit_of_size(layers: Layers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(LIMITS, "code_bytes", Limit("code_bytes", 100, "bytes", "test"))
    with pytest.raises(LimitExceeded, match="the dependencies: limit code_bytes is 100"):
        await layers.ensure(wanted("alpha"))
    assert entries(tmp_path) == set()


def slow_python(tmp_path: Path) -> tuple[Path, Path]:
    """An interpreter that answers its version and then, asked by uv, never ends; and where it leaves its process id."""
    pid = tmp_path / "pid"
    script = tmp_path / "python3"
    script.write_text(
        f'#!/bin/sh\ncase "$3" in *cache_tag*) echo "cpython-311 3.11.0";; *) echo $$ > {pid}; exec sleep 60;; esac\n'
    )
    script.chmod(0o755)
    return script, pid


def until_written(pid: Path) -> int:
    while not (pid.exists() and pid.read_text().strip()):
        time.sleep(0.005)
    return int(pid.read_text())


def until_gone(child: int) -> None:
    status = Path(f"/proc/{child}/status")
    while status.exists() and "\nState:\tZ" not in status.read_text():
        time.sleep(0.005)


async def test_an_interrupted_build_leaves_nothing_and_no_process(tmp_path: Path, environ: dict[str, str]) -> None:
    script, pid = slow_python(tmp_path)
    layers = Layers(tmp_path / "layers", str(script), environ=environ)
    task = asyncio.create_task(layers.ensure(wanted("alpha")))
    child = await asyncio.to_thread(until_written, pid)
    await layers.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert entries(tmp_path) == set()
    await asyncio.to_thread(until_gone, child)


async def test_a_caller_that_goes_away_does_not_stop_the_others(layers: Layers) -> None:
    first = asyncio.create_task(layers.ensure(wanted("alpha")))
    second = asyncio.create_task(layers.ensure(wanted("alpha")))
    await asyncio.sleep(0)
    first.cancel()
    assert layers.path(await second).is_dir()


async def test_time_limit(tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "layer_build_seconds", Limit("layer_build_seconds", 0, "seconds", "test"))
    layers = Layers(tmp_path / "layers", environ=environ)
    with pytest.raises(DeployFailed, match="layer_build_seconds"):
        await layers.ensure(wanted("alpha"))
    assert not (tmp_path / "layers").exists() or entries(tmp_path) == set()


async def test_interpreter_that_does_not_exist(tmp_path: Path, environ: dict[str, str]) -> None:
    layers = Layers(tmp_path / "layers", str(tmp_path / "absent"), environ=environ)
    with pytest.raises(DeployFailed, match="cannot start the interpreter"):
        await layers.ensure(wanted("alpha"))


def test_folder_bytes_leaves_bytecode_out(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("12345")
    (tmp_path / "a.pyc").write_text("123456789")
    assert folder_bytes(tmp_path) == 5
