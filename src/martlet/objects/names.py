"""Names of buckets, keys, regions, and what goes between them in requests. Pure.

Sources: S3 user guide, "General purpose bucket naming rules", "Naming Amazon S3 objects".
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import unquote_plus

from martlet.errors import ServiceError
from martlet.objects.failures import invalid_argument

__all__ = ["REGIONS", "arn_of", "check_bucket_name", "check_key", "copy_source", "is_bucket_name"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIXES: Final = ("xn--", "sthree-", "amzn-s3-demo-")
_SUFFIXES: Final = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_KEY_BYTES: Final = 1_024
REGIONS: Final = frozenset(
    (
        *("af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3"),
        *("ap-south-1", "ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4"),
        *("ap-southeast-5", "ap-southeast-6", "ap-southeast-7", "ca-central-1", "ca-west-1", "cn-north-1"),
        *("cn-northwest-1", "eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2"),
        *("eu-west-1", "eu-west-2", "eu-west-3", "il-central-1", "me-central-1", "me-south-1"),
        *("mx-central-1", "sa-east-1", "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1"),
        *("us-west-1", "us-west-2"),
    )
)


def is_bucket_name(name: str) -> bool:
    if not _BUCKET.fullmatch(name) or ".." in name or ".-" in name or "-." in name:
        return False
    if name.startswith(_PREFIXES) or name.endswith(_SUFFIXES):
        return False
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return True
    return False


def check_bucket_name(name: str) -> None:
    if not is_bucket_name(name):
        raise ServiceError("InvalidBucketName", "The specified bucket is not valid.", 400, BucketName=name)


def check_key(key: str) -> None:
    """Raises KeyTooLongError, InvalidArgument. Any other text is a key: it is never a path of a file system."""
    if len(key.encode("utf-8", "surrogatepass")) > _KEY_BYTES:
        size = len(key.encode("utf-8", "surrogatepass"))
        text = "Your key is too long"
        raise ServiceError("KeyTooLongError", text, 400, MaxSizeAllowed=str(_KEY_BYTES), Size=str(size))
    if not key:
        raise invalid_argument("Object key must not be empty", "key", "")


def copy_source(text: str) -> tuple[str, str, str | None]:
    """(bucket, key, version id) of x-amz-copy-source: "bucket/key", "/bucket/key", each URL-encoded, "?versionId=" behind."""
    path, separator, version_id = text.rpartition("?versionId=")
    if not separator:
        path, version_id = text, ""
    bucket, slash, key = unquote_plus(path).removeprefix("/").partition("/")
    if bucket.startswith("arn:"):
        raise ServiceError("NotImplemented", "access points are not supported by Martlet", 501)
    if not slash or not bucket or not key:
        raise invalid_argument("Invalid copy source object key", "x-amz-copy-source", "x-amz-copy-source")
    return bucket, key, version_id or None


def arn_of(bucket: str, key: str | None = None) -> str:
    return f"arn:aws:s3:::{bucket}" if key is None else f"arn:aws:s3:::{bucket}/{key}"
