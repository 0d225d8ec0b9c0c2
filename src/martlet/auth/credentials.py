"""Keys and tokens: made once, kept in a file that only the owner can read, and checked on every request."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from martlet.auth import people, sigv2, sigv4
from martlet.auth.instances import InstanceKeys
from martlet.auth.people import AccessKey
from martlet.auth.sessions import find_session
from martlet.clock import Clock, token_hex
from martlet.errors import StartFailed
from martlet.store import Store, Tx, keys, node_names
from martlet.types import Principal

__all__ = ["Auth", "Credentials", "Signed"]

_KEY: Final = "auth.key"  # (.., access key id) -> people.AccessKey
_TOKEN: Final = "auth.token"  # (.., SHA-256 of the token) -> Principal


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the owner signs with: an AWS-style key pair and a bearer token."""

    access_key_id: str
    secret_access_key: str
    token: str

    def __repr__(self) -> str:
        return f"Credentials(access_key_id={self.access_key_id!r}, secret_access_key=…, token=…)"


class Signed(msgspec.Struct, frozen=True):
    """Who signed, and what the body must be: its SHA-256 in hexadecimal, UNSIGNED-PAYLOAD, "" (nothing was said), or a
    STREAMING- form, with the signer of its chunks."""

    principal: Principal
    payload: str
    signer: sigv4.ChunkSigner | None = None
    claim: sigv4.Claim | None = None


_OWNED: Final = "auth.root"  # (.., node) -> keys of the rows above that are its own; only where nodes share the store
_ENCODE_OWNED: Final = msgspec.msgpack.Encoder().encode
_DECODE_OWNED: Final = msgspec.msgpack.Decoder(list[bytes]).decode
_ENCODE: Final = msgspec.json.Encoder(order="deterministic")
_DECODE_TOKEN: Final = msgspec.json.Decoder(Principal)
_ROOT: Final = Principal("root", "root")
_FORMS: Final = {
    "access_key_id": re.compile(r"[A-Z0-9]{16,128}", re.ASCII),
    "secret_access_key": re.compile(r"[A-Za-z0-9/+=]{40,128}", re.ASCII),
    "token": re.compile(r"[A-Za-z0-9._~+/=-]{40,256}", re.ASCII),
}


