"""Policies: decisions that the documentation gives, and the compiled evaluation beside a plain one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.auth.evaluation import Policy, Request, compile_policy, decide

QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
ROLE = "arn:aws:sts::000000000000:assumed-role/shop/i-1"


def policy(*statements: dict[str, Any], version: str = "2012-10-17") -> Policy:
    return compile_policy(json.dumps({"Version": version, "Statement": list(statements)}))


def allow(**more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*", **more}


def ask(action: str = "sqs:SendMessage", resource: str = QUEUE, **context: Any) -> Request:
    keys = {name.replace("__", ":").replace("_", "-"): value for name, value in context.items()}
    return Request(action=action, resource=resource, principal=ROLE, account="000000000000", context=keys)


def verdict(statement: dict[str, Any], request: Request | None = None, **context: Any) -> bool:
    return decide(request or ask(**context), [policy(statement)]).allowed


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("sqs:SendMessage", QUEUE, True),
        ("SQS:sendmessage", QUEUE, True),
        ("sqs:Send*", QUEUE, True),
        ("sqs:?endMessage", QUEUE, True),
        ("*", QUEUE, True),
        ("sqs:Receive*", QUEUE, False),
        ("sqs:SendMessage", "arn:aws:sqs:us-east-1:000000000000:ord*s", True),
        ("sqs:SendMessage", "arn:aws:sqs:*:*:orders", True),
        ("sqs:SendMessage", "arn:aws:sqs:us-east-1:000000000000:order", False),
        ("sqs:SendMessage", "arn:aws:sqs:*:orders:*", False),
        ("sqs:SendMessage", "arn:aws:sqs:us-east-1:000000000000:Orders", False),
    ],
)
def test_actions_ignore_case_and_resources_do_not(action: str, resource: str, allowed: bool) -> None:
    assert verdict(allow(Action=action, Resource=resource)) is allowed


def test_documents_may_be_named_without_region_and_account() -> None:
    stock = "arn:martlet:documents:us-east-1:000000000000:shop/stock"
    assert verdict(allow(Action="documents:*", Resource="arn:martlet:documents:::shop/stock"), ask("documents:Get", stock))
    assert verdict(allow(Action="documents:*", Resource="arn:martlet:documents:::shop/*"), ask("documents:Get", stock))
    assert not verdict(allow(Action="documents:*", Resource="arn:martlet:documents:::shop/st"), ask("documents:Get", stock))


def test_what_is_not_named() -> None:
    assert verdict({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})
    assert not verdict({"Effect": "Allow", "NotAction": "sqs:*", "Resource": "*"})
    assert verdict({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::*"})
    assert not verdict({"Effect": "Allow", "Action": "*", "NotResource": QUEUE})


NOT_UNDERSTOOD = [{"StringWeird": {"a": "b"}}, {"ForSome:StringEquals": {"a": "b"}}, {"IpAddress": {"a": "x"}}]
SECOND = {"Effect": "Deny", "Action": "sqs:*", "Resource": QUEUE, "Sid": "NeverHere"}


def test_a_denial_wins_wherever_it_stands() -> None:
    for identity, resource, boundary in (
        ([policy(allow(), SECOND)], [], None),
        ([policy(allow()), policy(SECOND)], [], None),
        ([policy(allow())], [policy({**SECOND, "Principal": "*"})], None),
        ([policy(allow())], [], policy(allow(), SECOND)),
    ):
        found = decide(ask(), identity, resource=resource, boundary=boundary)
        assert (found.verdict, found.statement) == ("explicit deny", "NeverHere")


def test_limits_of_an_identity_do_not_bind_what_a_resource_allows() -> None:
    none = policy(allow(Action="s3:GetObject"))
    assert decide(ask(), [policy(allow())], boundary=policy(allow())).allowed
    assert decide(ask(), [policy(allow())], boundary=none).verdict == "deny"
    assert decide(ask(), [policy(allow())], session=none).verdict == "deny"
    by_resource = policy({**allow(), "Principal": {"AWS": "arn:aws:iam::000000000000:role/shop"}})
    assert decide(ask(), [], resource=[by_resource], boundary=none).allowed


@pytest.mark.parametrize(
    ("principal", "who", "allowed"),
    [
        ("*", ROLE, True),
        ({"AWS": "*"}, ROLE, True),
        ({"AWS": ["000000000000"]}, ROLE, True),
        ({"AWS": "arn:aws:iam::000000000000:root"}, ROLE, True),
        ({"AWS": "arn:aws:iam::000000000000:role/shop"}, ROLE, True),
        ({"AWS": ROLE}, ROLE, True),
        ({"AWS": "arn:aws:iam::000000000000:role/other"}, ROLE, False),
        ({"AWS": "arn:aws:iam::111111111111:root"}, ROLE, False),
        ({"Service": "sns.amazonaws.com"}, ROLE, False),
        ({"Service": ["events.amazonaws.com", "sns.amazonaws.com"]}, "sns.amazonaws.com", True),
        ({"AWS": "sns.amazonaws.com"}, "sns.amazonaws.com", False),
    ],
)
def test_principals(principal: Any, who: str, allowed: bool) -> None:
    request = Request(action="sqs:SendMessage", resource=QUEUE, principal=who, account="000000000000")
    assert decide(request, [], resource=[policy(allow(Principal=principal))]).allowed is allowed
    if principal not in ("*", {"AWS": "*"}):
        assert decide(request, [], resource=[policy(allow(NotPrincipal=principal))]).allowed is not allowed


@pytest.mark.parametrize(
    ("operator", "wanted", "found", "holds"),
    [
        ("StringEquals", "a", "a", True),
        ("StringEquals", ["x", "a"], "a", True),
        ("StringEquals", "A", "a", False),
        ("StringNotEquals", ["x", "a"], "a", False),
        ("StringNotEquals", ["x", "y"], "a", True),
        ("StringEqualsIgnoreCase", "A", "a", True),
        ("StringNotEqualsIgnoreCase", "A", "a", False),
        ("StringLike", "in/*.jpg", "in/a/b.jpg", True),
        ("StringLike", "in/?.jpg", "in/ab.jpg", False),
        ("StringNotLike", "in/*", "out/a", True),
        ("NumericEquals", "5", 5, True),
        ("NumericNotEquals", 5, "5.0", False),
        ("NumericLessThan", "10", 9, True),
        ("NumericLessThanEquals", "10", 10, True),
        ("NumericGreaterThan", "10", 10, False),
        ("NumericGreaterThanEquals", "10", "1e2", True),
        ("NumericEquals", "5", "five", False),
        ("DateLessThan", "2026-01-02T00:00:00Z", "2026-01-01T23:59:59Z", True),
        ("DateGreaterThan", "2026-01-01", 1767225601, True),
        ("DateEquals", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z", True),
        ("Bool", "true", True, True),
        ("Bool", True, False, False),
        ("BinaryEquals", "YWI=", "YWI=", True),
        ("IpAddress", "10.0.0.0/8", "10.1.2.3", True),
        ("IpAddress", ["192.168.0.0/16", "::1"], "10.1.2.3", False),
        ("NotIpAddress", "10.0.0.0/8", "11.1.2.3", True),
        ("IpAddress", "10.0.0.0/8", "nonsense", False),
        ("ArnLike", "arn:aws:sns:*:*:news", "arn:aws:sns:us-east-1:1:news", True),
        ("ArnEquals", "arn:aws:sns:us-east-1:1:n*", "arn:aws:sns:us-east-1:1:news", True),
        ("ArnNotLike", "arn:aws:sns:*:*:news", "arn:aws:sns:us-east-1:1:new", True),
    ],
)
def test_operators(operator: str, wanted: Any, found: Any, holds: bool) -> None:
    statement = allow(Condition={operator: {"aws:Key": wanted}})
    assert verdict(statement, aws__key=found) is holds
    absent = "Not" in operator
    assert verdict(statement) is absent, "a key that is not there satisfies only what is negated"
    assert verdict(allow(Condition={f"{operator}IfExists": {"aws:key": wanted}}), aws__key=found) is holds
    assert verdict(allow(Condition={f"{operator}IfExists": {"aws:key": wanted}}))


def test_several_conditions_must_all_hold() -> None:
    both = allow(Condition={"StringEquals": {"aws:a": "1", "aws:b": "2"}, "Bool": {"aws:c": "true"}})
    assert verdict(both, aws__a="1", aws__b="2", aws__c=True)
    for left_out in ("aws__a", "aws__b", "aws__c"):
        context: dict[str, Any] = {"aws__a": "1", "aws__b": "2", "aws__c": True}
        del context[left_out]
        assert not verdict(both, **context)


@pytest.mark.parametrize(
    ("quantifier", "found", "holds"),
    [
        ("ForAllValues", ["a"], True),
        ("ForAllValues", ["a", "b"], True),
        ("ForAllValues", ["a", "c"], False),
        ("ForAllValues", [], True),
        ("ForAnyValue", ["c", "b"], True),
        ("ForAnyValue", ["c"], False),
        ("ForAnyValue", [], False),
    ],
)
def test_keys_of_many_values(quantifier: str, found: list[str], holds: bool) -> None:
    statement = allow(Condition={f"{quantifier}:StringEquals": {"aws:TagKeys": ["a", "b"]}})
    assert verdict(statement, aws__tagkeys=found) is holds
    assert verdict(statement) is (quantifier == "ForAllValues")


def test_null_asks_whether_a_key_is_there() -> None:
    there, absent = allow(Condition={"Null": {"aws:k": "false"}}), allow(Condition={"Null": {"aws:k": True}})
    assert (verdict(there, aws__k=""), verdict(there)) == (True, False)
    assert (verdict(absent, aws__k=""), verdict(absent)) == (False, True)


@pytest.mark.parametrize("condition", NOT_UNDERSTOOD)
def test_what_is_not_understood_never_allows_and_always_denies(condition: dict[str, Any]) -> None:
    assert not verdict(allow(Condition=condition), a="b")
    denying = policy(allow(), {**SECOND, "Condition": condition})
    assert decide(ask(a="b"), [denying]).verdict == "explicit deny"


def test_variables_are_the_requests_values() -> None:
    home = allow(Action="s3:GetObject", Resource="arn:aws:s3:::homes/${aws:username}/*")
    request = ask("s3:GetObject", "arn:aws:s3:::homes/ann/a", aws__username="ann")
    assert verdict(home, request)
    assert not verdict(home, ask("s3:GetObject", "arn:aws:s3:::homes/bob/a", aws__username="ann"))
    assert not verdict(home, ask("s3:GetObject", "arn:aws:s3:::homes//a"))
    for star in ("*", "a*", "?nn"):  # a name is never a pattern
        assert not verdict(home, ask("s3:GetObject", "arn:aws:s3:::homes/ann/a", aws__username=star))
    assert verdict(home, ask("s3:GetObject", "arn:aws:s3:::homes/a*/a", aws__username="a*"))
    defaulted = allow(Condition={"StringLike": {"aws:k": "${aws:username, 'nobody'}-*"}})
    assert verdict(defaulted, aws__k="nobody-1")
    assert verdict(defaulted, aws__k="ann-1", aws__username="ann")
    literal = allow(Condition={"StringLike": {"aws:k": "a${*}b*"}})
    assert (verdict(literal, aws__k="a*bc"), verdict(literal, aws__k="axbc")) == (True, False)
    old = policy(home, version="2008-10-17")
    assert decide(ask("s3:GetObject", "arn:aws:s3:::homes/${aws:username}/a"), [old]).allowed, "before 2012 they are text"


def test_a_pattern_bomb_takes_no_time() -> None:
    pattern = "arn:aws:s3:::" + "*a" * 60 + "b"
    assert not verdict(allow(Action="s3:*", Resource=pattern), ask("s3:GetObject", "arn:aws:s3:::" + "a" * 1000))


# --- beside a plain evaluation

Statements = list[dict[str, Any]]
NAMES = st.sampled_from(["a", "ab", "b", "a*", "*", "?b", "*b*"])
STATEMENTS = st.lists(
    st.builds(
        lambda effect, action, resource, key, wanted: {
            "Effect": effect,
            "Action": [f"s:{one}" for one in action],
            "Resource": resource,
            **({"Condition": {"StringLike": {"k": wanted}}} if key else {}),
        },
        st.sampled_from(["Allow", "Allow", "Deny"]),
        st.lists(NAMES, min_size=1, max_size=2),
        NAMES,
        st.booleans(),
        NAMES,
    ),
    min_size=1,
    max_size=4,
)
PLAIN = st.sampled_from(["a", "ab", "b", "bb", "cab"])


def plainly(statements: Statements, action: str, resource: str, k: str | None) -> bool:
    def like(pattern: str, value: str) -> bool:
        return bool(re.fullmatch("".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern), value))

    def applies(one: dict[str, Any]) -> bool:
        wanted = one.get("Condition", {}).get("StringLike", {}).get("k")
        fits = wanted is None or (k is not None and like(wanted, k))
        return fits and any(like(pattern, f"s:{action}") for pattern in one["Action"]) and like(one["Resource"], resource)

    effects = {one["Effect"] for one in statements if applies(one)}
    return effects == {"Allow"}


@given(STATEMENTS, PLAIN, PLAIN, st.none() | PLAIN)
def test_it_decides_as_a_plain_evaluation_does(statements: Statements, action: str, resource: str, k: str | None) -> None:
    context = {} if k is None else {"k": k}
    request = Request(action=f"s:{action}", resource=resource, context=context)
    assert decide(request, [policy(*statements)]).allowed is plainly(statements, action, resource, k)


@given(STATEMENTS, STATEMENTS, PLAIN, PLAIN)
def test_a_further_denial_never_allows(statements: Statements, more: Statements, action: str, resource: str) -> None:
    request = Request(action=f"s:{action}", resource=resource, context={"k": "a"})
    denials = [{**one, "Effect": "Deny"} for one in more]
    before = decide(request, [policy(*statements)]).allowed
    after = decide(request, [policy(*statements), policy(*denials)]).allowed
    assert before or not after
