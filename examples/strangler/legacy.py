"""The legacy server: an ordinary HTTP server, of which the gateway knows nothing but its address.

    python3 examples/strangler/legacy.py [--port PORT] martlet up examples/strangler

runs the server and, beside it, the command, which may call it: the server's address is in MARTLET_INTEGRATION_HOSTS. When
the command ends, so does the server. Without a command it serves until Ctrl-C.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Legacy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_GET(self):
        kind, _, name = self.path.partition("?")[0].strip("/").partition("/")
        if kind in ("products", "quotes") and name:
            self.answer(200, {"name": name, "cents": 100 * len(name), "by": "legacy"})
        elif self.path == "/":
            self.answer(200, {"pages": ["/products/{name}", "/quotes/{name}", "/orders"], "by": "legacy"})
        else:
            self.answer(404, {"detail": "there is no such page", "by": "legacy"})

    def do_POST(self):
        order = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path != "/orders":
            self.answer(404, {"detail": "there is no such page", "by": "legacy"})
        else:
            self.answer(201, {"bytes": len(order), "for": self.headers.get("forwarded"), "by": "legacy"})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass  # its visitors are seen elsewhere


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def main(arguments):
    port = 9000
    if arguments[:1] == ["--port"]:
        port, arguments = int(arguments[1]), arguments[2:]
    server = Server(("127.0.0.1", port), Legacy)
    print(f"legacy http://127.0.0.1:{port}", flush=True)
    if not arguments:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = subprocess.Popen(arguments, env={**os.environ, "MARTLET_INTEGRATION_HOSTS": f"127.0.0.1:{port}"})
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command by itself
    signal.signal(signal.SIGTERM, lambda *_: command.terminate())
    return command.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
