"""Somebody signs up, is mailed a code by the app's own function, signs in, and is let in by routes; all over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import APPS, eventually
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e

ADA, SECRET = "ada@example.com", "correct horse battery"


@pytest.fixture(scope="module")
def platform(start: Start) -> RunningPlatform:
    return start(APPS / "people.py", "--no-watch")


@pytest.fixture(scope="module")
def client(platform: RunningPlatform) -> Any:
    with httpx.Client(base_url=platform.app_url, timeout=30) as opened:
        yield opened


def code(client: httpx.Client, kind: str) -> str:
    """What the sender was told."""
    return str(eventually(lambda: client.get(f"/box/{kind} {ADA}").json().get("code")))


def test_from_sign_up_to_a_route_and_out_again(client: httpx.Client) -> None:
    said = client.post("/auth/sign-up", json={"email": "Ada@Example.com", "password": SECRET})
    assert (said.status_code, said.json(), said.headers["cache-control"]) == (202, {"status": "code_sent"}, "no-store")
    verified = client.post("/auth/verify", json={"email": ADA, "code": code(client, "verify"), "password": SECRET})
    assert verified.status_code == 201
    tokens = verified.json()
    bearer = {"authorization": f"Bearer {tokens['access_token']}"}
    me = client.get("/me", headers=bearer).json()
    assert (me["email"], me["groups"]) == (ADA, [])
    claims = client.get("/claims", headers=bearer).json()["jwt"]["claims"]
    assert (claims["sub"], claims["email_verified"], claims["groups"]) == (me["id"], "true", "[]")
    own, others = {"owner": me["id"], "text": "mine"}, {"owner": "somebody"}
    assert client.put("/auth/documents/notes/a%2F1", json=own, headers=bearer).status_code == 201
    assert client.put("/auth/documents/notes/b", json=others, headers=bearer).json()["reason"] == "rule"
    listed = client.get("/auth/documents/notes", headers=bearer).json()
    assert listed == {"items": [{"id": "a/1", "version": 1, "value": own}], "next": None}
    assert client.get("/auth/documents/box", headers=bearer).status_code == 404  # it has no rules
    assert client.get("/auth/documents/notes").status_code == 401
    assert client.post(f"/promote/{me['id']}").json()["groups"] == ["admins"]
    assert client.post(f"/meddle/{me['id']}").json()["email"] == ADA
    assert "users:Write" in client.post(f"/meddle/{me['id']}").json()["refused"]
    renewed = client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
    bearer = {"authorization": f"Bearer {renewed['access_token']}"}
    assert client.get("/me", headers=bearer).json()["groups"] == ["admins"]
    assert client.post("/auth/sign-out", headers=bearer).status_code == 204
    assert client.get("/me", headers=bearer).json()["reason"] == "invalid_token"
    signed_in = client.post("/auth/sign-in", json={"email": ADA, "password": SECRET})
    assert (signed_in.status_code, signed_in.json()["token_type"], signed_in.json()["expires_in"]) == (200, "Bearer", 900)
    client.post("/auth/password-reset", json={"email": ADA})
    new = {"email": ADA, "code": code(client, "reset"), "password": "another password"}
    assert client.post("/auth/password-reset/confirm", json=new).status_code == 204
    assert client.post("/auth/sign-in", json={"email": ADA, "password": SECRET}).json()["reason"] == "invalid_credentials"


def test_nobody_gets_in_without(client: httpx.Client) -> None:
    for header in ({}, {"authorization": "Bearer x.y.z"}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer"}):
        answer = client.get("/me", headers=header)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/auth/me").status_code == 401


def test_an_end_user_is_nobody_to_the_platform(client: httpx.Client, platform: RunningPlatform) -> None:
    """The token of an app's user opens no door of the platform: not the management API, not GraphQL, not AWS's protocols."""
    mail = "eve@example.com"
    client.post("/auth/sign-up", json={"email": mail, "password": SECRET})
    sent = str(eventually(lambda: client.get(f"/box/verify {mail}").json().get("code")))
    tokens = client.post("/auth/verify", json={"email": mail, "code": sent, "password": SECRET}).json()
    bearer = {"authorization": f"Bearer {tokens['access_token']}"}
    with httpx.Client(base_url=platform.api_url, timeout=30, headers=bearer) as api:
        for method, path in (
            ("GET", "/v1/apps"),
            ("GET", "/v1/users/people/members"),
            ("GET", "/v1/documents/box?app=people"),
            ("GET", "/v1/documents/notes?app=people"),
            ("GET", "/v1/collections?app=people"),
            ("POST", "/v1/graphql?app=people"),
            ("POST", "/v1/users/people/members/keys"),
        ):
            assert api.request(method, path).status_code == 401, path
        target = {"x-amz-target": "AmazonSQS.ListQueues", "content-type": "application/x-amz-json-1.0"}
        assert api.post("/", content=b"{}", headers=target).status_code in (400, 401, 403)


@pytest.mark.parametrize(
    ("method", "path", "content", "media", "status"),
    [
        ("POST", "sign-in", b"email=a&password=b", "application/x-www-form-urlencoded", 415),
        ("POST", "sign-in", b'{"email":"a@b.example","password":"x"}', "text/plain", 415),
        ("POST", "sign-in", b"{", "application/json", 400),
        ("POST", "sign-in", b"\xff\xfe", "application/json", 400),
        ("POST", "sign-in", b'{"email":["a@b.example"],"password":"x"}', "application/json", 400),
        ("POST", "sign-in", b'{"email":"a@b.example"}', "application/json", 400),
        ("POST", "sign-up", b'{"email":"a@b.example","password":"x","groups":"admins"}', "application/json", 400),
        ("POST", "sign-in", b"[" * 10_000, "application/json", 400),
        ("POST", "sign-in", b"a" * 20_000, "application/json", 413),
        ("GET", "sign-in", b"", "", 405),
        ("POST", "sign-in?x=1", b"{}", "application/json", 400),
        ("GET", "admin", b"", "", 404),
        ("GET", "%2e%2e/me", b"", "", 404),
    ],
)
def test_hostile_requests_are_refused(
    client: httpx.Client, method: str, path: str, content: bytes, media: str, status: int
) -> None:
    answer = client.request(method, f"/auth/{path}", content=content, headers={"content-type": media})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_page_of_another_origin_may_only_where_it_is_said(client: httpx.Client) -> None:
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,authorization"}
    allowed = client.options("/auth/sign-in", headers={"origin": "https://spa.example", **ask})
    assert allowed.headers["access-control-allow-origin"] == "https://spa.example"
    other = client.options("/auth/sign-in", headers={"origin": "https://evil.example", **ask})
    assert "access-control-allow-origin" not in other.headers
    plain = client.get("/auth/.well-known/jwks.json", headers={"origin": "https://spa.example"})
    assert plain.headers["access-control-allow-origin"] == "https://spa.example"
