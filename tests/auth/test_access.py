"""The access log, and what is suggested from it."""

from __future__ import annotations

import asyncio
import json

import pytest

from martlet.auth import Accesses, authorize, function_principal, named
from martlet.auth.acts import Act, noted, witness
from martlet.auth.advice import explain, suggest
from martlet.auth.policy import declaration
from martlet.auth.standing import Standing, compiled
from martlet.clock import ManualClock
from martlet.errors import AccessDenied
from martlet.limits import LIMITS
from martlet.store import Store
from martlet.types import ACCOUNT, FunctionConfig, FunctionVersion, Principal

ADA = Principal("user", "ada")
MAIL = f"arn:aws:sqs:us-east-1:{ACCOUNT}:shop-mail"


def place(**config: object) -> Principal:
    told = FunctionConfig(name="place", handler="m:f", **config)  # type: ignore[arg-type]
    return function_principal(FunctionVersion(name="shop-place", app="shop", version=1, config=told, code="0" * 64))


async def test_decisions_are_noted_for_the_request_in_which_they_are_made() -> None:
    async def one(name: str) -> list[Act]:
        with witness() as acts:
            authorize(Principal("root", name), "a:B", name)
            await asyncio.sleep(0)
            await asyncio.create_task(_deeper(name))
        return acts

    noted(ADA, "outside", "of any request")
    for name, acts in zip("xy", await asyncio.gather(one("x"), one("y")), strict=True):
        assert [(act.action, act.resource) for act in acts] == [("a:B", name), ("c:D", name)]


async def _deeper(name: str) -> None:
    with pytest.raises(AccessDenied):
        authorize(Principal("anonymous"), "c:D", name)


async def test_accesses_are_counted_and_kept(store: Store, clock: ManualClock) -> None:
    accesses = Accesses(store, clock)
    for _ in range(3):
        accesses.note([Act(ADA, "sqs:SendMessage", MAIL)], denied=False)
    accesses.note([Act(ADA, "lambda:CreateFunction", "f"), Act(ADA, "iam:PassRole", "r")], denied=True)
    await accesses.stop()
    again = Accesses(store, clock)
    again.note([Act(ADA, "sqs:SendMessage", MAIL)], denied=False)
    found = {(access.action, access.allowed, access.denied) for access in await again.of("user ada")}
    assert found == {("sqs:SendMessage", 4, 0), ("lambda:CreateFunction", 1, 0), ("iam:PassRole", 0, 1)}
    assert await again.principals() == ["user ada"]
    await again.forget("user ada")
    assert await again.of("user ada") == []
    await again.stop()


async def test_objects_are_kept_by_bucket_and_a_flood_of_names_is_bounded(store: Store, clock: ManualClock) -> None:
    accesses = Accesses(store, clock)
    most = LIMITS["access_log_entries"].default
    for number in range(most + 50):
        accesses.note([Act(ADA, "s3:GetObject", f"arn:aws:s3:::photos/{number}.jpg")], denied=False)
        accesses.note([Act(ADA, "sqs:SendMessage", f"{MAIL}{number}")], denied=True)
    found = await accesses.of("user ada")
    assert [access.allowed for access in found if access.resource == "arn:aws:s3:::photos/*"] == [most + 50]
    assert len(found) == most + 1
    assert sum(access.denied for access in found) == most + 50
    await accesses.stop()


# --- rights of functions


@pytest.mark.parametrize(
    ("use", "may", "may_not"),
    [
        ("orders", {"Get", "List", "Put", "Delete"}, set()),
        ("orders:read", {"Get", "List"}, {"Put", "Delete"}),
        ("orders:write", {"Put", "Delete"}, {"Get", "List"}),
    ],
)
def test_a_use_can_be_narrowed(use: str, may: set[str], may_not: set[str]) -> None:
    principal = place(documents=(use,))
    for verb in may:
        authorize(principal, f"documents:{verb}", "shop/orders")
    for verb in may_not:
        with pytest.raises(AccessDenied):
            authorize(principal, f"documents:{verb}", "shop/orders")


def test_a_bucket_can_be_only_read_or_only_written() -> None:
    arn = "arn:aws:s3:::shop-photos"
    reader, writer = place(buckets=("photos:read",)), place(buckets=("photos:write",))
    authorize(reader, "s3:GetObject", f"{arn}/a")
    authorize(reader, "s3:ListBucket", arn)
    authorize(writer, "s3:PutObject", f"{arn}/a")
    for principal, action in ((reader, "s3:PutObject"), (reader, "s3:DeleteObject"), (writer, "s3:GetObject")):
        with pytest.raises(AccessDenied):
            authorize(principal, action, f"{arn}/a")


SECRET = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:shop/"


