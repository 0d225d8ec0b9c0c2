"""Who asks, and what they may do.

Owns: the root credentials, access keys and bearer tokens (in the store), the rules of AWS Signature Version 4.
Offers: `Auth` (ensure_root, authenticate), `authorize` and `function_principal` (pure), `check_host` (pure).
Never: lets something pass that nothing grants, says in an error what the right secret or signature would have been, or
reads a socket.
"""

from martlet.auth.credentials import Auth, Credentials
from martlet.auth.hosts import check_host
from martlet.auth.policy import DOCUMENT_ACTIONS, INVOKE, authorize, function_principal

__all__ = [
    "DOCUMENT_ACTIONS",
    "INVOKE",
    "Auth",
    "Credentials",
    "authorize",
    "check_host",
    "function_principal",
]
