"""What buckets and objects are made of, as rows.

s3.bucket (name)                          the bucket with its settings
s3.object (bucket, key)                   the current version, which may be a delete marker
s3.version (bucket, key, -seq)            versions that are not current, the newest first
s3.parts (seq)                            the parts of a version that was made of several
s3.upload (bucket, key, id)               a multipart upload under way
s3.uploaded (upload's id, number)         a part of one
s3.blob (id)                              bytes that are kept: how many use them; the bytes themselves if they are few
s3.counter                                the number that the last version got
s3.owner                                  the name that the store's blobs are claimed by
s3.key                                    the key that bytes are sealed by, sealed itself
"""

from __future__ import annotations

import base64
import os
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from martlet.objects.failures import no_such_bucket, no_such_key, no_such_version
from martlet.store import Reader, Tx, keys

__all__ = [
    "Bucket",
    "Part",
    "Segment",
    "Upload",
    "Version",
    "bucket_named",
    "demand_bucket",
    "new_version_id",
    "next_seq",
    "place_of",
    "put_bucket",
]

BUCKET: Final = "s3.bucket"
OBJECT: Final = "s3.object"
VERSION: Final = "s3.version"
PARTS: Final = "s3.parts"
UPLOAD: Final = "s3.upload"
UPLOADED: Final = "s3.uploaded"
DONE: Final = "s3.done"
BLOB: Final = "s3.blob"
FOLDER: Final = keys.encode("s3.folder")  # -> the node in whose data folder the bytes are
_COUNTER: Final = keys.encode("s3.counter")
_VERSION_ID = re.compile(r"[A-Za-z0-9._]{32}")


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket. `settings`: what was put on it, by kind ("cors", "policy", …), as the API has it."""

    name: str
    created_at_ms: int
    region: str
    versioning: str = ""  # "", Enabled, Suspended
    settings: dict[str, Any] = {}


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of a version: a range of a blob."""

    blob: str
    offset: int
    size: int


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A part of an upload, or of what one made."""

    number: int
    size: int
    etag: str  # without quotes
    modified_at_ms: int
    segments: tuple[Segment, ...]
    algorithm: str = ""
    checksum: str = ""
    crc64: str = ""  # CRC64NVME, for the whole of an upload whose client asked for no checksum


class Version(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of an object. `version_id` "" is the null version; `parts` 0: it was put in one piece."""

    seq: int
    modified_at_ms: int
    version_id: str = ""
    marker: bool = False
    size: int = 0
    etag: str = ""  # without quotes
    segments: tuple[Segment, ...] = ()  # none where `parts`: they are in a row of their own
    parts: int = 0
    headers: dict[str, str] = {}  # ContentType, CacheControl …
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    algorithm: str = ""
    checksum: str = ""
    checksum_type: str = ""
    storage_class: str = "STANDARD"
    acl: dict[str, Any] | None = None
    encryption: str = ""  # AES256: under the room's key; C: a client's; "": kept by an earlier Martlet as it came
    key_check: str = ""  # tells a client's key from another
    mode: str = ""  # of object lock: GOVERNANCE, COMPLIANCE
    retain_until_ms: int = 0
    legal_hold: str = ""  # "", ON, OFF

    @property
    def quoted(self) -> str:
        return f'"{self.etag}"'

    @property
    def shown_id(self) -> str:
        return self.version_id or "null"


class Upload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A multipart upload. `algorithm` "": the client asked for none."""

    bucket: str
    key: str
    id: str
    started_at_ms: int
    template: Version  # what the object will be, but for its bytes
    algorithm: str = ""
    checksum_type: str = ""
    touched: str = ""  # what has happened to the object since: "put", "delete"


_ENCODE: Final = msgspec.json.Encoder()
_BUCKETS: Final = msgspec.json.Decoder(Bucket)
_VERSIONS: Final = msgspec.json.Decoder(Version)
_PARTS: Final = msgspec.json.Decoder(tuple[Part, ...])
_PART: Final = msgspec.json.Decoder(Part)
_UPLOADS: Final = msgspec.json.Decoder(Upload)
_decoded: dict[bytes, Bucket] = {}


# --- buckets


def bucket_key(name: str) -> bytes:
    return keys.encode(BUCKET, name)


def decode_bucket(raw: bytes) -> Bucket:
    """Buckets are read at each request, and few: what was decoded is kept by its bytes."""
    found = _decoded.get(raw)
    if found is None:
        if len(_decoded) > 500:
            _decoded.clear()
        found = _decoded[raw] = _BUCKETS.decode(raw)
    return found


def bucket_named(reader: Reader, name: str) -> Bucket | None:
    raw = reader.get(bucket_key(name))
    return None if raw is None else decode_bucket(raw)


def demand_bucket(reader: Reader, name: str) -> Bucket:
    """The bucket, or NoSuchBucket."""
    found = bucket_named(reader, name)
    if found is None:
        raise no_such_bucket(name)
    return found


def put_bucket(tx: Tx, bucket: Bucket) -> None:
    tx.put(bucket_key(bucket.name), _ENCODE.encode(bucket))


def buckets(reader: Reader, after: str = "", limit: int = 1_000) -> list[Bucket]:
    low, high = keys.prefix_range(BUCKET)
    if after:
        low = bucket_key(after) + b"\x00"
    return [decode_bucket(raw) for _, raw in reader.scan(low, high, limit=limit)]


# --- versions


def next_seq(tx: Tx) -> int:
    return tx.increment(_COUNTER, 1)


def new_version_id(seq: int) -> str:
    """32 characters that look like nothing, from which the version's place can be told."""
    noise = os.urandom(12)
    place = (seq ^ int.from_bytes(noise[:8], "big")).to_bytes(8, "big") + noise
    return base64.b64encode(place + _seal(place), b"._").decode()


