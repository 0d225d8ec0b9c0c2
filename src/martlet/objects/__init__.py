"""Objects: bytes with names in buckets. Amazon S3's rules, in rows of the store; the bytes in `backends`.

Owns: buckets with their policies and settings, versions of objects, multipart uploads, checksums, lifecycle, what is told of
changes; blobs and their refcounts, and the sweep of those that nobody names.
Offers: `Objects` (buckets and versions by name, `fetch`: for other rooms), `S3` (the service's operations, dict to dict),
`Lifecycle`.
Never: says "stored" before bytes and row are durable, uses a key as a path, holds an object in memory, or answers for what
it does not do.
"""

from martlet.objects.apps import AppBuckets
from martlet.objects.blobs import Body, Opened, folder_owner
from martlet.objects.events import EVENT, Notice
from martlet.objects.files import BucketFiles
from martlet.objects.lifecycle import Lifecycle
from martlet.objects.objects import Objects
from martlet.objects.s3 import S3

__all__ = ["EVENT", "S3", "AppBuckets", "Body", "BucketFiles", "Lifecycle", "Notice", "Objects", "Opened", "folder_owner"]
