"""What end users do: sign up, verify, sign in, refresh, sign out, reset; second factors; and what the owner does with them."""

from __future__ import annotations

import base64

import pytest
from tests.users.stage import ADA, SECRET, Stage

from martlet.errors import AccessDenied, InvalidInput, LimitExceeded, MartletError, NotFound, Throttled, Unauthenticated
from martlet.limits import LIMITS
from martlet.types import UsersConfig
from martlet.users import totp

HERE = "192.0.2.1"
DAY = 86_400


async def reason(call: object) -> str:
    with pytest.raises(MartletError) as caught:
        await call  # type: ignore[misc]
    return str(caught.value.details.get("reason", caught.value.code))


async def test_an_address_is_verified_and_then_signs_in(stage: Stage) -> None:
    pool = await stage.pool()
    await stage.users.sign_up(pool, "Ada@Example.COM", SECRET, HERE)
    assert await reason(stage.users.sign_in(pool, ADA, SECRET, "", HERE)) == "invalid_credentials"
    tokens = await stage.users.verify(pool, ADA, await stage.code(), SECRET, HERE)
    assert stage.posted == [
        {**stage.posted[0], "kind": "verify", "email": ADA, "app": "shop", "users": "people", "function": "mail"}
    ]
    caller = stage.who(tokens)
    again = stage.who(await stage.users.sign_in(pool, ADA, SECRET, "", HERE))
    assert (caller.email, caller.groups, caller.sub) == (ADA, (), again.sub)
    assert caller.session != again.session
    assert caller.claims["iss"] == "https://shop.example/auth"


async def test_an_address_that_has_an_account_is_told_by_mail_alone(stage: Stage) -> None:
    await stage.member()
    pool = await stage.pool()
    await stage.users.sign_up(pool, ADA, "another password", HERE)
    await stage.users.outbox.deliver()
    assert (stage.posted[-1]["kind"], "code" in stage.posted[-1]) == ("exists", False)
    await stage.users.sign_in(pool, ADA, SECRET, "", HERE)


async def test_a_reset_ends_every_session_and_the_old_password(stage: Stage) -> None:
    tokens = await stage.member()
    pool = await stage.pool()
    await stage.users.ask_reset(pool, ADA, HERE)
    code = await stage.code()
    await stage.users.reset(pool, ADA, code, "a new password", HERE)
    with pytest.raises(Unauthenticated, match="session has ended"):
        stage.who(tokens)
    assert await reason(stage.users.refresh(pool, tokens.refresh_token, HERE)) == "invalid_grant"
    assert await reason(stage.users.sign_in(pool, ADA, SECRET, "", HERE)) == "invalid_credentials"
    await stage.users.sign_in(pool, ADA, "a new password", "", HERE)
    assert await reason(stage.users.reset(pool, ADA, code, "a third password", HERE)) == "invalid_code"


async def test_sessions_refresh_until_nobody_does(stage: Stage) -> None:
    tokens = await stage.member()
    pool = await stage.pool()
    for _ in range(3):
        stage.clock.advance(29 * DAY)
        tokens = await stage.users.refresh(pool, tokens.refresh_token, HERE)
        assert stage.who(tokens).email == ADA
    stage.clock.advance(30 * DAY)
    assert await reason(stage.users.refresh(pool, tokens.refresh_token, HERE)) == "invalid_grant"


async def test_sign_out_is_at_once_here_or_everywhere(stage: Stage) -> None:
    first = await stage.member()
    pool = await stage.pool()
    second, third = [await stage.users.sign_in(pool, ADA, SECRET, "", HERE) for _ in range(2)]
    await stage.users.sign_out(pool, stage.who(first))
    with pytest.raises(Unauthenticated):
        stage.who(first)
    await stage.users.sign_out(pool, stage.who(second), everywhere=True)
    with pytest.raises(Unauthenticated):
        stage.who(third)


async def test_changing_the_password_keeps_this_session_alone(stage: Stage) -> None:
    first = await stage.member()
    pool = await stage.pool()
    other = await stage.users.sign_in(pool, ADA, SECRET, "", HERE)
    assert (
        await reason(stage.users.change_password(pool, stage.who(first), "wrong one", "a new password", HERE))
        == "invalid_credentials"
    )
    await stage.users.change_password(pool, stage.who(first), SECRET, "a new password", HERE)
    assert stage.who(first).email == ADA
    with pytest.raises(Unauthenticated):
        stage.who(other)


async def test_of_too_many_sessions_the_oldest_ends(stage: Stage) -> None:
    from martlet.users import rows

    first = await stage.member()
    pool, caller = await stage.pool(), stage.who(first)
    for number in range(LIMITS["users_sessions"].default):
        stage.clock.advance(1)
        now = stage.clock.now_ms()
        await stage.store.transact(lambda tx, n=number, now=now: stage.users._begin(tx, pool, caller.sub, f"s{n}", now))  # type: ignore[misc]
    with pytest.raises(Unauthenticated):
        stage.who(first)
    left = stage.store.read(lambda reader: rows.every(reader, rows.Session, "shop", "people", caller.sub))
    assert len(left) == LIMITS["users_sessions"].default


