"""The service "s3": all its operations over one engine. Their checks are S3's own, in S3's words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from martlet.objects.bucket_operations import BucketOperations
from martlet.objects.events import Notice
from martlet.objects.listing import ListOperations
from martlet.objects.multipart import MultipartOperations
from martlet.objects.object_operations import ObjectOperations
from martlet.objects.objects import Objects
from martlet.types import Principal

__all__ = ["S3"]


class S3(BucketOperations, ListOperations, MultipartOperations, ObjectOperations):
    """Amazon S3. `authorize(principal, action, resource)` are the caller's own grants; `exists(arn)` says why a target of
    notifications cannot be told ("" if it can); `tell` tells it."""

    def __init__(
        self,
        objects: Objects,
        authorize: Callable[[Principal, str, str], None],
        *,
        exists: Callable[[str], Awaitable[str]],
        tell: Callable[[Notice], Awaitable[None]],
    ) -> None:
        super().__init__(objects, authorize)
        self.exists = exists
        self.tell = tell

    def permission(self, operation: str, request: dict[str, object]) -> None:
        """None: each operation asks by itself, as it depends on the bucket."""
        return None
