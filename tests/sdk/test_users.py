"""Users in decorators: what they become in the graph, what is refused at deploy, and what a handler is given."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import msgspec
import pytest

from martlet import App, Collection, DeclarationError, Queue, Request, User, Users
from martlet.apps.graph import check
from martlet.errors import DeployFailed
from martlet.sdk import graph


def module(**names: Any) -> ModuleType:
    made = ModuleType("app")
    vars(made).update(names)
    return made


def declared(app: App, **names: Any) -> dict[str, Any]:
    return graph.emit(module(app=app, **names), "shop")


def nothing(schedule: str, timezone: str) -> None:
    return None


def test_users_become_a_route_and_a_declaration() -> None:
    app, users = App("shop"), Users("people", issuer="https://shop.example/auth")
    app.mount_users("/auth/", users, cors="https://shop.example")

    @app.get("/me", user=users, uses=[users.read])
    def me(user: User) -> str:
        return user.id

    found = declared(app, me=me)
    assert found["users"] == [
        {"name": "people", "path": "/auth", "sender": "", "sign_up": "open", "issuer": "https://shop.example/auth"}
    ]
    mounted, route = found["routes"]
    assert (mounted["method"], mounted["path"], mounted["users"]) == ("ANY", "/auth/{proxy+}", "people")
    assert mounted["cors"]["origins"] == ["https://shop.example"]
    assert (route["path"], route["user"], found["functions"][0]["users"]) == ("/me", "people", ["people:read"])
    del found["app"]
    assert check("shop", found, nothing).users[0].name == "people"


def test_an_app_may_be_users_alone() -> None:
    app = App("shop")
    app.mount_users("/auth", Users("people"))
    found = declared(app)
    del found["app"]
    assert check("shop", found, nothing).users[0].path == "/auth"


@pytest.mark.parametrize(
    ("users", "path", "said"),
    [
        (Users("no name"), "/auth", "a name is up to"),
        (Users("people"), "/", "no path of plain words"),
        (Users("people"), "/a/{id}", "no path of plain words"),
        (Users("people", sign_up="maybe"), "/auth", "sign_up="),
        (Users("people", issuer="shop.example"), "/auth", "issuer="),
        (Users("people", issuer="https://shop.example/auth/"), "/auth", "issuer="),
        (Users("people", sender=Queue("mail")), "/auth", "sender="),
        ("people", "/auth", "takes Users"),
    ],
)
def test_wrong_users_are_named(users: Any, path: str, said: str) -> None:
    app = App("shop")
    app.mount_users(path, users)
    with pytest.raises(DeclarationError, match=said):
        declared(app)


def test_routes_and_uses_name_users_that_are_mounted() -> None:
    app, users = App("shop"), Users("people")

    @app.get("/a", user=users)
    def a() -> None: ...

    @app.get("/b", user="people")  # type: ignore[arg-type]
    def b() -> None: ...

    @app.get("/c", uses=[users])
    def c() -> None: ...

    @app.get("/d")
    def d(user: User) -> None: ...

    with pytest.raises(DeclarationError) as caught:
        declared(app)
    assert [line.partition(": ")[2] for line in str(caught.value).splitlines()] == [
        "c: Users('people') is not mounted: app.mount_users(\"/auth\", …)",
        "d: it takes a User, so each of its routes says user=",
        "a: Users('people') is not mounted: app.mount_users(\"/auth\", …)",
        "b: user='people': it is Users",
    ]


def test_old_payloads_and_proxies_have_no_users() -> None:
    app, users = App("shop"), Users("people")
    app.mount_users("/auth", users)
    app.mount_users("/too", users)

    @app.get("/a", user=users, payload="1.0")
    def a() -> None: ...

    with pytest.raises(DeclarationError, match=r"payload 2.0 only[\s\S]*mounted twice"):
        declared(app)
    with pytest.raises(DeclarationError, match="the server has to check tokens itself"):
        app.proxy("/p", to="http://127.0.0.1:1", user=users)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "change",
    [
        {"users": []},
        {"users": [{"name": "people", "path": "/other"}]},
        {"users": [{"name": "people", "path": "/auth", "sender": "nobody"}]},
        {"users": [{"name": "people", "path": "/auth", "sender": "other-app-mail"}]},
        {"users": [{"name": "people", "path": "/auth", "issuer": "javascript:alert(1)"}]},
        {"routes": [{"method": "ANY", "path": "/auth/{proxy+}", "users": "people", "function": "f"}]},
        {"routes": [{"method": "ANY", "path": "/auth/{proxy+}", "users": "others"}]},
        {"functions": [{"name": "f", "handler": "app:f", "users": ["others"]}]},
        {"functions": [{"name": "f", "handler": "app:f", "users": ["people:write"]}]},
    ],
)
def test_the_platform_does_not_trust_what_the_app_says(change: dict[str, Any]) -> None:
    """The graph comes out of a sandbox: all that `emit` checks is checked again."""
    sound: dict[str, Any] = {
        "functions": [{"name": "f", "handler": "app:f"}],
        "routes": [{"method": "ANY", "path": "/auth/{proxy+}", "users": "people"}],
        "users": [{"name": "people", "path": "/auth"}],
    }
    assert check("shop", sound, nothing).users
    with pytest.raises(DeployFailed):
        check("shop", {**sound, **change}, nothing)


RULES = {"read": "document.owner == user.sub", "write": '"admins" in user.groups'}


def test_rules_of_a_collection_are_declared() -> None:
    app = App("shop")
    app.mount_users("/auth", Users("people"))
    found = declared(app, notes=Collection("notes", rules=RULES), plain=Collection("plain"))
    assert found["rules"] == [{"collection": "notes", **RULES}]
    del found["app"]
    assert check("shop", found, nothing).rules[0].read == RULES["read"]


@pytest.mark.parametrize("rules", [{}, {"reads": "true"}, {"read": ""}, {"read": True}, "true", []])
def test_rules_that_are_none_are_named(rules: Any) -> None:
    app = App("shop")
    app.mount_users("/auth", Users("people"))
    with pytest.raises(DeclarationError, match="rules="):
        declared(app, notes=Collection("notes", rules=rules))


def test_rules_are_for_one_users() -> None:
    app = App("shop")

    @app.get("/")
    def index() -> None: ...

    with pytest.raises(DeclarationError, match="mount one Users, not 0"):
        declared(app, notes=Collection("notes", rules=RULES))
    app.mount_users("/auth", Users("people"))
    with pytest.raises(DeclarationError, match="whose rules differ"):
        declared(app, notes=Collection("notes", rules=RULES), again=Collection("notes", rules={"read": "true"}))
    app.mount_users("/staff", Users("staff"))
    with pytest.raises(DeclarationError, match="mount one Users, not 2"):
        declared(app, notes=Collection("notes", rules=RULES))


@pytest.mark.parametrize(
    "rules",
    [
        [{"collection": "notes", "read": "owner == user.sub"}],
        [{"collection": "notes", "read": "document.x == user.team"}],
        [{"collection": "notes", "read": "((("}],
        [{"collection": "no/name", "read": "true"}],
        [{"collection": "notes", "read": "true"}, {"collection": "notes", "read": "false"}],
    ],
)
def test_the_platform_checks_rules_again(rules: Any) -> None:
    sound: dict[str, Any] = {
        "routes": [{"method": "ANY", "path": "/auth/{proxy+}", "users": "people"}],
        "users": [{"name": "people", "path": "/auth"}],
    }
    with pytest.raises(DeployFailed):
        check("shop", {**sound, "rules": rules}, nothing)
    with pytest.raises(DeployFailed, match="0 users"):
        check(
            "shop",
            {
                "functions": [{"name": "f", "handler": "app:f"}],
                "routes": [{"method": "GET", "path": "/", "function": "f"}],
                "rules": [{"collection": "notes", "read": "true"}],
            },
            nothing,
        )


def test_a_user_is_read_from_the_claims() -> None:
    claims = {"sub": "7", "email": "ada@example.com", "groups": "[admins editors]"}
    user = User(claims)
    assert (user.id, user.email, user.groups, repr(user)) == ("7", "ada@example.com", ("admins", "editors"), "User('7')")
    assert User({"sub": "7", "groups": "[]"}).groups == ()
    event = {"rawPath": "/me", "requestContext": {"http": {"method": "GET"}, "authorizer": {"jwt": {"claims": claims}}}}
    from martlet.sdk.signature import http_handler

    def me(user: User) -> None: ...

    assert http_handler(me, [("GET", "/me")]).bind(Request(event))["user"].id == "7"
    assert msgspec.json.encode(claims)
