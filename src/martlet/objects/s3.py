"""The service "s3": all its operations over one engine. Their checks are S3's own, in S3's words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from martlet.objects.bucket_operations import BucketOperations
from martlet.objects.checksums import ALGORITHMS, Checksum, is_valid
from martlet.objects.events import Notice
from martlet.objects.failures import bad_digest, invalid_request
from martlet.objects.listing import ListOperations
from martlet.objects.multipart import MultipartOperations
from martlet.objects.object_operations import ObjectOperations
from martlet.objects.objects import Objects
from martlet.objects.posts import Posted, read
from martlet.types import Principal

__all__ = ["S3"]


class S3(BucketOperations, ListOperations, MultipartOperations, ObjectOperations):
    """Amazon S3. `authorize(principal, action, resource)` are the caller's own grants; `exists(arn, bucket's arn)` says why a
    target of notifications cannot be told ("" if it can); `tell` tells it."""

    def __init__(
        self,
        objects: Objects,
        authorize: Callable[[Principal, str, str], None],
        *,
        exists: Callable[[str, str], Awaitable[str]],
        tell: Callable[[Notice], Awaitable[None]],
    ) -> None:
        super().__init__(objects, authorize)
        self.exists = exists
        self.tell = tell

    @staticmethod
    def form(fields: Mapping[str, str], now_ms: int, bucket: str) -> Posted:
        """What an upload by a form asks for."""
        return read(fields, now_ms, bucket)

    @staticmethod
    def check_document(headers: Mapping[str, str], raw: bytes) -> None:
        """Hold a body that is a document against the checksum that its headers (or trailers) give. Raises BadDigest."""
        for name in ALGORITHMS:
            wanted = headers.get(f"x-amz-checksum-{name.lower()}")
            if wanted is not None:
                running = Checksum(name)
                running.update(raw)
                if not is_valid(name, wanted):
                    raise invalid_request(f"Value for x-amz-checksum-{name.lower()} header is invalid.")
                if running.text() != wanted:
                    raise bad_digest(name)

    def permission(self, operation: str, request: dict[str, object]) -> None:
        """None: each operation asks by itself, as it depends on the bucket."""
        return None
