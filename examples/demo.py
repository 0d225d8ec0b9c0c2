"""`make demo`: runs the example shop and makes its first requests. With ONCE=1 it ends then; else it stays up until Ctrl-C.

Exit code 0 when every request was answered as it should be. Set DATA to keep what the shop stores in a folder of your choice.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

SHOP = Path(__file__).resolve().parent / "shop"
PORTS = (8700, 8701)  # the app's and the platform's; other free ones when these are taken

PAYMENT = {"card": "4539 1488 0343 6467", "amount_cents": 1250}
ORDER = {"product": "cup", "quantity": 1, "email": "ada@example.com", "payment": PAYMENT}
REVIEW = {"stars": 5, "text": "Holds tea."}

# (what it shows, method, path, body, expected status); {product} is the first one listed
REQUESTS = (
    ("the catalogue", "GET", "/products", None, 200),
    ("a product's page", "GET", "/products/{product}", None, 200),
    (
        "its picture, resized by Pillow from the app's dependency layer",
        "GET",
        "/products/{product}/picture?width=200",
        None,
        200,
    ),
    ("a purchase: functions with only their own rights, one transaction", "POST", "/purchases", ORDER, 201),
    ("the same without enough money is refused", "POST", "/purchases", ORDER | {"quantity": 2}, 422),
    ("a review, kept as a document, through a mounted FastAPI app", "POST", "/reviews/{product}", REVIEW, 201),
    ("all reviews of it", "GET", "/reviews/{product}", None, 200),
)


def main() -> int:
    with data_folder() as data, platform(data) as (process, app, api):
        token = json.loads((data / "credentials.json").read_text())["token"]
        good = first_requests(app)
        good &= show("the platform's own state", "GET", f"{api}/v1/status", 200, token=token)[0]
        if not os.environ.get("ONCE"):
            print(f"\nThe shop stays up at {app} until Ctrl-C. Edit {SHOP}/app.py: it is redeployed when you save.", flush=True)
            try:
                good &= process.wait() == 0
            except KeyboardInterrupt:
                print()
    return 0 if good else 1


@contextmanager
def data_folder() -> Iterator[Path]:
    """Where the platform keeps its state: $DATA, or a folder that is removed at the end."""
    if chosen := os.environ.get("DATA"):
        yield Path(chosen)
        return
    with tempfile.TemporaryDirectory(prefix="martlet-demo-") as folder:
        yield Path(folder)


@contextmanager
def platform(data: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`martlet up` on the shop: the process, the app's address, the platform's address. Raises SystemExit if it cannot."""
    port, api_port = PORTS if all(map(is_free, PORTS)) else (0, 0)
    command = [sys.executable, "-c", "import sys; from martlet.cli import main; sys.exit(main())", "up", str(SHOP)]
    command += ["--data", str(data), "--port", str(port), "--api-port", str(api_port)]
    print(f"$ martlet {' '.join(command[3:])}", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process, *addresses(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(30)


def addresses(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What `martlet up` prints once it serves: "app   http://…" and "api   http://…"."""
    assert process.stdout is not None
    found: dict[str, str] = {}
    for line in process.stdout:  # ends when the process does
        print(line, end="", flush=True)
        if match := re.match(r"(app|api)\s+(http://\S+)", line):
            found[match[1]] = match[2]
        if len(found) == 2:
            threading.Thread(target=relay, args=(process.stdout,), daemon=True).start()
            return found["app"], found["api"]
    raise SystemExit(f"martlet up ended with {process.wait()}")


def relay(lines: Iterable[str]) -> None:
    """Print what the platform goes on saying, and keep its pipe from filling up."""
    for line in lines:
        print(line, end="", flush=True)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a listener does: an old connection is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def first_requests(app: str) -> bool:
    """Make `REQUESTS`; False when one was not answered as expected."""
    good, product = True, ""
    for title, method, path, body, expected in REQUESTS:
        well, answer = show(title, method, app + path.format(product=product), expected, body=body)
        if path == "/products" and well:
            product = str(json.loads(answer)["products"][0]["id"])
        good &= well
    return good


def show(title: str, method: str, url: str, expected: int, *, body: object = None, token: str = "") -> tuple[bool, bytes]:
    """Make one request and print it with its answer. True and the answer's body when its status is `expected`."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} if data else {}
    if token:
        headers["authorization"] = f"Bearer {token}"
    print(f"\n# {title}\n> {method} {url}" + (f"\n> {data.decode()}" if data else ""))
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
            status, kind, content = answer.status, answer.headers.get("content-type", ""), answer.read()
    except urllib.error.HTTPError as error:
        status, kind, content = error.code, error.headers.get("content-type", ""), error.read()
    took = (time.perf_counter() - started) * 1000
    print(f"< {status} {kind}, {len(content):,} bytes, {took:.1f} ms")
    if "json" in kind or kind.startswith("text/"):
        text = content.decode(errors="replace")
        print(f"< {text[:400]}{' …' if len(text) > 400 else ''}")
    if status != expected:
        print(f"! expected {expected}")
    sys.stdout.flush()
    return status == expected, content


if __name__ == "__main__":
    sys.exit(main())
