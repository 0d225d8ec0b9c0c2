"""Attacks on the sign-in of an app's end users. Each shows what is refused, and that the owner still gets in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from tests.users.stage import ADA, SECRET, Stage

from martlet.errors import InvalidInput, MartletError, Overloaded, Throttled, Unauthenticated, Unsupported
from martlet.limits import LIMITS
from martlet.users import passwords, totp
from martlet.users.addresses import email_of, network_of

HERE, THERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


def refused(stage: Stage, token: str, app: str = "shop") -> str:
    with pytest.raises(Unauthenticated) as caught:
        stage.users.identify(app, "people", token)
    assert caught.value.http_status == 401
    return caught.value.message


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    header, claims, tail = token.split(".")
    return orjson.loads(_plain(header)), orjson.loads(_plain(claims)), tail


def _plain(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _coded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def attempt(call: Any) -> tuple[int, str, str]:
    with pytest.raises(MartletError) as caught:
        await call
    return caught.value.http_status, caught.value.message, str(caught.value.details)


# --- tokens


@pytest.mark.parametrize("name", ["none", "None", "NONE", "", "HS256", "RS256", "ES384"])
async def test_no_other_algorithm_is_taken(stage: Stage, name: str) -> None:
    header, claims, tail = parts((await stage.member()).access_token)
    forged = f"{_coded({**header, 'alg': name})}.{_coded({**claims, 'sub': 'root'})}."
    assert "header" in refused(stage, forged)
    assert "header" in refused(stage, forged + tail)


async def test_the_public_key_is_no_secret_to_sign_with(stage: Stage) -> None:
    header, claims, _ = parts((await stage.member()).access_token)
    (key,) = stage.users.keys(await stage.pool())["keys"]
    for secret in (orjson.dumps(key), ECKey.import_key(key).as_pem(), key["x"].encode()):
        said = f"{_coded({**header, 'alg': 'HS256'})}.{_coded(claims)}"
        tag = hmac.new(secret, said.encode(), hashlib.sha256).digest()
        assert "header" in refused(stage, f"{said}.{_coded(tag)}")


@pytest.mark.parametrize("extra", ["jwk", "jku", "x5c", "x5u", "crit", "b64"])
async def test_a_header_names_no_key_of_its_own(stage: Stage, extra: str) -> None:
    header, claims, _ = parts((await stage.member()).access_token)
    own = ECKey.generate_key("P-256", {"kid": header["kid"]})
    value = own.as_dict(private=False) if extra == "jwk" else "https://evil.example/keys"
    forged = jwt.encode({**header}, claims, own)
    assert "signature" in refused(stage, forged)
    assert "header" in refused(stage, f"{_coded({**header, extra: value})}.{forged.split('.', 1)[1]}")


@pytest.mark.parametrize("kid", ["../../etc/passwd", "x' OR '1'='1", "", "\x00", "a" * 1000, "é", None, ["a"], {"a": 1}, 7])
async def test_a_kid_finds_nothing_but_a_key(stage: Stage, kid: Any) -> None:
    header, claims, tail = parts((await stage.member()).access_token)
    refused(stage, f"{_coded({**header, 'kid': kid})}.{_coded(claims)}.{tail}")


async def test_changed_claims_and_signatures_do_not_hold(stage: Stage) -> None:
    tokens = await stage.member()
    header, claims, tail = parts(tokens.access_token)
    assert "signature" in refused(stage, f"{_coded(header)}.{_coded({**claims, 'groups': ['admins']})}.{tail}")
    assert "signature" in refused(stage, tokens.access_token[:-6] + "AAAAAA")
    assert "signature" in refused(stage, f"{_coded(header)}.{_coded(claims)}.{_coded(bytes(64))}")  # r = s = 0
    assert stage.who(tokens).email == ADA


async def test_a_token_ends_with_its_time_to_the_second(stage: Stage) -> None:
    tokens = await stage.member()
    stage.who(tokens)  # it is remembered from here on, and judged all the same
    stage.clock.advance(LIMITS["users_access_seconds"].default - 1)
    stage.who(tokens)
    stage.clock.advance(1)
    assert "expired" in refused(stage, tokens.access_token)


async def test_another_apps_token_is_nobodys(stage: Stage) -> None:
    """Same name, same address, same pool's name; another app. And a key copied over would not do either."""
    shop, blog = await stage.member(), await stage.member(app="blog")
    refused(stage, blog.access_token)
    refused(stage, shop.access_token, "blog")
    pool = await stage.pool("blog")
    assert (await attempt(stage.users.refresh(pool, shop.refresh_token, HERE)))[0] == 401
    assert stage.who(shop).email == stage.who(blog, "blog").email == ADA


