"""AWS::S3::Bucket and AWS::S3::BucketPolicy: buckets of the objects room, by the operations that S3's clients call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from martlet.apps.stacks.kinds import Kind, Property, fixed, object_of, refused, value
from martlet.apps.stacks.providers.provider import Caller, Context, Physical, _Replace, generated_name
from martlet.errors import ServiceError

__all__ = ["Buckets", "bucket_providers"]

_TAGS = value("list", item=object_of({"Key": value(required=True), "Value": value()}))
_NO_LOCK: Final = "object lock is not there"
# Property → (operation that puts it, operation that takes it away, member, what it becomes).
_Change = tuple[str, str, str, Callable[[Any], Any]]


Buckets = Any  # the service "s3": its operations by name


def bucket_providers(buckets: Buckets) -> list[Any]:
    return [BucketProvider(buckets), BucketPolicyProvider(buckets)]


def _s3_caller(context: Context) -> Any:
    """The stack's caller with the members that S3 asks for."""
    return _Caller(context.caller)


class _Caller:
    conditions: Mapping[str, str] = {}
    source_ip = "127.0.0.1"
    trace_id = ""

    def __init__(self, caller: Caller) -> None:
        self.principal = caller.principal
        self.request_id = caller.request_id
        self.endpoint = caller.endpoint
        self.region = caller.region
        self.account = caller.account


# --- CloudFormation's spelling → S3's


def _cors(found: Any) -> Any:
    names = {"AllowedHeaders": "AllowedHeaders", "AllowedMethods": "AllowedMethods", "AllowedOrigins": "AllowedOrigins"}
    names |= {"ExposedHeaders": "ExposeHeaders", "MaxAge": "MaxAgeSeconds", "Id": "ID"}
    rules = [{names[key]: one for key, one in rule.items() if key in names} for rule in found.get("CorsRules") or ()]
    for rule in rules:
        if "MaxAgeSeconds" in rule:
            rule["MaxAgeSeconds"] = int(rule["MaxAgeSeconds"])
    return {"CORSRules": rules}


def _lifecycle(found: Any) -> Any:
    return {"Rules": [_rule(rule) for rule in found.get("Rules") or ()]}


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"Status": rule.get("Status"), "Filter": _filter(rule)}
    if rule.get("Id"):
        made["ID"] = rule["Id"]
    expiration: dict[str, Any] = {}
    if "ExpirationInDays" in rule:
        expiration["Days"] = int(rule["ExpirationInDays"])
    if "ExpirationDate" in rule:
        expiration["Date"] = rule["ExpirationDate"]
    if str(rule.get("ExpiredObjectDeleteMarker", "")).lower() == "true":
        expiration["ExpiredObjectDeleteMarker"] = True
    if expiration:
        made["Expiration"] = expiration
    old = dict(rule.get("NoncurrentVersionExpiration") or {})
    if "NoncurrentVersionExpirationInDays" in rule:
        old["NoncurrentDays"] = rule["NoncurrentVersionExpirationInDays"]
    if old:
        made["NoncurrentVersionExpiration"] = {name: int(number) for name, number in old.items()}
    abort = rule.get("AbortIncompleteMultipartUpload")
    if abort:
        made["AbortIncompleteMultipartUpload"] = {name: int(number) for name, number in abort.items()}
    for name in ("Transition", "Transitions", "NoncurrentVersionTransition", "NoncurrentVersionTransitions"):
        if name in rule:
            made["Transitions"] = rule[name]  # refused by S3's own check, by name
    return made


def _filter(rule: Mapping[str, Any]) -> dict[str, Any]:
    both: dict[str, Any] = {}
    if rule.get("Prefix"):
        both["Prefix"] = rule["Prefix"]
    if rule.get("TagFilters"):
        both["Tags"] = rule["TagFilters"]
    for name in ("ObjectSizeGreaterThan", "ObjectSizeLessThan"):
        if name in rule:
            both[name] = int(rule[name])
    if len(both) > 1 or len(both.get("Tags", ())) > 1:
        return {"And": both}
    return {"Tag": both["Tags"][0]} if "Tags" in both else both


