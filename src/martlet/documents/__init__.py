"""The document database: collections of versioned JSON documents with indexes, transactions, history and change records.

Owns: databases, collections, documents, their index entries, history and expiry; one change record in the log for each write.
Offers: `Documents` (single documents; `transact` and `read` over many; `query`; definitions; import and export; the feed).
Never: asks who is asking (the protocol that calls it authorizes first, see `auth.DOCUMENT_ACTIONS`), changes a document
without its index entries and its change record, or gives a version number of one document twice. Design: DESIGN.md.
"""

from martlet.documents.catalog import CollectionConfig, IndexConfig, Term
from martlet.documents.documents import Documents
from martlet.documents.query import Bound, Page, Query
from martlet.documents.schema import Check, Field, Schema
from martlet.documents.transaction import TOPIC, Change, Transaction
from martlet.documents.usage import Usage
from martlet.documents.view import Document, Version, View

__all__ = [
    "TOPIC",
    "Bound",
    "Change",
    "Check",
    "CollectionConfig",
    "Document",
    "Documents",
    "Field",
    "IndexConfig",
    "Page",
    "Query",
    "Schema",
    "Term",
    "Transaction",
    "Usage",
    "Version",
    "View",
]