async def test_a_second_factor_is_asked_for_and_each_code_counts_once(stage: Stage) -> None:
    tokens = await stage.member()
    pool, caller = await stage.pool(), stage.who(tokens)
    begun = await stage.users.begin_totp(pool, caller, SECRET, HERE)
    assert begun["uri"].startswith("otpauth://totp/shop:ada%40example.com?secret=")
    secret = base64.b32decode(begun["secret"] + "=" * (-len(begun["secret"]) % 8))
    await stage.users.sign_in(pool, ADA, SECRET, "", HERE)  # it does not count before it is confirmed
    assert await reason(stage.users.confirm_totp(pool, caller, "000000x")) == "totp_wrong"

    def now() -> str:
        return totp.code_at(secret, stage.clock.now_ms() // 30_000)

    recovery = await stage.users.confirm_totp(pool, caller, now())
    assert await reason(stage.users.sign_in(pool, ADA, SECRET, "", HERE)) == "totp_required"
    assert await reason(stage.users.sign_in(pool, ADA, SECRET, now(), HERE)) == "totp_wrong"  # it confirmed already
    stage.clock.advance(30)
    code = now()
    await stage.users.sign_in(pool, ADA, SECRET, code, HERE)
    assert await reason(stage.users.sign_in(pool, ADA, SECRET, code, HERE)) == "totp_wrong"
    assert await reason(stage.users.sign_in(pool, ADA, "wrong password", now(), HERE)) == "invalid_credentials"
    await stage.users.sign_in(pool, ADA, SECRET, recovery[3].upper(), HERE)
    assert await reason(stage.users.sign_in(pool, ADA, SECRET, recovery[3], HERE)) == "totp_wrong"
    assert await reason(stage.users.begin_totp(pool, caller, SECRET, HERE)) == "totp_exists"
    await stage.users.remove_totp(pool, caller, SECRET, recovery[4], HERE)
    await stage.users.sign_in(pool, ADA, SECRET, "", HERE)


@pytest.mark.parametrize(
    ("at", "code"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")]
)
def test_totp_is_rfc_6238s(at: int, code: str) -> None:
    """Appendix B of the RFC, the last six of its eight digits."""
    assert totp.code_at(b"12345678901234567890", at // 30) == code
    assert totp.matching_step(b"12345678901234567890", code, at * 1000, 0) == at // 30
    assert totp.matching_step(b"12345678901234567890", code, at * 1000, at // 30) is None


async def test_groups_are_in_the_next_token_and_a_disabled_user_is_out_at_once(stage: Stage) -> None:
    tokens = await stage.member()
    pool, sub = await stage.pool(), stage.who(tokens).sub
    await stage.users.change(pool, sub, groups=["editors", "admins", "editors"])
    assert stage.who(tokens).groups == ()
    tokens = await stage.users.refresh(pool, tokens.refresh_token, HERE)
    assert stage.who(tokens).groups == ("admins", "editors")
    await stage.users.change(pool, sub, disabled=True)
    with pytest.raises(Unauthenticated):
        stage.who(tokens)
    assert await reason(stage.users.sign_in(pool, ADA, SECRET, "", HERE)) == "invalid_credentials"
    await stage.users.change(pool, sub, disabled=False)
    assert stage.who(await stage.users.sign_in(pool, ADA, SECRET, "", HERE)).groups == ("admins", "editors")
    with pytest.raises(InvalidInput, match="group"):
        await stage.users.change(pool, sub, groups=["no spaces"])
    with pytest.raises(LimitExceeded, match="users_groups"):
        await stage.users.change(pool, sub, groups=[f"g{n}" for n in range(51)])
    with pytest.raises(NotFound):
        await stage.users.change(pool, "nobody", disabled=True)


async def test_who_leaves_leaves_nothing(stage: Stage) -> None:
    tokens = await stage.member()
    pool = await stage.pool()
    await stage.users.ask_reset(pool, ADA, HERE)
    await stage.users.outbox.deliver()
    assert b"ada@example.com" in stage.rows()
    await stage.users.leave(pool, stage.who(tokens), SECRET, HERE)
    assert b"ada@example.com" not in stage.rows()
    with pytest.raises(NotFound):
        stage.users.find(pool, ADA)


async def test_users_are_listed_in_pages(stage: Stage) -> None:
    pool = await stage.pool()
    for name in ("ada", "bob", "eve"):
        await stage.member(f"{name}@example.com")
    first = stage.users.accounts(pool, limit=2)
    rest = stage.users.accounts(pool, first[-1].id, limit=2)
    assert sorted(one.email for one in [*first, *rest]) == ["ada@example.com", "bob@example.com", "eve@example.com"]
    assert stage.users.find(pool, "BOB@example.com").email == "bob@example.com"


async def test_a_message_is_sent_again_until_it_is_taken_or_too_old(stage: Stage) -> None:
    pool = await stage.pool()
    stage.takes = False
    await stage.users.sign_up(pool, ADA, SECRET, HERE)
    assert await stage.users.outbox.deliver() == 1_000
    stage.clock.advance(1)
    assert await stage.users.outbox.deliver() == 2_000
    after = stage.open()  # another start: what was not sent is still there
    await after.pool("shop", "people")
    stage.takes = True
    stage.clock.advance(2)
    assert await after.outbox.deliver() is None
    assert len({one["code"] for one in stage.posted}) == 1
    assert len(stage.posted) == 3
    stage.takes = False
    await stage.users.ask_reset(pool, ADA, HERE)
    await stage.users.outbox.deliver()  # of nobody: dropped
    assert len(stage.posted) == 3
    await stage.users.sign_up(pool, "bob@example.com", SECRET, HERE)
    stage.clock.advance(901)
    assert await stage.users.outbox.deliver() is None
    assert "given up" in stage.said[-1]


async def test_without_a_sender_the_log_has_the_code_and_says_why(stage: Stage) -> None:
    stage.users.declare({("shop", "people"): UsersConfig(name="people", path="/auth")})
    pool = await stage.pool()
    await stage.users.sign_up(pool, ADA, SECRET, HERE)
    await stage.users.outbox.deliver()
    assert stage.said[0].startswith(
        "shop: users people has no sender, so this is only written here, for development: verify for"
    )


async def test_closed_users_take_nobody_new(stage: Stage) -> None:
    stage.users.declare({("shop", "people"): UsersConfig(name="people", path="/auth", sign_up="closed")})
    with pytest.raises(AccessDenied, match="sign up"):
        await stage.users.sign_up(await stage.pool(), ADA, SECRET, HERE)
    with pytest.raises(NotFound):
        await stage.users.pool("shop", "others")


async def test_keys_rotate_and_the_old_one_holds_until_nothing_needs_it(stage: Stage) -> None:
    tokens = await stage.member()
    pool = await stage.pool()
    (before,) = stage.users.keys(pool)["keys"]
    assert set(before) == {"kty", "crv", "x", "y", "kid", "use", "alg"}  # the private part is not among them
    kid = await stage.users.rotate(pool)
    assert stage.who(tokens).email == ADA
    later = await stage.users.refresh(pool, tokens.refresh_token, HERE)
    assert stage.who(later).email == ADA
    assert [key["kid"] for key in stage.users.keys(pool)["keys"]] in ([kid, before["kid"]], [before["kid"], kid])
    stage.clock.advance(DAY)
    await stage.users.expire()
    assert [key["kid"] for key in stage.users.keys(pool)["keys"]] == [kid]
    stage.clock.advance(90 * DAY)
    tokens = await stage.users.sign_in(pool, ADA, SECRET, "", HERE)
    assert len(stage.users.keys(pool)["keys"]) == 2
    assert stage.who(tokens).email == ADA


async def test_what_is_past_its_time_is_removed(stage: Stage) -> None:
    await stage.member()
    pool = await stage.pool()
    await stage.users.ask_reset(pool, ADA, HERE)
    await stage.users.outbox.deliver()
    stage.clock.advance(31 * DAY)
    await stage.users.expire()
    found = stage.rows()
    assert b"users.code" not in found
    assert b"users.session" not in found
    assert b"users.account" in found


async def test_each_limit_is_named(stage: Stage) -> None:
    pool = await stage.pool()
    for _ in range(5):
        await stage.users.ask_reset(pool, ADA, HERE)
    with pytest.raises(Throttled, match="users_codes_account"):
        await stage.users.ask_reset(pool, ADA, HERE)
    stage.clock.advance(720)
    await stage.users.ask_reset(pool, ADA, HERE)


async def test_the_gateways_jwt_authorizer_takes_the_tokens(stage: Stage) -> None:
    """Its keys come from the room, not over the network; another issuer's still do, and a rotation is seen at once."""
    from martlet.gateway.apis.backend import Backend
    from martlet.gateway.apis.tokens import Refused
    from martlet.gateway.apis.tokens import Tokens as Judge
    from martlet.types import ApiAuthorizer

    tokens = await stage.member()
    pool = await stage.pool()
    backend = Backend()
    judge = Judge(backend, stage.clock, stage.users.published)
    wanted = ApiAuthorizer(name="a", kind="JWT", issuer="https://shop.example/auth", audience=("shop",))
    assert (await judge.claims(wanted, tokens.access_token))["email"] == ADA
    await stage.users.rotate(pool)
    renewed = await stage.users.refresh(pool, tokens.refresh_token, HERE)
    assert (await judge.claims(wanted, renewed.access_token))["email"] == ADA
    for other in (
        ApiAuthorizer(name="a", kind="JWT", issuer="https://blog.example/auth", audience=("shop",)),
        ApiAuthorizer(name="a", kind="JWT", issuer="https://shop.example/auth", audience=("blog",)),
    ):
        with pytest.raises(Refused):
            await judge.claims(other, renewed.access_token)
    stage.clock.advance(1_000)
    with pytest.raises(Refused, match="expired"):
        await judge.claims(wanted, renewed.access_token)
    await backend.close()
