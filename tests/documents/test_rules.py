"""Row rules: what lets somebody in, and that nothing does by accident."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.documents.rules import Rules
from martlet.errors import MartletError

ADA = {"sub": "ada", "email": "ada@example.com", "groups": ["editors"]}


def test_what_has_no_rule_is_denied() -> None:
    rules = Rules()
    assert not rules.readable({"owner": "ada"}, ADA)
    assert not rules.writable({"owner": "ada"}, ADA)
    only_read = Rules(read="true")
    assert (only_read.readable({}, ADA), only_read.writable({}, ADA)) == (True, False)


@pytest.mark.parametrize(
    ("rule", "document", "holds"),
    [
        ("document.owner == user.sub", {"owner": "ada"}, True),
        ("document.owner == user.sub", {"owner": "bob"}, False),
        ("document.owner == user.sub", {}, False),
        ("document.owner == user.sub", None, False),
        ("document.owner == user.sub", "ada", False),
        ("document.owner == user.sub", {"owner": ["ada"]}, False),
        ("document.owner == user.sub", {"owner": {"sub": "ada"}}, False),
        ("user.sub in document.readers", {"readers": ["bob", "ada"]}, True),
        ("user.sub in document.readers", {"readers": "bob, eve"}, False),
        ("user.sub in document.readers", {"readers": "bob, ada"}, True),  # of a text, `in` asks for a part
        ('"editors" in user.groups', {}, True),
        ('"admins" in user.groups', {}, False),
        ("not (document.secret == true)", {}, True),
        ('document.kind == "user" and document.owner == user.sub', {"kind": "user", "owner": "ada"}, True),
        ("document.user.sub == user.sub", {"user": {"sub": "ada"}}, True),
        ("document.level", {"level": 1}, False),  # only true is true
        ("document.level", {"level": "true"}, False),
        ("document.a / document.b > 1", {"a": 1, "b": 0}, False),
    ],
)
def test_only_true_lets_anybody_in(rule: str, document: Any, holds: bool) -> None:
    rules = Rules(rule, rule)
    assert (rules.readable(document, ADA), rules.writable(document, ADA)) == (holds, holds)


@pytest.mark.parametrize(
    "rule",
    [
        "owner == user.sub",  # whose owner?
        "document.owner == $sub",
        "document.team == user.team",  # null == null would be true where a document has none
        "document.owner == user",
        "document.team == (user).team",
        "document.team == [user][0].team",
        "document.team == user [0]",
        "document.team == coalesce(user, null).team",
        "document.owner ==",
        "document.owner == user.sub; true",
        "__import__('os')",
        "document.a == " + "(" * 5_000 + "1" + ")" * 5_000,
        " + ".join(["document.a"] * 20_000),
    ],
)
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(MartletError):
        Rules(rule)
