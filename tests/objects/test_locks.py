"""Object lock: who may delete what, and when; defaults of buckets; what may be made weaker, and by whom."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.objects.service import Service

from martlet.objects import Lifecycle
from martlet.types import Principal


def later(s3: Service, days: float = 1) -> datetime:
    return datetime.fromtimestamp(s3.clock.now_ms() / 1000, UTC) + timedelta(days=days)


async def locked_bucket(s3: Service) -> None:
    await s3("CreateBucket", Bucket="bucket", ObjectLockEnabledForBucket=True)


async def put_retained(s3: Service, mode: str, days: float = 1) -> dict[str, Any]:
    """The members that name the version."""
    made = await s3.put("k", ObjectLockMode=mode, ObjectLockRetainUntilDate=later(s3, days))
    return {"Bucket": "bucket", "Key": "k", "VersionId": made["VersionId"]}


async def test_governance_holds_until_somebody_passes_over_it(s3: Service) -> None:
    await locked_bucket(s3)
    version = await put_retained(s3, "GOVERNANCE")
    await s3.fails("AccessDenied", "DeleteObject", **version)
    marker = await s3("DeleteObject", Bucket="bucket", Key="k")
    assert marker["DeleteMarker"], "a delete without a version id hides it, and takes nothing away"
    await s3.fails("AccessDenied", "DeleteObject", **version)
    await s3("DeleteObject", Bucket="bucket", Key="k", VersionId=marker["VersionId"])
    await s3("DeleteObject", **version, BypassGovernanceRetention=True)
    await s3.fails("NoSuchKey", "GetObject", Bucket="bucket", Key="k")


async def test_compliance_holds_against_everybody_until_its_time(s3: Service) -> None:
    await locked_bucket(s3)
    version = await put_retained(s3, "COMPLIANCE")
    weaker = (
        {"Mode": "COMPLIANCE", "RetainUntilDate": later(s3, 0.5)},
        {"Mode": "GOVERNANCE", "RetainUntilDate": later(s3, 2)},
        {},
    )
    for retention in weaker:
        await s3.fails("AccessDenied", "PutObjectRetention", **version, Retention=retention, BypassGovernanceRetention=True)
    await s3.fails("AccessDenied", "DeleteObject", **version, BypassGovernanceRetention=True)
    await s3("PutObjectRetention", **version, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": later(s3, 2)})
    s3.clock.advance(3 * 86_400)
    await s3("DeleteObject", **version)


async def test_a_legal_hold_has_no_end_but_its_own(s3: Service) -> None:
    await locked_bucket(s3)
    made = await s3.put("k", ObjectLockLegalHoldStatus="ON")
    version = {"Bucket": "bucket", "Key": "k", "VersionId": made["VersionId"]}
    s3.clock.advance(400 * 86_400)
    await s3.fails("AccessDenied", "DeleteObject", **version, BypassGovernanceRetention=True)
    answer = await s3("DeleteObjects", Bucket="bucket", Delete={"Objects": [{"Key": "k", "VersionId": made["VersionId"]}]})
    assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"]
    assert (await s3("GetObjectLegalHold", **version))["LegalHold"] == {"Status": "ON"}
    await s3("PutObjectLegalHold", **version, LegalHold={"Status": "OFF"})
    assert (await s3("HeadObject", **version))["ObjectLockLegalHoldStatus"] == "OFF"
    await s3("DeleteObject", **version)


async def test_a_bucket_s_default_is_each_new_version_s(s3: Service) -> None:
    await locked_bucket(s3)
    default = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 2}}}
    await s3("PutObjectLockConfiguration", Bucket="bucket", ObjectLockConfiguration=default)
    assert (await s3("GetObjectLockConfiguration", Bucket="bucket"))["ObjectLockConfiguration"] == default
    made = await s3.put("k")
    head = await s3("HeadObject", Bucket="bucket", Key="k")
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", later(s3, 2))
    own = await put_retained(s3, "GOVERNANCE", days=1)
    assert (await s3("GetObjectRetention", **own))["Retention"]["Mode"] == "GOVERNANCE"
    await s3.fails("AccessDenied", "DeleteObject", Bucket="bucket", Key="k", VersionId=made["VersionId"])


async def test_parts_and_copies_are_locked_too(s3: Service) -> None:
    await locked_bucket(s3)
    begun = await s3("CreateMultipartUpload", Bucket="bucket", Key="m", ObjectLockLegalHoldStatus="ON")
    upload = {"Bucket": "bucket", "Key": "m", "UploadId": begun["UploadId"]}
    part = await s3("UploadPart", **upload, PartNumber=1, Body=b"x")
    done = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    made = await s3("CompleteMultipartUpload", **upload, MultipartUpload=done)
    await s3.fails("AccessDenied", "DeleteObject", Bucket="bucket", Key="m", VersionId=made["VersionId"])
    copied = await s3("CopyObject", Bucket="bucket", Key="c", CopySource="bucket/m")
    assert "ObjectLockLegalHoldStatus" not in await s3("HeadObject", Bucket="bucket", Key="c"), "a copy has what it asks for"
    await s3("DeleteObject", Bucket="bucket", Key="c", VersionId=copied["VersionId"])


async def test_lifecycle_rules_pass_by_what_is_held(s3: Service) -> None:
    await locked_bucket(s3)
    version = await put_retained(s3, "COMPLIANCE", days=30)
    await s3.put("k", b"newer")
    rule = {"ID": "r", "Status": "Enabled", "Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    await s3("PutBucketLifecycleConfiguration", Bucket="bucket", LifecycleConfiguration={"Rules": [rule]})
    s3.clock.advance(10 * 86_400)
    assert await Lifecycle(s3.objects).run_due() == 0
    s3.clock.advance(30 * 86_400)
    assert await Lifecycle(s3.objects).run_due() == 1
    await s3.fails("NoSuchVersion", "GetObject", **version)


async def test_who_may_lock_and_who_may_pass_over_it(s3: Service) -> None:
    await locked_bucket(s3)
    writer = Principal("role", "writer", frozenset((f"s3:{name}Object", "*") for name in ("Put", "Delete")))
    put = {"Bucket": "bucket", "Key": "k", "Body": b""}
    until = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": later(s3)}
    await s3.fails("AccessDenied", "PutObject", writer, **put, **until)
    await s3.fails("AccessDenied", "PutObject", writer, **put, ObjectLockLegalHoldStatus="ON")
    version = await put_retained(s3, "GOVERNANCE")
    deleter = Principal("role", "deleter", frozenset({("s3:DeleteObjectVersion", "*")}))
    await s3.fails("AccessDenied", "DeleteObject", deleter, **version, BypassGovernanceRetention=True)
    await s3("HeadObject", **version)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ObjectLockEnabled": "Disabled"},
        {"ObjectLockEnabled": "Enabled", "Rule": {}},
        {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {}}},
        {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE"}}},
        {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "governance", "Days": 1}}},
        {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1, "Years": 1}}},
    ],
)
async def test_configurations_that_are_none(s3: Service, given: dict[str, Any]) -> None:
    await locked_bucket(s3)
    await s3.fails("MalformedXML", "PutObjectLockConfiguration", Bucket="bucket", ObjectLockConfiguration=given)


async def test_bounds_of_defaults(s3: Service) -> None:
    await locked_bucket(s3)
    for name, count in (("Days", 0), ("Years", -1), ("Days", 36_501), ("Years", 101)):
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", name: count}}
        given = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        await s3.fails("InvalidArgument", "PutObjectLockConfiguration", Bucket="bucket", ObjectLockConfiguration=given)


async def test_buckets_that_lock_keep_versions_and_others_do_not_lock(s3: Service) -> None:
    await s3.bucket("plain")
    enabled = {"ObjectLockEnabled": "Enabled"}
    lock = {"Bucket": "plain", "ObjectLockConfiguration": enabled}
    await s3.fails("ObjectLockConfigurationNotFoundError", "GetObjectLockConfiguration", Bucket="plain")
    await s3.fails("InvalidBucketState", "PutObjectLockConfiguration", **lock)
    await s3.put("k", bucket="plain")
    for operation in ("GetObjectRetention", "GetObjectLegalHold"):
        await s3.fails("InvalidRequest", operation, Bucket="plain", Key="k")
    put = {"Bucket": "plain", "Key": "k", "Body": b""}
    await s3.fails("InvalidRequest", "PutObject", **put, ObjectLockLegalHoldStatus="ON")
    await s3.fails("InvalidArgument", "DeleteObject", Bucket="plain", Key="k", BypassGovernanceRetention=True)
    await s3("PutBucketVersioning", Bucket="plain", VersioningConfiguration={"Status": "Enabled"})
    await s3("PutObjectLockConfiguration", **lock)
    suspend = {"Bucket": "plain", "VersioningConfiguration": {"Status": "Suspended"}}
    await s3.fails("InvalidBucketState", "PutBucketVersioning", **suspend)


async def test_what_a_request_says_wrongly(s3: Service) -> None:
    await locked_bucket(s3)
    put = {"Bucket": "bucket", "Key": "k", "Body": b""}
    for wrong in (
        {"ObjectLockMode": "GOVERNANCE"},
        {"ObjectLockRetainUntilDate": later(s3)},
        {"ObjectLockMode": "BAD", "ObjectLockRetainUntilDate": later(s3)},
        {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": later(s3, -1)},
        {"ObjectLockLegalHoldStatus": "on"},
    ):
        await s3.fails("InvalidArgument", "PutObject", **put, **wrong)
    await s3.put("k")
    await s3.fails("NoSuchObjectLockConfiguration", "GetObjectRetention", Bucket="bucket", Key="k")
    await s3.fails("MalformedXML", "PutObjectRetention", Bucket="bucket", Key="k", Retention={"Mode": "GOVERNANCE"})
    await s3.fails("MalformedXML", "PutObjectLegalHold", Bucket="bucket", Key="k", LegalHold={"Status": "abc"})


async def test_a_policy_may_bound_how_long_is_locked(s3: Service) -> None:
    await locked_bucket(s3)
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:PutObject", "s3:PutObjectRetention"],
        "Resource": "arn:aws:s3:::bucket/*",
        "Condition": {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": "10"}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    await s3("PutBucketPolicy", Bucket="bucket", Policy=policy)
    put = {"Bucket": "bucket", "Key": "k", "Body": b"", "ObjectLockMode": "GOVERNANCE"}
    await s3.fails("AccessDenied", "PutObject", **put, ObjectLockRetainUntilDate=later(s3, 11))
    await s3("PutObject", **put, ObjectLockRetainUntilDate=later(s3, 9))
    longer = {"Mode": "GOVERNANCE", "RetainUntilDate": later(s3, 11)}
    await s3.fails("AccessDenied", "PutObjectRetention", Bucket="bucket", Key="k", Retention=longer)
