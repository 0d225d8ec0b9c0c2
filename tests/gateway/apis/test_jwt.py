"""JWT authorizers: tokens that hold, and every way in which one may only seem to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from tests.gateway.apis.conftest import Build, http
from tests.gateway.apis.test_http_api import route

from martlet.clock import ManualClock
from martlet.gateway.apis.backend import BackendAnswer, BackendFailed
from martlet.types import ApiAuthorizer

ISSUER = "https://id.example"
RSA = RSAKey.generate_key(2048, parameters={"kid": "one", "use": "sig"})
OTHER = RSAKey.generate_key(2048, parameters={"kid": "two", "use": "sig"})
CURVE = ECKey.generate_key("P-256", parameters={"kid": "ec"})
AUTHORIZER = ApiAuthorizer(
    name="a", kind="JWT", identity=("$request.header.Authorization",), issuer=ISSUER, audience=("shop", "admin")
)
BAD = "invalid_token"


class Issuer:
    """Plays the issuer; what it is asked for is counted."""

    def __init__(self, *keys: Any) -> None:
        self.keys: list[dict[str, Any]] = [key.as_dict(private=False) for key in keys]
        self.asked: list[str] = []
        self.is_down = False
        self.name = ISSUER

    async def ask(self, method: str, url: str, headers: Any, body: bytes, timeout_seconds: float) -> BackendAnswer:
        self.asked.append(url)
        if self.is_down:
            raise BackendFailed("gone")
        answer = BackendAnswer()
        answer.status = 200
        discovery = {"issuer": self.name, "jwks_uri": f"{ISSUER}/keys"}
        answer.body = json.dumps(discovery if url.endswith("openid-configuration") else {"keys": self.keys}).encode()
        return answer

    async def close(self) -> None:
        return None


def claims(clock: ManualClock, **more: Any) -> dict[str, Any]:
    now = clock.now_ms() // 1000
    found = {"iss": ISSUER, "aud": "shop", "sub": "ada", "iat": now, "exp": now + 600, **more}
    return {name: value for name, value in found.items() if value is not None}


def signed(said: dict[str, Any], key: Any = RSA, algorithm: str = "RS256", **header: Any) -> str:
    token: str = jwt.encode({"alg": algorithm, "kid": key.kid, **header}, said, key, algorithms=[algorithm])
    return token


def by_hand(header: dict[str, Any], said: dict[str, Any], signature: bytes = b"") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in (header, said)]
    return b".".join((*parts, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


async def asked(stand: Build, clock: ManualClock, issuer: Issuer, *scopes: str, payload: str = "2.0") -> Any:
    config = http(route(authorization="CUSTOM", authorizer="a", scopes=scopes, payload=payload), authorizers=(AUTHORIZER,))
    served = await stand(config, clock=clock, backend=issuer)

    async def ask(token: str | None) -> Any:
        return await served.ask("/pets/1", headers={} if token is None else {"Authorization": token})

    return served, ask


async def test_a_token_that_holds_is_told_to_the_function(stand: Build) -> None:
    clock = ManualClock()
    served, ask = await asked(stand, clock, Issuer(RSA, CURVE), "read", "write")
    said = claims(clock, scope="read more", admin=True, groups=["a", "b"], aud=["x", "admin"])
    assert (await ask(f"Bearer {signed(said)}")).status == 200
    told = served.functions.event["requestContext"]["authorizer"]["jwt"]
    assert (told["claims"]["sub"], told["claims"]["admin"], told["claims"]["groups"]) == ("ada", "true", "[a b]")
    assert told["claims"]["exp"] == str(said["exp"])
    assert told["scopes"] == ["read", "more"]
    assert (await ask(f"bearer {signed(said, CURVE, 'ES256')}")).status == 200
    assert (await ask(signed(said))).status == 200, "without the scheme too"


async def test_what_is_missing_and_what_is_not_enough(stand: Build) -> None:
    clock = ManualClock()
    served, ask = await asked(stand, clock, Issuer(RSA), "write")
    said = await ask(None)
    assert (said.status, said.json, said.headers["www-authenticate"]) == (401, {"message": "Unauthorized"}, "Bearer")
    said = await ask(f"Bearer {signed(claims(clock, scope='read'))}")
    assert (said.status, said.json) == (403, {"message": "Forbidden"})
    assert 'scope="write" error="insufficient_scope"' in said.headers["www-authenticate"]
    assert not served.functions.seen


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"iss": "https://id.example.evil"}, "invalid issuer"),
        ({"iss": None}, "invalid issuer"),
        ({"aud": "other"}, "invalid audience"),
        ({"aud": None}, "invalid audience"),
        ({"aud": ["other", {"shop": 1}]}, "invalid audience"),
        ({"aud": "other", "client_id": "shop"}, "invalid audience"),
        ({"exp": None}, "the token has expired"),
        ({"exp": "9999999999"}, "exp is not a number"),
        ({"exp": 1}, "the token has expired"),
        ({"nbf": 99_999_999_999}, "the token is not valid yet"),
        ({"iat": 99_999_999_999}, "the token is not valid yet"),
    ],
)
async def test_claims_that_do_not_fit(stand: Build, change: dict[str, Any], why: str) -> None:
    clock = ManualClock()
    served, ask = await asked(stand, clock, Issuer(RSA))
    said = await ask(f"Bearer {by_key(claims(clock, **change))}")
    assert (said.status, said.json) == (401, {"message": "Unauthorized"})
    assert f'error="{BAD}" error_description="{why}"' in said.headers["www-authenticate"]
    assert not served.functions.seen


def by_key(said: dict[str, Any]) -> str:
    """Signed rightly, whatever it says (the library would refuse to sign some of it)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    unsigned = by_hand({"alg": "RS256", "kid": "one"}, said).rpartition(".")[0]
    signature = RSA.private_key.sign(unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())
    return unsigned + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


