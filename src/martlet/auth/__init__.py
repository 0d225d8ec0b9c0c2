"""Who asks, and what they may do.

Owns: the root credentials, access keys and bearer tokens (in the store), the rules of AWS Signature Version 4, roles and
managed policies, temporary credentials.
Offers: `Auth` (ensure_root, authenticate), `authorize` and `function_principal` (pure), `check_host` (pure), `Identities` and
`Sessions`: the services "iam" and "sts" as AWS's clients call them; `AuditLog` and `Accesses`.
Never: lets something pass that nothing grants, says in an error what the right secret or signature would have been, or
reads a socket.
"""

from martlet.auth.access import Accesses
from martlet.auth.audit import AuditLog
from martlet.auth.credentials import Auth, Credentials, Signed
from martlet.auth.documents import check_resource_policy
from martlet.auth.hosts import check_host
from martlet.auth.identities import Identities
from martlet.auth.policy import DOCUMENT_ACTIONS, INVOKE, authorize, function_principal
from martlet.auth.sessions import Sessions, named, role_for_service, with_role
from martlet.auth.standing import seen_from

__all__ = [
    "DOCUMENT_ACTIONS",
    "INVOKE",
    "Accesses",
    "AuditLog",
    "Auth",
    "Credentials",
    "Identities",
    "Sessions",
    "Signed",
    "authorize",
    "check_host",
    "check_resource_policy",
    "function_principal",
    "named",
    "role_for_service",
    "seen_from",
    "with_role",
]