async def test_a_refresh_token_is_no_access_token_nor_the_other_way(stage: Stage) -> None:
    tokens = await stage.member()
    pool = await stage.pool()
    refused(stage, tokens.refresh_token)
    assert (await attempt(stage.users.refresh(pool, tokens.access_token, HERE)))[0] == 401


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "a.b.c.d", "." * 8_000, "é.é.é", "\x00", "{}.{}.{}", "e30.e30.", "A" * 100_000, "\ud800.."],
)
async def test_what_is_no_token_is_refused(stage: Stage, token: str) -> None:
    pool = await stage.pool()
    refused(stage, token)
    assert (await attempt(stage.users.refresh(pool, token, HERE)))[0] == 401


async def test_an_rsa_token_of_somebody_else_is_refused(stage: Stage) -> None:
    header, claims, _ = parts((await stage.member()).access_token)
    forged = jwt.encode({"alg": "RS256", "kid": header["kid"], "typ": "at+jwt"}, claims, RSAKey.generate_key(2048))
    assert "header" in refused(stage, forged)
    forged = jwt.encode({"alg": "HS256", "kid": header["kid"], "typ": "at+jwt"}, claims, OctKey.import_key("k" * 32))
    assert "header" in refused(stage, forged)


async def test_a_stolen_key_is_worth_nothing_soon_after_its_rotation(stage: Stage) -> None:
    from martlet.users import rows

    tokens = await stage.member()
    pool = await stage.pool()
    header, claims, _ = parts(tokens.access_token)
    key = stage.store.read(lambda reader: rows.get(reader, rows.SigningKey, "shop", "people", header["kid"]))
    assert key is not None
    stolen = ECKey.import_key(orjson.loads(stage.users._vault.unseal(key.private, "shop", "people", header["kid"])))
    assert "so long" in refused(stage, jwt.encode(header, {**claims, "exp": claims["exp"] + 1}, stolen))
    forged = jwt.encode(header, {**claims, "groups": ["admins"]}, stolen)
    assert stage.users.identify("shop", "people", forged).groups == ("admins",)
    await stage.users.rotate(pool)
    stage.clock.advance(LIMITS["users_access_seconds"].default + 60)
    assert "expired" in refused(stage, forged)
    later = {**claims, "exp": stage.clock.now_ms() // 1000 + 600}
    assert "key" in refused(stage, jwt.encode(header, later, stolen))
    assert header["kid"] not in str(stage.users.keys(pool))
    stage.who(await stage.users.refresh(pool, tokens.refresh_token, HERE))


# --- refresh tokens


async def test_a_stolen_refresh_token_ends_the_session_of_thief_and_owner(stage: Stage) -> None:
    tokens = await stage.member()
    pool = await stage.pool()
    thief = await stage.users.refresh(pool, tokens.refresh_token, THERE)
    assert (await attempt(stage.users.refresh(pool, tokens.refresh_token, HERE)))[0] == 401  # the owner comes second
    assert (await attempt(stage.users.refresh(pool, thief.refresh_token, THERE)))[0] == 401
    refused(stage, thief.access_token)
    refused(stage, tokens.access_token)
    await stage.users.sign_in(pool, ADA, SECRET, "", HERE)


async def test_one_refresh_token_at_one_time_gives_one_successor_at_most(stage: Stage) -> None:
    tokens = await stage.member()
    pool = await stage.pool()
    calls = [stage.users.refresh(pool, tokens.refresh_token, HERE) for _ in range(20)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in results) == 1
    refused(stage, tokens.access_token)  # nineteen were replays


async def test_a_refresh_token_that_was_made_up_ends_nobodys_session(stage: Stage) -> None:
    """The session's id is in every access token; knowing it is not enough to end the session."""
    tokens = await stage.member()
    pool, caller = await stage.pool(), stage.who(tokens)
    for made_up in (f"{caller.sub}.{caller.session}.0.{_coded(bytes(32))}", tokens.refresh_token[:-2] + "AA"):
        assert (await attempt(stage.users.refresh(pool, made_up, THERE)))[0] == 401
    assert stage.who(tokens).email == ADA
    await stage.users.refresh(pool, tokens.refresh_token, HERE)


# --- enumeration


async def test_who_has_an_account_is_not_said(stage: Stage) -> None:
    await stage.member()
    pool = await stage.pool()
    known = await attempt(stage.users.sign_in(pool, ADA, "wrong password", "", HERE))
    unknown = await attempt(stage.users.sign_in(pool, "eve@example.com", "wrong password", "", HERE))
    factor = await attempt(stage.users.sign_in(pool, ADA, "wrong password", "123456", HERE))
    assert known == unknown == factor
    reset = [
        await attempt(stage.users.reset(pool, email, "00000000", "new password", HERE)) for email in (ADA, "eve@example.com")
    ]
    assert reset[0] == reset[1]
    verify = [await attempt(stage.users.verify(pool, email, "00000000", SECRET, HERE)) for email in (ADA, "eve@example.com")]
    assert verify[0] == verify[1]


async def test_an_unknown_address_costs_what_a_known_one_does(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work, not time, is counted: hashes, and rows that a transaction writes."""
    await stage.member()
    pool = await stage.pool()
    work: list[str] = []
    run = passwords.Passwords._run

    async def counted(self: Any, fn: Any) -> Any:
        work.append("hash")
        return await run(self, fn)

    transact = stage.store.transact

    async def written(fn: Any) -> Any:
        sizes: list[Any] = []

        def kept(tx: Any) -> Any:
            result = fn(tx)
            sizes.append(sorted(key[:12] for key in tx.writes))
            return result

        result = await transact(kept)
        work.append(str(sizes[-1]))
        return result

    monkeypatch.setattr(passwords.Passwords, "_run", counted)
    monkeypatch.setattr(stage.store, "transact", written)

    async def cost(call: Any) -> list[str]:
        work.clear()
        await asyncio.gather(call, return_exceptions=True)
        return list(work)

    for act in (
        lambda email: stage.users.sign_up(pool, email, SECRET, HERE),
        lambda email: stage.users.ask_reset(pool, email, HERE),
        lambda email: stage.users.sign_in(pool, email, "wrong password", "", HERE),
    ):
        assert await cost(act(ADA)) == await cost(act("eve@example.com")) != []


# --- brute force


async def test_guessing_a_password_is_slowed_for_any_address(stage: Stage) -> None:
    await stage.member()
    pool = await stage.pool()
    for email in (ADA, "eve@example.com"):
        tried = [await attempt(stage.users.sign_in(pool, email, f"guess number {n}", "", f"192.0.2.{n}")) for n in range(12)]
        assert [status for status, _, _ in tried] == [401] * 10 + [429] * 2
        assert "users_tries_account" in tried[-1][1]
    stage.clock.advance(900)
    await stage.users.sign_in(pool, ADA, SECRET, "", HERE)


async def test_guesses_at_one_time_are_counted_as_well(stage: Stage) -> None:
    await stage.member()
    pool = await stage.pool()
    calls = [stage.users.sign_in(pool, ADA, f"guess number {n}", "", f"192.0.2.{n}") for n in range(40)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(one, Unauthenticated) for one in found) == 10
    assert sum(isinstance(one, Throttled) for one in found) == 30


async def test_one_address_cannot_try_many_accounts(stage: Stage) -> None:
    pool = await stage.pool()
    wrong = [stage.users.ask_reset(pool, f"user{n}@example.com", "2001:db8::1") for n in range(50)]
    await asyncio.gather(*wrong)
    with pytest.raises(Throttled, match="users_codes_address"):
        await stage.users.ask_reset(pool, "one-more@example.com", "2001:db8::ffff")  # the same /64
    await stage.users.ask_reset(pool, "one-more@example.com", "2001:db8:0:1::1")


async def test_a_code_has_few_tries_and_the_right_one_comes_too_late(stage: Stage) -> None:
    await stage.member()
    pool = await stage.pool()
    await stage.users.ask_reset(pool, ADA, HERE)
    code = await stage.code()
    wrong = f"{(int(code) + 1) % 10**8:08}"
    for _ in range(LIMITS["users_code_tries"].default):
        assert (await attempt(stage.users.reset(pool, ADA, wrong, "a new password", THERE)))[0] == 401
    assert (await attempt(stage.users.reset(pool, ADA, code, "a new password", HERE)))[0] == 401
    await stage.users.sign_in(pool, ADA, SECRET, "", HERE)


async def test_tries_of_a_code_are_counted_across_starts(stage: Stage) -> None:
    await stage.member()
    pool = await stage.pool()
    await stage.users.ask_reset(pool, ADA, HERE)
    code = await stage.code()
    for _ in range(LIMITS["users_code_tries"].default):
        users = stage.open()
        assert (await attempt(users.reset(await users.pool("shop", "people"), ADA, "x", "a new password", HERE)))[0] == 401
        await users.stop()
    assert (await attempt(stage.users.reset(pool, ADA, code, "a new password", HERE)))[0] == 401


async def test_a_code_is_of_one_use_one_kind_one_address_and_one_time(stage: Stage) -> None:
    await stage.member()
    await stage.member("bob@example.com")
    pool = await stage.pool()
    await stage.users.ask_reset(pool, ADA, HERE)
    code = await stage.code()
    assert (await attempt(stage.users.reset(pool, "bob@example.com", code, "a new password", HERE)))[0] == 401
    assert (await attempt(stage.users.verify(pool, ADA, code, SECRET, HERE)))[0] == 401
    calls = [stage.users.reset(pool, ADA, code, f"new password {n}", HERE) for n in range(5)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(one is None for one in found) == 1
    await stage.users.ask_reset(pool, ADA, HERE)
    code = await stage.code()
    stage.clock.advance(901)
    assert (await attempt(stage.users.reset(pool, ADA, code, "a new password", HERE)))[0] == 401


async def test_a_right_password_does_not_buy_guesses_of_the_second_factor(stage: Stage) -> None:
    tokens = await stage.member()
    pool, caller = await stage.pool(), stage.who(tokens)
    text = (await stage.users.begin_totp(pool, caller, SECRET, HERE))["secret"]
    secret = base64.b32decode(text + "=" * (-len(text) % 8))
    await stage.users.confirm_totp(pool, caller, totp.code_at(secret, stage.clock.now_ms() // 30_000))
    outcomes = []
    for number in range(15):
        await attempt(stage.users.sign_in(pool, ADA, SECRET, "", f"192.0.2.{number}"))  # between the guesses
        outcomes.append((await attempt(stage.users.remove_totp(pool, caller, SECRET, "guess!", f"192.0.2.{number}")))[0])
    assert 429 in outcomes
    assert outcomes.count(401) <= 10


# --- addresses and passwords


@pytest.mark.parametrize(
    "text",
    [
        "ada@exam\u0440le.com",
        "ad\u0430@example.com",
        "\u0131da@example.com",
        "ada@\uff45xample.com",
        "ada\u200b@example.com",
        "\u212aada@example.com",
    ],
)
def test_letters_that_look_or_fold_alike_are_refused_by_name(text: str) -> None:
    with pytest.raises(Unsupported, match="ASCII"):
        email_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "ada", "@example.com", "ada@", "ada@localhost", "ada@@example.com", "a b@example.com", "ada@example.com\r\nBcc: all@x.org",
        "ada@example.com,eve@example.com", '"ada"@example.com', "ada@[127.0.0.1]", "ada..b@example.com", ".ada@example.com",
        "ada@-a.com", "ada@a..com", "a" * 65 + "@example.com", "ada@" + "a." * 200 + "com", "ada@example.com\x00", "ada@example.com ",
        "<ada@example.com>", "ada@example.123",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        email_of(text)


def test_addresses_are_compared_without_case_and_keep_what_else_differs() -> None:
    assert email_of("Ada.L+x@Example.COM") == "ada.l+x@example.com"
    assert email_of("adal@example.com") != email_of("ada.l@example.com")


def test_an_address_of_a_network_is_its_64() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::2%eth0") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    "text", ["", "short", "aaaaaaaaaaaa", "a" * 100_000, "with\x00nul in it", "\ud800\ud800 surrogates", ADA, "ﷺ" * 60]
)
async def test_what_is_no_password_costs_no_hash(stage: Stage, text: str) -> None:
    pool = await stage.pool()
    with pytest.raises(InvalidInput):
        await stage.users.sign_up(pool, ADA, text, HERE)
    assert stage.users._passwords._threads is None


async def test_a_flood_of_passwords_is_turned_away_and_does_not_stop_the_loop(stage: Stage) -> None:
    pool = await stage.pool()
    most = LIMITS["users_hashing"].default
    hasher = stage.users._passwords
    first = asyncio.ensure_future(hasher.hash("one of many"))
    rest = [asyncio.ensure_future(hasher.check("", "one of many")) for _ in range(most + 20)]
    turns = 0
    while not first.done():
        turns += 1
        await asyncio.sleep(0)
    found = await asyncio.gather(*rest, return_exceptions=True)
    assert sum(isinstance(one, Overloaded) for one in found) == 21
    assert turns > 1  # the loop went on meanwhile
    await hasher.hash("and afterwards there is room again")
    assert pool.config.name == "people"


async def test_somebody_elses_address_cannot_be_taken_in_advance(stage: Stage) -> None:
    """Eve signs up with Ada's address; Ada, who gets the code, gives it with the password of her own sign-up."""
    pool = await stage.pool()
    await stage.users.sign_up(pool, ADA, SECRET, HERE)
    await stage.users.sign_up(pool, ADA, "eve's password", THERE)
    code = await stage.code()
    assert (await attempt(stage.users.verify(pool, ADA, code, SECRET, HERE)))[0] == 401
    assert (await attempt(stage.users.sign_in(pool, ADA, "eve's password", "", THERE)))[0] == 401
    assert b"users.account" not in stage.rows()


# --- what lies on the disk


async def test_what_is_stored_opens_nothing(stage: Stage) -> None:
    pool = await stage.pool()
    tokens = await stage.member()
    await stage.users.ask_reset(pool, ADA, HERE)
    lying = stage.rows()
    code = await stage.code()
    begun = await stage.users.begin_totp(pool, stage.who(tokens), SECRET, HERE)
    lying += stage.rows()
    secret = begun["secret"]
    for word in (SECRET, code, tokens.access_token, tokens.refresh_token.rpartition(".")[2], secret):
        assert word.encode() not in lying
    assert base64.b32decode(secret + "=" * (-len(secret) % 8)) not in lying
    assert hashlib.sha256(code.encode()).digest() not in lying  # eight digits are quickly tried against a plain digest
    assert b'"d":' not in lying  # of a private key
    assert b"$argon2id$v=19$m=19456,t=2,p=1$" in lying
