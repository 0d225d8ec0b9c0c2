"""The endpoints of an app's end users, below the path that the app mounts them at: JSON in and out, problems as errors.

Answers that give or refuse something secret are not stored by anybody (RFC 9111 section 5.2.2.5). Only JSON is taken: a form of
another site cannot send it without being asked for by CORS (Fetch section 3.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

from martlet.errors import InvalidInput, MartletError, MethodNotAllowed, NotFound, Unauthenticated
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, ASGIApp, Operation, Receive, Request, Scope, Send, json_answer, problem_answer
from martlet.protocols.rooms import Rooms
from martlet.protocols.user_documents import PREFIXES, UserDocuments
from martlet.types import Principal
from martlet.users import Caller, Pool, Users

__all__ = ["Mounted", "UsersEndpoints", "bearer", "public"]


class Mounted(Protocol):
    """What the edge says of a request: whose endpoints it is for, and the path below them."""

    @property
    def app(self) -> str: ...
    @property
    def users(self) -> str: ...
    @property
    def path(self) -> str: ...


class _Call:
    """One request to the endpoints of one pool."""

    __slots__ = ("address", "body", "pool", "request")

    def __init__(self, request: Request, pool: Pool, body: bytes) -> None:
        self.request = request
        self.pool = pool
        self.body = body
        self.address = request.client_ip

    def texts(self, *names: str, **defaults: str) -> tuple[str, ...]:
        """The members of the body, all text, none beside them. Raises `InvalidInput`."""
        media = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise InvalidInput("the body must be JSON: send content-type application/json", status=415)
        try:
            said = msgspec.json.decode(self.body, type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise InvalidInput("the body is a JSON object of text") from None
        for name in said:
            if name not in names and name not in defaults:
                raise InvalidInput(f"there is no {name[:80]!r} here", field=name[:80])
        for name in names:
            if name not in said:
                raise InvalidInput(f"{name} is missing", field=name)
        return tuple(said.get(name, defaults.get(name, "")) for name in (*names, *defaults))


_Handler = Callable[["_Face", _Call], Awaitable[Answer]]
_SECRET: Final = (("cache-control", "no-store"),)
_PUBLIC: Final = (("cache-control", "public, max-age=300"),)


class _Face:
    def __init__(self, users: Users, documents: UserDocuments | None) -> None:
        self._users = users
        self._documents = documents

    async def respond(self, request: Request, mounted: Mounted) -> Answer:
        if self._documents is not None and mounted.path.startswith(PREFIXES):
            pool = await self._users.pool(mounted.app, mounted.users)
            token = bearer(request.headers.get("authorization", ""))
            answer = await self._documents.respond(request, pool, self._users.identify(*pool.place, token), mounted.path)
            self._users.identify(*pool.place, token)  # a long poll may have outlived its session
            return answer
        methods = _ENDPOINTS.get(mounted.path)
        if methods is None:
            raise NotFound("there is no such endpoint", remedy=f"there are {', '.join(sorted(_ENDPOINTS))}")
        handler = methods.get(request.method)
        if handler is None:
            raise MethodNotAllowed(f"this endpoint does not take {request.method}", methods=tuple(sorted(methods)))
        request.query(())
        pool = await self._users.pool(mounted.app, mounted.users)
        return await handler(self, _Call(request, pool, await request.body("users_request_bytes")))

    def _caller(self, call: _Call) -> Caller:
        return self._users.identify(*call.pool.place, bearer(call.request.headers.get("authorization", "")))

    async def discovery(self, call: _Call) -> Answer:
        issuer = call.pool.issuer
        found = {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "jti", "sid", "email", "email_verified", "groups"],
        }
        return json_answer(found, headers=_PUBLIC)

    async def keys(self, call: _Call) -> Answer:
        return json_answer(self._users.keys(call.pool), headers=_PUBLIC)

    async def sign_up(self, call: _Call) -> Answer:
        email, password = call.texts("email", "password")
        await self._users.sign_up(call.pool, email, password, call.address)
        return json_answer({"status": "code_sent"}, 202, _SECRET)

    async def verify(self, call: _Call) -> Answer:
        email, code, password = call.texts("email", "code", "password")
        return json_answer(await self._users.verify(call.pool, email, code, password, call.address), 201, _SECRET)

    async def sign_in(self, call: _Call) -> Answer:
        email, password, code = call.texts("email", "password", totp="")
        return json_answer(await self._users.sign_in(call.pool, email, password, code, call.address), headers=_SECRET)

    async def refresh(self, call: _Call) -> Answer:
        (token,) = call.texts("refresh_token")
        return json_answer(await self._users.refresh(call.pool, token, call.address), headers=_SECRET)

    async def sign_out(self, call: _Call) -> Answer:
        await self._users.sign_out(call.pool, self._caller(call))
        return Answer(204, headers=_SECRET)

    async def sign_out_everywhere(self, call: _Call) -> Answer:
        await self._users.sign_out(call.pool, self._caller(call), everywhere=True)
        return Answer(204, headers=_SECRET)

    async def ask_reset(self, call: _Call) -> Answer:
        (email,) = call.texts("email")
        await self._users.ask_reset(call.pool, email, call.address)
        return json_answer({"status": "code_sent"}, 202, _SECRET)

    async def reset(self, call: _Call) -> Answer:
        email, code, password = call.texts("email", "code", "password")
        await self._users.reset(call.pool, email, code, password, call.address)
        return Answer(204, headers=_SECRET)

    async def me(self, call: _Call) -> Answer:
        account = self._users.account(call.pool, self._caller(call).sub)
        return json_answer(_shown(account), headers=_SECRET)

    async def leave(self, call: _Call) -> Answer:
        caller = self._caller(call)
        (password,) = call.texts("password")
        await self._users.leave(call.pool, caller, password, call.address)
        return Answer(204, headers=_SECRET)

    async def password(self, call: _Call) -> Answer:
        caller = self._caller(call)
        old, new = call.texts("old", "new")
        await self._users.change_password(call.pool, caller, old, new, call.address)
        return Answer(204, headers=_SECRET)

    async def begin_totp(self, call: _Call) -> Answer:
        caller = self._caller(call)
        (password,) = call.texts("password")
        return json_answer(await self._users.begin_totp(call.pool, caller, password, call.address), headers=_SECRET)

    async def confirm_totp(self, call: _Call) -> Answer:
        caller = self._caller(call)
        (code,) = call.texts("totp")
        return json_answer({"recovery_codes": await self._users.confirm_totp(call.pool, caller, code)}, headers=_SECRET)

    async def remove_totp(self, call: _Call) -> Answer:
        caller = self._caller(call)
        password, code = call.texts("password", "totp")
        await self._users.remove_totp(call.pool, caller, password, code, call.address)
        return Answer(204, headers=_SECRET)


_ENDPOINTS: Final[dict[str, dict[str, _Handler]]] = {
    ".well-known/openid-configuration": {"GET": _Face.discovery},
    ".well-known/jwks.json": {"GET": _Face.keys},
    "sign-up": {"POST": _Face.sign_up},
    "verify": {"POST": _Face.verify},
    "sign-in": {"POST": _Face.sign_in},
    "refresh": {"POST": _Face.refresh},
    "sign-out": {"POST": _Face.sign_out},
    "sign-out-everywhere": {"POST": _Face.sign_out_everywhere},
    "password-reset": {"POST": _Face.ask_reset},
    "password-reset/confirm": {"POST": _Face.reset},
    "me": {"GET": _Face.me, "DELETE": _Face.leave},
    "password": {"POST": _Face.password},
    "totp": {"POST": _Face.begin_totp, "DELETE": _Face.remove_totp},
    "totp/confirm": {"POST": _Face.confirm_totp},
}


def bearer(header: str) -> str:
    """The token of an Authorization header (RFC 6750 section 2.1). Raises `Unauthenticated`."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("this needs an access token: Authorization: Bearer …", reason="invalid_token")
    return token.strip()