def _notification(found: Any) -> Any:
    made: dict[str, Any] = {}
    for kind, key, member in (
        ("QueueConfigurations", "Queue", "QueueArn"),
        ("TopicConfigurations", "Topic", "TopicArn"),
        ("LambdaConfigurations", "Function", "LambdaFunctionArn"),
    ):
        listed = []
        for one in found.get(kind) or ():
            rules = (((one.get("Filter") or {}).get("S3Key")) or {}).get("Rules")
            told: dict[str, Any] = {member: one[key], "Events": [one["Event"]]}
            if rules:
                told["Filter"] = {"Key": {"FilterRules": rules}}
            listed.append(told)
        if listed:
            made["LambdaFunctionConfigurations" if kind == "LambdaConfigurations" else kind] = listed
    bus = found.get("EventBridgeConfiguration")
    if bus is not None and str(bus.get("EventBridgeEnabled", True)).lower() == "true":
        made["EventBridgeConfiguration"] = {}
    return made


def _encryption(found: Any) -> Any:
    rules = [
        {
            "ApplyServerSideEncryptionByDefault": rule.get("ServerSideEncryptionByDefault"),
            "BucketKeyEnabled": str(rule.get("BucketKeyEnabled", "")).lower() == "true",
        }
        for rule in found.get("ServerSideEncryptionConfiguration") or ()
    ]
    return {"Rules": rules}


def _flags(found: Any) -> Any:
    return {name: str(flag).lower() == "true" for name, flag in found.items()}


_SETTINGS: Final[dict[str, _Change]] = {
    "Tags": ("put_bucket_tagging", "delete_bucket_tagging", "Tagging", lambda found: {"TagSet": found}),
    "VersioningConfiguration": ("put_bucket_versioning", "", "VersioningConfiguration", dict),
    "OwnershipControls": ("put_bucket_ownership_controls", "delete_bucket_ownership_controls", "OwnershipControls", dict),
    "PublicAccessBlockConfiguration": (
        "put_public_access_block", "delete_public_access_block", "PublicAccessBlockConfiguration", _flags,
    ),
    "CorsConfiguration": ("put_bucket_cors", "delete_bucket_cors", "CORSConfiguration", _cors),
    "LifecycleConfiguration": (
        "put_bucket_lifecycle_configuration", "delete_bucket_lifecycle", "LifecycleConfiguration", _lifecycle,
    ),
    "BucketEncryption": ("put_bucket_encryption", "delete_bucket_encryption", "ServerSideEncryptionConfiguration", _encryption),
    "NotificationConfiguration": (
        "put_bucket_notification_configuration", "", "NotificationConfiguration", _notification,
    ),
}  # fmt: skip
_OFF: Final = {"VersioningConfiguration": {"Status": "Suspended"}, "NotificationConfiguration": {}}
_ACLS: Final = {
    "Private": "private",
    "PublicRead": "public-read",
    "PublicReadWrite": "public-read-write",
    "AuthenticatedRead": "authenticated-read",
    "LogDeliveryWrite": "log-delivery-write",
    "BucketOwnerRead": "bucket-owner-read",
    "BucketOwnerFullControl": "bucket-owner-full-control",
    "AwsExecRead": "aws-exec-read",
}


