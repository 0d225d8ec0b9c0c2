"""Buckets: names, listings, policies and lists, settings, lifecycle, what is told of changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.objects.service import Service, anybody

from martlet.errors import ServiceError
from martlet.objects import Lifecycle
from martlet.types import Principal


@pytest.mark.parametrize("name", ["ab", "A-bucket", "a..b", "-ab", "ab-", "1.2.3.4", "a_b", "x" * 64, "xn--abc", "a.-b"])
async def test_names_that_are_none(s3: Service, name: str) -> None:
    await s3.fails("InvalidBucketName", "CreateBucket", Bucket=name)


async def test_a_bucket_lives(s3: Service) -> None:
    await s3.bucket()
    await s3.bucket()  # us-east-1 takes the repetition
    await s3.fails("NoSuchBucket", "HeadBucket", Bucket="other")
    assert (await s3("HeadBucket", Bucket="bucket"))["BucketRegion"] == "us-east-1"
    location = {"LocationConstraint": "eu-west-1"}
    await s3("CreateBucket", Bucket="europe", CreateBucketConfiguration=location)
    await s3.fails("BucketAlreadyOwnedByYou", "CreateBucket", Bucket="europe", CreateBucketConfiguration=location)
    assert await s3("GetBucketLocation", Bucket="europe") == location
    for wrong in ("us-east-1", "mars"):
        configuration = {"LocationConstraint": wrong}
        await s3.fails("InvalidLocationConstraint", "CreateBucket", Bucket="other", CreateBucketConfiguration=configuration)
    page = await s3("ListBuckets", MaxBuckets=1)
    assert [one["Name"] for one in page["Buckets"]] == ["bucket"]
    page = await s3("ListBuckets", MaxBuckets=1, ContinuationToken=page["ContinuationToken"])
    assert ([one["Name"] for one in page["Buckets"]], "ContinuationToken" in page) == (["europe"], False)
    await s3.put("k")
    await s3.fails("BucketNotEmpty", "DeleteBucket", Bucket="bucket")
    await s3.fails("AccessDenied", "HeadBucket", Bucket="bucket", ExpectedBucketOwner="000000000001")
    await s3.fails("InvalidBucketOwnerAWSAccountID", "HeadBucket", Bucket="bucket", ExpectedBucketOwner="x")


async def test_listing_page_by_page(s3: Service) -> None:
    await s3.bucket()
    names = ["a", "b/1", "b/2", "b/c/3", "d", "d/", "\u00e9", "\U0001f600"]
    for name in names:
        await s3.put(name)
    assert await s3.keys() == names  # in the order of UTF-8
    assert await s3.keys(Prefix="b/") == ["b/1", "b/2", "b/c/3"]
    assert await s3.keys(StartAfter="b/2") == ["b/c/3", "d", "d/", "\u00e9", "\U0001f600"]
    found: list[str] = []
    token: dict[str, Any] = {}
    while True:
        page = await s3("ListObjectsV2", Bucket="bucket", Delimiter="/", MaxKeys=2, **token)
        assert page["KeyCount"] <= 2
        found += [one["Key"] for one in page.get("Contents", ())] + [one["Prefix"] for one in page.get("CommonPrefixes", ())]
        if not page["IsTruncated"]:
            break
        token = {"ContinuationToken": page["NextContinuationToken"]}
    assert sorted(found) == sorted(["a", "b/", "d", "d/", "\u00e9", "\U0001f600"])
    marker = ""
    seen: list[str] = []
    while True:
        page = await s3("ListObjects", Bucket="bucket", Delimiter="/", MaxKeys=1, Marker=marker)
        seen += [one["Key"] for one in page.get("Contents", ())] + [one["Prefix"] for one in page.get("CommonPrefixes", ())]
        if not page["IsTruncated"]:
            break
        marker = page["NextMarker"]
    assert sorted(seen) == sorted(found)
    encoded = await s3("ListObjectsV2", Bucket="bucket", Prefix="\u00e9", EncodingType="url")
    assert encoded["Contents"][0]["Key"] == "%C3%A9"
    await s3.fails("InvalidArgument", "ListObjectsV2", Bucket="bucket", ContinuationToken="nonsense")
    await s3.fails("InvalidArgument", "ListObjects", Bucket="bucket", EncodingType="base64")


async def test_versions_page_by_page(s3: Service) -> None:
    await s3.bucket(versioning="Enabled")
    expected = []
    for key in ("a", "b", "c/1"):
        ids = [(await s3.put(key, str(at).encode()))["VersionId"] for at in range(3)]
        expected += [(key, id) for id in reversed(ids)]
    found: list[tuple[str, str]] = []
    at: dict[str, Any] = {}
    while True:
        page = await s3("ListObjectVersions", Bucket="bucket", MaxKeys=2, **at)
        found += [(one["Key"], one["VersionId"]) for one in page["Versions"]]
        if not page["IsTruncated"]:
            break
        at = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
    assert found == expected
    await s3.fails("InvalidArgument", "ListObjectVersions", Bucket="bucket", VersionIdMarker=expected[0][1])


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


ALLOW_ALL = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/public/*"}


async def test_only_a_policy_lets_the_public_in(s3: Service) -> None:
    await s3.bucket()
    await s3.put("public/a")
    await s3.put("private/a")
    get = {"Bucket": "bucket", "Key": "public/a"}
    await s3.fails("AccessDenied", "GetObject", anybody(), **get)
    await s3.fails("AccessDenied", "PutBucketPolicy", Bucket="bucket", Policy=policy(ALLOW_ALL))  # blocked by default
    await s3("DeletePublicAccessBlock", Bucket="bucket")
    await s3("PutBucketPolicy", Bucket="bucket", Policy=policy(ALLOW_ALL))
    assert (await s3("GetBucketPolicyStatus", Bucket="bucket"))["PolicyStatus"] == {"IsPublic": True}
    await s3("GetObject", anybody(), **get)
    await s3.fails("AccessDenied", "GetObject", anybody(), Bucket="bucket", Key="private/a")
    await s3.fails("AccessDenied", "GetObject", anybody(), Bucket="bucket", Key="public/none")  # may not list
    await s3.fails("AccessDenied", "PutObject", anybody(), **get, Body=b"")
    block = {"RestrictPublicBuckets": True}
    await s3("PutPublicAccessBlock", Bucket="bucket", PublicAccessBlockConfiguration=block)
    await s3.fails("AccessDenied", "GetObject", anybody(), **get)


async def test_a_deny_binds_the_owner_too_but_not_its_removal(s3: Service) -> None:
    await s3.bucket()
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"]}
    await s3("PutBucketPolicy", Bucket="bucket", Policy=policy(deny))
    await s3.fails("AccessDenied", "PutObject", Bucket="bucket", Key="k", Body=b"")
    await s3.fails("AccessDenied", "ListObjectsV2", Bucket="bucket")
    await s3("DeleteBucketPolicy", Bucket="bucket")
    await s3.put("k")


async def test_conditions_of_policies(s3: Service) -> None:
    await s3.bucket()
    allow = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::bucket"}
    condition = {"StringLike": {"s3:prefix": "home/*"}, "IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}
    await s3("DeletePublicAccessBlock", Bucket="bucket")
    await s3("PutBucketPolicy", Bucket="bucket", Policy=policy(allow | {"Condition": {"StringLike": {"s3:prefix": "home/*"}}}))
    await s3("ListObjectsV2", anybody(), Bucket="bucket", Prefix="home/x")
    await s3.fails("AccessDenied", "ListObjectsV2", anybody(), Bucket="bucket", Prefix="other")
    await s3.fails("AccessDenied", "ListObjectsV2", anybody(), Bucket="bucket")
    await s3("PutBucketPolicy", Bucket="bucket", Policy=policy(allow | {"Condition": condition}))
    unknown = {"DateLessThan": {"aws:CurrentTime": "2030-01-01"}}
    await s3.fails("NotImplemented", "PutBucketPolicy", Bucket="bucket", Policy=policy(allow | {"Condition": unknown}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "{}",
        '{"Statement": []}',
        policy({"Effect": "Allow"}),
        policy(ALLOW_ALL | {"Resource": "arn:aws:s3:::x/*"}),
    ],
)
async def test_policies_that_are_none(s3: Service, text: str) -> None:
    await s3.bucket()
    await s3.fails("MalformedPolicy", "PutBucketPolicy", Bucket="bucket", Policy=text)


async def test_grants_of_functions(s3: Service) -> None:
    await s3.bucket()
    function = Principal("function", "shop-f", frozenset({("s3:GetObject", "arn:aws:s3:::bucket/in/*")}))
    await s3.put("in/a")
    await s3("GetObject", function, Bucket="bucket", Key="in/a")
    await s3.fails("AccessDenied", "GetObject", function, Bucket="bucket", Key="out/a")
    await s3.fails("AccessDenied", "DeleteObject", function, Bucket="bucket", Key="in/a")


async def test_lists_are_off_until_they_are_switched_on(s3: Service) -> None:
    await s3.bucket()
    await s3.put("k")
    put = {"Bucket": "bucket", "Key": "k"}
    await s3.fails("AccessControlListNotSupported", "PutObjectAcl", **put, ACL="public-read")
    await s3("PutBucketOwnershipControls", Bucket="bucket", OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    await s3.fails("AccessDenied", "PutObjectAcl", **put, ACL="public-read")
    await s3("DeletePublicAccessBlock", Bucket="bucket")
    await s3("PutObjectAcl", **put, ACL="public-read")
    await s3("GetObject", anybody(), **put)
    await s3.fails("AccessDenied", "ListObjectsV2", anybody(), Bucket="bucket")
    await s3("PutBucketAcl", Bucket="bucket", ACL="public-read")
    await s3("ListObjectsV2", anybody(), Bucket="bucket")
    grants = (await s3("GetObjectAcl", **put))["Grants"]
    assert [one["Permission"] for one in grants] == ["FULL_CONTROL", "READ"]
    await s3.fails("InvalidArgument", "PutBucketAcl", Bucket="bucket", ACL="nobody")


async def test_tags(s3: Service) -> None:
    await s3.bucket()
    await s3.fails("NoSuchTagSet", "GetBucketTagging", Bucket="bucket")
    tags = {"TagSet": [{"Key": "a", "Value": "1"}]}
    await s3("PutBucketTagging", Bucket="bucket", Tagging=tags)
    assert await s3("GetBucketTagging", Bucket="bucket") == tags
    await s3.put("k")
    twice = {"TagSet": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}
    await s3.fails("InvalidTag", "PutObjectTagging", Bucket="bucket", Key="k", Tagging=twice)
    many = {"TagSet": [{"Key": str(at), "Value": ""} for at in range(11)]}
    await s3.fails("BadRequest", "PutObjectTagging", Bucket="bucket", Key="k", Tagging=many)
    await s3.fails("InvalidArgument", "PutObject", Bucket="bucket", Key="k", Body=b"", Tagging="a=1&a=2")


async def test_expiry_by_the_clock(s3: Service) -> None:
    await s3.bucket(versioning="Enabled")
    rules = [
        {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 1}},
        {"ID": "old", "Status": "Enabled", "Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
        {"ID": "halves", "Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
        {"ID": "marks", "Status": "Enabled", "Filter": {}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
    ]
    await s3("PutBucketLifecycleConfiguration", Bucket="bucket", LifecycleConfiguration={"Rules": rules})
    put = await s3.put("logs/a")
    assert put["Expiration"] == 'expiry-date="Thu, 16 Nov 2023 00:00:00 GMT", rule-id="logs"'
    assert "Expiration" not in await s3.put("keep", b"1")
    await s3.put("keep", b"2")
    await s3("CreateMultipartUpload", Bucket="bucket", Key="half")
    lifecycle = Lifecycle(s3.objects)
    s3.clock.advance(86_400)
    assert await lifecycle.run_due() == 0  # the day is over, midnight is not
    s3.clock.advance(86_400)
    assert await lifecycle.run_due() == 3
    assert await s3.keys() == ["keep"]
    s3.clock.advance(2 * 86_400)
    assert await lifecycle.run_due() == 2  # what the marker covers, then the marker that covers nothing
    assert await lifecycle.run_due() == 0
    versions = await s3("ListObjectVersions", Bucket="bucket")
    assert ([one["Key"] for one in versions["Versions"]], "DeleteMarkers" in versions) == (["keep"], False)


@pytest.mark.parametrize(
    "rule",
    [
        {"Status": "Enabled", "Filter": {}},
        {"Status": "Maybe", "Filter": {}, "Expiration": {"Days": 1}},
        {"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 0}},
        {"Status": "Enabled", "Expiration": {"Days": 1}},
        {"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1, "ExpiredObjectDeleteMarker": True}},
        {"Status": "Enabled", "Filter": {}, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]},
    ],
)
async def test_rules_that_are_none(s3: Service, rule: dict[str, Any]) -> None:
    await s3.bucket()
    error = "NotImplemented" if "Transitions" in rule else None
    with pytest.raises(ServiceError) as caught:
        await s3("PutBucketLifecycleConfiguration", Bucket="bucket", LifecycleConfiguration={"Rules": [rule]})
    name = getattr(caught.value, "name", "")
    assert name == (error or name)
    assert name in ("MalformedXML", "InvalidRequest", "InvalidArgument", "NotImplemented")


QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"


async def test_changes_are_told(s3: Service) -> None:
    await s3.bucket()
    chosen = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".txt"}]}}
    one = {"Id": "i", "QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:Delete"], "Filter": chosen}
    configuration = {"QueueConfigurations": [one], "EventBridgeConfiguration": {}}
    await s3("PutBucketNotificationConfiguration", Bucket="bucket", NotificationConfiguration=configuration)
    assert (await s3.heard(1))[0].payload["Event"] == "s3:TestEvent"
    await s3.put("out/a.txt")
    await s3.put("in/\u00e9 b.txt", b"12345")
    await s3("DeleteObject", Bucket="bucket", Key="in/\u00e9 b.txt")
    told = [notice for notice in await s3.heard(6) if notice.target == QUEUE][1:]
    created, removed = (notice.payload["Records"][0] for notice in told)
    assert (created["eventName"], removed["eventName"]) == ("ObjectCreated:Put", "ObjectRemoved:Delete")
    assert created["s3"]["object"]["key"] == "in/%C3%A9+b.txt"
    assert (created["s3"]["object"]["size"], created["s3"]["configurationId"]) == (5, "i")
    assert "size" not in removed["s3"]["object"]
    assert removed["s3"]["object"]["sequencer"] > created["s3"]["object"]["sequencer"]
    bus = [notice.payload for notice in s3.told if notice.target == "events"]
    assert [event["detail-type"] for event in bus] == ["Object Created", "Object Created", "Object Deleted"]


async def test_targets_that_cannot_be_told(s3: Service) -> None:
    await s3.bucket()
    put = ("PutBucketNotificationConfiguration",)
    s3.missing[QUEUE] = "The destination queue does not exist"
    configuration = {"QueueConfigurations": [{"QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"]}]}
    error = await s3.fails("InvalidArgument", *put, Bucket="bucket", NotificationConfiguration=configuration)
    assert error.members["ArgumentName1"] == QUEUE
    wrong = {"QueueConfigurations": [{"QueueArn": "arn", "Events": ["s3:ObjectCreated:*"]}]}
    await s3.fails("InvalidArgument", *put, Bucket="bucket", NotificationConfiguration=wrong)
    never = {"QueueConfigurations": [{"QueueArn": QUEUE, "Events": ["s3:ObjectRestore:Post"]}]}
    await s3.fails("NotImplemented", *put, Bucket="bucket", NotificationConfiguration=never)
