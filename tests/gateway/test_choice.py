"""Shares: as large as they say, and no client changes sides without need."""

from __future__ import annotations

from itertools import pairwise

import pytest

from martlet.gateway.choice import Choice, client_key
from martlet.gateway.head import Request, join, parse_fields, parse_line
from martlet.types import Route

CLIENTS = 10_000


def request(number: int = 0, headers: str = "") -> Request:
    found = parse_line(b"GET / HTTP/1.1")
    join(found, parse_fields(f"Host: a\r\n{headers}".encode()))
    found.client = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)
    return found


def choice(share: float, by: str = "address", app: str = "shop") -> Choice:
    return Choice(app, Route(method="GET", path="/", function="f", share=share, by=by))


def taken(share: float, by: str = "address", app: str = "shop") -> set[int]:
    one = choice(share, by, app)
    return {number for number in range(CLIENTS) if one.takes(request(number))}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 10.0, 50.0, 90.0, 99.5, 100.0])
@pytest.mark.parametrize("by", ["address", "request"])
def test_the_share_is_exact_to_one_percent_of_ten_thousand(share: float, by: str) -> None:
    assert abs(len(taken(share, by)) / CLIENTS * 100 - share) <= (1 if by == "address" else 0.05)


def test_a_share_that_grows_takes_more_and_gives_none_back() -> None:
    shares = [taken(share) for share in (0, 10, 50, 100)]
    assert all(before <= after for before, after in pairwise(shares))


def test_apps_draw_other_lines_and_a_deployment_the_same() -> None:
    assert taken(50) == taken(50)
    both = taken(50) & taken(50, app="other")
    assert abs(len(both) / CLIENTS - 0.25) < 0.02


@pytest.mark.parametrize(
    ("by", "headers", "key"),
    [
        ("address", "", b"10.0.0.7"),
        ("header:X-User", "x-user: ada\r\n", b"ada"),
        ("header:x-user", "", b"10.0.0.7"),
        ("cookie:session", "Cookie: a=1; session=s7; b=2\r\n", b"s7"),
        ("cookie:session", "Cookie: my-session=1\r\n", b"10.0.0.7"),
    ],
)
def test_who_a_client_is(by: str, headers: str, key: bytes) -> None:
    assert client_key(request(7, headers), by) == key


def test_headers_and_share_are_both_asked() -> None:
    one = Choice("shop", Route(method="GET", path="/", function="f", when=(("x-beta", "1"), ("x-user", "*")), share=0.0))
    assert not one.takes(request(1, "X-Beta: 1\r\nX-User: a\r\n"))
    one = Choice("shop", Route(method="GET", path="/", function="f", when=(("x-beta", "1"), ("x-user", "*"))))
    assert one.takes(request(1, "X-Beta: 1\r\nX-User: a\r\n"))
    assert not one.takes(request(1, "X-Beta: 1\r\n"))
    assert not one.takes(request(1, "X-Beta: 11\r\nX-User: a\r\n"))
