"""Archives that come with templates: what is in them is not trusted, and their digest stays."""

from __future__ import annotations

import asyncio
import io
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from martlet.apps.layers import Layers
from martlet.apps.stacks.archives import unpack_zip, zip_folder
from martlet.apps.stacks.artifacts import Assets, Workshop
from martlet.apps.stacks.compiling import Artifact
from martlet.errors import MartletError


def archive(*members: tuple[str, bytes, int]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, content)
    return out.getvalue()


FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


@pytest.mark.parametrize(
    "content",
    [
        archive(("../out.py", b"x", FILE)),
        archive(("/etc/passwd", b"x", FILE)),
        archive(("a\\..\\b", b"x", FILE)),
        archive(("link", b"/etc/passwd", LINK)),
        archive(("a/link", b"../../x", LINK)),
        archive(("pipe", b"", stat.S_IFIFO | 0o644)),
        archive(("a", b"x", FILE), ("a/b", b"x", FILE)),
        archive(("bomb", b"\0" * 300_000_000, FILE)),
        b"PK\x03\x04 not really",
        b"",
    ],
    ids=["dots", "absolute", "backslash", "link", "link-out", "pipe", "file-and-folder", "bomb", "broken", "empty"],
)  # fmt: skip
def test_hostile_archives(tmp_path: Path, content: bytes):
    with pytest.raises(MartletError):
        unpack_zip(content, tmp_path)
    assert not (tmp_path.parent / "out.py").exists()


def test_links_inside_become_copies(tmp_path: Path):
    unpack_zip(archive(("a.py", b"x = 1", FILE), ("b.py", b"a.py", LINK)), tmp_path)
    assert (tmp_path / "b.py").read_bytes() == b"x = 1"
    assert not (tmp_path / "b.py").is_symlink()


async def test_an_archive_keeps_its_digest(tmp_path: Path):
    content = archive(("app.py", b"x = 1", FILE))
    (tmp_path / "code.zip").write_bytes(content)
    workshop = Workshop(tmp_path / "data", Layers(tmp_path / "layers"))
    artifact = Artifact(logical_id="F", what="function", location="code.zip")
    address = await workshop.package(artifact, tmp_path, lambda text: None, is_built=False)
    assert zip_folder(tmp_path / "data" / "code" / address) == content


async def test_a_folder_is_the_same_archive_each_time(tmp_path: Path):
    (tmp_path / "src" / "node_modules" / "x").mkdir(parents=True)
    (tmp_path / "src" / "node_modules" / "x" / "index.js").write_text("1")
    (tmp_path / "src" / ".gitignore").write_text("*")
    workshop = Workshop(tmp_path / "data", Layers(tmp_path / "layers"))
    artifact = Artifact(logical_id="F", what="function", location="src", runtime="nodejs20.x")
    one = await workshop.package(artifact, tmp_path, lambda text: None, is_built=False)
    two = await workshop.package(artifact, tmp_path, lambda text: None, is_built=True)
    assert one == two
    assert zipfile.ZipFile(io.BytesIO(zip_folder(tmp_path / "data" / "code" / one))).namelist() == [
        ".gitignore",
        "node_modules/x/index.js",
    ]


@pytest.mark.parametrize(
    ("method", "message"), [("dotnet7", "not run here"), ("makefile", "no Makefile"), ("esbuild", "esbuild is not installed")]
)
async def test_builds_that_are_not_run_say_so(tmp_path: Path, method: str, message: str):
    (tmp_path / "src").mkdir()
    workshop = Workshop(tmp_path / "data", Layers(tmp_path / "layers"))
    artifact = Artifact(logical_id="F", what="function", location="src", build=method, metadata={"BuildMethod": method}, line=7)
    with pytest.raises(MartletError, match=message) as caught:
        await workshop.package(artifact, tmp_path, lambda text: None, is_built=False)
    assert "sam build" in caught.value.remedy
    assert "line 7" in caught.value.message


async def test_make_builds_its_target(tmp_path: Path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "Makefile").write_text("build-F:\n\tcp bootstrap.sh $(ARTIFACTS_DIR)/bootstrap\n")
    (tmp_path / "src" / "bootstrap.sh").write_text("#!/bin/sh\n")
    workshop = Workshop(tmp_path / "data", Layers(tmp_path / "layers"))
    artifact = Artifact(logical_id="F", what="function", location="src", build="makefile")
    address = await workshop.package(artifact, tmp_path, lambda text: None, is_built=False)
    assert [path.name for path in (tmp_path / "data" / "code" / address).iterdir()] == ["bootstrap"]


