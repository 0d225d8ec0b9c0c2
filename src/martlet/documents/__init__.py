"""Collections of versioned JSON documents.

Owns: documents and their version numbers, one change record in the log for each write.
Offers: `Documents` (get, put, delete, list).
Never: asks who is asking (the protocol that calls it authorizes first, see `auth.DOCUMENT_ACTIONS`), changes a document
without its change record, or gives a version number of one document twice.
"""

from martlet.documents.documents import TOPIC, Change, Document, Documents

__all__ = ["TOPIC", "Change", "Document", "Documents"]
