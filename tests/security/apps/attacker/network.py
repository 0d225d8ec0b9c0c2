"""Attacks by network: the host, the neighbours, the cloud's metadata, the world."""

import errno
import os
import socket
import threading

from trying import outcome


def tcp(address, port, seconds=1.0):
    """Connect, and read what a listener says."""

    def connect():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(seconds)
            sock.connect((address, port))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return sock.recv(100).decode("latin-1")

    return outcome(connect)


def tcp_each(targets):
    return {f"{address}:{port}": tcp(address, port) for address, port in targets}


def udp(address, port):
    def send():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            return sock.sendto(b"out", (address, port))

    return outcome(send)


def udp_each(targets):
    return {f"{address}:{port}": udp(address, port) for address, port in targets}


def resolve(name):
    return outcome(socket.getaddrinfo, name, 80)


def interfaces():
    with open("/proc/net/dev") as file:
        return [line.split(":")[0].strip() for line in file if ":" in line]


def listen_and_wait(port, seconds):
    """Offer a port, in case somebody outside could come in."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", port))
        listener.listen(1)
        listener.settimeout(seconds)
        try:
            listener.accept()
            return "visited"
        except TimeoutError:
            return "nobody came"


def abstract(name, seconds=0.0):
    """Offer an abstract unix socket for a while, and try those that others offer."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    own = outcome(listener.bind, "\0" + name)
    listener.listen(1)
    listener.settimeout(max(seconds, 0.01))
    try:
        listener.accept()
        met = "visited"
    except OSError:
        met = "nobody came"
    listener.close()
    return {"own": own, "met": met}


def abstract_connect(names):
    def connect(name):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect("\0" + name)
            return "connected"

    return {name: outcome(connect, name) for name in names}


def abstract_seen():
    with open("/proc/net/unix") as file:
        return [line.split()[-1] for line in list(file)[1:] if "@" in line]


def take_over_ports():
    """Bind what the platform listens on in here, to be the platform for oneself only; and low ports."""

    def bind(port, option):
        with socket.socket() as sock:
            if option:
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            sock.bind(("127.0.0.1", port))
            return "bound"

    return {
        f"{port}/{option}": outcome(bind, port, option)
        for port in (9001, 9002)
        for option in (0, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    }


def connection_flood(port, count, processes=1):
    """Open and keep connections to the private endpoint; how many were served at one time?"""
    kept, opened = [], 0
    try:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), timeout=1)
            kept.append(sock)
            opened += 1
    except OSError as error:
        ended = errno.errorcode.get(error.errno or 0, type(error).__name__)
    else:
        ended = ""
    answered = 0
    for sock in kept:
        try:
            sock.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except OSError:
            pass
    for sock in kept:
        sock.settimeout(0.01)
        try:
            answered += sock.recv(12) == b"HTTP/1.1 200"
        except OSError:
            pass
    for sock in kept:
        sock.close()
    return {"opened": opened, "answered": answered, "ended": ended}


def proxy(request, port=9002, then=""):
    """Raw bytes to the egress proxy; what it says."""

    def talk():
        with socket.create_connection(("127.0.0.1", port), timeout=4) as sock:
            sock.sendall(request.encode("latin-1"))
            answer = sock.recv(500)
            if then and answer.startswith(b"HTTP/1.1 200"):
                sock.sendall(then.encode("latin-1"))
                answer = sock.recv(500)
            return answer.decode("latin-1")

    return outcome(talk)


def proxy_each(requests):
    return {name: proxy(request) for name, request in requests.items()}


def proxy_in_parallel(count):
    """Many idle connections to the proxy."""
    held = []

    def hold():
        try:
            held.append(socket.create_connection(("127.0.0.1", 9002), timeout=2))
        except OSError:
            pass

    threads = [threading.Thread(target=hold) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while len(held) < count:
        before = len(held)
        hold()
        if len(held) == before:
            break
    alive = 0
    for sock in held:
        sock.settimeout(0.005)
        try:
            alive += sock.recv(1) != b""
        except TimeoutError:
            alive += 1
        except OSError:
            pass
        sock.close()
    return {"opened": len(held), "alive": alive}


def environment():
    return {name: value for name, value in os.environ.items() if "PROXY" in name.upper()}