def is_version_id(text: str) -> bool:
    """Whether it is "null", or an id that we may have made: any other is refused, as S3 does with ids that are not its own."""
    if text == "null" or not _VERSION_ID.fullmatch(text):
        return text == "null"
    raw = base64.b64decode(text, b"._")
    return _seal(raw[:20]) == raw[20:]


def _seal(raw: bytes) -> bytes:
    return zlib.crc32(raw, 0x5345414C).to_bytes(4, "big")


def seq_of(version_id: str) -> int:
    """The place that an id speaks of."""
    raw = base64.b64decode(version_id, b"._")
    return int.from_bytes(raw[:8], "big") ^ int.from_bytes(raw[8:16], "big")


def object_key(bucket: str, key: str) -> bytes:
    return keys.encode(OBJECT, bucket, key)


def version_key(bucket: str, key: str, seq: int) -> bytes:
    return keys.encode(VERSION, bucket, key, -seq)


def decode_version(raw: bytes) -> Version:
    return _VERSIONS.decode(raw)


def current(reader: Reader, bucket: str, key: str) -> Version | None:
    """The newest version, a delete marker included."""
    raw = reader.get(object_key(bucket, key))
    return None if raw is None else _VERSIONS.decode(raw)


def put_current(tx: Tx, bucket: str, key: str, version: Version) -> None:
    tx.put(object_key(bucket, key), _ENCODE.encode(version))


def put_noncurrent(tx: Tx, bucket: str, key: str, version: Version) -> None:
    tx.put(version_key(bucket, key, version.seq), _ENCODE.encode(version))


def noncurrent(reader: Reader, bucket: str, key: str) -> Iterator[Version]:
    """Versions that are not current, the newest first."""
    low, high = keys.prefix_range(VERSION, bucket, key)
    while rows := reader.scan(low, high, limit=100):
        for at, raw in rows:
            yield _VERSIONS.decode(raw)
            low = at + b"\x00"


def find_version(reader: Reader, bucket: str, key: str, version_id: str) -> tuple[Version, bool]:
    """The version by its id ("null": the null version), and whether it is the current one. Raises NoSuchVersion."""
    newest = current(reader, bucket, key)
    if newest is not None:
        if newest.shown_id == version_id:
            return newest, True
        if version_id == "null":
            for one in noncurrent(reader, bucket, key):
                if not one.version_id:
                    return one, False
        else:
            raw = reader.get(version_key(bucket, key, seq_of(version_id)))
            if raw is not None and (found := _VERSIONS.decode(raw)).version_id == version_id:
                return found, False
    raise no_such_version(key, version_id)


def demand_current(reader: Reader, bucket: str, key: str) -> Version:
    """The current version if it is no delete marker, else NoSuchKey, which names a marker in its details."""
    found = current(reader, bucket, key)
    if found is None or found.marker:
        error = no_such_key(key)
        if found is not None:
            error.details["marker"] = found.shown_id
        raise error
    return found


def rewrite(tx: Tx, bucket: str, key: str, version: Version, is_current: bool) -> None:
    """The same version with other metadata."""
    (put_current if is_current else put_noncurrent)(tx, bucket, key, version)


# --- parts


def parts_of(reader: Reader, version: Version) -> tuple[Part, ...]:
    raw = reader.get(keys.encode(PARTS, version.seq))
    return () if raw is None else _PARTS.decode(raw)


def put_parts(tx: Tx, seq: int, parts: tuple[Part, ...]) -> None:
    tx.put(keys.encode(PARTS, seq), _ENCODE.encode(parts))


def segments_of(reader: Reader, version: Version) -> tuple[Segment, ...]:
    if not version.parts:
        return version.segments
    return tuple(segment for part in parts_of(reader, version) for segment in part.segments)


# --- uploads


def upload_key(bucket: str, key: str, id: str) -> bytes:
    return keys.encode(UPLOAD, bucket, key, id)


def find_upload(reader: Reader, bucket: str, key: str, id: str) -> Upload | None:
    raw = reader.get(upload_key(bucket, key, id)) if len(id) < 200 else None
    return None if raw is None else _UPLOADS.decode(raw)


def put_upload(tx: Tx, upload: Upload) -> None:
    tx.put(upload_key(upload.bucket, upload.key, upload.id), _ENCODE.encode(upload))