class Auth:
    """Tells who sends a request. The store is asked each time, so that a revoked key stops at once."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.instances = InstanceKeys(store, clock)
        self.acting: Callable[[str], Principal | None] = lambda function: None  # who the code of a function is now

    async def ensure_root(self, path: Path) -> Credentials:
        """The owner's credentials, from the file at `path`, which is made (mode 0600, fsynced) if it is not there.

        The file is the truth and the store follows it: to replace lost or leaked credentials, delete the file and start
        again; what was valid before is not any more. Raises `StartFailed` for a file that others can read or that is
        not in the form that Martlet writes.
        """
        found = _read(path)
        if found is None:
            found = _create(path)
        await self._store.transact(lambda tx: _install_root(tx, found, self._store.node if self._store.shared else ""))
        await self.instances.load()
        return found

    def authenticate(
        self, method: str, path: bytes, query: bytes, headers: sigv4.Headers, body: bytes, *, service: str = ""
    ) -> Principal:
        """Who sent this request: by bearer token, SigV4 header or presigned URL.

        `path` and `query` are raw, as they came over the wire (no "?"); header names may be in any case. If `service` is
        given, a SigV4 signature must be for it ("lambda", "s3" ...). Raises `Unauthenticated`; its detail `reason` is
        AWS's error code for the case, and neither it nor the message tells anything about the right secret.
        """
        fields = sigv4.fields_of(headers)
        authorization = _authorization(fields)
        claim = sigv4.claim_of(query, fields, authorization)
        if claim is None:
            return self._by_token(authorization)
        if service and claim.service != service:
            raise sigv4.refused(
                "SignatureDoesNotMatch", f"the request is signed for service {claim.service!r}, not {service!r}"
            )
        return self._verified(claim, method, path, query, fields, body).principal

    def identify(self, method: str, path: bytes, query: bytes, headers: sigv4.Headers) -> Signed | None:
        """Who signed a request whose body is still to come; None if it carries no signature at all. The caller holds the body
        against `payload`. Raises `Unauthenticated`."""
        fields = sigv4.fields_of(headers)
        authorization = _authorization(fields)
        claim = sigv4.claim_of(query, fields, authorization)
        if claim is None:
            return Signed(self._by_token(authorization), "UNSIGNED-PAYLOAD") if authorization else None
        return self._verified(claim, method, path, query, fields, None)

    def identify_query(self, method: str, path: bytes, query: bytes, headers: Mapping[str, str]) -> Signed | None:
        """Who presigned an S3 URL with version 2; None if nobody did. `path` begins with the bucket. Raises
        `Unauthenticated`."""
        claim = sigv2.claim_of(query)
        if claim is None:
            return None
        secret, principal = self._secret_of(claim.access_key_id, claim.session_token)
        sigv2.verify(claim, secret, self._clock.now_ms(), method, path, query, headers)
        return Signed(principal(), "UNSIGNED-PAYLOAD")

    def signed_policy(self, credential: str, policy: str, signature: str, token: str) -> Principal:
        """Who signed the policy of a form: its `credential` is "key id/date/region/service/aws4_request", or, of version 2,
        the key id alone. Raises `Unauthenticated`."""
        if "/" not in credential:
            secret, principal = self._secret_of(credential, token)
            if not hmac.compare_digest(sigv2.policy_signature(secret, policy).encode(), signature.encode("utf-8", "replace")):
                raise sigv4.refused(
                    "SignatureDoesNotMatch",
                    "the signature of the policy does not match",
                    string_to_sign=policy,
                    provided=signature,
                )
            return principal()
        parts = credential.split("/")
        if len(parts) != 5 or parts[4] != "aws4_request":
            raise sigv4.refused("IncompleteSignature", "the credential is malformed")
        secret, principal = self._secret_of(parts[0], token)
        expected = sigv4.policy_signature(secret, parts[1], parts[2], parts[3], policy)
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            raise sigv4.refused(
                "SignatureDoesNotMatch", "the signature of the policy does not match", string_to_sign=policy, provided=signature
            )
        return principal()

    def _verified(
        self, claim: sigv4.Claim, method: str, path: bytes, query: bytes, fields: sigv4.Fields, body: bytes | None
    ) -> Signed:
        secret, principal = self._secret_of(claim.access_key_id, claim.session_token)
        payload = sigv4.verify(claim, secret, self._clock.now_ms(), method, path, query, fields, body)
        signer = sigv4.ChunkSigner(claim, secret) if payload.startswith("STREAMING-AWS4") else None
        return Signed(principal(), payload, signer, claim)

    def _secret_of(self, key_id: str, token: str) -> tuple[str, Callable[[], Principal]]:
        """(secret, who it is). Whether a session is still good is checked with the second, after the signature."""
        session = find_session(self._store, key_id)
        if session is not None:

            def of_session() -> Principal:
                session.check(token, self._clock.now_ms())
                return self._store.read(session.acting)

            return session.secret, of_session
        instance = self.instances.secret_of(key_id, token) if token else None
        if instance is not None:
            secret, function = instance

            def of_instance() -> Principal:
                principal = self.acting(function)
                if principal is None:
                    gone = "the function that this key was given to is not there any more"
                    raise sigv4.refused("InvalidClientTokenId", gone)
                return principal

            return secret, of_instance
        stored = people.find_key(self._store.get(people.key_row(key_id)))
        if stored is None or not stored.is_active:
            raise sigv4.refused("InvalidClientTokenId", "the access key id is not known")
        if token:
            raise sigv4.refused("InvalidToken", "the session token is not valid: this key has none")
        owner = stored.principal
        if owner.kind != "user":
            return stored.secret, lambda: owner
        return stored.secret, lambda: self._store.read(lambda reader: people.acting(reader, owner))

    def _by_token(self, authorization: str) -> Principal:
        scheme, _, token = authorization.partition(" ")
        if not authorization:
            raise sigv4.refused("MissingAuthenticationToken", "the request carries no credentials")
        if scheme.lower() != "bearer":
            raise sigv4.refused("IncompleteSignature", "the Authorization header is neither Bearer nor AWS4-HMAC-SHA256")
        # Only hashes are compared: their timing tells nothing about the token.
        digest = _digest(token.strip())
        raw = self._store.get(keys.encode(_TOKEN, digest))
        if raw is None:
            raise sigv4.refused("InvalidClientTokenId", "the bearer token is not known")
        return _DECODE_TOKEN.decode(raw)


def _authorization(fields: sigv4.Fields) -> str:
    values = fields.get("authorization", ())
    if len(values) > 1:
        raise sigv4.refused("IncompleteSignature", "header Authorization must appear once")
    return values[0].strip().decode("latin-1") if values else ""


def _digest(token: str) -> bytes:
    """Tokens carry 256 random bits, so a plain hash is enough: there is nothing to guess."""
    return hashlib.sha256(token.encode()).digest()


def _install_root(tx: Tx, credentials: Credentials, node: str = "") -> None:
    """Make `credentials` the only ones of root, but for those of other nodes of a shared database, each of which has its own;
    writes nothing if they already are."""
    wanted = {
        people.key_row(credentials.access_key_id): people.encoded(AccessKey(_ROOT, credentials.secret_access_key)),
        keys.encode(_TOKEN, _digest(credentials.token)): _ENCODE.encode(_ROOT),
    }
    owned = keys.encode(_OWNED, node)
    low, high = keys.prefix_range(_OWNED)
    alive = node_names(tx) if node else set()
    kept: set[bytes] = set(wanted)
    for row, value in tx.scan(low, high):
        if row != owned and str(keys.decode(row)[1]) in alive:
            kept.update(_DECODE_OWNED(value))
        elif row != owned:
            tx.delete(row)
    for kind in (_KEY, _TOKEN):
        low, high = keys.prefix_range(kind)
        for key, value in tx.scan(low, high):
            key_pair = None if kind == _TOKEN else people.find_key(value)
            principal = _DECODE_TOKEN.decode(value) if key_pair is None else key_pair.principal
            if principal.kind == "root" and (key not in kept or wanted.get(key, value) != value):
                tx.delete(key)
    if alive:
        wanted[owned] = _ENCODE_OWNED(sorted(wanted))
    for key, value in wanted.items():
        if tx.get(key) != value:
            tx.put(key, value)


def _read(path: Path) -> Credentials | None:
    """The credentials in the file, or None if there is no file. Blocks; called once at start."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartFailed(f"credentials file {path}: {error.strerror}", remedy="make it a plain file of your own") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StartFailed(f"credentials file {path} is not a plain file", remedy="move away what is there")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise StartFailed(f"credentials file {path} can be read by others", remedy=f"chmod 600 {path}")
        raw = os.read(descriptor, 65_536)
    finally:
        os.close(descriptor)
    try:
        found = msgspec.json.decode(raw, type=Credentials)
    except msgspec.MsgspecError as error:
        raise StartFailed(f"credentials file {path} is not readable: {error}", remedy=_RENEW) from error
    for field, form in _FORMS.items():
        if not form.fullmatch(getattr(found, field)):
            raise StartFailed(f"credentials file {path}: {field} has not the right form", remedy=_RENEW)
    return found


_RENEW: Final = "delete the file to have new credentials made; the old ones stop working"


def _create(path: Path) -> Credentials:
    """Make new credentials and keep them in `path`, durably, before anyone learns them. Blocks; called once."""
    made = Credentials(
        access_key_id="MARTLET" + base64.b32encode(os.urandom(9)).decode().rstrip("=")[:13],
        secret_access_key=base64.b64encode(os.urandom(30)).decode(),
        token="mt_" + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="),
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(msgspec.json.format(_ENCODE.encode(made), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StartFailed(f"credentials file {path}: {error.strerror}", remedy="make its folder writable") from error
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name itself must survive a power failure
    finally:
        os.close(folder)
    return made