def _shown(account: Any) -> dict[str, Any]:
    """What anybody is shown of an account: nothing that proves who somebody is."""
    return {
        "sub": account.id,
        "email": account.email,
        "groups": account.groups,
        "disabled": account.is_disabled,
        "totp": bool(account.totp),
        "created_at_ms": account.created_at_ms,
    }


def public(users: Users, documents: UserDocuments | None = None) -> ASGIApp:
    """The app behind the edge's routes to users; `scope["martlet.context"]` is a `Mounted`."""
    face = _Face(users, documents)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        mounted: Mounted = scope["martlet.context"]

        async def respond(request: Request) -> Answer:
            return await face.respond(request, mounted)

        def on_error(error: MartletError, request: Request) -> Answer:
            found = problem_answer(error)
            return Answer(found.status, found.body, (*found.headers, *_SECRET))

        await asgi.app(respond, on_error)(scope, receive, send)

    return serve


# --- the owner's side: /v1/users/{app}/{users}


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of a user; what is left out stays."""

    groups: tuple[str, ...] | None = None
    disabled: bool | None = None


class UsersEndpoints:
    """What the app's owner, and functions that use them, do with end users: part of the management API."""

    def __init__(self, rooms: Rooms, identify: Callable[[Request, str], Awaitable[tuple[Principal, bytes]]]) -> None:
        self._rooms = rooms
        self._identify = identify

    def operations(self) -> tuple[Operation, ...]:
        if self._rooms.users is None:
            return ()
        return (
            Operation("GET", "/v1/users/{app}/{users}", self.listed),
            Operation("POST", "/v1/users/{app}/{users}/keys", self.rotate),
            Operation("GET", "/v1/users/{app}/{users}/{id}", self.one),
            Operation("PATCH", "/v1/users/{app}/{users}/{id}", self.change),
            Operation("DELETE", "/v1/users/{app}/{users}/{id}", self.delete),
        )

    async def _open(self, request: Request, action: str) -> tuple[Users, Pool, bytes]:
        users = self._rooms.users
        assert users is not None
        app, name = request.parameters["app"], request.parameters["users"]
        principal, body = await self._identify(request, "users_request_bytes")
        self._rooms.auth.authorize(principal, action, f"{app}/{name}")
        return users, await users.pool(app, name), body

    async def listed(self, request: Request) -> Answer:
        users, pool, _ = await self._open(request, "users:Read")
        query = request.query(("email", "after", "limit"))
        if "email" in query:
            return json_answer({"items": [_shown(users.find(pool, query["email"]))], "next": None})
        limit = asgi.whole(query, "limit", 100, low=1, high=1_000)
        found = users.accounts(pool, query.get("after", ""), limit)
        return json_answer({"items": [_shown(one) for one in found], "next": found[-1].id if len(found) == limit else None})

    async def rotate(self, request: Request) -> Answer:
        users, pool, _ = await self._open(request, "users:RotateKey")
        request.query(())
        return json_answer({"kid": await users.rotate(pool)}, 201)

    async def one(self, request: Request) -> Answer:
        users, pool, _ = await self._open(request, "users:Read")
        request.query(())
        return json_answer(_shown(users.account(pool, request.parameters["id"])))

    async def change(self, request: Request) -> Answer:
        users, pool, body = await self._open(request, "users:Write")
        request.query(())
        try:
            wanted = msgspec.json.decode(body, type=_Change)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f'the body is {{"groups": [...], "disabled": true}}: {error}', field="body") from error
        account = await users.change(pool, request.parameters["id"], groups=wanted.groups, disabled=wanted.disabled)
        return json_answer(_shown(account))

    async def delete(self, request: Request) -> Answer:
        users, pool, _ = await self._open(request, "users:Write")
        request.query(())
        await users.delete(pool, request.parameters["id"])
        return Answer(204)