def decode_upload(raw: bytes) -> Upload:
    return _UPLOADS.decode(raw)


def uploaded(reader: Reader, id: str, after: int = 0, limit: int = 10_001) -> list[Part]:
    low, high = keys.prefix_range(UPLOADED, id)
    low = max(low, keys.encode(UPLOADED, id, after) + b"\x00") if after else low
    return [_PART.decode(raw) for _, raw in reader.scan(low, high, limit=limit)]


def uploaded_part(reader: Reader, id: str, number: int) -> Part | None:
    raw = reader.get(keys.encode(UPLOADED, id, number))
    return None if raw is None else _PART.decode(raw)


def put_uploaded(tx: Tx, id: str, part: Part) -> None:
    tx.put(keys.encode(UPLOADED, id, part.number), _ENCODE.encode(part))


def touch_uploads(tx: Tx, bucket: str, key: str, what: str) -> None:
    """Something happened to the object: uploads under way with a condition will want to know."""
    for at, raw in tx.scan(*keys.prefix_range(UPLOAD, bucket, key), limit=1_000):
        tx.put(at, _ENCODE.encode(msgspec.structs.replace(_UPLOADS.decode(raw), touched=what)))


def drop_upload(tx: Tx, upload: Upload) -> list[Part]:
    """The upload is no more; its parts' rows neither. Returns the parts, whose bytes are the caller's matter."""
    parts = uploaded(tx, upload.id)
    for part in parts:
        tx.delete(keys.encode(UPLOADED, upload.id, part.number))
    tx.delete(upload_key(upload.bucket, upload.key, upload.id))
    return parts


class Done(msgspec.Struct, frozen=True):
    """A completed upload."""

    bucket: str
    key: str
    at_ms: int
    version: Version


_DONE: Final = msgspec.json.Decoder(Done)


def put_done(tx: Tx, id: str, done: Done) -> None:
    tx.put(keys.encode(DONE, id), _ENCODE.encode(done))


def find_done(reader: Reader, bucket: str, key: str, id: str) -> Version | None:
    """What the upload became, if it was completed lately."""
    raw = reader.get(keys.encode(DONE, id)) if len(id) < 200 else None
    found = None if raw is None else _DONE.decode(raw)
    return found.version if found is not None and (found.bucket, found.key) == (bucket, key) else None


def drop_done(tx: Tx, before_ms: int, most: int) -> bool:
    """Forget completions that are older; whether there may be more. Ids grow with time."""
    page = tx.scan(*keys.prefix_range(DONE), limit=most)
    old = [key for key, raw in page if _DONE.decode(raw).at_ms < before_ms]
    for key in old:
        tx.delete(key)
    return len(old) == most


# --- blobs: named by their ids, with letters that are no digits before them ("i": its bytes are in its row)


def owner(tx: Tx, fresh: str) -> str:
    """Who all blobs belong to: this store, under the name that it was given with the first start."""
    key = keys.encode("s3.owner")
    found = tx.get(key)
    if found is None:
        tx.put(key, fresh.encode())
    return fresh if found is None else found.decode()


def place_of(blob: str) -> str:
    """The id that the backend knows; "" for bytes that are in a row."""
    return "" if "i" in blob else blob[-32:]


def blob_key(id: str) -> bytes:
    return keys.encode(BLOB, id)


def use_blob(tx: Tx, id: str, content: bytes | None = None) -> None:
    """One more version or part uses it. `content`: the bytes, where it is new and they are few."""
    raw = tx.get(blob_key(id))
    count = int.from_bytes(raw[:4], "big") if raw is not None else 0
    rest = raw[4:] if raw is not None else content or b""
    tx.put(blob_key(id), (count + 1).to_bytes(4, "big") + rest)


def release_blob(tx: Tx, id: str) -> bool:
    """One less uses it. True if none is left: the row is gone, and the file behind it may go."""
    raw = tx.get(blob_key(id))
    count = int.from_bytes(raw[:4], "big") if raw is not None else 0
    if raw is not None and count > 1:
        tx.put(blob_key(id), (count - 1).to_bytes(4, "big") + raw[4:])
        return False
    tx.delete(blob_key(id))
    return True


def release(tx: Tx, version: Version) -> list[str]:
    """A version goes for good: its parts' row, and the ids of blobs that nobody uses any more."""
    gone = [id for id in _distinct(segments_of(tx, version)) if release_blob(tx, id)]
    if version.parts:
        tx.delete(keys.encode(PARTS, version.seq))
    return gone


def release_parts(tx: Tx, parts: list[Part] | tuple[Part, ...]) -> list[str]:
    return [id for part in parts for id in _distinct(part.segments) if release_blob(tx, id)]


def use_segments(tx: Tx, segments: tuple[Segment, ...]) -> None:
    for id in _distinct(segments):
        use_blob(tx, id)


def _distinct(segments: tuple[Segment, ...]) -> list[str]:
    return list(dict.fromkeys(segment.blob for segment in segments))
