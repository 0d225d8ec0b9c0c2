"""`authorize` denies by default; `function_principal` grants what is declared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.auth import DOCUMENT_ACTIONS, INVOKE, authorize, function_principal
from martlet.errors import AccessDenied, InvalidInput
from martlet.types import ANONYMOUS, FunctionConfig, FunctionVersion, Principal

WORD = st.text(st.characters(codec="utf-8"), max_size=12)


def version(**config: object) -> FunctionVersion:
    told = FunctionConfig(name="orders", handler="m:f", **config)  # type: ignore[arg-type]
    return FunctionVersion(name="shop-orders", app="shop", version=1, config=told, code="0" * 64)


def allowed(principal: Principal, action: str, resource: str) -> bool:
    try:
        authorize(principal, action, resource)
    except AccessDenied:
        return False
    return True


@given(WORD, WORD)
def test_root_may_everything_and_nobody_else_anything(action: str, resource: str) -> None:
    assert allowed(Principal("root", "root"), action, resource)
    for kind in ("function", "service", "anonymous"):
        assert not allowed(Principal(kind, "x"), action, resource)


@given(WORD, WORD)
def test_the_anonymous_have_no_grants_whatever_they_carry(action: str, resource: str) -> None:
    assert not allowed(Principal("anonymous", "", frozenset({("*", "*")})), action, resource)
    assert not allowed(ANONYMOUS, action, resource)


@pytest.mark.parametrize(
    ("grant", "action", "resource", "right"),
    [
        (("lambda:InvokeFunction", "shop-pay"), "lambda:InvokeFunction", "shop-pay", True),
        (("lambda:InvokeFunction", "shop-pay"), "lambda:InvokeFunction", "shop-pay2", False),
        (("lambda:InvokeFunction", "shop-pay"), "lambda:InvokeFunction", "Shop-pay", False),
        (("lambda:InvokeFunction", "shop-pay"), "lambda:InvokeFunction", "*", False),
        (("lambda:InvokeFunction", "shop-pay"), "lambda:*", "shop-pay", False),
        (("lambda:InvokeFunction", "shop-*"), "lambda:InvokeFunction", "shop-pay", True),
        (("lambda:InvokeFunction", "shop-*"), "lambda:InvokeFunction", "shop", False),
        (("documents:*", "shop/*"), "documents:Put", "shop/carts", True),
        (("documents:*", "shop/*"), "documents:Put", "shopping/carts", False),
        (("documents:Get", "shop/*"), "documents:Put", "shop/carts", False),
        (("*", "*"), "anything", "at all", True),
        (("", ""), "a", "b", False),
        (("a*b", "c"), "axb", "c", False),
    ],
)
def test_a_grant_is_exact_or_ends_with_a_star(grant: tuple[str, str], action: str, resource: str, right: bool) -> None:
    assert allowed(Principal("function", "f", frozenset({grant})), action, resource) is right


def test_a_denial_names_who_what_and_where() -> None:
    with pytest.raises(AccessDenied) as caught:
        authorize(Principal("function", "shop-orders"), "documents:Put", "shop/carts")
    assert caught.value.message == "function shop-orders may not documents:Put on shop/carts"
    asked = {"action": "documents:Put", "resource": "shop/carts"}
    missing = {"Effect": "Allow", "Action": "documents:Put", "Resource": "shop/carts"}
    assert caught.value.details == {"principal": "shop-orders", **asked, "missing": missing}


def test_a_function_may_what_its_configuration_declares() -> None:
    principal = function_principal(version(uses=("pay",), documents=("carts",)))
    assert (principal.kind, principal.name) == ("function", "shop-orders")
    assert allowed(principal, INVOKE, "shop-pay")
    assert not allowed(principal, INVOKE, "shop-orders")
    assert not allowed(principal, INVOKE, "other-pay")
    for action in DOCUMENT_ACTIONS:
        assert allowed(principal, action, "shop/carts")
        assert not allowed(principal, action, "shop/users")
        assert not allowed(principal, action, "other/carts")
    assert function_principal(version()).grants == frozenset()


@pytest.mark.parametrize("field", ["uses", "documents"])
@pytest.mark.parametrize("name", ["*", "p*", "", "../other/carts"])
def test_a_declaration_cannot_be_a_pattern(field: str, name: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        function_principal(version(**{field: (name,)}))