RUST = """
use std::io::{Read, Write};
fn main() {
    let mut sock = std::net::TcpStream::connect(std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap()).unwrap();
    sock.write_all(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n").unwrap();
    let _ = sock.read(&mut [0u8; 1024]);
}
"""
MANIFEST = '[package]\nname = "hello-lambda"\nversion = "0.1.0"\nedition = "2021"\n'
GO = 'package main\nimport "fmt"\nfunc main() { fmt.Println("built by go") }\n'
RUST_FILES = {"Cargo.toml": MANIFEST, "src/main.rs": RUST}
GO_FILES = {"go.mod": "module hello\n\ngo 1.20\n", "main.go": GO}


@pytest.mark.parametrize(("method", "files"), [("go1.x", GO_FILES), ("rust-cargolambda", RUST_FILES)])
async def test_compilers_make_a_bootstrap(tmp_path: Path, method: str, files: dict[str, str]):
    workshop = Workshop(tmp_path / "data", Layers(tmp_path / "layers"))
    artifact = Artifact(logical_id="F", what="function", location="src", runtime="provided.al2023", build=method, line=3)
    for name, text in files.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(text)
    address = await workshop.package(artifact, tmp_path, lambda text: None, is_built=False)
    (made,) = (tmp_path / "data" / "code" / address).iterdir()
    assert made.name == "bootstrap"
    assert made.read_bytes()[:4] == b"\x7fELF"
    assert not (tmp_path / "src" / "target").exists(), "the source is left alone"
    broken = tmp_path / "src" / ("main.go" if "main.go" in files else "src/main.rs")
    broken.write_text("this is no program")
    with pytest.raises(MartletError, match=f"{method} ended with status") as caught:
        await workshop.package(artifact, tmp_path, lambda text: None, is_built=False)
    assert "line 3" in caught.value.message


async def test_packages_are_built_for_the_nearest_runtime_where_the_owner_is_lenient(tmp_path: Path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "requirements.txt").write_text("iniconfig>=2,<3")
    own = f"python3.{sys.version_info.minor}"
    workshop = Workshop(tmp_path / "data", Layers(tmp_path / "data" / "layers"), nearest=lambda wanted: own)
    artifact = Artifact(logical_id="F", what="function", location="src", runtime="python3.99", line=3)
    with pytest.raises(MartletError, match="is not installed"):
        await workshop.package(artifact, tmp_path, lambda text: None, is_built=False)
    address = await workshop.package(artifact, tmp_path, lambda text: None, is_built=False, is_lenient=True)
    assert (tmp_path / "data" / "code" / address / "iniconfig").is_dir()


async def test_esbuild_bundles_typescript(tmp_path: Path):
    source = tmp_path / "src"
    source.mkdir()
    (source / "package.json").write_text('{"devDependencies": {"esbuild": "^0.25.0"}}')
    (source / "price.ts").write_text("export const price: number = 42;")
    (source / "app.ts").write_text(
        'import { price } from "./price";\nexport const handler = async (): Promise<number> => price;'
    )
    workshop = Workshop(tmp_path / "data", Layers(tmp_path / "layers"))
    given = {"EntryPoints": ["app.ts"], "Minify": False, "Sourcemap": True, "Target": "es2022"}
    metadata = {"BuildMethod": "esbuild", "BuildProperties": given}
    artifact = Artifact(
        logical_id="F", what="function", location="src", runtime="nodejs22.x", build="esbuild", metadata=metadata, line=3
    )
    address = await workshop.package(artifact, tmp_path, lambda text: None, is_built=False)
    folder = tmp_path / "data" / "code" / address
    assert sorted(path.name for path in folder.iterdir()) == ["app.js", "app.js.map"]
    script = f"require({str(folder / 'app.js')!r}).handler().then(console.log)"
    node = await asyncio.create_subprocess_exec("node", "-e", script, stdout=asyncio.subprocess.PIPE)
    assert (await node.communicate())[0] == b"42\n"


def test_assets_of_the_cdk(tmp_path: Path):
    (tmp_path / "Demo.assets.json").write_text(
        '{"files": {"h": {"source": {"path": "asset.h", "packaging": "zip"}, "destinations": {"x": {"objectKey": "h.zip"}}}}}'
    )
    (tmp_path / "asset.h").mkdir()
    (tmp_path / "svc.zip").write_bytes(b"")
    found = Assets(tmp_path, "Demo.template")
    assert found.find({}, {"S3Key": "h.zip"}, lambda value: value) == "asset.h"
    assert found.find({"Metadata": {"aws:asset:path": "asset.h"}}, {"S3Key": "?"}, lambda value: value) == "asset.h"
    assert found.find({}, {"S3Key": "serverless/x/svc.zip"}, lambda value: value) == "svc.zip"
    assert found.find({}, {"S3Key": "other.zip"}, lambda value: value) is None
