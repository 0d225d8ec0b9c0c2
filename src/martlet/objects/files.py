"""The objects of buckets as files, read by other rooms on the platform's own account; who may have them read, these ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

from martlet.objects.listing import objects_page
from martlet.objects.objects import Objects

__all__ = ["BucketFiles"]

_PAGE = 100


class BucketFiles:
    """Errors are `ServiceError` in S3's words."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def listed(self, bucket: str, prefix: str, after: str) -> list[tuple[str, int]]:
        """The next (key, size in bytes) behind the key `after`."""
        self._objects.demand(bucket)
        page = self._objects.store.read(lambda reader: objects_page(reader, bucket, prefix, "", after, _PAGE))
        return [(key, version.size) for key, version in page.entries if version is not None]

    def opened(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """The object's bytes, in pieces."""
        return aiter(self._objects.open(bucket, key)[1])
