"""Operations on buckets, and on what is put on them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from martlet.errors import MartletError, ServiceError
from martlet.objects import access, acl, events, policies, settings
from martlet.objects.desk import Caller, Desk, Request, seconds
from martlet.objects.events import Notice
from martlet.objects.failures import access_denied, invalid_argument, malformed_xml, not_implemented
from martlet.objects.names import REGIONS, arn_of
from martlet.objects.rows import Bucket

__all__ = ["BucketOperations"]

_NOT_FOUND: Final = {
    "cors": ("NoSuchCORSConfiguration", "The CORS configuration does not exist"),
    "lifecycle": ("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"),
    "ownership": ("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"),
    "policy": ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "public_access_block": ("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"),
    "tags": ("NoSuchTagSet", "The TagSet does not exist"),
    "website": ("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"),
    "replication": ("ReplicationConfigurationNotFoundError", "The replication configuration was not found"),
}


class BucketOperations(Desk):
    """Buckets. `exists(arn, bucket's arn)`: why a queue, topic or function cannot be told of events, "" if it can."""

    exists: Callable[[str, str], Awaitable[str]]
    tell: Callable[[Notice], Awaitable[None]]

    # --- the bucket itself

    async def create_bucket(self, caller: Caller, request: Request) -> Request:
        name = request["Bucket"]
        self.allow(caller, "s3:CreateBucket", None, name)
        configuration = request.get("CreateBucketConfiguration") or {}
        region = self._region(caller, configuration)
        ownership = settings.ownership_header(request.get("ObjectOwnership"))
        asked = acl.of_request(request, of_object=False)
        if asked is not None and not acl.only_owner(asked):
            if ownership == "BucketOwnerEnforced":
                text = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
                raise ServiceError("InvalidBucketAclWithObjectOwnership", text, 400)
            if acl.is_public(asked):
                raise ServiceError(
                    "InvalidBucketAclWithBlockPublicAccessError",
                    "Bucket cannot have public ACLs set with BlockPublicAccess enabled",
                    400,
                )
        made: dict[str, Any] = {"ownership": ownership, "public_access_block": dict.fromkeys(settings.PUBLIC_ACCESS, True)}
        if asked is not None:
            made["acl"] = asked
        if request.get("ObjectLockEnabledForBucket"):
            made["lock"] = {"ObjectLockEnabled": "Enabled"}
        if configuration.get("LocationConstraint") == "EU":
            made["location"] = "EU"  # the old name, which S3 remembers
        if configuration.get("Tags"):
            if any(str(tag.get("Key", "")).startswith("aws:") for tag in configuration["Tags"]):
                text = 'User-defined tag keys can\'t start with "aws:". This prefix is reserved for system tags. Remove "aws:" '
                raise ServiceError("InvalidTag", text + "from your tag keys and try again.", 400)
            made["tags"] = settings.tag_set(configuration["Tags"], of_object=False)
        try:
            bucket = await self.objects.create(name, made, region, "Enabled" if "lock" in made else "")
        except ServiceError as error:
            if error.name != "BucketAlreadyOwnedByYou" or region != "us-east-1":
                raise
            bucket = self.objects.demand(name)
            if bucket.settings.get("tags", {}) != made.get("tags", {}):
                raise
            # S3 in us-east-1 takes a repetition for a success
        location = f"/{name}" if bucket.region == "us-east-1" else f"http://{name}.s3.amazonaws.com/"
        return {"Location": location, "BucketArn": arn_of(name)}

    def _region(self, caller: Caller, configuration: Request) -> str:
        """Where the bucket is to be: the region that the request is signed for is the endpoint's."""
        own = caller.region if caller.region in REGIONS else self.objects.region
        asked = configuration.get("LocationConstraint")
        if configuration.get("Location") or configuration.get("Bucket"):
            raise not_implemented("a directory bucket")
        if asked is None:
            if own != "us-east-1":
                raise _illegal_location("unspecified")
            return own
        if asked == "EU":
            if own not in ("us-east-1", "eu-west-1"):
                raise _illegal_location(asked)
            return "eu-west-1"
        if asked == "us-east-1" or asked not in REGIONS:
            if own == "us-east-1":
                text = "The specified location-constraint is not valid"
                raise ServiceError("InvalidLocationConstraint", text, 400, LocationConstraint=asked)
            raise _illegal_location(asked)
        if own not in ("us-east-1", asked):
            raise _illegal_location(asked)
        return str(asked)

    async def head_bucket(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:ListBucket")
        return {"BucketRegion": bucket.region, "AccessPointAlias": False, "BucketArn": arn_of(bucket.name)}

    async def delete_bucket(self, caller: Caller, request: Request) -> None:
        await self.objects.delete_bucket(self.bucket(caller, request, "s3:DeleteBucket").name)

    async def list_buckets(self, caller: Caller, request: Request) -> Request:
        self.allow(caller, "s3:ListAllMyBuckets", None, "*")
        prefix, region, most = request.get("Prefix") or "", request.get("BucketRegion"), request.get("MaxBuckets")
        if region is not None and region not in REGIONS:
            raise invalid_argument(f"Argument value {region} is not a valid AWS Region", "bucket-region")
        if most is not None and not 1 <= most <= 10_000:
            raise invalid_argument("Argument max-buckets must be an integer between 1 and 10000", "max-buckets", str(most))
        after = _token(request.get("ContinuationToken"))
        found = self._buckets(prefix, region, after, (most or 10_000) + 1)
        shown = found[: most or 10_000]
        answer: Request = {
            "Buckets": [
                {
                    "Name": one.name,
                    "CreationDate": seconds(one.created_at_ms),
                    "BucketRegion": one.region,
                    "BucketArn": arn_of(one.name),
                }
                for one in shown
            ],
            "Owner": acl.OWNER,
        }
        if most is None and request.get("ContinuationToken") is None and not prefix and region is None:
            for one in answer["Buckets"]:
                del one["BucketRegion"], one["BucketArn"]
                one["BucketArn"] = arn_of(one["Name"])
        if request.get("Prefix") is not None:
            answer["Prefix"] = prefix
        if len(found) > len(shown):
            answer["ContinuationToken"] = base64.b64encode(shown[-1].name.encode()).decode()
        return answer

    def _buckets(self, prefix: str, region: str | None, after: str, limit: int) -> list[Bucket]:
        found: list[Bucket] = []
        while len(found) < limit:
            page = self.objects.buckets(after, 1_000)
            found += [one for one in page if one.name.startswith(prefix) and region in (None, one.region)]
            if len(page) < 1_000:
                break
            after = page[-1].name
        return found[:limit]

    async def get_bucket_location(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:GetBucketLocation")
        region = bucket.settings.get("location") or bucket.region
        return {"LocationConstraint": None if region == "us-east-1" else region}

    # --- versions

    async def get_bucket_versioning(self, caller: Caller, request: Request) -> Request:
        return {"Status": self.bucket(caller, request, "s3:GetBucketVersioning").versioning or None}

    async def put_bucket_versioning(self, caller: Caller, request: Request) -> None:
        bucket = self.bucket(caller, request, "s3:PutBucketVersioning")
        status = settings.versioning(request.get("VersioningConfiguration") or {})

        def switch(found: Bucket) -> Bucket:
            if status != "Enabled" and "lock" in found.settings:
                text = "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
                raise ServiceError("InvalidBucketState", text, 409)
            return msgspec.structs.replace(found, versioning=status)

        await self.objects.change(bucket.name, switch)

    # --- settings that are kept as they come

    def _setting(self, caller: Caller, request: Request, action: str, kind: str) -> Any:
        bucket = self.bucket(caller, request, action)
        found = bucket.settings.get(kind)
        if found is None:
            code, text = _NOT_FOUND[kind]
            raise ServiceError(code, text, 404, BucketName=bucket.name)
        return found

    async def _put(self, caller: Caller, request: Request, action: str, kind: str, value: Any) -> None:
        await self.objects.set(self.bucket(caller, request, action).name, kind, value)

    async def get_bucket_tagging(self, caller: Caller, request: Request) -> Request:
        found = self._setting(caller, request, "s3:GetBucketTagging", "tags")
        return {"TagSet": [{"Key": key, "Value": value} for key, value in found.items()]}

    async def put_bucket_tagging(self, caller: Caller, request: Request) -> None:
        bucket = self.bucket(caller, request, "s3:PutBucketTagging")
        tags = settings.tag_set((request.get("Tagging") or {}).get("TagSet") or [], of_object=False)
        await self.objects.set(bucket.name, "tags", tags or None)

    async def delete_bucket_tagging(self, caller: Caller, request: Request) -> None:
        await self._put(caller, request, "s3:PutBucketTagging", "tags", None)

    async def get_bucket_cors(self, caller: Caller, request: Request) -> Request:
        return {"CORSRules": self._setting(caller, request, "s3:GetBucketCORS", "cors")}

    async def put_bucket_cors(self, caller: Caller, request: Request) -> None:
        self.bucket(caller, request, "s3:PutBucketCORS")
        await self._put(caller, request, "s3:PutBucketCORS", "cors", settings.cors(request.get("CORSConfiguration")))

    async def delete_bucket_cors(self, caller: Caller, request: Request) -> None:
        await self._put(caller, request, "s3:PutBucketCORS", "cors", None)

    async def get_bucket_lifecycle_configuration(self, caller: Caller, request: Request) -> Request:
        found: Request = self._setting(caller, request, "s3:GetLifecycleConfiguration", "lifecycle")
        return found

    async def put_bucket_lifecycle_configuration(self, caller: Caller, request: Request) -> Request:
        self.bucket(caller, request, "s3:PutLifecycleConfiguration")
        rules = settings.lifecycle(request.get("LifecycleConfiguration"))
        size = request.get("TransitionDefaultMinimumObjectSize") or "all_storage_classes_128K"
        if size not in ("all_storage_classes_128K", "varies_by_storage_class"):
            raise ServiceError("InvalidRequest", f"Invalid TransitionDefaultMinimumObjectSize found: {size}", 400)
        kept = {"Rules": rules, "TransitionDefaultMinimumObjectSize": size}
        await self._put(caller, request, "s3:PutLifecycleConfiguration", "lifecycle", kept)
        return {"TransitionDefaultMinimumObjectSize": size}

    async def delete_bucket_lifecycle(self, caller: Caller, request: Request) -> None:
        await self._put(caller, request, "s3:PutLifecycleConfiguration", "lifecycle", None)

    async def get_bucket_encryption(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:GetEncryptionConfiguration")
        return {"ServerSideEncryptionConfiguration": bucket.settings.get("encryption") or settings.ENCRYPTION}

    async def put_bucket_encryption(self, caller: Caller, request: Request) -> None:
        self.bucket(caller, request, "s3:PutEncryptionConfiguration")
        kept = settings.encryption(request.get("ServerSideEncryptionConfiguration") or {})
        await self._put(caller, request, "s3:PutEncryptionConfiguration", "encryption", kept)

    async def delete_bucket_encryption(self, caller: Caller, request: Request) -> None:
        await self._put(caller, request, "s3:PutEncryptionConfiguration", "encryption", None)

    async def get_bucket_ownership_controls(self, caller: Caller, request: Request) -> Request:
        found = self._setting(caller, request, "s3:GetBucketOwnershipControls", "ownership")
        return {"OwnershipControls": {"Rules": [{"ObjectOwnership": found}]}}

    async def put_bucket_ownership_controls(self, caller: Caller, request: Request) -> None:
        bucket = self.bucket(caller, request, "s3:PutBucketOwnershipControls")
        value = settings.ownership(request.get("OwnershipControls") or {})
        found = bucket.settings.get("acl")
        if value == "BucketOwnerEnforced" and found is not None and not acl.only_owner(found):
            text = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
            raise ServiceError("InvalidBucketAclWithObjectOwnership", text, 400)
        await self.objects.set(bucket.name, "ownership", value)

    async def delete_bucket_ownership_controls(self, caller: Caller, request: Request) -> None:
        await self._put(caller, request, "s3:PutBucketOwnershipControls", "ownership", None)

    async def get_public_access_block(self, caller: Caller, request: Request) -> Request:
        found = self._setting(caller, request, "s3:GetBucketPublicAccessBlock", "public_access_block")
        return {"PublicAccessBlockConfiguration": found}

    async def put_public_access_block(self, caller: Caller, request: Request) -> None:
        self.bucket(caller, request, "s3:PutBucketPublicAccessBlock")
        kept = settings.public_access_block(request.get("PublicAccessBlockConfiguration"))
        await self._put(caller, request, "s3:PutBucketPublicAccessBlock", "public_access_block", kept)

    async def delete_public_access_block(self, caller: Caller, request: Request) -> None:
        await self._put(caller, request, "s3:PutBucketPublicAccessBlock", "public_access_block", None)

    # --- policy

    async def get_bucket_policy(self, caller: Caller, request: Request) -> Request:
        return {"Policy": self._setting(caller, request, "s3:GetBucketPolicy", "policy")}

    async def put_bucket_policy(self, caller: Caller, request: Request) -> None:
        bucket = self.bucket(caller, request, "s3:PutBucketPolicy")
        text = str(request.get("Policy") or "")
        policies.check(text, bucket.name)
        if access.blocks(bucket, "BlockPublicPolicy") and policies.is_public(text):
            who, what = access.arn_of_principal(caller.principal), arn_of(bucket.name)
            raise access_denied(
                f'User: {who} is not authorized to perform: s3:PutBucketPolicy on resource: "{what}" because public policies '
                "are blocked by the BlockPublicPolicy block public access setting."
            )
        await self.objects.set(bucket.name, "policy", text)

    async def delete_bucket_policy(self, caller: Caller, request: Request) -> None:
        await self._put(caller, request, "s3:DeleteBucketPolicy", "policy", None)

    async def get_bucket_policy_status(self, caller: Caller, request: Request) -> Request:
        text = self._setting(caller, request, "s3:GetBucketPolicyStatus", "policy")
        return {"PolicyStatus": {"IsPublic": policies.is_public(text)}}

    # --- lists

    async def get_bucket_acl(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:GetBucketAcl")
        found: Request = bucket.settings.get("acl") or acl.canned("private")
        return found

    async def put_bucket_acl(self, caller: Caller, request: Request) -> None:
        bucket = self.bucket(caller, request, "s3:PutBucketAcl")
        asked = acl.of_request(request, of_object=False)
        if asked is None:
            text = "Your request was missing a required header"
            raise ServiceError("MissingSecurityHeader", text, 400, MissingHeaderName="x-amz-acl")
        if access.lists_are_off(bucket) and not acl.only_owner(asked):
            raise ServiceError("AccessControlListNotSupported", "The bucket does not allow ACLs", 400)
        if acl.is_public(asked) and access.blocks(bucket, "BlockPublicAcls"):
            raise access_denied()
        await self.objects.set(bucket.name, "acl", asked)

    # --- notifications

    async def get_bucket_notification_configuration(self, caller: Caller, request: Request) -> Request:
        bucket = self.bucket(caller, request, "s3:GetBucketNotification")
        found: Request = bucket.settings.get("notification") or {}
        return found

    async def put_bucket_notification_configuration(self, caller: Caller, request: Request) -> None:
        bucket = self.bucket(caller, request, "s3:PutBucketNotification")
        made = events.checked(request.get("NotificationConfiguration") or {})
        fresh = _targets(made) - _targets(bucket.settings.get("notification") or {})
        if not request.get("SkipDestinationValidation"):
            await self._check_destinations(made, arn_of(bucket.name))
        await self.objects.set(bucket.name, "notification", made or None)
        for arn in sorted(fresh):
            if ":function:" not in arn:
                payload = events.test_event(bucket.name, self.objects.clock.now_ms(), caller.request_id)
                try:
                    await self.tell(Notice(arn, payload, source=arn_of(bucket.name)))
                except MartletError as error:
                    raise _bad_destinations([(arn, error.message)]) from error

    async def _check_destinations(self, made: Request, source: str) -> None:
        wrong = []
        for kind, (member, _, _) in events.KINDS.items():
            for one in made.get(kind) or ():
                reason = await self.exists(one[member], source)
                if reason:
                    shown = f"{one[member]}, null" if kind == "LambdaFunctionConfigurations" else one[member]
                    wrong.append((shown, reason))
        if wrong:
            raise _bad_destinations(wrong)

    # --- described, or refused by name

    async def get_bucket_logging(self, caller: Caller, request: Request) -> Request:
        self.bucket(caller, request, "s3:GetBucketLogging")
        return {}

    async def put_bucket_logging(self, caller: Caller, request: Request) -> None:
        self.bucket(caller, request, "s3:PutBucketLogging")
        if (request.get("BucketLoggingStatus") or {}).get("LoggingEnabled"):
            raise not_implemented("access logs of a bucket")

    async def get_bucket_website(self, caller: Caller, request: Request) -> Request:
        found: Request = self._setting(caller, request, "s3:GetBucketWebsite", "website")
        return found

    async def delete_bucket_website(self, caller: Caller, request: Request) -> None:
        self.bucket(caller, request, "s3:DeleteBucketWebsite")

    async def get_bucket_replication(self, caller: Caller, request: Request) -> Request:
        found: Request = self._setting(caller, request, "s3:GetReplicationConfiguration", "replication")
        return found

    async def delete_bucket_replication(self, caller: Caller, request: Request) -> None:
        self.bucket(caller, request, "s3:PutReplicationConfiguration")

    async def get_bucket_request_payment(self, caller: Caller, request: Request) -> Request:
        self.bucket(caller, request, "s3:GetBucketRequestPayment")
        return {"Payer": "BucketOwner"}

    async def put_bucket_request_payment(self, caller: Caller, request: Request) -> None:
        self.bucket(caller, request, "s3:PutBucketRequestPayment")
        payer = (request.get("RequestPaymentConfiguration") or {}).get("Payer")
        if payer == "Requester":
            raise not_implemented("requester pays")
        if payer != "BucketOwner":
            raise malformed_xml()

    async def get_bucket_accelerate_configuration(self, caller: Caller, request: Request) -> Request:
        self.bucket(caller, request, "s3:GetAccelerateConfiguration")
        return {}


def _targets(configuration: Request) -> set[str]:
    return {one[member] for kind, (member, _, _) in events.KINDS.items() for one in configuration.get(kind) or ()}


def _bad_destinations(wrong: list[tuple[str, str]]) -> ServiceError:
    members: dict[str, Any] = {}
    for at, (arn, reason) in enumerate(wrong, 1):
        members |= {f"ArgumentName{at}": arn, f"ArgumentValue{at}": reason}
    return ServiceError("InvalidArgument", "Unable to validate the following destination configurations", 400, **members)


def _illegal_location(region: str) -> ServiceError:
    text = f"The {region} location constraint is incompatible for the region specific endpoint this request was sent to."
    return ServiceError("IllegalLocationConstraintException", text, 400)


def _token(text: str | None) -> str:
    if text is None:
        return ""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid_argument("The continuation token provided is incorrect", "continuation-token") from None
