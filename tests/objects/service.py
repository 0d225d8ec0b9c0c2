"""The service as a test calls it: `await s3("PutObject", Bucket=..., ...)`, and the errors by name and members."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from martlet.auth import authorize
from martlet.clock import ManualClock
from martlet.errors import ServiceError
from martlet.objects import S3, Notice, Objects
from martlet.protocols.codec import Caller, method_name
from martlet.types import ANONYMOUS, Principal

ROOT = Caller(Principal("root", "root"), "us-east-1", "000000000000", "request", "http://127.0.0.1:8701")


class Service:
    """Drops members without a value, as the codec does."""

    def __init__(self, objects: Objects, clock: ManualClock, told: list[Notice]) -> None:
        self.objects = objects
        self.clock = clock
        self.told = told
        self.missing: dict[str, str] = {}

        async def exists(arn: str, source: str) -> str:
            return self.missing.get(arn, "")

        async def tell(notice: Notice) -> None:
            told.append(notice)

        self.service = S3(objects, authorize, exists=exists, tell=tell)

    async def __call__(self, operation: str, principal: Principal | None = None, **request: Any) -> dict[str, Any]:
        caller = ROOT if principal is None else msgspec.structs.replace(ROOT, principal=principal)
        answer = await getattr(self.service, method_name(operation))(caller, request)
        found: dict[str, Any] = _without_none(answer or {})
        return found

    async def fails(self, error: str, operation: str, principal: Principal | None = None, **request: Any) -> ServiceError:
        with pytest.raises(ServiceError) as caught:
            await self(operation, principal, **request)
        assert caught.value.name == error, caught.value.message
        return caught.value

    async def bucket(self, name: str = "bucket", versioning: str = "") -> str:
        await self("CreateBucket", Bucket=name)
        if versioning:
            await self("PutBucketVersioning", Bucket=name, VersioningConfiguration={"Status": versioning})
        return name

    async def put(self, key: str, body: bytes = b"data", bucket: str = "bucket", **more: Any) -> dict[str, Any]:
        return await self("PutObject", Bucket=bucket, Key=key, Body=body, **more)

    async def read(self, key: str, bucket: str = "bucket", **more: Any) -> bytes:
        answer = await self("GetObject", Bucket=bucket, Key=key, **more)
        return b"".join([part async for part in answer["Body"]])

    async def keys(self, bucket: str = "bucket", **more: Any) -> list[str]:
        answer = await self("ListObjectsV2", Bucket=bucket, **more)
        return [one["Key"] for one in answer.get("Contents", ())]

    async def heard(self, count: int) -> list[Notice]:
        """What was told, once that many were."""
        async with asyncio.timeout(5):
            while len(self.told) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return self.told


def anybody() -> Principal:
    return ANONYMOUS


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
