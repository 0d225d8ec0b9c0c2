"""Network: nothing but the platform's own private door is there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.security.stage import Stage

UNREACHABLE = {"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "TimeoutError", "EACCES", "EPERM", "EINVAL"}
_REFUSED = ("HTTP/1.1 403 ", "HTTP/1.1 400 ", "HTTP/1.1 502 ")  # not allowed, malformed, nothing there


class Listener:
    """A service of the host on `address`; counts who came."""

    def __init__(self, address: str = "127.0.0.1", family: int = socket.AF_INET) -> None:
        self.visits = 0
        self._socket = socket.socket(family)
        self._socket.bind((address, 0))
        self._socket.listen(16)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhost secret")
            visitor.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def host_service() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.close()


def test_services_on_the_hosts_loopback_are_not_reached(attacked: Stage, host_service: Listener) -> None:
    targets = [[address, host_service.port] for address in ("127.0.0.1", "0.0.0.0", "127.1.2.3", "::1", "::ffff:127.0.0.1")]
    found = attacked.attack("network.tcp_each", targets=targets)
    assert set(found.values()) <= UNREACHABLE
    assert host_service.visits == 0


def test_the_platforms_listeners_are_not_reached(attacked: Stage) -> None:
    ports = [attacked.platform.port, attacked.platform.endpoint["api_port"]]
    found = attacked.attack("network.tcp_each", targets=[["127.0.0.1", port] for port in ports])
    assert set(found.values()) <= UNREACHABLE


def test_the_world_is_not_reached(attacked: Stage) -> None:
    targets = [["169.254.169.254", 80], ["1.1.1.1", 53], ["10.0.0.1", 80], ["2606:4700::1111", 53], ["fd00:ec2::254", 80]]
    assert set(attacked.attack("network.tcp_each", targets=targets).values()) <= UNREACHABLE
    assert set(attacked.attack("network.udp_each", targets=targets).values()) <= UNREACHABLE
    assert attacked.attack("network.udp", address="255.255.255.255", port=9) in UNREACHABLE


def test_names_are_not_resolved(attacked: Stage) -> None:
    assert attacked.attack("network.resolve", name="example.com") in ("gaierror", "EAI_AGAIN")


def test_only_loopback_is_there(attacked: Stage) -> None:
    assert attacked.attack("network.interfaces") == ["lo"]


def test_neighbours_private_doors_are_not_reached(attacked: Stage) -> None:
    """Two sandboxes at the same time: a port that one opens is not there for the other."""
    with ThreadPoolExecutor(2) as pool:
        offer = pool.submit(attacked.attack, "network.listen_and_wait", "small", port=7777, seconds=1)
        knock = pool.submit(attacked.attack, "network.tcp", "several", address="127.0.0.1", port=7777)
        assert knock.result() in UNREACHABLE
        assert offer.result() == "nobody came"


def test_abstract_sockets_of_neighbours_are_not_reached(attacked: Stage) -> None:
    with socket.socket(socket.AF_UNIX) as host, ThreadPoolExecutor(2) as pool:
        host.bind("\0martlet-attack-host")
        host.listen(1)
        offer = pool.submit(attacked.attack, "network.abstract", "small", name="martlet-attack", seconds=1)
        names = ["martlet-attack", "martlet-attack-host"]
        knock = pool.submit(attacked.attack, "network.abstract_connect", "several", names=names)
        assert set(knock.result().values()) <= {"ECONNREFUSED", "EPERM"}
        assert offer.result() == {"own": {"got": None}, "met": "nobody came"}
    assert attacked.attack("network.abstract_seen") == []


def test_the_platforms_ports_cannot_be_taken(attacked: Stage) -> None:
    assert set(attacked.attack("network.take_over_ports").values()) == {"EADDRINUSE"}


def test_connections_of_one_sandbox_do_not_use_up_the_platform(attacked: Stage) -> None:
    """A thousand idle connections to the private door: few are taken, and others still come in."""
    before = attacked.descriptors()
    with ThreadPoolExecutor(2) as pool:
        flood = pool.submit(attacked.attack, "network.connection_flood", "several", port=9001, count=500)
        highest = 0
        while not flood.done():
            highest = max(highest, attacked.descriptors())
            attacked.victim_is_well()
        flood.result()
    assert highest < before + 250, "one sandbox holds more connections than is its share"
    assert attacked.attack("private_api.http", "several", method="GET", path="/v1/health")[0] == 200


def test_without_egress_the_proxy_is_closed(attacked: Stage) -> None:
    assert attacked.attack("network.proxy", request="CONNECT example.com:443 HTTP/1.1\r\n\r\n") in ({"got": ""}, "ECONNRESET")
    assert attacked.attack("network.environment") == {}


PROXIES = {
    "undeclared": "CONNECT example.com:443 HTTP/1.1\r\n\r\n",
    "suffix": "CONNECT evilinner.test:443 HTTP/1.1\r\n\r\n",
    "apex": "CONNECT inner.test:443 HTTP/1.1\r\n\r\n",
    "prefix": "CONNECT allowed.test.evil.test:443 HTTP/1.1\r\n\r\n",
    "userinfo": "CONNECT allowed.test@evil.test:443 HTTP/1.1\r\n\r\n",
    "fragment": "GET http://allowed.test#@evil.test/ HTTP/1.1\r\n\r\n",
    "backslash": "GET http://evil.test\\.allowed.test/ HTTP/1.1\r\n\r\n",
    "nul": "CONNECT evil.test\0.inner.test:443 HTTP/1.1\r\n\r\n",
    "long label": "CONNECT " + "a" * 300 + ".inner.test:443 HTTP/1.1\r\n\r\n",
    "long port": "CONNECT allowed.test:" + "1" * 5000 + " HTTP/1.1\r\n\r\n",
    "huge head": "CONNECT allowed.test:443 HTTP/1.1\r\n" + "x: y\r\n" * 9000 + "\r\n",
    "no line": "\r\n\r\n",
    "relative": "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
    "https": "GET https://allowed.test/ HTTP/1.1\r\n\r\n",
    "file": "GET file:///etc/passwd HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", PROXIES)
def test_the_proxy_refuses_what_is_not_declared(attacked: Stage, name: str) -> None:
    found = attacked.attack("network.proxy", "listed", request=PROXIES[name])
    assert isinstance(found, dict), found
    assert found["got"].startswith(_REFUSED), found


LOOPBACKS = [
    "127.0.0.1",
    "localhost",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "0.0.0.0",
    "0",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[::127.0.0.1]",
    "127.0.0.1.",
    "[64:ff9b::7f00:1]",
    "[fe80::1%25lo]",
]


@pytest.mark.parametrize("function", ["anywhere", "listed"])
def test_the_proxy_does_not_lead_to_the_hosts_loopback(attacked: Stage, host_service: Listener, function: str) -> None:
    """Declared or not: by name, number, other notations, in either form of request."""
    requests = {f"CONNECT {host}": f"CONNECT {host}:{host_service.port} HTTP/1.1\r\n\r\n" for host in LOOPBACKS}
    requests |= {f"GET {host}": f"GET http://{host}:{host_service.port}/ HTTP/1.1\r\n\r\n" for host in LOOPBACKS}
    found = attacked.attack("network.proxy_each", function, requests=requests)
    assert {name: outcome for name, outcome in found.items() if not outcome["got"].startswith(_REFUSED)} == {}
    assert host_service.visits == 0


def _own_address() -> str:
    """An address of this machine that is not loopback, or "" where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def test_the_proxy_does_not_lead_to_the_hosts_other_addresses(attacked: Stage) -> None:
    address = _own_address()
    listener = Listener(address or "127.0.0.1")
    try:
        request = f"CONNECT {address or '127.0.0.1'}:{listener.port} HTTP/1.1\r\n\r\n"
        found = attacked.attack("network.proxy", "anywhere", request=request)
    finally:
        listener.close()
    assert found["got"].startswith(_REFUSED), found
    assert listener.visits == 0


METADATA = ("169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "2852039166", "100.100.100.200", "168.63.129.16",
            "192.0.0.192", "169.254.170.2", "224.0.0.1", "255.255.255.255")  # fmt: skip


def test_the_proxy_does_not_lead_to_metadata_services(attacked: Stage) -> None:
    requests = {host: f"GET http://{host}/latest/meta-data/ HTTP/1.1\r\n\r\n" for host in METADATA}
    found = attacked.attack("network.proxy_each", "anywhere", requests=requests)
    assert {name: outcome for name, outcome in found.items() if "is refused" not in str(outcome)} == {}


def test_proxy_connections_are_bounded(attacked: Stage) -> None:
    before = attacked.descriptors()
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(attacked.attack, "network.proxy_in_parallel", "anywhere", count=400)
        highest = 0
        while not flood.done():
            highest = max(highest, attacked.descriptors())
            attacked.victim_is_well()
        flood.result()
    assert highest < before + 250
    assert attacked.attack("network.proxy", "anywhere", request="GET / HTTP/1.1\r\n\r\n")["got"].startswith(_REFUSED)
