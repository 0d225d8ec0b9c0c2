"""Martlet: the serverless cloud you own. User code imports its names from here; they all live in `martlet.sdk`."""

from martlet.sdk.answer import Response
from martlet.sdk.app import App
from martlet.sdk.bucket import Bucket
from martlet.sdk.bus import Bus, Topic
from martlet.sdk.documents import Collection, Document, Transaction
from martlet.sdk.errors import (
    AccessDenied,
    Conflict,
    DeclarationError,
    FunctionError,
    HTTPError,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Overloaded,
    PlatformError,
    Throttled,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from martlet.sdk.function import Function
from martlet.sdk.queue import Queue
from martlet.sdk.request import Header, Request
from martlet.sdk.schema import DocumentField, Index, Reference
from martlet.sdk.secret import Secret

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "App",
    "Bucket",
    "Bus",
    "Collection",
    "Conflict",
    "DeclarationError",
    "Document",
    "DocumentField",
    "Function",
    "FunctionError",
    "HTTPError",
    "Header",
    "Index",
    "InvalidInput",
    "LimitExceeded",
    "NotFound",
    "Overloaded",
    "PlatformError",
    "Queue",
    "Reference",
    "Request",
    "Response",
    "Secret",
    "Throttled",
    "Topic",
    "Transaction",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "__version__",
]
