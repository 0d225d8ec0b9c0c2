"""The egress proxy: the only way out of a sandbox, for functions that declared one; it meters what passes.

Speaks HTTP CONNECT and absolute-form HTTP requests (RFC 9110 section 9.3.6, RFC 9112 section 3.2.2) on a connection that was
accepted inside the sandbox's private network. The host name decides; addresses that a name resolves to are refused when
they are this host's own, loopback, link-local, multicast or a cloud's metadata service, so that a name cannot point inwards.
Private networks (RFC 1918) are not refused: a function may be meant to reach a database there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Collection
from typing import Final, Literal

from martlet.errors import AccessDenied, InvalidInput, MartletError

__all__ = ["allows", "is_called", "permission", "refused_address", "refused_host", "serve", "target_of"]

_HEAD_BYTES_AT_MOST: Final = 16_384
_CHUNK_BYTES: Final = 65_536
_HEAD_SECONDS: Final = 10
_CONNECT_SECONDS: Final = 10
_IDLE_SECONDS: Final = 300
# Metadata services that are not link-local: AWS (IPv6), Alibaba, Azure, Oracle. They hand out the host's credentials.
_METADATA: Final = frozenset({"fd00:ec2::254", "fd00:ec2::23", "100.100.100.200", "168.63.129.16", "192.0.0.192"})

Egress = Literal["none", "all"] | tuple[str, ...]


def allows(egress: Egress, host: str) -> bool:
    """True when `host` is declared: "all", the name itself, or "*.domain" for names below a domain."""
    if egress == "all":
        return True
    if egress == "none":
        return False
    name = host.lower().rstrip(".")
    return any(name == rule.lower() or (rule.startswith("*.") and name.endswith(rule[1:].lower())) for rule in egress)


def target_of(head: bytes) -> tuple[str, int, bytes]:
    """(host, port, bytes to send on) of a request's head. The bytes are empty for CONNECT. Raises InvalidInput."""
    line, _, rest = head.partition(b"\r\n")
    try:
        method, target, version = line.decode("ascii").split(" ")
    except (UnicodeDecodeError, ValueError):
        raise InvalidInput("egress proxy: malformed request line") from None
    if method == "CONNECT":
        host, port = _authority(target, 443)
        return host, port, b""
    if not target.lower().startswith("http://"):
        raise InvalidInput("egress proxy: use CONNECT host:port, or an absolute http:// target")
    authority, slash, path = target[7:].partition("/")
    host, port = _authority(authority, 80)
    kept = [one for one in rest.split(b"\r\n") if not one.lower().startswith((b"proxy-", b"connection:", b"host:"))]
    lines = [f"{method} {slash}{path} {version}".encode() if slash else f"{method} / {version}".encode()]
    return host, port, b"\r\n".join([*lines, b"Host: " + authority.encode(), b"Connection: close", *kept])


def _authority(text: str, default: int) -> tuple[str, int]:
    if "@" in text:
        raise InvalidInput("egress proxy: user information in a target is not supported")
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    known = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536
    if not host or len(host) > 253 or not host.isprintable() or (port and not known):
        raise InvalidInput(f"egress proxy: malformed target {text[:300]!r}")
    return host, int(port or default)


def refused_address(address: str) -> str:
    """Why this address may not be reached, or "". Asks the routing table; sends nothing."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_loopback or found.is_unspecified:
        return "it is this host"
    if found.is_link_local or found.is_multicast or found.is_reserved:
        return "it is link-local, multicast or reserved"
    if str(found) in _METADATA:
        return "it is a metadata service"
    return "it is this host" if _is_own(found) else ""


def is_called(called_hosts: Collection[str], host: str, port: int) -> bool:
    """Whether the host's owner lets the platform itself call this wherever it is: `called_hosts` are hosts or host:port, "*"
    for all."""
    named = f"[{host}]" if ":" in host else host
    return any(one.lower() in ("*", host, named, f"{named}:{port}") for one in called_hosts)


def permission(host: str, port: int) -> str:
    """What the host's owner can do about a refusal."""
    named = f"[{host}]" if ":" in host else host
    return f"set MARTLET_INTEGRATION_HOSTS={named}:{port} if apps may call it"


def refused_host(called_hosts: Collection[str], host: str, port: int) -> str:
    """Why this may not be reached, as far as its name tells (an address, localhost), or ""."""
    try:
        why = refused_address("127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host)
    except ValueError:
        return ""  # a name: its addresses are looked at when it is called
    return "" if is_called(called_hosts, host, port) else why


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether `address` is one of this host's, on any interface: the kernel would then send from the address itself.

    The host's name does not tell (it is often 127.0.1.1, whatever the interfaces have), and asking for it can take seconds.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))  # of a datagram socket: chooses a route, and that is all
        except OSError:
            return False  # no route: the connection will fail by itself
        return ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0]) == address


async def serve(sock: socket.socket, egress: Egress, meter: Callable[[int, int], None]) -> None:
    """Serve one connection. `meter(bytes_out, bytes_in)` is called as bytes pass."""
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
        if len(head) > _HEAD_BYTES_AT_MOST:
            raise InvalidInput("egress proxy: the request's head is too large")
        host, port, first = target_of(head)
        if not allows(egress, host):
            raise AccessDenied(f"egress to {host} is not declared by this function", remedy=f'egress=["{host}"]')
    except AccessDenied as error:
        _refuse(writer, "403 Forbidden", error.message)
        return
    except MartletError as error:
        _refuse(writer, "400 Bad Request", error.message)
        return
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError) as error:
        _refuse(writer, "400 Bad Request", f"egress proxy: {type(error).__name__}: {error}")
        return
    try:
        outward = await _connect(host, port)
    except AccessDenied as error:
        _refuse(writer, "403 Forbidden", error.message)
        return
    except TimeoutError:
        _refuse(writer, "504 Gateway Timeout", f"egress proxy: {host}:{port} did not answer within {_CONNECT_SECONDS} s")
        return
    except (OSError, UnicodeError) as error:  # a name that is no name, does not resolve, or nobody listens
        _refuse(writer, "502 Bad Gateway", f"egress proxy: {host}:{port}: {error}")
        return
    if first:
        outward[1].write(first)
        meter(len(first), 0)
    else:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    try:
        await asyncio.gather(
            _pipe(reader, outward[1], lambda count: meter(count, 0)),
            _pipe(outward[0], writer, lambda count: meter(0, count)),
        )
    except (TimeoutError, OSError):
        pass  # either side may go at any time
    finally:
        writer.close()
        outward[1].close()


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), _CONNECT_SECONDS)
    reason = "it has no address"
    for info in found:
        address = str(info[4][0])
        reason = refused_address(address)
        if not reason:
            return await asyncio.wait_for(asyncio.open_connection(address, port), _CONNECT_SECONDS)
    raise AccessDenied(f"egress to {host} is refused: {reason}")


def _refuse(writer: asyncio.StreamWriter, status: str, reason: str) -> None:
    text = reason.replace("\r", " ").replace("\n", " ").encode("ascii", "replace")
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
    writer.write(head.encode() + text)
    writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, meter: Callable[[int], None]) -> None:
    """One direction, to its end: that is passed on, and the other direction goes on."""
    while data := await asyncio.wait_for(reader.read(_CHUNK_BYTES), _IDLE_SECONDS):
        meter(len(data))
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
