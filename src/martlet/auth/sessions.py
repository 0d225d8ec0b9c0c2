"""Temporary credentials: the calls of AWS STS, and how a session's key is recognised.

A session is a key pair whose id begins with ASIA, a token that must come with it, and an end. It is kept until a day after
that, so that clients hear ExpiredToken, and is swept out by the sessions that follow. Source: STS API reference, 2011-06-15.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from martlet.auth import documents, people, roles, sigv4, standing
from martlet.auth.evaluation import Policy, compile_policy
from martlet.auth.policy import authorize
from martlet.clock import Clock
from martlet.errors import AccessDenied, ServiceError, Unsupported
from martlet.store import Reader, Store, Tx, keys
from martlet.types import Principal

__all__ = ["Caller", "Session", "Sessions", "find_session", "role_for_service", "with_role"]

_SESSION: Final = "auth.session"  # (.., access key id) -> Session
_ENDS: Final = "auth.session.ends"  # (.., expires_at_ms, access key id) -> nothing
_KEPT_MS: Final = 24 * 3_600_000
_SWEPT: Final = 100
_ROLE_ARN = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):role/(?:[!-~]*/)?(?P<name>[A-Za-z0-9_+=,.@-]{1,64})")
_ROOT_SECONDS_MAX: Final = 3_600  # GetSessionToken for the root user: at most an hour
_USER_SECONDS: Final = 43_200  # GetSessionToken for a user, unless it says
_SESSION_CHARACTERS_MAX: Final = 20_480
_CHAINED_SECONDS_MAX: Final = 3_600  # AssumeRole with a role's own session: at most an hour


class Caller(Protocol):
    """Who calls, as far as this room needs it."""

    @property
    def principal(self) -> Principal: ...
    @property
    def account(self) -> str: ...


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Temporary credentials as they are kept. `role_id` "": the session acts as `principal`, else with the role's grants."""

    secret: str
    token_digest: bytes
    expires_at_ms: int
    principal: Principal
    role: str = ""
    role_id: str = ""
    policies: tuple[str, ...] = ()  # session policies: what the role grants is allowed as far as one of these allows it

    def check(self, token: str, now_ms: int) -> None:
        """Raises `Unauthenticated` for another token and for a session that is over."""
        if not hmac.compare_digest(_digest(token), self.token_digest):
            raise sigv4.refused("InvalidToken", "The security token included in the request is invalid.")
        if now_ms >= self.expires_at_ms:
            raise sigv4.refused("ExpiredToken", "The security token included in the request is expired")

    def acting(self, reader: Reader) -> Principal:
        """Who acts by this session now: a role with what its policies say at this moment; nothing once it is gone."""
        if self.principal.kind == "user":
            return people.acting(reader, self.principal, self.role_id)
        if not self.role_id:
            return self.principal
        role = roles.find(reader, self.role)
        if role is None or role.role_id != self.role_id:
            return self.principal
        name = self.principal.name.split("/", 2)[2]
        stands = standing.of_role(reader, role, name, session=_joined(self.policies))
        return msgspec.structs.replace(self.principal, standing=stands)


def _joined(texts: tuple[str, ...]) -> Policy | None:
    """Session policies as one: what any of them allows."""
    found = [compile_policy(text) for text in texts]
    return Policy(tuple(statement for policy in found for statement in policy.statements)) if found else None


def with_role(principal: Principal, role_arn: str, account: str, reader: Reader, region: str = "us-east-1") -> Principal:
    """`principal`, a function, with what the policies of its role say now. A role that is not there grants nothing."""
    role = _role_of(reader, role_arn, account)
    if role is None:
        return principal
    name = principal.session.split("/", 2)[2] if principal.session else principal.name
    stands = standing.of_role(reader, role, name, region=region)
    return msgspec.structs.replace(principal, standing=stands)


def named(reader: Reader, kind: str, name: str, region: str = "us-east-1") -> Principal | None:
    """Root, or the role or user of this name with what its policies say now; None if there is none."""
    if kind == "root" and not name:
        return Principal("root", "root")
    if kind == "user":
        found = people.acting(reader, Principal("user", name), region=region)
        return found if found.standing is not None else None
    role = roles.find(reader, name) if kind == "role" else None
    if role is None:
        return None
    return Principal(
        "role", f"assumed-role/{role.name}/{role.name}", standing=standing.of_role(reader, role, role.name, region=region)
    )


def role_for_service(reader: Reader, role_arn: str, account: str, service: str, region: str = "us-east-1") -> Principal | None:
    """Who acts when `service` ("apigateway.amazonaws.com") takes a role; None if there is no such role or it does not trust
    the service."""
    role = _role_of(reader, role_arn, account)
    if role is None or not documents.trusts(role.trust, service, account, "sts:AssumeRole").allowed:
        return None
    name = service.partition(".")[0]
    stands = standing.of_role(reader, role, name, region=region)
    return Principal("role", f"assumed-role/{role.name}/{name}", standing=stands)


_ENCODE: Final = msgspec.msgpack.Encoder()
_DECODE: Final = msgspec.msgpack.Decoder(Session)


