"""Every backend of objects' bytes keeps the port's promises: a folder, moto's S3, and the S3 of another Martlet."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.moto_server import MotoServer, client, remote_environ
from tests.system.test_sqs import Platform

from martlet.clock import ManualClock, token_hex
from martlet.errors import StartFailed
from martlet.objects import Objects
from martlet.objects.backend import Backend
from martlet.objects.backends import remote
from martlet.objects.backends.disk import DiskBackend
from martlet.secrets import Vault
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine

EVER = 10**15
PART = remote._PART_BYTES
SIZES = (1, 100_000, 262_160, PART - 1, PART, PART + 1, 20_000_000)


@pytest.fixture(scope="module", params=["disk", "moto", "martlet"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where blobs go; `{}` is a name of a test's own."""
    folder = tmp_path_factory.mktemp("blobs")
    if request.param == "disk":
        yield str(folder / "{}")
        return
    if request.param == "moto":
        server = MotoServer(folder)
        environ, stop = server.environ(), server.stop
    else:
        platform = Platform(folder)
        environ, stop = remote_environ(platform.url, platform.key, platform.secret), platform.stop
    client(environ["AWS_ENDPOINT_URL"], environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"]).create_bucket(
        Bucket="blobs"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        yield "s3://blobs/{}"
    stop()


@pytest.fixture
def backend(place: str) -> Backend:
    return opened(place.format(token_hex(4)))


def opened(place: str) -> Backend:
    return remote.open_backend(place) if "://" in place else DiskBackend(Path(place))


async def kept(backend: Backend, data: bytes, step: int = 1_048_640) -> str:
    id = token_hex(16)
    draft = backend.draft(id)
    for at in range(0, len(data), step):
        await draft.write(data[at : at + step])
    await draft.keep()
    return id


async def ids(backend: Backend, before_ms: int = EVER) -> set[str]:
    return {id async for id in backend.ids(before_ms)}


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_kept_is_read_in_any_ranges(backend: Backend, size: int) -> None:
    data = os.urandom(size)
    id = await kept(backend, data)
    source = await backend.open(id)
    found = b""
    while block := await source.read(len(found), 262_160):
        found += block
    assert found == data
    for at, count in ((0, 1), (size - 1, 10), (size // 2, 5), (PART - 3, 9), (0, 300_000)):
        block = await source.read(at, count) if 0 <= at < size else b""
        assert block == data[max(at, 0) :][: len(block)]
        assert bool(block) == (0 <= at < size)
    assert await source.read(size, 5) == b""
    await source.close()
    assert await ids(backend) == {id}


async def test_a_blob_is_gone_once_it_is_removed(backend: Backend) -> None:
    id, other = await kept(backend, os.urandom(PART + 5)), await kept(backend, b"other")
    await backend.remove(id)
    await backend.remove(id)
    with pytest.raises(FileNotFoundError):
        await (await backend.open(id)).read(0, 1)
    assert await ids(backend) == {other}


async def test_a_discarded_draft_leaves_nothing(backend: Backend) -> None:
    for size in (0, 5, 3 * PART):
        draft = backend.draft(token_hex(16))
        if size:
            await draft.write(os.urandom(size))
        await draft.discard()
    draft = backend.draft(token_hex(16))
    await draft.write(b"x")
    await draft.keep()
    await draft.discard()
    assert await ids(backend) == set()


async def test_many_at_once(backend: Backend) -> None:
    datas = [os.urandom(300_000 + at) for at in range(12)]
    found = await asyncio.gather(*(kept(backend, data) for data in datas))
    assert await ids(backend) == set(found)
    for id, data in zip(found, datas, strict=True):
        source = await backend.open(id)
        assert await source.read(0, 400_000) == data
        await source.close()


async def test_the_first_that_claims_it_has_it(backend: Backend) -> None:
    assert await backend.claim("one") == "one"
    assert await backend.claim("other") == "one"
    assert await backend.claim("one") == "one"


@pytest.fixture
async def room(backend: Backend) -> AsyncIterator[Objects]:
    made = await made_room(backend)
    await made.start()
    yield made
    await made.stop()
    await made.store.close()


async def made_room(backend: Backend) -> Objects:
    clock = ManualClock(1_700_000_000_000)
    store = Store(MemoryEngine(), clock=clock)

    async def send(notice: object) -> None: ...

    return Objects(store, clock, backend=backend, vault=Vault(store, lambda: [bytes(32)]), region="us-east-1", send=send)


async def test_the_sweep_takes_what_no_object_names_and_nothing_else(room: Objects, backend: Backend) -> None:
    await room.create("bucket", {})
    data = os.urandom(PART + 100_000)
    await room.store_bytes("bucket", "k", data)
    named = await ids(backend)
    orphan = backend.draft(token_hex(16))  # of a process that was killed
    await orphan.write(os.urandom(2 * PART))
    await orphan.keep()
    assert await room.blobs.sweep(EVER) == 1
    assert await ids(backend) == named
    assert await room.fetch("bucket", "k") == data


async def test_another_platform_s_blobs_are_not_swept_up(room: Objects, backend: Backend) -> None:
    other = await made_room(backend)
    with pytest.raises(StartFailed, match="another platform"):
        await other.start()
    await other.store.close()


FAR = pytest.mark.parametrize("place", ["moto", "martlet"], indirect=True)  # a folder is one process's


@FAR
async def test_what_another_node_may_still_be_writing_is_left(place: str) -> None:
    backend = opened(place.format("young"))
    await kept(backend, b"x")
    assert await ids(backend, before_ms=1) == set()


@FAR
async def test_a_store_that_is_not_there_is_an_error_that_says_so(place: str) -> None:
    missing = await made_room(remote.open_backend("s3://no-such-bucket/x"))
    with pytest.raises(StartFailed, match="remote object store") as caught:
        await missing.start()
    assert "\n" not in caught.value.message
    await missing.store.close()