async def test_a_client_id_stands_for_a_missing_audience_and_clocks_may_differ_a_little(stand: Build) -> None:
    clock = ManualClock()
    _, ask = await asked(stand, clock, Issuer(RSA))
    now = clock.now_ms() // 1000
    assert (await ask(signed(claims(clock, aud=None, client_id="shop")))).status == 200
    assert (await ask(signed(claims(clock, exp=now - 30)))).status == 200
    assert (await ask(signed(claims(clock, exp=now - 61)))).status == 401
    assert (await ask(signed(claims(clock, nbf=now + 30)))).status == 200


async def test_forged_tokens(stand: Build) -> None:
    clock = ManualClock()
    served, ask = await asked(stand, clock, Issuer(RSA))
    said = claims(clock)
    good = signed(said)
    head, body, signature = good.split(".")
    richer = base64.urlsafe_b64encode(json.dumps({**said, "sub": "root"}).encode()).rstrip(b"=").decode()
    confused = by_hand({"alg": "HS256", "kid": "one"}, said).rpartition(".")[0]
    mac = hmac.digest(RSA.as_pem(private=False), confused.encode(), hashlib.sha256)
    attacks = {
        "none": by_hand({"alg": "none"}, said),
        "None": by_hand({"alg": "nOnE", "kid": "one"}, said),
        "no signature": f"{head}.{body}.",
        "changed body": f"{head}.{richer}.{signature}",
        "public key as a secret": confused + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode(),
        "another key": signed(said, OTHER, kid="one"),
        "a key of its own": by_hand({"alg": "RS256", "kid": "one", "jwk": OTHER.as_dict(private=False)}, said, b"x" * 256),
        "a key from elsewhere": by_hand({"alg": "RS256", "jku": "https://evil.example/keys"}, said, b"x" * 256),
        "path for a kid": by_hand({"alg": "HS256", "kid": "../../dev/null"}, said),
        "kid that is none": by_hand({"alg": "RS256", "kid": {"a": 1}}, said),
        "sql for a kid": by_hand({"alg": "RS256", "kid": "x' UNION SELECT 'k"}, said, b"x" * 256),
        "crit": by_hand({"alg": "RS256", "kid": "one", "crit": ["x"], "x": 1}, said, b"x"),
        "one part": "abc",
        "five parts": "a.b.c.d.e",
        "not base64": "!.!.!",
        "too large": "a" * 20_000 + ".b.c",
    }
    for name, token in attacks.items():
        answer = await ask(f"Bearer {token}")
        assert answer.status in (401, 431), name
    assert not served.functions.seen
    assert (await ask(f"Bearer {good}")).status == 200


async def test_symmetric_keys_of_an_issuer_are_not_taken(stand: Build) -> None:
    clock = ManualClock()
    issuer = Issuer(RSA)
    secret = OctKey.generate_key(256, parameters={"kid": "oct"})
    issuer.keys += [secret.as_dict(private=True), {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}, "x"]  # type: ignore[list-item]
    _, ask = await asked(stand, clock, issuer)
    assert (await ask(signed(claims(clock), secret, "HS256"))).status == 401
    assert (await ask(signed(claims(clock)))).status == 200


async def test_keys_rotate_and_an_unknown_one_does_not_make_us_ask_without_end(stand: Build) -> None:
    clock = ManualClock()
    issuer = Issuer(RSA)
    _, ask = await asked(stand, clock, issuer)
    for _ in range(3):
        assert (await ask(signed(claims(clock)))).status == 200
    assert len(issuer.asked) == 2
    issuer.keys = [OTHER.as_dict(private=False)]
    for number in range(5):
        assert (await ask(by_hand({"alg": "RS256", "kid": f"k{number}"}, claims(clock), b"x"))).status == 401
    assert len(issuer.asked) == 2, "asked less than half a minute ago"
    clock.advance(31)
    assert (await ask(signed(claims(clock), OTHER))).status == 200
    assert (await ask(signed(claims(clock)))).status == 401, "the old key is gone"
    assert len(issuer.asked) == 4
    issuer.is_down = True
    clock.advance(3_700)
    assert (await ask(signed(claims(clock), OTHER))).status == 200, "an issuer that is down takes nothing away"


async def test_an_issuer_that_does_not_answer_or_is_another(stand: Build) -> None:
    clock = ManualClock()
    issuer = Issuer(RSA)
    issuer.name = "https://other.example"
    _, ask = await asked(stand, clock, issuer)
    said = await ask(signed(claims(clock)))
    assert said.status == 401
    assert "OIDC discovery endpoint communication error" in said.headers["www-authenticate"]


async def test_format_1(stand: Build) -> None:
    clock = ManualClock()
    served, ask = await asked(stand, clock, Issuer(RSA), payload="1.0")
    assert (await ask(signed(claims(clock)))).status == 200
    told = served.functions.event["requestContext"]["authorizer"]
    assert (told["claims"]["sub"], told["scopes"]) == ("ada", None)
