"""Who may do what: a pure decision, deny by default.

Actions and resources are names such as ("lambda:InvokeFunction", "shop-orders") and ("documents:Get", "shop/carts"). Code of
apps decides by the pairs that its configuration declares; roles and users by their IAM policies, which know ARNs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from martlet.auth.acts import noted
from martlet.auth.evaluation import Request, compile_policy, decide
from martlet.auth.instances import session_of
from martlet.auth.standing import Standing
from martlet.errors import AccessDenied, InvalidInput
from martlet.types import ACCOUNT, FunctionVersion, Principal, narrowed

__all__ = ["DOCUMENT_ACTIONS", "INVOKE", "arn_of", "authorize", "declaration", "function_principal"]

SEND_ACTIONS: Final = ("sqs:SendMessage", "sqs:GetQueueUrl", "sqs:GetQueueAttributes")
SECRET_ACTIONS: Final = ("secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret")
_SUFFIX: Final = "-??????"
_READ_BUCKET: Final = ("s3:ListBucket", "s3:GetBucketLocation")
_WRITE_BUCKET: Final = ("s3:ListBucketMultipartUploads", "s3:GetBucketLocation")
_READ_OBJECTS: Final = ("s3:GetObject", "s3:GetObjectTagging")
_WRITE_OBJECTS: Final = (
    *("s3:PutObject", "s3:DeleteObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
)
INVOKE: Final = "lambda:InvokeFunction"
_READ_DOCUMENTS: Final = ("documents:Get", "documents:List")
_WRITE_DOCUMENTS: Final = ("documents:Put", "documents:Delete")
DOCUMENT_ACTIONS: Final = (*_READ_DOCUMENTS, *_WRITE_DOCUMENTS)
_RIGHTS: Final = ("", "read", "write")


def authorize(
    principal: Principal, action: str, resource: str, context: Mapping[str, Any] | None = None, policy: str = ""
) -> None:
    """Return if `principal` may do `action` on `resource`, else raise `AccessDenied` naming all three.

    Root may do everything; the code of apps what its configuration grants; roles and users what their policies say, with
    `context` (condition keys in lower case) beside what is known of their request; anonymous nothing, whatever it carries.
    `policy` is the resource's own, a document that was checked: what it denies nobody may (but root may always mend it), and
    whom it names needs nothing else.
    """
    noted(principal, action, resource)
    if policy and _by_resource(principal, action, resource, context, policy):
        return
    if principal.kind == "root":
        return
    if principal.standing is not None:
        _by_policies(principal, principal.standing, action, resource, context)
        return
    if principal.kind in ("function", "role", "service") and _granted(principal, action, resource):
        return
    name = f"{principal.kind} {principal.name}".rstrip()
    raise AccessDenied(
        f"{name} may not {action} on {resource}",
        principal=principal.name or principal.kind,
        action=action,
        resource=resource,
        missing={"Effect": "Allow", "Action": action, "Resource": resource},
    )


def _by_resource(principal: Principal, action: str, resource: str, context: Mapping[str, Any] | None, policy: str) -> bool:
    """Whether a resource-based policy allows it by itself. Raises `AccessDenied` for what it denies."""
    standing = principal.standing
    who = standing.arn if standing is not None else _arn_of_principal(principal)
    known = {**(standing.known() if standing is not None else {}), "aws:principalarn": who, **(context or {})}
    compiled = (compile_policy(policy),)
    request = Request(action=action, resource=resource, principal=who, account=ACCOUNT, context=known)
    if decide(request, (), resource=compiled).verdict == "explicit deny":
        if principal.kind == "root" and action.endswith("ResourcePolicy"):
            return True
        raise AccessDenied(
            f"User: {who} is not authorized to perform: {action} on resource: {resource} "
            "with an explicit deny in a resource-based policy",
            principal=who,
            action=action,
            resource=resource,
            explicit=True,
        )
    if principal.kind == "anonymous":
        return False
    # A policy that names the account leaves it to the account's own policies: only who is named is allowed by it alone.
    by_name = Request(action=action, resource=resource, principal=who, account="", context=known)
    return decide(by_name, (), resource=compiled).allowed


def _arn_of_principal(principal: Principal) -> str:
    if principal.kind == "service":
        return principal.name
    if principal.kind == "root":
        return f"arn:aws:iam::{ACCOUNT}:root"
    return f"arn:aws:sts::{ACCOUNT}:assumed-role/{principal.name}/{principal.name}"


def _by_policies(
    principal: Principal, standing: Standing, action: str, resource: str, context: Mapping[str, Any] | None
) -> None:
    known = standing.known()
    if context:
        known.update(context)
    named = arn_of(action, resource, standing.region, standing.account)
    request = Request(action=action, resource=named, principal=standing.arn, account=standing.account, context=known)
    decision = decide(request, standing.policies, boundary=standing.boundary, session=standing.session)
    if decision.allowed:
        return
    explicit = decision.verdict == "explicit deny"
    if not explicit and principal.grants and _granted(principal, action, resource):
        return
    why = "with an explicit deny in a policy" if explicit else f"because no identity-based policy allows the {action} action"
    raise AccessDenied(
        f"User: {standing.arn} is not authorized to perform: {action} on resource: {named} {why}",
        principal=standing.arn,
        action=action,
        resource=named,
        explicit=explicit,
        statement=decision.statement,
        missing=None if explicit else {"Effect": "Allow", "Action": action, "Resource": named},
    )


def arn_of(action: str, resource: str, region: str, account: str) -> str:
    """The ARN by which policies know what a room calls by its own name."""
    if resource == "*" or resource.startswith("arn:"):
        return resource
    if action.startswith("lambda:"):
        return f"arn:aws:lambda:{region}:{account}:function:{resource}"
    if action.startswith("documents:"):
        return f"arn:martlet:documents:{region}:{account}:{resource}"
    return resource


def _granted(principal: Principal, action: str, resource: str) -> bool:
    """Whether a pair of what was declared covers it. A function that may be invoked may be by any version or alias."""
    if (action, resource) in principal.grants:
        return True
    if action.startswith("lambda:") and not resource.startswith("arn:"):
        resource = resource.partition(":")[0]
    for granted_action, granted_resource in principal.grants:
        if _covers(granted_action, action) and _covers(granted_resource, resource):
            return True
    return False


def function_principal(version: FunctionVersion, region: str = "us-east-1") -> Principal:
    """Who the code of `version` is: it may do what its configuration declares, and nothing else."""
    grants = set()
    for name in version.config.uses:
        grants.add((INVOKE, f"{version.app}-{_exact(name, 'uses')}"))
    for use in version.config.documents:
        collection, right = _narrowed(use, "documents")
        actions = (*(_READ_DOCUMENTS if right != "write" else ()), *(_WRITE_DOCUMENTS if right != "read" else ()))
        grants.update((action, f"{version.app}/{collection}") for action in actions)
    for queue in version.config.queues:
        arn = f"arn:aws:sqs:{region}:{ACCOUNT}:{version.app}-{_exact(queue, 'queues')}"
        grants.update((action, resource) for action in SEND_ACTIONS for resource in (arn, f"{arn}.fifo"))
    for use in version.config.buckets:
        bucket, right = _narrowed(use, "buckets")
        arn = f"arn:aws:s3:::{version.app}-{bucket}"
        if right != "write":
            grants.update((action, arn) for action in _READ_BUCKET)
            grants.update((action, f"{arn}/*") for action in _READ_OBJECTS)
        if right != "read":
            grants.update((action, arn) for action in _WRITE_BUCKET)
            grants.update((action, f"{arn}/*") for action in _WRITE_OBJECTS)
    for secret in version.config.secrets:
        arn = f"arn:aws:secretsmanager:{region}:{ACCOUNT}:secret:{version.app}/{_exact(secret, 'secrets')}{_SUFFIX}"
        grants.update((action, arn) for action in SECRET_ACTIONS)
    for bus in version.config.buses:
        name = "default" if bus == "default" else f"{version.app}-{_exact(bus, 'buses')}"
        grants.add(("events:PutEvents", f"arn:aws:events:{region}:{ACCOUNT}:event-bus/{name}"))
    for topic in version.config.topics:
        grants.add(("sns:Publish", f"arn:aws:sns:{region}:{ACCOUNT}:{version.app}-{_exact(topic, 'topics')}"))
    for use in version.config.users:
        users, right = _narrowed(use, "users")
        actions = ("users:Read", *(("users:Write",) if right != "read" else ()))
        grants.update((action, f"{version.app}/{users}") for action in actions)
    return Principal("function", version.name, frozenset(grants), session_of(version))


def declaration(action: str, resource: str, app: str = "") -> str:
    """What a function of `app` declares (`uses=[...]`) to be allowed this: "orders.read", "mail.send", "pay"; "" if nothing
    does. Without `app` names are the platform's."""
    room, _, verb = action.partition(":")
    name = resource.rpartition(":")[2] if resource.startswith("arn:") else resource
    name = name.partition("/")[2] if room in ("documents", "events", "users") else name.partition("/")[0]
    if app and room not in ("documents", "users"):
        name = name.removeprefix(f"{app}-")
    if room == "documents" and action in DOCUMENT_ACTIONS:
        return f"{name}.{'read' if action in _READ_DOCUMENTS else 'write'}"
    if action == "s3:GetBucketLocation":  # either right has it
        return ""
    if room == "s3" and action in (*_READ_BUCKET, *_READ_OBJECTS):
        return f"{name}.read"
    if room == "s3" and action in (*_WRITE_BUCKET, *_WRITE_OBJECTS):
        return f"{name}.write"
    if action in SEND_ACTIONS:
        return f"{name.removesuffix('.fifo')}.send"
    if action in SECRET_ACTIONS:
        return resource.rpartition("/")[2][: -len(_SUFFIX)]
    if room == "users":
        return f"{name}.read" if verb == "Read" else name
    if verb in ("PutEvents", "Publish"):
        return f"{name.removesuffix('.fifo')}.publish"
    return name if action == INVOKE else ""


def _narrowed(use: str, field: str) -> tuple[str, str]:
    name, right = narrowed(use)
    if right not in _RIGHTS:
        raise InvalidInput(f"{field}: {use!r} is narrowed to {right!r}; there are read and write", field=field)
    return _exact(name, field), right


def _covers(pattern: str, value: str) -> bool:
    """Exact, or a prefix followed by one trailing "*" or by the six letters that end a secret's ARN. A star in `value` is only
    a letter."""
    if pattern == value:
        return True
    if pattern.endswith(_SUFFIX):
        return len(value) == len(pattern) and value.startswith(pattern[:-6])
    return pattern.endswith("*") and value.startswith(pattern[:-1])


def _exact(name: str, field: str) -> str:
    """A declared name; a pattern would reach past the app ("shop-*" also matches functions of an app "shop-admin")."""
    if not name or "*" in name or "/" in name:
        raise InvalidInput(f"{field}: {name!r} is not a name; patterns are not allowed here", field=field)
    return name
