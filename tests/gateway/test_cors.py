"""CORS: who is allowed, and what a preflight says."""

from __future__ import annotations

import pytest

from martlet.errors import InvalidInput
from martlet.gateway.cors import CorsPolicy
from martlet.types import Cors


def policy(**fields: object) -> CorsPolicy:
    return CorsPolicy(Cors(**fields), "GET")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (("https://a.com",), b"https://a.com", True),
        (("https://a.com",), b"HTTPS://A.com", True),
        (("https://a.com",), b"http://a.com", False),
        (("https://a.com",), b"https://a.com.evil.com", False),
        (("https://a.com",), b"https://a.com:8443", False),
        (("https://a.com",), b"null", False),
        (("https://*.a.com",), b"https://x.a.com", True),
        (("https://*.a.com",), b"https://x.y.a.com", True),
        (("https://*.a.com",), b"https://a.com", False),
        (("https://*.a.com",), b"https://.a.com", False),
        (("https://*.a.com",), b"https://evila.com", False),
        (("https://*",), b"https://anything", True),
        (("https://*",), b"http://anything", False),
        (("*",), b"null", True),
        ((), b"https://a.com", False),
    ],
)
def test_origins(origins: tuple[str, ...], origin: bytes, allowed: bool) -> None:
    headers = dict(policy(origins=origins).headers(origin))
    assert (b"access-control-allow-origin" in headers) is allowed


def test_a_named_origin_is_echoed_with_vary_and_any_is_a_star() -> None:
    named = dict(policy(origins=("https://a.com",), credentials=True, expose=("X-One", "X-Two")).headers(b"https://a.com"))
    assert named == {
        b"access-control-allow-origin": b"https://a.com",
        b"vary": b"Origin",
        b"access-control-allow-credentials": b"true",
        b"access-control-expose-headers": b"X-One, X-Two",
    }
    assert policy(origins=("*",)).headers(b"https://a.com") == [(b"access-control-allow-origin", b"*")]


def test_an_answer_without_origin_still_varies() -> None:
    assert policy(origins=("https://a.com",)).headers(None) == [(b"vary", b"Origin")]


def test_a_preflight_grants_what_is_declared_and_no_more() -> None:
    cors = policy(origins=("https://a.com",), methods=("GET", "put"), headers=("Content-Type", "X-A"), max_age_seconds=60)
    granted = dict(cors.preflight(b"https://a.com", b"PUT", b"content-type, x-evil"))
    assert granted[b"access-control-allow-methods"] == b"GET, PUT"
    assert granted[b"access-control-allow-headers"] == b"content-type"
    assert granted[b"access-control-max-age"] == b"60"
    assert b"access-control-allow-origin" not in dict(cors.preflight(b"https://a.com", b"DELETE", None))
    assert b"access-control-allow-origin" not in dict(cors.preflight(b"https://b.com", b"PUT", None))


def test_stars_echo_what_is_asked_for() -> None:
    granted = dict(policy(origins=("*",), methods=("*",), headers=("*",)).preflight(b"null", b"PATCH", b"X-A,x-b"))
    assert granted[b"access-control-allow-methods"] == b"PATCH"
    assert granted[b"access-control-allow-headers"] == b"x-a, x-b"


@pytest.mark.parametrize(
    "fields",
    [
        {"origins": ("*",), "credentials": True},
        {"origins": ("a.com",)},
        {"origins": ("https://a.com/",)},
        {"origins": ("https://a.com/path",)},
        {"origins": ("https://*a.com",)},
        {"origins": ("https://a.*.com",)},
        {"origins": ("https://",)},
        {"origins": ("https://a.com, https://b.com",)},
        {"origins": ("https://a.com\r\nX: y",)},
        {"origins": ("https://a.com",), "expose": ("X\r\nY: z",)},
        {"origins": ("https://a.com",), "methods": ("GET, PUT",)},
    ],
)
def test_policies_that_could_not_work_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        policy(**fields)
