"""DNS rebinding: a page under its own name must not reach the API."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.auth import check_host
from martlet.errors import AccessDenied


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8701",
        "localhost.:8701",
        "shop.localhost",
        "a.b.localhost:1",
        "127.0.0.1",
        "127.0.0.1:8701",
        "10.1.2.3:80",
        "[::1]",
        "[::1]:8701",
        "[fe80::1]:1",
        "api.example.com",
        "API.Example.com:443",
        "x.apps.example.com",
    ],
)
def test_good_hosts(host: str) -> None:
    check_host(host, ["api.example.com", "*.apps.example.com"])


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "evil.com",
        "localhost.evil.com",
        "evil-localhost",
        "notlocalhost",
        "127.0.0.1.evil.com",
        "127.0.0.1.nip.io:8701",
        "127.1",
        "2130706433",
        "0x7f.1",
        "localhost@evil.com",
        "evil.com@localhost",
        "evil.com#localhost",
        "evil.com,localhost",
        "localhost, evil.com",
        "localhost:80:90",
        "localhost:abc",
        "localhost\n",
        "localhost/../evil.com",
        "[::1].evil.com",
        "[::1",
        "::1",
        "[evil.com]",
        "[fe80::1%25eth0]",
        "apps.example.com",
        "xapps.example.com",
        "xapi.example.com",
        "api.example.com.evil.com",
        "localhoſt",
        "ⓛocalhost",
    ],
)
def test_bad_hosts(host: str) -> None:
    with pytest.raises(AccessDenied):
        check_host(host, ["api.example.com", "*.apps.example.com"])


@given(st.text(max_size=30))
def test_garbage_is_refused_or_plain(host: str) -> None:
    try:
        check_host(host)
    except AccessDenied:
        return
    assert host.isascii()