class BucketProvider:
    """AWS::S3::Bucket."""

    kind = Kind(
        type="AWS::S3::Bucket",
        attributes=("Arn", "DomainName", "DualStackDomainName", "RegionalDomainName", "WebsiteURL"),
        properties={
            "AbacStatus": refused("access by tags is not evaluated"),
            "AccelerateConfiguration": refused("there is nothing to accelerate"),
            "AccessControl": value(),
            "AnalyticsConfigurations": refused("storage is not analysed"),
            "BucketEncryption": Property(type="map"),
            "BucketName": fixed(),
            "BucketNamePrefix": refused("give BucketName, or let the name be generated"),
            "BucketNamespace": refused("bucket names are the platform's own"),
            "CorsConfiguration": Property(type="map"),
            "IntelligentTieringConfigurations": refused("there is one storage class"),
            "InventoryConfigurations": refused("there are no inventories"),
            "LifecycleConfiguration": Property(type="map"),
            "LoggingConfiguration": refused("there are no access logs"),
            "MetadataConfiguration": refused("there are no metadata tables"),
            "MetadataTableConfiguration": refused("there are no metadata tables"),
            "MetricsConfigurations": refused("metrics are the platform's own"),
            "NotificationConfiguration": Property(type="map"),
            "ObjectLockConfiguration": refused(_NO_LOCK),
            "ObjectLockEnabled": refused(_NO_LOCK),
            "OwnershipControls": Property(type="map"),
            "PublicAccessBlockConfiguration": Property(type="map"),
            "ReplicationConfiguration": refused("there is one place"),
            "Tags": _TAGS,
            "VersioningConfiguration": Property(type="map"),
            "WebsiteConfiguration": refused("a bucket serves no website"),
        },
    )

    def __init__(self, buckets: Buckets) -> None:
        self._s3 = buckets

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        name = str(properties.get("BucketName") or generated_name(context, 63, lower=True))
        region = context.region
        return Physical(
            name,
            {
                "Arn": f"arn:aws:s3:::{name}",
                "DomainName": f"{name}.s3.amazonaws.com",
                "RegionalDomainName": f"{name}.s3.{region}.amazonaws.com",
                "DualStackDomainName": f"{name}.s3.dualstack.{region}.amazonaws.com",
                "WebsiteURL": f"http://{name}.s3-website-{region}.amazonaws.com",
            },
        )

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        caller = _s3_caller(context)
        request: dict[str, Any] = {"Bucket": physical_id}
        if context.region != "us-east-1":  # as the caller's region is, too
            request["CreateBucketConfiguration"] = {"LocationConstraint": context.region}
        if await self._is_there(caller, physical_id):
            if "BucketName" in properties and not context.is_repair:
                raise ServiceError("BucketAlreadyExists", f"{physical_id} already exists", 409)
        else:
            await self._s3.create_bucket(caller, request)
        try:
            await self._set(caller, physical_id, {}, properties)
        except BaseException:
            await self._s3.delete_bucket(caller, {"Bucket": physical_id})  # it is empty yet
            raise
        return self.identify(context, {**properties, "BucketName": physical_id})

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        await self._set(_s3_caller(context), physical.id, {} if context.is_repair else old, new, old)
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        try:
            await self._s3.delete_bucket(_s3_caller(context), {"Bucket": physical.id})
        except ServiceError as error:
            if error.name != "NoSuchBucket":
                raise

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        there = await self._is_there(_s3_caller(context), physical_id)
        return self.identify(context, {"BucketName": physical_id}) if there and "BucketName" not in properties else None

    async def _is_there(self, caller: Any, name: str) -> bool:
        try:
            await self._s3.head_bucket(caller, {"Bucket": name})
        except ServiceError as error:
            if error.name != "NoSuchBucket":
                raise
            return False
        return True

    async def _set(
        self,
        caller: Any,
        name: str,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        before: Mapping[str, Any] | None = None,
    ) -> None:
        for property, (put, delete, member, convert) in _SETTINGS.items():
            if property in new:
                if new[property] != old.get(property):
                    await getattr(self._s3, put)(caller, {"Bucket": name, member: convert(new[property])})
            elif property in (before or old):
                if delete:
                    await getattr(self._s3, delete)(caller, {"Bucket": name})
                else:
                    await getattr(self._s3, put)(caller, {"Bucket": name, member: _OFF[property]})
        if "AccessControl" in new and new["AccessControl"] != old.get("AccessControl"):
            canned = _ACLS.get(str(new["AccessControl"]), str(new["AccessControl"]))
            await self._s3.put_bucket_acl(caller, {"Bucket": name, "ACL": canned})


class BucketPolicyProvider:
    """AWS::S3::BucketPolicy."""

    kind = Kind(
        type="AWS::S3::BucketPolicy",
        attributes=(),
        properties={"Bucket": fixed(required=True), "PolicyDocument": Property(required=True)},
    )

    def __init__(self, buckets: Buckets) -> None:
        self._s3 = buckets

    def identify(self, context: Context, properties: Mapping[str, Any]) -> Physical:
        return Physical(str(properties["Bucket"]))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        document = properties["PolicyDocument"]
        text = document if isinstance(document, str) else json.dumps(document)
        await self._s3.put_bucket_policy(_s3_caller(context), {"Bucket": properties["Bucket"], "Policy": text})
        return Physical(physical_id)

    async def update(
        self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]
    ) -> Physical | _Replace:
        return await self.create(context, physical.id, new)

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        try:
            await self._s3.delete_bucket_policy(_s3_caller(context), {"Bucket": properties["Bucket"]})
        except ServiceError as error:
            if error.name != "NoSuchBucket":
                raise

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical | None:
        return None