def test_a_secret_is_that_one_and_no_other_whose_name_begins_like_it() -> None:
    principal = place(secrets=("stripe",))
    for verb in ("GetSecretValue", "DescribeSecret"):
        authorize(principal, f"secretsmanager:{verb}", f"{SECRET}stripe-AbCdEf")
    for verb, name in (
        ("GetSecretValue", "stripe-test-AbCdEf"),
        ("GetSecretValue", "stripeX-AbCdEf"),
        ("GetSecretValue", "stripe"),
        ("PutSecretValue", "stripe-AbCdEf"),
        ("DeleteSecret", "stripe-AbCdEf"),
    ):
        with pytest.raises(AccessDenied):
            authorize(principal, f"secretsmanager:{verb}", f"{SECRET}{name}")


@pytest.mark.parametrize(
    ("action", "resource", "told"),
    [
        ("documents:Get", "shop/orders", "orders.read"),
        ("documents:Delete", "shop/orders", "orders.write"),
        ("sqs:SendMessage", MAIL, "mail.send"),
        ("sqs:SendMessage", f"{MAIL}.fifo", "mail.send"),
        ("s3:GetObject", "arn:aws:s3:::shop-photos/a/b", "photos.read"),
        ("s3:PutObject", "arn:aws:s3:::shop-photos/*", "photos.write"),
        ("events:PutEvents", f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/shop-bus", "bus.publish"),
        ("sns:Publish", f"arn:aws:sns:us-east-1:{ACCOUNT}:shop-news.fifo", "news.publish"),
        ("lambda:InvokeFunction", "shop-pay", "pay"),
        ("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:shop/stripe-AbCdEf", "stripe"),
        ("iam:CreateUser", "x", ""),
    ],
)
def test_what_would_be_declared_for_it(action: str, resource: str, told: str) -> None:
    assert declaration(action, resource, "shop") == told


# --- advice


def test_a_denial_says_which_statement_is_missing() -> None:
    with pytest.raises(AccessDenied) as caught:
        authorize(place(), "documents:Put", "shop/orders")
    assert caught.value.details["missing"] == {"Effect": "Allow", "Action": "documents:Put", "Resource": "shop/orders"}


def user(*documents: dict[str, object], boundary: dict[str, object] | None = None) -> Principal:
    arn = f"arn:aws:iam::{ACCOUNT}:user/ada"
    limit = compiled([json.dumps({"Version": "2012-10-17", "Statement": boundary})])[0] if boundary else None
    policies = compiled([json.dumps({"Version": "2012-10-17", "Statement": one}) for one in documents])
    return Principal("user", "ada", standing=Standing(arn=arn, policies=policies, boundary=limit))


def test_explanations() -> None:
    allow = {"Sid": "Send", "Effect": "Allow", "Action": "sqs:*", "Resource": "*"}
    deny = {"Sid": "NotThis", "Effect": "Deny", "Action": "sqs:SendMessage", "Resource": MAIL}
    other = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    for who, allowed, why in (
        (Principal("root", "root"), True, "root may do everything"),
        (user(allow), True, "allowed by Send, unless the policy of the resource itself denies it"),
        (user(allow, deny), False, "denied by NotThis"),
        (user(), False, "no statement of its policies allows it"),
        (user(allow, boundary=other), False, "its policies allow it, but its permissions boundary does not"),
        (place(queues=("mail",)), True, "what its app declares"),
        (place(), False, "nothing that its app declares covers it"),
    ):
        found = explain(who, "sqs:SendMessage", MAIL, app="shop")
        assert (found.allowed, found.decided_by) == (allowed, why)
        missing = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": MAIL}
        assert found.missing == (None if allowed or "denied by" in why else missing)
    assert explain(place(), "sqs:SendMessage", MAIL, app="shop").declare == "mail.send"


async def test_a_suggestion_lets_it_do_what_it_did_and_no_more(store: Store, clock: ManualClock) -> None:
    accesses = Accesses(store, clock)
    who = place(documents=("orders", "carts"), queues=("mail",))
    accesses.note([Act(who, "documents:Get", "shop/orders"), Act(who, "documents:List", "shop/orders")], denied=False)
    accesses.note([Act(who, "documents:Get", "shop/stock")], denied=True)
    seen = await accesses.of("function shop-place")
    found = suggest(who, "function shop-place", seen, "us-east-1", ACCOUNT, app="shop")
    assert found.uses == ("orders.read", "stock.read")
    assert [access.resource for access in found.denied] == ["shop/stock"]
    assert found.unused == ("carts.read", "carts.write", "mail.send", "orders.write")
    allowed = user(*found.policy["Statement"])
    for access in seen:
        authorize(allowed, access.action, access.resource)
    with pytest.raises(AccessDenied):
        authorize(allowed, "documents:Put", "shop/orders")
    await accesses.stop()


def test_principals_by_name(store: Store) -> None:
    assert store.read(lambda reader: named(reader, "root", "")) == Principal("root", "root")
    for kind, name in (("user", "nobody"), ("role", "nobody"), ("", ""), ("service", "x"), ("root", "x")):
        assert store.read(lambda reader, kind=kind, name=name: named(reader, kind, name)) is None  # type: ignore[misc]
