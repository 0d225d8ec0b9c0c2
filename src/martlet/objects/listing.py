"""Listings: objects (version 1 and 2), versions. In the order of UTF-8, with prefixes and delimiters, page by page.

A common prefix is skipped by one seek, however many keys it holds.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote_plus

import msgspec

from martlet.objects import acl, rows
from martlet.objects.desk import Caller, Desk, Request, seconds
from martlet.objects.failures import invalid_argument
from martlet.objects.rows import Version
from martlet.store import Reader, keys

__all__ = ["ListOperations", "Page"]

_MOST: Final = 1_000
_SCAN: Final = 200


class Page(msgspec.Struct):
    """One page. `entries`: (key, version) or (common prefix, None), in order."""

    entries: list[tuple[str, Version | None]]
    truncated: bool = False
    last: str = ""  # the last key or prefix


class ListOperations(Desk):
    """Listings of a bucket."""

    async def list_objects(self, caller: Caller, request: Request) -> Request:
        prefix, delimiter = request.get("Prefix") or "", request.get("Delimiter") or ""
        bucket = self._listed(caller, request, "s3:ListBucket")
        most, encode = _most(request.get("MaxKeys"), "max-keys"), _encoding(request)
        marker = request.get("Marker") or ""
        page = self.objects.store.read(lambda reader: objects_page(reader, bucket, prefix, delimiter, marker, most, True))
        answer: Request = {
            "IsTruncated": page.truncated,
            "Marker": encode(marker),
            "Contents": self._contents(page, encode, owner=True),
            "Name": bucket,
            "Prefix": encode(prefix),
            "Delimiter": encode(delimiter) if delimiter else None,
            "MaxKeys": most,
            "CommonPrefixes": _prefixes(page, encode),
            "EncodingType": request.get("EncodingType"),
        }
        if page.truncated and delimiter:
            answer["NextMarker"] = encode(page.last)
        return answer

    async def list_objects_v2(self, caller: Caller, request: Request) -> Request:
        prefix, delimiter = request.get("Prefix") or "", request.get("Delimiter") or ""
        bucket = self._listed(caller, request, "s3:ListBucket")
        most, encode = _most(request.get("MaxKeys"), "max-keys"), _encoding(request)
        token = request.get("ContinuationToken")
        after = request.get("StartAfter") or ""
        start = _from_token(token) if token is not None else after
        page = self.objects.store.read(lambda reader: objects_page(reader, bucket, prefix, delimiter, start, most))
        return {
            "IsTruncated": page.truncated,
            "Contents": self._contents(page, encode, owner=bool(request.get("FetchOwner"))),
            "Name": bucket,
            "Prefix": encode(prefix),
            "Delimiter": encode(delimiter) if delimiter else None,
            "MaxKeys": most,
            "CommonPrefixes": _prefixes(page, encode),
            "EncodingType": request.get("EncodingType"),
            "KeyCount": len(page.entries),
            "ContinuationToken": token,
            "NextContinuationToken": _as_token(page.last) if page.truncated else None,
            "StartAfter": encode(after) if request.get("StartAfter") is not None and token is None else None,
        }

    async def list_object_versions(self, caller: Caller, request: Request) -> Request:
        prefix, delimiter = request.get("Prefix") or "", request.get("Delimiter") or ""
        bucket = self._listed(caller, request, "s3:ListBucketVersions")
        most, encode = _most(request.get("MaxKeys"), "max-keys"), _encoding(request)
        key_marker, id_marker = request.get("KeyMarker") or "", request.get("VersionIdMarker")
        if id_marker == "":
            raise invalid_argument("A version-id marker cannot be empty.", "version-id-marker", "")
        if id_marker is not None and not key_marker:
            text = "A version-id marker cannot be specified without a key marker."
            raise invalid_argument(text, "version-id-marker", id_marker)
        if id_marker is not None and not rows.is_version_id(id_marker):
            raise invalid_argument("Invalid version id specified", "version-id-marker", id_marker)
        args = (bucket, prefix, delimiter, key_marker, id_marker or "", most)
        page, latest = self.objects.store.read(lambda reader: versions_page(reader, *args))
        shown: list[Request] = []
        markers: list[Request] = []
        for at, (key, version) in enumerate(page.entries):
            if version is not None:
                (markers if version.marker else shown).append(self._version(encode(key), version, at in latest))
        answer: Request = {
            "IsTruncated": page.truncated,
            "KeyMarker": encode(key_marker),
            "VersionIdMarker": id_marker or "",
            "Versions": shown or None,
            "DeleteMarkers": markers or None,
            "Name": bucket,
            "Prefix": encode(prefix),
            "Delimiter": encode(delimiter) if delimiter else None,
            "MaxKeys": most,
            "CommonPrefixes": _prefixes(page, encode),
            "EncodingType": request.get("EncodingType"),
        }
        if page.truncated:
            answer["NextKeyMarker"] = encode(page.last)
            last = page.entries[-1][1] if page.entries else None
            if last is not None:
                answer["NextVersionIdMarker"] = last.shown_id
        return answer

    def _listed(self, caller: Caller, request: Request, action: str) -> str:
        prefix, delimiter = request.get("Prefix") or "", request.get("Delimiter") or ""
        most = request.get("MaxKeys")
        context = {"prefix": prefix, "delimiter": delimiter, "max_keys": "" if most is None else str(most)}
        return self.bucket(caller, request, action, **context).name

    def _contents(self, page: Page, encode: Callable[[str], str], *, owner: bool) -> list[Request] | None:
        found = []
        for key, version in page.entries:
            if version is None:
                continue
            one = self._version(encode(key), version, None)
            if not owner:
                del one["Owner"]
            found.append(one)
        return found or None

    @staticmethod
    def _version(key: str, version: Version, latest: bool | None) -> Request:
        one: Request = {"Key": key, "LastModified": seconds(version.modified_at_ms), "Owner": acl.OWNER}
        if not version.marker:
            one |= {"ETag": version.quoted, "Size": version.size, "StorageClass": version.storage_class}
            if version.algorithm:
                one |= {"ChecksumAlgorithm": [version.algorithm], "ChecksumType": version.checksum_type}
        if latest is not None:
            one |= {"VersionId": version.shown_id, "IsLatest": latest}
        return one


# --- requests


def _most(given: int | None, name: str) -> int:
    if given is None:
        return _MOST
    if given < 0:
        text = f"Argument {name.replace('-', '')} must be an integer between 0 and 2147483647"
        text = "Argument maxKeys must be an integer between 0 and 2147483647" if name == "max-keys" else text
        raise invalid_argument(text, name, str(given))
    return min(given, _MOST)


def _encoding(request: Request) -> Callable[[str], str]:
    kind = request.get("EncodingType")
    if kind is None:
        return str
    if kind != "url":
        raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", kind)
    return lambda text: quote_plus(text, safe="/*-._")


def _as_token(key: str) -> str:
    return base64.urlsafe_b64encode(b"1" + key.encode()).decode()


def _from_token(token: str) -> str:
    try:
        raw = base64.b64decode(token.encode(), b"-_", validate=True)
        if raw[:1] == b"1" and len(raw) > 1:
            return raw[1:].decode()
    except (binascii.Error, ValueError):
        pass  # said below
    raise invalid_argument("The continuation token provided is incorrect", "continuation-token")


def _prefixes(page: Page, encode: Callable[[str], str]) -> list[Request] | None:
    return [{"Prefix": encode(prefix)} for prefix, version in page.entries if version is None] or None


# --- pages


def common_prefix(key: str, prefix: str, delimiter: str) -> str:
    """The part of the key up to the first delimiter behind the prefix, or ""."""
    if not delimiter:
        return ""
    at = key.find(delimiter, len(prefix))
    return "" if at < 0 else key[: at + len(delimiter)]


def beyond(kind: str, bucket: str, prefix: str) -> bytes:
    """A row key behind every key that begins with `prefix`."""
    return keys.encode(kind, bucket, prefix)[:-1] + b"\xff"


def objects_page(reader: Reader, bucket: str, prefix: str, delimiter: str, after: str, most: int, whole: bool = False) -> Page:
    """Current objects behind `after`, `most` entries of them. `whole`: a common prefix that `after` lies in is behind, too."""
    page = Page([])
    if most == 0:
        return page
    low = keys.encode(rows.OBJECT, bucket, prefix)[:-1]
    high = beyond(rows.OBJECT, bucket, prefix)
    if after:
        low = max(low, keys.encode(rows.OBJECT, bucket, after) + b"\x00")
        common = common_prefix(after, prefix, delimiter) if after.startswith(prefix) else ""
        if common and (whole or common == after):
            low = max(low, beyond(rows.OBJECT, bucket, common))
    while low < high:
        found = reader.scan(low, high, limit=min(most - len(page.entries) + 1, _SCAN))
        if not found:
            return page
        for at, raw in found:
            low = at + b"\x00"
            key = str(keys.decode(at)[2])
            version = rows.decode_version(raw)
            if version.marker:
                continue
            if len(page.entries) == most:
                page.truncated = True
                return page
            common = common_prefix(key, prefix, delimiter)
            page.last = common or key
            page.entries.append((page.last, None if common else version))
            if common:
                low = beyond(rows.OBJECT, bucket, common)
                break
    return page


def versions_page(
    reader: Reader, bucket: str, prefix: str, delimiter: str, after: str, after_id: str, most: int
) -> tuple[Page, set[int]]:
    """All versions behind version `after_id` of key `after`; and the places of those that are current."""
    page, latest = Page([]), set[int]()
    if most == 0:
        return page, latest
    for key, version, is_latest in _versions(reader, bucket, prefix, delimiter, after, after_id):
        if len(page.entries) == most:
            page.truncated = True
            break
        if is_latest:
            latest.add(len(page.entries))
        page.last = key
        page.entries.append((key, version))
    return page, latest


def _versions(
    reader: Reader, bucket: str, prefix: str, delimiter: str, after: str, after_id: str
) -> Iterator[tuple[str, Version | None, bool]]:
    low = keys.encode(rows.OBJECT, bucket, prefix)[:-1]
    high = beyond(rows.OBJECT, bucket, prefix)
    if after:
        behind = b"" if after_id else b"\x00"
        low = max(low, keys.encode(rows.OBJECT, bucket, after) + behind)
        common = common_prefix(after, prefix, delimiter) if after.startswith(prefix) else ""
        if common:
            low = max(low, beyond(rows.OBJECT, bucket, common))
    while low < high:
        found = reader.scan(low, high, limit=_SCAN)
        if not found:
            return
        for at, raw in found:
            low = at + b"\x00"
            key = str(keys.decode(at)[2])
            common = common_prefix(key, prefix, delimiter)
            if common:
                yield common, None, False
                low = beyond(rows.OBJECT, bucket, common)
                break
            yield from _of_key(reader, bucket, key, rows.decode_version(raw), after_id if key == after else "")


def _of_key(
    reader: Reader, bucket: str, key: str, newest: Version, after_id: str
) -> Iterator[tuple[str, Version | None, bool]]:
    passed = not after_id
    place = 0 if after_id in ("", "null") else rows.seq_of(after_id)  # also of a version that is gone
    for version, is_latest in _chain(reader, bucket, key, newest):
        if passed or version.seq < place:
            yield key, version, is_latest
        passed = passed or version.shown_id == after_id


def _chain(reader: Reader, bucket: str, key: str, newest: Version) -> Iterator[tuple[Version, bool]]:
    yield newest, True
    for version in rows.noncurrent(reader, bucket, key):
        yield version, False
