"""The part of the platform that a sandbox sees, small: documents and invocations on a loopback port, for tests of the SDK.

Invocations run the app's own entries in this process, as the runtime would.
"""

from __future__ import annotations

import inspect
import json
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from martlet.documents.expressions import compile_expression

_NOTHING = object()


class Platform:
    """`with Platform(app) as platform:`; `documents` is {collection: {id: (version, value)}}, `calls` the targets asked for."""

    def __init__(self, app: Any = None) -> None:
        self.app = app
        self.documents: dict[str, dict[str, tuple[int, Any]]] = {}
        self.calls: list[str] = []
        self.lock = threading.Lock()
        platform = self

        class Handler(_Handler):
            owner = platform

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Platform:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def function(self, full_name: str) -> Any:
        return vars(self.app.functions).get(full_name.removeprefix(f"{self.app.name}-")) if self.app else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: Platform

    def log_message(self, *_: object) -> None:
        return

    def _send(self, status: int, body: Any = _NOTHING, **headers: str) -> None:
        data = b"" if body is _NOTHING else json.dumps(body).encode()
        self.send_response(status)
        if body is not _NOTHING:
            self.send_header("content-type", "application/problem+json" if status >= 400 else "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _problem(self, status: int, code: str, detail: str) -> None:
        self._send(status, {"type": f"urn:martlet:error:{code}", "status": status, "detail": detail})

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        url = urlsplit(self.path)
        self.owner.calls.append(f"{self.command} {self.path}")
        parts = url.path.split("/")[1:]
        if parts[:2] == ["2015-03-31", "functions"]:
            self._invoke(unquote(parts[2]), json.loads(body))
        elif parts[:2] == ["v1", "documents"] and len(parts) == 3:
            self._list(unquote(parts[2]), {name: values[0] for name, values in parse_qs(url.query).items()})
        elif parts[:2] == ["v1", "documents"] and len(parts) == 4:
            with self.owner.lock:
                self._document(unquote(parts[2]), unquote(parts[3]), body)
        elif parts == ["v1", "transactions"]:
            with self.owner.lock:
                self._transaction(json.loads(body)["operations"])
        else:
            self._send(404)

    do_GET = do_PUT = do_DELETE = do_POST = _serve  # noqa: N815

    def _invoke(self, name: str, event: Any) -> None:
        function = self.owner.function(name)
        if function is None:
            self._send(
                404, {"Type": "User", "Message": f"Function not found: {name}"}, x_amzn_ErrorType="ResourceNotFoundException"
            )
            return
        try:
            result = function.__martlet_entry__()(event, None)
            if inspect.isawaitable(result):
                raise TypeError("this stand-in runs synchronous functions only")
            self._send(200, result, x_amz_executed_version="$LATEST")
        except Exception as error:
            failure = {
                "errorType": type(error).__name__,
                "errorMessage": str(error),
                "stackTrace": traceback.format_tb(error.__traceback__),
            }
            self._send(200, failure, x_amz_function_error="Unhandled")

    def _list(self, collection: str, query: dict[str, str]) -> None:
        with self.owner.lock:
            held = sorted(self.owner.documents.get(collection, {}).items())
        held = [item for item in held if item[0].startswith(query.get("prefix", "")) and item[0] > query.get("after", "")]
        limit = int(query["limit"])
        items = [{"id": id, "version": version, "value": value} for id, (version, value) in held[:limit]]
        self._send(200, {"items": items, "next": items[-1]["id"] if len(held) > limit else None})

    def _transaction(self, operations: list[dict[str, Any]]) -> None:
        """check, put and patch (with increment and condition), all or nothing."""
        after = {name: dict(held) for name, held in self.owner.documents.items()}
        results: list[Any] = []
        for place, asked in enumerate(operations):
            held = after.setdefault(asked["collection"], {})
            version, value = held.get(asked["id"], (0, None))
            refused = None
            if asked.get("version") not in (None, version):
                refused = (409, "conflict", "another version")
            elif asked["op"] == "patch" and not version:
                refused = (404, "not_found", "no document")
            elif asked.get("condition"):
                condition = compile_expression(asked["condition"])
                if not condition.holds(value or {}, asked.get("parameters")):
                    refused = (412, "precondition_failed", "the condition does not hold")
            if refused is not None:
                problem = {"type": f"urn:martlet:error:{refused[1]}", "status": refused[0], "detail": refused[2]}
                self._send(refused[0], problem | {"operation": place})
                return
            if asked["op"] == "put":
                held[asked["id"]] = (version + 1, asked["value"])
            elif asked["op"] == "patch":
                more = {name: value.get(name, 0) + amount for name, amount in asked.get("increment", {}).items()}
                held[asked["id"]] = (version + 1, value | asked.get("merge", {}) | more)
            results.append({"id": asked["id"], "version": version + 1})
        self.owner.documents.clear()
        self.owner.documents.update(after)
        self._send(200, {"results": results})

    def _document(self, collection: str, id: str, body: bytes) -> None:
        held = self.owner.documents.setdefault(collection, {})
        version, value = held.get(id, (0, None))
        wanted = self.headers.get("if-match", "").strip('"')
        if self.command != "GET" and ((wanted and int(wanted) != version) or (self.headers.get("if-none-match") and version)):
            self._problem(412, "conflict", f"document {id} has version {version}")
        elif self.command == "PUT":
            held[id] = (version + 1, json.loads(body))
            self._send(200, {"version": version + 1}, etag=f'"{version + 1}"')
        elif not version:
            self._problem(404, "not_found", f"no document {id}")
        elif self.command == "DELETE":
            del held[id]
            self._send(204)
        else:
            self._send(200, value, etag=f'"{version}"')
