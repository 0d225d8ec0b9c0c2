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
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from martlet.auth import documents, roles, sigv4
from martlet.clock import Clock
from martlet.errors import ServiceError, Unsupported
from martlet.store import Reader, Store, Tx, keys
from martlet.types import Principal

__all__ = ["Caller", "Session", "Sessions", "find_session", "role_for_service", "with_role"]

_SESSION: Final = "auth.session"  # (.., access key id) -> Session
_ENDS: Final = "auth.session.ends"  # (.., expires_at_ms, access key id) -> nothing
_KEPT_MS: Final = 24 * 3_600_000
_SWEPT: Final = 100
_ROLE_ARN = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):role/(?:[!-~]*/)?(?P<name>[A-Za-z0-9_+=,.@-]{1,64})")
_ROOT_SECONDS_MAX: Final = 3_600  # GetSessionToken for the root user: at most an hour
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

    def check(self, token: str, now_ms: int) -> None:
        """Raises `Unauthenticated` for another token and for a session that is over."""
        if not hmac.compare_digest(_digest(token), self.token_digest):
            raise sigv4.refused("InvalidToken", "The security token included in the request is invalid.")
        if now_ms >= self.expires_at_ms:
            raise sigv4.refused("ExpiredToken", "The security token included in the request is expired")

    def acting(self, reader: Reader) -> Principal:
        """Who acts by this session now: a role with what its policies grant at this moment; nothing once it is gone."""
        if not self.role_id:
            return self.principal
        role = roles.find(reader, self.role)
        if role is None or role.role_id != self.role_id:
            return self.principal
        return msgspec.structs.replace(self.principal, grants=documents.grants_of(roles.policy_texts(reader, role)))


def with_role(principal: Principal, role_arn: str, account: str, reader: Reader) -> Principal:
    """`principal`, a function, with what the policies of its role grant now. A role that is not there grants nothing, and
    neither does one whose policies say more than Martlet decides (a Deny): less is allowed then, never more."""
    role = _role_of(reader, role_arn, account)
    if role is None:
        return principal
    try:
        granted = documents.grants_of(roles.policy_texts(reader, role))
    except Unsupported:
        return principal
    return msgspec.structs.replace(principal, grants=principal.grants | granted)


def role_for_service(reader: Reader, role_arn: str, account: str, service: str) -> Principal | None:
    """Who acts when `service` ("apigateway.amazonaws.com") takes a role: the role with its grants; None if there is no such
    role or it does not trust the service. Raises `Unsupported` for policies that say more than Martlet decides."""
    role = _role_of(reader, role_arn, account)
    if role is None or not documents.trusts(role.trust, service, account, "sts:AssumeRole"):
        return None
    grants = documents.grants_of(roles.policy_texts(reader, role))
    return Principal("role", f"assumed-role/{role.name}/{service.partition('.')[0]}", grants)


_ENCODE: Final = msgspec.msgpack.Encoder()
_DECODE: Final = msgspec.msgpack.Decoder(Session)


class Rows(Protocol):
    """Where rows are looked up: one state of the store (`Reader`), or the store itself."""

    def get(self, key: bytes) -> bytes | None: ...


def find_session(reader: Rows, access_key_id: str) -> Session | None:
    """The session with this key, over or not."""
    raw = reader.get(keys.encode(_SESSION, access_key_id))
    return None if raw is None else _DECODE.decode(raw)


class Sessions:
    """The service "sts"."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def permission(self, operation: str, request: dict[str, Any]) -> tuple[str, str] | None:
        """(action, resource) that a caller needs; None for what needs no permission (IAM user guide)."""
        if operation in ("GetCallerIdentity", "GetSessionToken"):
            return None
        return f"sts:{operation}", str(request.get("RoleArn", "*"))

    async def get_caller_identity(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Account, ARN and unique id of the caller."""
        user_id = self._store.read(lambda reader: _unique_id(reader, caller.principal, caller.account))
        return {"UserId": user_id, "Account": caller.account, "Arn": _arn(caller.principal, caller.account)}

    async def get_session_token(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Credentials of the caller itself that end by themselves."""
        _refuse_mfa(request)
        if caller.principal.kind != "root":
            raise ServiceError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
        seconds = min(int(request.get("DurationSeconds", _ROOT_SECONDS_MAX)), _ROOT_SECONDS_MAX)
        return {"Credentials": await self._issue(seconds, caller.principal)}

    async def assume_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Credentials of a role that trusts the caller."""
        _refuse_mfa(request)
        for name in ("Policy", "PolicyArns", "Tags", "TransitiveTagKeys", "ProvidedContexts"):
            if request.get(name):
                raise Unsupported(f"AssumeRole: the parameter {name} is not supported")
        arn, session_name = str(request["RoleArn"]), str(request["RoleSessionName"])
        me = _arn(caller.principal, caller.account)
        role = self._store.read(lambda reader: _role_of(reader, arn, caller.account))
        external_id = str(request.get("ExternalId", ""))
        if role is None or not documents.trusts(role.trust, me, caller.account, "sts:AssumeRole", external_id):
            raise ServiceError(
                "AccessDenied", f"User: {me} is not authorized to perform: sts:AssumeRole on resource: {arn}", 403
            )
        found = role
        self._store.read(lambda reader: documents.grants_of(roles.policy_texts(reader, found)))  # says now what is unsupported
        seconds = _role_seconds(request, role, chained=caller.principal.kind == "role")
        name = f"assumed-role/{role.name}/{session_name}"
        principal = Principal("role", name)
        answer: dict[str, Any] = {
            "Credentials": await self._issue(seconds, principal, role.name, role.role_id),
            "AssumedRoleUser": {
                "AssumedRoleId": f"{role.role_id}:{session_name}",
                "Arn": f"arn:aws:sts::{caller.account}:{name}",
            },
        }
        if request.get("SourceIdentity"):
            answer["SourceIdentity"] = request["SourceIdentity"]
        return answer

    async def _issue(self, seconds: int, principal: Principal, role: str = "", role_id: str = "") -> dict[str, Any]:
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
        )

        def keep(tx: Tx) -> None:
            _sweep(tx, tx.now_ms - _KEPT_MS)
            tx.put(keys.encode(_SESSION, key_id), _ENCODE.encode(session))
            tx.put(keys.encode(_ENDS, expires_at_ms, key_id), b"")

        await self._store.transact(keep)
        expiration = datetime.fromtimestamp(expires_at_ms / 1000, UTC)
        return {"AccessKeyId": key_id, "SecretAccessKey": secret, "SessionToken": token, "Expiration": expiration}


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
    if principal.kind == "role":
        return f"arn:aws:sts::{account}:{principal.name}"
    return f"arn:aws:sts::{account}:assumed-role/{principal.name}/{principal.name}"  # as for a function's own role


def _unique_id(reader: Reader, principal: Principal, account: str) -> str:
    if principal.kind == "root":
        return account
    if principal.kind == "role":
        _, name, session_name = principal.name.split("/", 2)
        role = roles.find(reader, name)
        return f"{role.role_id if role is not None else 'AROA'}:{session_name}"
    return f"{principal.name}:{principal.name}"
