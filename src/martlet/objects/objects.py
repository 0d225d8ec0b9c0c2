"""The engine: buckets and versions of objects in the store, their bytes in blobs, each change with what is to be told of it.

An object's bytes are durable before the row that names them is written; the row, and the entry of the change log, are one
transaction. A crash leaves the old object or the new one, and bytes that nobody names, which the next start removes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from martlet.clock import Clock
from martlet.errors import MartletError, ServiceError
from martlet.objects import locks, rows, versions
from martlet.objects.backend import Backend
from martlet.objects.blobs import Blobs, Opened, Plain, Staged
from martlet.objects.encryption import no_key
from martlet.objects.events import Cause
from martlet.objects.failures import no_such_bucket, no_such_key, precondition_failed
from martlet.objects.names import check_bucket_name, check_key
from martlet.objects.notices import Notices, Send
from martlet.objects.rows import Bucket, Version
from martlet.objects.sealing import Vault
from martlet.store import Reader, Store, Tx, keys

__all__ = ["Expected", "Objects"]

_LOG = logging.getLogger("martlet.objects")
_UNFINISHED_MS: Final = 86_400_000  # another node may still be writing what is younger
T = TypeVar("T")


class Expected(msgspec.Struct, frozen=True):
    """Conditions of a write. `none_match`: there must be no such object; `match`: its ETag, without quotes, or "*"."""

    match: str | None = None
    none_match: bool = False

    def check(self, found: Version | None, key: str) -> None:
        """Raises PreconditionFailed, NoSuchKey."""
        there = found is not None and not found.marker
        if self.none_match and there:
            raise precondition_failed("If-None-Match")
        if self.match is not None:
            if not there:
                raise no_such_key(key)
            assert found is not None
            if self.match not in ("*", found.etag):
                raise precondition_failed("If-Match")


NOTHING = Expected()


class Objects:
    """Every bucket of the platform. Errors are `ServiceError` in S3's words."""

    def __init__(self, store: Store, clock: Clock, *, backend: Backend, vault: Vault, region: str, send: Send) -> None:
        self.store = store
        self.clock = clock
        self.region = region
        self.blobs = Blobs(store, backend, vault)
        self.notices = Notices(store, clock, region, send)
        self._sweep: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin telling of changes; what a killed process left is swept up beside. Raises `StartFailed`."""
        await self.blobs.claim()
        await self.notices.start()
        self._sweep = asyncio.get_running_loop().create_task(self._sweep_up())

    async def stop(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            await asyncio.gather(self._sweep, return_exceptions=True)
        await self.notices.stop()
        await self.blobs.close()

    async def _sweep_up(self) -> None:
        try:
            count = await self.blobs.sweep(self.clock.now_ms() - _UNFINISHED_MS)
        except (MartletError, OSError) as error:
            _LOG.warning("orphaned bytes are not removed: %s", error)
        else:
            if count:
                _LOG.info("%d blobs that no object names are removed", count)

    # --- buckets

    def find(self, name: str) -> Bucket | None:
        raw = self.store.get(rows.bucket_key(name)) if len(name) < 256 else None
        return None if raw is None else rows.decode_bucket(raw)

    def buckets(self, after: str = "", limit: int = 1_000) -> list[Bucket]:
        """Buckets behind that name, in the order of names."""
        return self.store.read(lambda reader: rows.buckets(reader, after, limit))

    def demand(self, name: str) -> Bucket:
        """The bucket, or NoSuchBucket."""
        found = self.find(name)
        if found is None:
            raise no_such_bucket(name)
        return found

    async def create(self, name: str, settings: dict[str, Any], region: str = "", versioning: str = "") -> Bucket:
        """Raises InvalidBucketName, BucketAlreadyOwnedByYou."""
        check_bucket_name(name)

        def make(tx: Tx) -> Bucket:
            if rows.bucket_named(tx, name) is not None:
                text = "Your previous request to create the named bucket succeeded and you already own it."
                raise ServiceError("BucketAlreadyOwnedByYou", text, 409, BucketName=name)
            made = Bucket(
                name=name,
                created_at_ms=tx.now_ms,
                region=region or self.region,
                settings=settings,
                versioning=versioning,
            )
            rows.put_bucket(tx, made)
            return made

        return await self.store.transact(make)

    async def change(self, name: str, fn: Callable[[Bucket], Bucket]) -> Bucket:
        """The bucket with other settings."""

        def write(tx: Tx) -> Bucket:
            after = fn(rows.demand_bucket(tx, name))
            rows.put_bucket(tx, after)
            return after

        return await self.store.transact(write)

    async def set(self, name: str, kind: str, value: Any) -> Bucket:
        """Put a setting; None takes it away."""

        def with_setting(bucket: Bucket) -> Bucket:
            settings = {**bucket.settings, kind: value}
            if value is None:
                del settings[kind]
            return msgspec.structs.replace(bucket, settings=settings)

        return await self.change(name, with_setting)

    async def delete_bucket(self, name: str) -> None:
        """Raises BucketNotEmpty. Uploads under way end with it."""

        def drop(tx: Tx) -> list[str]:
            bucket = rows.demand_bucket(tx, name)
            if tx.scan(*keys.prefix_range(rows.OBJECT, name), limit=1):
                text = "The bucket you tried to delete is not empty"
                if bucket.versioning:
                    text += ". You must delete all versions in the bucket."
                raise ServiceError("BucketNotEmpty", text, 409, BucketName=name)
            gone: list[str] = []
            for _, raw in tx.scan(*keys.prefix_range(rows.UPLOAD, name)):
                gone += rows.release_parts(tx, rows.drop_upload(tx, rows.decode_upload(raw)))
            tx.delete(rows.bucket_key(name))
            return gone

        await self.blobs.remove(await self.store.transact(drop))

    # --- objects

    async def put(
        self,
        bucket: str,
        key: str,
        staged: Staged,
        version: Version,
        *,
        expected: Expected = NOTHING,
        cause: Cause,
        event: str = "ObjectCreated:Put",
    ) -> Version:
        """The staged bytes become the object. `version`: all but its identity.

        Raises NoSuchBucket, PreconditionFailed, NoSuchKey; then the bytes are gone."""

        def write(tx: Tx, found: Bucket, made: Version) -> Version:
            staged.use(tx)
            return msgspec.structs.replace(made, segments=staged.segments, size=staged.size)

        try:
            made = await self.publish(bucket, key, version, write, expected=expected, cause=cause, event=event)
        except BaseException as error:
            await self.blobs.give_up(staged, error)
            raise
        self.blobs.settle(staged)
        return made

    async def publish(
        self,
        bucket: str,
        key: str,
        version: Version,
        write: Callable[[Tx, Bucket, Version], Version],
        *,
        expected: Expected = NOTHING,
        cause: Cause,
        event: str,
    ) -> Version:
        """Make `version` the current one; `write` says which bytes it has, and may raise."""
        check_key(key)

        def commit(tx: Tx) -> tuple[Version, list[str]]:
            found = rows.demand_bucket(tx, bucket)
            expected.check(rows.current(tx, bucket, key), key)
            seq, version_id = versions.identity(tx, found)
            made = msgspec.structs.replace(version, seq=seq, version_id=version_id, modified_at_ms=tx.now_ms)
            made = write(tx, found, locks.with_default(found, made))
            gone = versions.place(tx, found, key, made)
            self.notices.note(tx, found, event, key, made, cause)
            return made, gone

        made, gone = await self.store.transact(commit)
        await self.blobs.remove(gone)
        return made

    def look(self, bucket: str, key: str, version_id: str | None = None) -> tuple[Version, bool]:
        """The version meant and whether it is current. Raises NoSuchBucket, NoSuchKey, NoSuchVersion."""
        return self.store.read(lambda reader: find(reader, bucket, key, version_id))

    def open(
        self, bucket: str, key: str, version_id: str | None = None, unlock: Callable[[Version], bytes | None] = no_key
    ) -> tuple[Version, Opened]:
        """`look`, with the bytes. `unlock` gives the client's key of a version, or raises."""

        def read(reader: Reader) -> tuple[Version, Opened]:
            version, _ = find(reader, bucket, key, version_id)
            return version, self.blobs.open(reader, rows.segments_of(reader, version), unlock(version))

        return self.store.read(read)

    async def amend(
        self,
        bucket: str,
        key: str,
        version_id: str | None,
        fn: Callable[[Version], Version],
        *,
        event: str = "",
        cause: Cause | None = None,
    ) -> Version:
        """The same version with other metadata."""

        def write(tx: Tx) -> Version:
            found = rows.demand_bucket(tx, bucket)
            version, is_current = find(tx, bucket, key, version_id)
            after = fn(version)
            rows.rewrite(tx, bucket, key, after, is_current)
            if event:
                self.notices.note(tx, found, event, key, after, cause or Cause())
            return after

        return await self.store.transact(write)

    async def delete(
        self,
        bucket: str,
        key: str,
        version_id: str | None,
        cause: Cause,
        *,
        expected: Expected = NOTHING,
        bypass: bool = False,
        event: str = "ObjectRemoved",
    ) -> versions.Removed:
        """Delete, as S3 does: without a version id a versioned bucket gets a delete marker. Raises AccessDenied for a version
        that object lock holds; `bypass` passes over governance."""

        def commit(tx: Tx) -> versions.Removed:
            return self.delete_in(tx, bucket, key, version_id, cause, expected=expected, bypass=bypass, event=event)

        removed = await self.store.transact(commit)
        await self.blobs.remove(removed.gone)
        return removed

    def delete_in(
        self,
        tx: Tx,
        bucket: str,
        key: str,
        version_id: str | None,
        cause: Cause,
        *,
        expected: Expected = NOTHING,
        bypass: bool = False,
        event: str = "ObjectRemoved",
        tell_absent: bool = False,
    ) -> versions.Removed:
        """`delete` in a transaction; its blobs are removed after the commit. `tell_absent`: also of what was not there."""
        found = rows.demand_bucket(tx, bucket)
        if version_id is None:
            expected.check(rows.current(tx, bucket, key), key)
            removed = versions.expire_current(tx, found, key, tx.now_ms)
        else:
            try:
                version, is_current = rows.find_version(tx, bucket, key, version_id)
            except ServiceError:
                return versions.Removed(None, False, False, [])
            locks.check_delete(version, tx.now_ms, bypass=bypass)
            gone = versions.remove_version(tx, bucket, key, version, is_current)
            removed = versions.Removed(version, version.marker, True, gone)
        if removed.version is None and tell_absent:
            absent = Version(seq=rows.next_seq(tx), modified_at_ms=tx.now_ms)
            self.notices.note(tx, found, f"{event}:Delete", key, absent, cause)
        if removed.version is not None:
            made_marker = removed.marker and version_id is None
            told = removed.version
            if not made_marker:
                told = msgspec.structs.replace(told, seq=rows.next_seq(tx))
            name = f"{event}:{'DeleteMarkerCreated' if made_marker else 'Delete'}"
            self.notices.note(tx, found, name, key, told, cause)
        return removed

    # --- for other rooms

    async def fetch(self, bucket: str, key: str, version_id: str = "") -> bytes:
        """A whole object. Raises `ServiceError`."""
        self.demand(bucket)
        _, opened = self.open(bucket, key, version_id or None)  # what a client's key encrypts is refused
        return await opened.bytes()

    async def fetch_code(self, bucket: str, key: str, version_id: str) -> bytes:
        """A function's archive. Raises Lambda's error for what is not there."""
        try:
            return await self.fetch(bucket, key, version_id)
        except ServiceError as error:
            text = f"Error occurred while GetObject. S3 Error Code: {error.name}. S3 Error Message: {error.message}"
            raise ServiceError("InvalidParameterValueException", text) from error

    async def store_bytes(self, bucket: str, key: str, data: bytes, content_type: str = "binary/octet-stream") -> Version:
        """Put a whole object, on the platform's own account."""
        staged = await self.blobs.stage(Plain(data), ("CRC64NVME",))
        version = Version(
            seq=0,
            modified_at_ms=0,
            etag=staged.md5.hex(),
            headers={"ContentType": content_type},
            algorithm="CRC64NVME",
            checksum=staged.checksums["CRC64NVME"],
            checksum_type="FULL_OBJECT",
            encryption="AES256",
        )
        return await self.put(bucket, key, staged, version, cause=Cause())


def find(reader: Reader, bucket: str, key: str, version_id: str | None) -> tuple[Version, bool]:
    rows.demand_bucket(reader, bucket)
    check_key(key)
    if version_id is None:
        return rows.demand_current(reader, bucket, key), True
    return rows.find_version(reader, bucket, key, version_id)
