"""S3 over HTTP: addresses, signatures, bodies that stream both ways, forms, cross-origin requests. No rule of S3's own.

A request goes: host and path → who signed → operation → body (as it comes, or whole and small) → the service → answer.
"""

from martlet.protocols.s3.addresses import is_s3, streams
from martlet.protocols.s3.face import app

__all__ = ["app", "is_s3", "streams"]
