"""Lifecycle rules at work: what expires when, told in a header and done by the clock.

Source: S3 user guide, "Lifecycle configuration elements", "Expiring objects". A time is rounded up to the next midnight UTC.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from martlet.errors import MartletError
from martlet.objects import locks, rows
from martlet.objects.events import Cause
from martlet.objects.objects import Objects
from martlet.objects.rows import Bucket, Version
from martlet.store import Tx, keys

__all__ = ["Lifecycle", "header"]

_LOG = logging.getLogger("martlet.objects")
_DAY_MS: Final = 86_400_000
_PAGE: Final = 500
_EVENT: Final = "LifecycleExpiration"


def header(bucket: Bucket, key: str, version: Version) -> str | None:
    """x-amz-expiration: when the current version goes, and by which rule; None if by none."""
    found = _earliest(bucket, key, version)
    if found is None:
        return None
    at_ms, id = found
    date = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    return f'expiry-date="{date}", rule-id="{quote(id, safe="")}"'


def _earliest(bucket: Bucket, key: str, version: Version) -> tuple[int, str] | None:
    times = []
    for rule in _active(bucket):
        expiration = rule.get("Expiration") or {}
        if not applies(rule, key, version):
            continue
        if expiration.get("Days"):
            times.append((midnight_after(version.modified_at_ms + expiration["Days"] * _DAY_MS), rule["ID"]))
        elif expiration.get("Date"):
            times.append(
                (int(datetime.fromisoformat(expiration["Date"].replace("Z", "+00:00")).timestamp() * 1000), rule["ID"])
            )
    return min(times, default=None, key=lambda pair: pair[0])


def _active(bucket: Bucket) -> Iterator[Mapping[str, Any]]:
    found = bucket.settings.get("lifecycle") or {}
    return (rule for rule in found.get("Rules") or () if rule["Status"] == "Enabled")


def midnight_after(at_ms: int) -> int:
    return -(-at_ms // _DAY_MS) * _DAY_MS


def applies(rule: Mapping[str, Any], key: str, version: Version) -> bool:
    """Whether a rule's filter takes this version."""
    chosen = rule.get("Filter") or {}
    both = chosen.get("And") or chosen
    prefix = both.get("Prefix") or rule.get("Prefix") or ""
    tags = both.get("Tags") or ([chosen["Tag"]] if "Tag" in chosen else ())
    larger, smaller = both.get("ObjectSizeGreaterThan"), both.get("ObjectSizeLessThan")
    return (
        key.startswith(prefix)
        and all(version.tags.get(tag["Key"]) == tag["Value"] for tag in tags)
        and (larger is None or version.size > larger)
        and (smaller is None or version.size < smaller)
    )


class Lifecycle:
    """Carries out every bucket's rules. `run_due` may be called at any time, and any number of times."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(3600)
            try:
                await self.run_due()
            except (MartletError, OSError) as error:
                _LOG.warning("lifecycle rules pause: %s", error)

    async def run_due(self) -> int:
        """Do what is due by the clock; the number of versions and uploads that went."""
        count, after = 0, ""
        while await self._objects.store.transact(lambda tx: rows.drop_done(tx, tx.now_ms - _DAY_MS, _PAGE)):
            pass  # page by page
        while found := self._objects.buckets(after, 100):
            for bucket in found:
                if any(True for _ in _active(bucket)):
                    count += await self._expire(bucket) + await self._abort(bucket)
            after = found[-1].name
        return count

    async def _expire(self, bucket: Bucket) -> int:
        count = 0
        low, high = keys.prefix_range(rows.OBJECT, bucket.name)
        while True:
            page = self._page(low, high)
            names = [str(keys.decode(at)[2]) for at, _ in page]
            if names:
                count += await self._expire_page(bucket.name, names)
            if len(page) < _PAGE:
                return count
            low = page[-1][0] + b"\x00"

    def _page(self, low: bytes, high: bytes) -> list[tuple[bytes, bytes]]:
        return self._objects.store.read(lambda reader: reader.scan(low, high, limit=_PAGE))

    async def _expire_page(self, name: str, names: list[str]) -> int:
        def commit(tx: Tx) -> tuple[int, list[str]]:
            bucket = rows.bucket_named(tx, name)
            gone: list[str] = []
            count = 0
            for key in names if bucket is not None else ():
                assert bucket is not None
                done = self._expire_key(tx, bucket, key)
                count += len(done)
                for one in done:
                    gone += one
            return count, gone

        count, gone = await self._objects.store.transact(commit)
        await self._objects.blobs.remove(gone)
        return count

    def _expire_key(self, tx: Tx, bucket: Bucket, key: str) -> list[list[str]]:
        """What of one key is due; the blobs of each version that went."""
        done: list[list[str]] = []
        newest = rows.current(tx, bucket.name, key)
        if newest is None:
            return done
        for version_id in self._due_noncurrent(tx, bucket, key, newest):
            done.append(self._objects.delete_in(tx, bucket.name, key, version_id, Cause(), event=_EVENT).gone)
        found = None if newest.marker else _earliest(bucket, key, newest)
        if found is not None and found[0] <= tx.now_ms:
            done.append(self._objects.delete_in(tx, bucket.name, key, None, Cause(), event=_EVENT).gone)
        elif newest.marker and _drops_markers(bucket) and next(rows.noncurrent(tx, bucket.name, key), None) is None:
            done.append(self._objects.delete_in(tx, bucket.name, key, newest.shown_id, Cause(), event=_EVENT).gone)
        return done

    def _due_noncurrent(self, tx: Tx, bucket: Bucket, key: str, newest: Version) -> list[str]:
        due: list[str] = []
        since_ms = newest.modified_at_ms
        for place, version in enumerate(rows.noncurrent(tx, bucket.name, key), 1):
            for rule in _active(bucket):
                expiration = rule.get("NoncurrentVersionExpiration") or {}
                days, kept = expiration.get("NoncurrentDays"), expiration.get("NewerNoncurrentVersions") or 0
                is_due = days and place > kept and midnight_after(since_ms + days * _DAY_MS) <= tx.now_ms
                if is_due and applies(rule, key, version) and not locks.is_held(version, tx.now_ms):
                    due.append(version.shown_id)
                    break
            since_ms = version.modified_at_ms
        return due

    async def _abort(self, bucket: Bucket) -> int:
        """Uploads that nobody completed."""

        def commit(tx: Tx) -> tuple[int, list[str]]:
            gone: list[str] = []
            count = 0
            for _, raw in tx.scan(*keys.prefix_range(rows.UPLOAD, bucket.name), limit=1_000):
                upload = rows.decode_upload(raw)
                template = msgspec.structs.replace(upload.template, tags={})
                for rule in _active(bucket):
                    days = (rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation")
                    due = days and midnight_after(upload.started_at_ms + days * _DAY_MS) <= tx.now_ms
                    if due and applies(rule, upload.key, template):
                        gone += rows.release_parts(tx, rows.drop_upload(tx, upload))
                        count += 1
                        break
            return count, gone

        count, gone = await self._objects.store.transact(commit)
        await self._objects.blobs.remove(gone)
        return count


def _drops_markers(bucket: Bucket) -> bool:
    return any((rule.get("Expiration") or {}).get("ExpiredObjectDeleteMarker") for rule in _active(bucket))