class Rows(Protocol):
    """Where rows are looked up: one state of the store (`Reader`), or the store itself."""

    def get(self, key: bytes) -> bytes | None: ...


def find_session(reader: Rows, access_key_id: str) -> Session | None:
    """The session with this key, over or not."""
    raw = reader.get(_session_row(access_key_id))
    return None if raw is None else _DECODE.decode(raw)


@lru_cache(maxsize=1024)
def _session_row(access_key_id: str) -> bytes:
    return keys.encode(_SESSION, access_key_id)


class Sessions:
    """The service "sts"."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def permission(self, operation: str, request: dict[str, Any]) -> tuple[str, str] | None:
        """(action, resource) that a caller needs; None for what needs no permission (IAM user guide)."""
        if operation in ("GetCallerIdentity", "GetSessionToken", "AssumeRole"):
            return None  # AssumeRole decides by both policies, the caller's and the role's
        return f"sts:{operation}", str(request.get("RoleArn", "*"))

    async def get_caller_identity(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Account, ARN and unique id of the caller."""
        user_id = self._store.read(lambda reader: _unique_id(reader, caller.principal, caller.account))
        return {"UserId": user_id, "Account": caller.account, "Arn": _arn(caller.principal, caller.account)}

    async def get_session_token(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Credentials of the caller itself that end by themselves."""
        _refuse_mfa(request)
        if caller.principal.kind not in ("root", "user"):
            raise ServiceError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
        if caller.principal.kind == "root":
            seconds = min(int(request.get("DurationSeconds", _ROOT_SECONDS_MAX)), _ROOT_SECONDS_MAX)
        else:
            seconds = int(request.get("DurationSeconds", _USER_SECONDS))
        principal = msgspec.structs.replace(caller.principal, standing=None)
        user_id = "" if caller.principal.kind == "root" else str(caller.principal.standing.unique_id)
        return {"Credentials": await self._issue(seconds, principal, role_id=user_id)}

    async def assume_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Credentials of a role that trusts the caller."""
        _refuse_mfa(request)
        for name in ("Tags", "TransitiveTagKeys", "ProvidedContexts"):
            if request.get(name):
                raise Unsupported(f"AssumeRole: the parameter {name} is not supported")
        arn, session_name = str(request["RoleArn"]), str(request["RoleSessionName"])
        role = self._store.read(lambda reader: _role_of(reader, arn, caller.account))
        _check_may_assume(caller, role, arn, request)
        assert role is not None
        policies = self._store.read(lambda reader: _session_policies(reader, request))
        seconds = _role_seconds(request, role, chained=caller.principal.kind == "role")
        name = f"assumed-role/{role.name}/{session_name}"
        principal = Principal("role", name)
        answer: dict[str, Any] = {
            "Credentials": await self._issue(seconds, principal, role.name, role.role_id, policies),
            "AssumedRoleUser": {
                "AssumedRoleId": f"{role.role_id}:{session_name}",
                "Arn": f"arn:aws:sts::{caller.account}:{name}",
            },
        }
        if request.get("SourceIdentity"):
            answer["SourceIdentity"] = request["SourceIdentity"]
        return answer

    def presigner(self, region: str, host: Callable[[], str]) -> Callable[[Principal, str, str, int], Awaitable[str]]:
        """`presigned` for one listener: (who, method, path, seconds) → URL."""

        async def presign(principal: Principal, method: str, path: str, seconds: int) -> str:
            return await self.presigned(principal, seconds, region=region, method=method, host=host(), path=path)

        return presign

    async def presigned(self, principal: Principal, seconds: int, *, region: str, method: str, host: str, path: str) -> str:
        """An S3 URL that lets whoever has it do for so long what `principal` may do now. `path` as it is sent."""
        found = await self._issue(seconds, *_lasting(principal))
        key_id, secret, token = found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]
        now_ms = self._clock.now_ms()
        query = sigv4.presigned_query(
            key_id, secret, token, region=region, now_ms=now_ms, seconds=seconds, method=method, host=host, path=path
        )
        return f"http://{host}{path}?{query}"

    async def _issue(
        self, seconds: int, principal: Principal, role: str = "", role_id: str = "", policies: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        key_id = "ASIA" + roles.random_id(16)
        secret = base64.b64encode(os.urandom(30)).decode()
        token = base64.b64encode(os.urandom(96)).decode()
        expires_at_ms = (self._clock.now_ms() // 1000 + seconds) * 1000
        session = Session(
            secret=secret,
            token_digest=_digest(token),
            expires_at_ms=expires_at_ms,
            principal=principal,
            role=role,
            role_id=role_id,
            policies=policies,
        )

        def keep(tx: Tx) -> None:
            _sweep(tx, tx.now_ms - _KEPT_MS)
            tx.put(keys.encode(_SESSION, key_id), _ENCODE.encode(session))
            tx.put(keys.encode(_ENDS, expires_at_ms, key_id), b"")

        await self._store.transact(keep)
        expiration = datetime.fromtimestamp(expires_at_ms / 1000, UTC)
        return {"AccessKeyId": key_id, "SecretAccessKey": secret, "SessionToken": token, "Expiration": expiration}


def _lasting(principal: Principal) -> tuple[Principal, str, str]:
    """(principal, role, id) of a session in which `principal` goes on acting; its policies are read anew each time."""
    standing = principal.standing
    if standing is None:
        return principal, "", ""
    if standing.session is not None:
        raise Unsupported("who acts under a session policy cannot presign")
    bare = msgspec.structs.replace(principal, standing=None)
    if principal.kind == "user":
        return bare, "", str(standing.unique_id)
    role_id, _, session_name = str(standing.unique_id).partition(":")
    role = str(standing.arn).split("/")[1]
    return msgspec.structs.replace(bare, kind="role", name=f"assumed-role/{role}/{session_name}"), role, role_id


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _sweep(tx: Tx, before_ms: int) -> None:
    low, high = keys.prefix_range(_ENDS)
    for key, _ in tx.scan(low, min(high, keys.encode(_ENDS, before_ms)), limit=_SWEPT):
        tx.delete(key)
        tx.delete(keys.encode(_SESSION, str(keys.decode(key)[2])))


def _refuse_mfa(request: dict[str, Any]) -> None:
    if request.get("SerialNumber") or request.get("TokenCode"):
        raise Unsupported("multi-factor authentication is not supported: SerialNumber and TokenCode")


def _role_of(reader: Reader, arn: str, account: str) -> roles.Role | None:
    parsed = _ROLE_ARN.fullmatch(arn)
    if parsed is None or parsed["account"] != account:
        return None
    role = roles.find(reader, parsed["name"])
    return role if role is not None and role.arn(account) == arn else None


def _check_may_assume(caller: Caller, role: roles.Role | None, arn: str, request: dict[str, Any]) -> None:
    """The role must trust the caller, and the caller's own policies must allow it unless the role names just that caller.

    Source: IAM user guide, "Policy evaluation logic", the trust policy being the role's resource-based policy.
    """
    me = _arn(caller.principal, caller.account)
    context = {
        f"sts:{key.lower()}": str(request[key]) for key in ("ExternalId", "RoleSessionName", "SourceIdentity") if key in request
    }
    try:
        authorize(caller.principal, "sts:AssumeRole", arn, context)
        allowed, explicit = True, False
    except AccessDenied as error:
        allowed, explicit = False, bool(error.details.get("explicit"))
    trusted = by_name = False
    if role is not None and not explicit:
        trusted = documents.trusts(role.trust, me, caller.account, "sts:AssumeRole", context).allowed
        by_name = documents.trusts(role.trust, me, "-", "sts:AssumeRole", context).allowed
    if not trusted or not (allowed or by_name):
        raise ServiceError("AccessDenied", f"User: {me} is not authorized to perform: sts:AssumeRole on resource: {arn}", 403)


def _session_policies(reader: Reader, request: dict[str, Any]) -> tuple[str, ...]:
    """The session policies of a request, as texts of this moment."""
    found = []
    if request.get("Policy"):
        documents.check_permissions(str(request["Policy"]))
        found.append(str(request["Policy"]))
    for one in request.get("PolicyArns") or ():
        text = roles.managed_text(reader, str(one.get("arn", "")))
        if text is None:
            raise ServiceError("NoSuchEntity", f"Policy {one.get('arn', '')} does not exist or is not attachable.", 404)
        found.append(text)
    if sum(map(len, found)) > _SESSION_CHARACTERS_MAX:
        raise ServiceError("PackedPolicyTooLarge", "The session policies are larger than 20480 characters together.")
    return tuple(found)


def _role_seconds(request: dict[str, Any], role: roles.Role, *, chained: bool) -> int:
    seconds = int(request.get("DurationSeconds", 3_600))
    if seconds > role.session_seconds:
        message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        raise ServiceError("ValidationError", message)
    if chained and seconds > _CHAINED_SECONDS_MAX:
        message = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
        raise ServiceError("ValidationError", message)
    return seconds


def _arn(principal: Principal, account: str) -> str:
    if principal.kind == "root":
        return f"arn:aws:iam::{account}:root"
    if principal.standing is not None:
        return str(principal.standing.arn)
    if principal.kind == "role":
        return f"arn:aws:sts::{account}:{principal.name}"
    if principal.session:
        return f"arn:aws:sts::{account}:{principal.session}"
    return f"arn:aws:sts::{account}:assumed-role/{principal.name}/{principal.name}"  # as for a function's own role


def _id_of(role: str) -> str:
    """Of a role that is named and is not here: always the same."""
    return "AROA" + base64.b32encode(hashlib.sha256(role.encode()).digest()).decode()[:17]


def _unique_id(reader: Reader, principal: Principal, account: str) -> str:
    if principal.kind == "root":
        return account
    if principal.standing is not None:
        return str(principal.standing.unique_id)
    session = principal.name if principal.kind == "role" else principal.session
    if session:
        _, name, session_name = session.split("/", 2)
        role = roles.find(reader, name)
        return f"{role.role_id if role is not None else _id_of(name)}:{session_name}"
    return f"{principal.name}:{principal.name}"
