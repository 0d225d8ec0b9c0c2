"""Operations of object lock: a bucket's default, retention and legal holds of versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from martlet.errors import MartletError, ServiceError
from martlet.objects import locks
from martlet.objects.desk import Caller, Desk, Request, replaced, version_id_of
from martlet.objects.failures import method_not_allowed
from martlet.objects.rows import Bucket, Version

__all__ = ["LockOperations"]


class LockOperations(Desk):
    """Object lock."""

    async def get_object_lock_configuration(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:GetBucketObjectLockConfiguration")
        if "lock" not in bucket.settings:
            text = "Object Lock configuration does not exist for this bucket"
            raise ServiceError("ObjectLockConfigurationNotFoundError", text, 404, BucketName=bucket.name)
        return {"ObjectLockConfiguration": bucket.settings["lock"]}

    async def put_object_lock_configuration(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:PutBucketObjectLockConfiguration")
        made = locks.configuration(request.get("ObjectLockConfiguration"))

        def lock(found: Bucket) -> Bucket:
            if found.versioning != "Enabled":
                text = "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
                raise ServiceError("InvalidBucketState", text, 409)
            return msgspec.structs.replace(found, settings={**found.settings, "lock": made})

        await self.objects.change(bucket.name, lock)
        return {}

    async def get_object_retention(self, caller: Caller, request: Request) -> Request:
        _, version = self._locked(caller, request, "s3:GetObjectRetention", "GET")
        if not version.mode:
            raise locks.no_configuration()
        return {"Retention": {"Mode": version.mode, "RetainUntilDate": locks.moment(version.retain_until_ms)}}

    async def put_object_retention(self, caller: Caller, request: Request) -> Request:
        now_ms, given = self.objects.clock.now_ms(), request.get("Retention") or {}
        context = locks.conditions(given.get("Mode"), given.get("RetainUntilDate"), None, now_ms)
        bucket, found = self._locked(caller, request, "s3:PutObjectRetention", "PUT", context)
        bypass = self.bypasses(caller, request, bucket, request["Key"], found.shown_id)
        await self._amend(request, lambda version: locks.retained(version, request.get("Retention"), now_ms, bypass=bypass))
        return {}

    async def get_object_legal_hold(self, caller: Caller, request: Request) -> Request:
        _, version = self._locked(caller, request, "s3:GetObjectLegalHold", "GET")
        if not version.legal_hold:
            raise locks.no_configuration()
        return {"LegalHold": {"Status": version.legal_hold}}

    async def put_object_legal_hold(self, caller: Caller, request: Request) -> Request:
        locks.check_hold(request.get("LegalHold"))
        status = request["LegalHold"]["Status"]
        self._locked(caller, request, "s3:PutObjectLegalHold", "PUT", locks.conditions(None, None, status, 0))
        await self._amend(request, lambda version: replaced(version, legal_hold=status))
        return {}

    async def _amend(self, request: Request, fn: Callable[[Version], Version]) -> None:
        await self.objects.amend(request["Bucket"], request["Key"], request.get("VersionId"), fn)

    def _locked(
        self, caller: Caller, request: Request, action: str, method: str, context: Mapping[str, str] = {}
    ) -> tuple[Bucket, Version]:
        """The version meant, in a bucket that locks. Raises InvalidRequest, MethodNotAllowed for delete markers."""
        version_id = version_id_of(request)
        bucket = self.bucket(caller, request, action, request["Key"], **context)
        locks.demand_enabled(bucket)
        try:
            version, _ = self.objects.look(bucket.name, request["Key"], version_id)
        except ServiceError as error:
            if "marker" in error.details:
                raise method_not_allowed(method, "DeleteMarker") from error
            raise
        if version.marker:
            raise method_not_allowed(method, "DeleteMarker")
        return bucket, version

    def bypasses(self, caller: Caller, request: Request, bucket: Bucket, key: str, version_id: str | None) -> bool:
        """Whether a request passes over governance, and may. Who may not is refused only where a lock is in the way."""
        if not request.get("BypassGovernanceRetention"):
            return False
        try:
            self.allow(caller, "s3:BypassGovernanceRetention", bucket, bucket.name, key, version_id)
        except MartletError:
            return False
        return True
