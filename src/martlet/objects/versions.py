"""How versions of one key follow each other. Functions over one transaction; what they return are blobs that may go.

Source: S3 user guide, "How S3 Versioning works", "Adding objects to versioning-suspended buckets", "Deleting object versions".
"""

from __future__ import annotations

import msgspec

from martlet.objects import rows
from martlet.objects.rows import Bucket, Version
from martlet.store import Tx

__all__ = ["Removed", "expire_current", "identity", "place", "remove_version"]


class Removed(msgspec.Struct, frozen=True):
    """What a delete did. `marker`: a delete marker was made, or removed. `found`: there was something."""

    version: Version | None
    marker: bool
    found: bool
    gone: list[str]


def identity(tx: Tx, bucket: Bucket) -> tuple[int, str]:
    """(seq, version id) of a new version."""
    seq = rows.next_seq(tx)
    return seq, rows.new_version_id(seq) if bucket.versioning == "Enabled" else ""


def place(tx: Tx, bucket: Bucket, key: str, version: Version) -> list[str]:
    """`version` is the current one from here on."""
    before = rows.current(tx, bucket.name, key)
    rows.touch_uploads(tx, bucket.name, key, "delete" if version.marker else "put")
    gone: list[str] = []
    if before is not None:
        if version.version_id or before.version_id:
            rows.put_noncurrent(tx, bucket.name, key, before)
        else:
            gone += rows.release(tx, before)
    if not version.version_id and before is not None and before.version_id:
        gone += _drop_null(tx, bucket.name, key)
    rows.put_current(tx, bucket.name, key, version)
    return gone


def _drop_null(tx: Tx, bucket: str, key: str) -> list[str]:
    """The null version among those that are not current is replaced by a new one."""
    for one in rows.noncurrent(tx, bucket, key):
        if not one.version_id:
            tx.delete(rows.version_key(bucket, key, one.seq))
            return rows.release(tx, one)
    return []


def expire_current(tx: Tx, bucket: Bucket, key: str, now_ms: int) -> Removed:
    """A delete that names no version: the object goes, or a delete marker covers it."""
    before = rows.current(tx, bucket.name, key)
    if not bucket.versioning:
        if before is None:
            return Removed(None, False, False, [])
        tx.delete(rows.object_key(bucket.name, key))
        rows.touch_uploads(tx, bucket.name, key, "delete")
        return Removed(before, False, True, rows.release(tx, before))
    seq, version_id = identity(tx, bucket)
    marker = Version(seq=seq, modified_at_ms=now_ms, version_id=version_id, marker=True)
    return Removed(marker, True, before is not None, place(tx, bucket, key, marker))


def remove_version(tx: Tx, bucket: str, key: str, version: Version, is_current: bool) -> list[str]:
    """This version goes for good; the newest of the others becomes current."""
    if not is_current:
        tx.delete(rows.version_key(bucket, key, version.seq))
        return rows.release(tx, version)
    heir = next(rows.noncurrent(tx, bucket, key), None)
    if heir is None:
        tx.delete(rows.object_key(bucket, key))
    else:
        tx.delete(rows.version_key(bucket, key, heir.seq))
        rows.put_current(tx, bucket, key, heir)
    return rows.release(tx, version)
