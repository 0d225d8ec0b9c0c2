"""Why somebody may or may not do something, and what would be the least that lets it do what it did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from martlet.auth.access import Access
from martlet.auth.evaluation import Request, decide
from martlet.auth.policy import arn_of, authorize, declaration
from martlet.auth.standing import Standing
from martlet.errors import AccessDenied
from martlet.types import Principal

__all__ = ["Explanation", "Suggestion", "explain", "suggest"]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """`decided_by`: what decided, in words. `missing`: the statement that would allow it; None if none can or none is needed.
    `declare`: what the app would say instead."""

    principal: str
    action: str
    resource: str
    allowed: bool
    decided_by: str
    missing: dict[str, str] | None = None
    declare: str = ""


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """The least that would do for what was asked: `policy` in IAM's words, `uses` as an app declares it. `denied` was asked for
    and refused; `unused` is declared and was never asked for."""

    principal: str
    policy: dict[str, Any]
    uses: tuple[str, ...] = ()
    denied: tuple[Access, ...] = ()
    unused: tuple[str, ...] = ()


_NAMED: Final = {"sqs": "", "sns": "", "secretsmanager": "secret:", "events": "event-bus/", "dynamodb": "table/", "s3": ""}
_SUFFIX: Final = "-??????"
_WITH_POLICIES: Final = ("s3:", "sqs:", "sns:", "dynamodb:", "lambda:", "events:")
_UNLESS: Final = ", unless the policy of the resource itself denies it"
_VERSION: Final = "2012-10-17"


def named_in_full(action: str, resource: str, region: str, account: str) -> str:
    """The resource as decisions name it, where somebody gave its plain name: "rev-mail" of a queue, "rev/key" of a secret."""
    room = action.partition(":")[0]
    if resource == "*" or resource.startswith("arn:") or room not in _NAMED:
        return resource
    if room == "s3":
        return f"arn:aws:s3:::{resource}"
    return f"arn:aws:{room}:{region}:{account}:{_NAMED[room]}{resource}{_SUFFIX if room == 'secretsmanager' else ''}"


def explain(
    principal: Principal, action: str, resource: str, context: Mapping[str, Any] | None = None, *, app: str = ""
) -> Explanation:
    """The decision of `authorize` with its reason; what the policy of the resource itself says is not looked at. `app`: of a
    function, so that things are called as it calls them."""
    standing: Standing | None = principal.standing
    name = standing.arn if standing is not None else f"{principal.kind} {principal.name}".rstrip()
    denied: AccessDenied | None = None
    try:
        authorize(principal, action, resource, context)
    except AccessDenied as error:
        denied = error
    named = arn_of(action, resource, standing.region, standing.account) if standing is not None else resource
    by = _decided_by(principal, standing, action, resource, context, allowed=denied is None)
    missing = denied.details.get("missing") if denied is not None else None
    declare = declaration(action, resource, app) if denied is not None and principal.kind == "function" else ""
    return Explanation(
        principal=name,
        action=action,
        resource=named,
        allowed=denied is None,
        decided_by=by,
        missing=missing if isinstance(missing, dict) else None,
        declare=declare,
    )


def _decided_by(
    principal: Principal,
    standing: Standing | None,
    action: str,
    resource: str,
    context: Mapping[str, Any] | None,
    *,
    allowed: bool,
) -> str:
    if principal.kind == "root":
        return "root may do everything"
    if standing is None:
        return "what its app declares" if allowed else "nothing that its app declares covers it"
    known = {**standing.known(), **(context or {})}
    named = arn_of(action, resource, standing.region, standing.account)
    request = Request(action=action, resource=named, principal=standing.arn, account=standing.account, context=known)
    decision = decide(request, standing.policies, boundary=standing.boundary, session=standing.session)
    if decision.verdict == "explicit deny":
        return f"denied by {decision.statement}"
    if decision.allowed:
        return f"allowed by {decision.statement}{_UNLESS if action.startswith(_WITH_POLICIES) else ''}"
    if allowed:
        return "what its app declares"
    for limit, name in ((standing.boundary, "permissions boundary"), (standing.session, "session policy")):
        if limit is not None and decide(request, standing.policies).allowed and not decide(request, (limit,)).allowed:
            return f"its policies allow it, but its {name} does not"
    return "no statement of its policies allows it"


def suggest(principal: Principal, name: str, seen: Iterable[Access], region: str, account: str, *, app: str = "") -> Suggestion:
    """The least for what `seen` says was allowed or asked for. Reading in a test run what it does not do in others is what
    nobody can see from here: a suggestion is for a person to read."""
    accesses = list(seen)
    by_resource: dict[str, set[str]] = {}
    uses: dict[str, None] = {}
    for access in accesses:
        named = arn_of(access.action, access.resource, region, account)
        by_resource.setdefault(named, set()).add(access.action)
        declared = declaration(access.action, access.resource, app)
        if declared:
            uses[declared] = None
    together: dict[tuple[str, ...], list[str]] = {}
    for resource, actions in sorted(by_resource.items()):
        together.setdefault(tuple(sorted(actions)), []).append(resource)
    statements = [
        {"Effect": "Allow", "Action": list(actions), "Resource": resources} for actions, resources in sorted(together.items())
    ]
    return Suggestion(
        principal=name,
        policy={"Version": _VERSION, "Statement": statements},
        uses=tuple(uses) if principal.kind == "function" else (),
        denied=tuple(access for access in accesses if access.denied),
        unused=_unused(principal, accesses, app),
    )


def _unused(principal: Principal, accesses: list[Access], app: str) -> tuple[str, ...]:
    """What a function declares and did not ask for. A declared thing counts as used once any of its actions was."""
    used = {declaration(access.action, access.resource, app) for access in accesses}
    declared = {declaration(action, resource, app) for action, resource in principal.grants}
    return tuple(sorted(declared - used - {""}))
