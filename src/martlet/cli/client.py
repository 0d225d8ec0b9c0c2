"""A small client of the management API on the standard library."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from martlet.cli.failure import REFUSED, UNREACHABLE, Failure

__all__ = ["Client", "Endpoint", "segment"]

_READ_SECONDS = 930.0  # longer than the longest function (function_timeout_seconds_max) and any heartbeat
_LINE_BYTES = 64 << 20


class Endpoint:
    """Where the platform that owns a data folder listens, and its owner's credentials.

    `endpoint.json` has {"pid", "host", "port", "api_port", "region"}; `credentials.json`, which only its owner may read, has
    {"access_key_id", "secret_access_key", "token"}.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        endpoint = self._read("endpoint.json")
        credentials = self._read("credentials.json")
        try:
            self.host = str(endpoint.get("host", "127.0.0.1"))
            self.port = int(endpoint["port"])
            self.api_port = int(endpoint["api_port"])
            self.region = str(endpoint.get("region", "us-east-1"))
            self.access_key_id = str(credentials["access_key_id"])
            self.secret_access_key = str(credentials["secret_access_key"])
            self.token = str(credentials["token"])
        except (KeyError, TypeError, ValueError) as error:
            raise Failure(
                UNREACHABLE, f"{data} holds no valid address or credentials: {error!r}", "start it: martlet up"
            ) from error

    def _read(self, name: str) -> dict[str, Any]:
        file = self.data / name
        try:
            value = json.loads(file.read_bytes())
        except FileNotFoundError as error:
            raise Failure(
                UNREACHABLE, f"no platform runs on {self.data}", "start it (martlet up), or give its folder: --data DIR"
            ) from error
        except NotADirectoryError as error:
            raise Failure(
                UNREACHABLE, f"{self.data} is a file, not a folder", "give the platform's folder: --data DIR"
            ) from error
        except PermissionError as error:
            raise Failure(
                UNREACHABLE, f"cannot read {file}: permission denied", "run as the user who runs the platform"
            ) from error
        except (OSError, ValueError) as error:
            raise Failure(UNREACHABLE, f"cannot read {file}: {error}", "start the platform again: martlet up") from error
        if not isinstance(value, dict):
            raise Failure(UNREACHABLE, f"{file} is not a JSON object", "start the platform again: martlet up")
        return value

    @property
    def api(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.api_port}"


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


class Client:
    """Calls the API; every failure becomes a `Failure` with its exit code."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, object] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
    ) -> Any:
        """The answer's JSON, None for an empty one."""
        with self._exchange(method, path, query, body, kind) as answer:
            content = answer.read()
        if not content:
            return None
        return _json(content, path)

    def operation(self, target: str, request: dict[str, Any]) -> Any:
        """The answer of an AWS service's operation in JSON, e.g. "secretsmanager.ListSecrets"."""
        body, kind = json.dumps(request).encode(), "application/x-amz-json-1.1"
        with self._exchange("POST", "/", None, body, kind, headers={"X-Amz-Target": target}) as answer:
            return _json(answer.read() or b"{}", target)

    def lines(
        self,
        method: str,
        path: str,
        query: dict[str, object] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
        refused: int = REFUSED,
    ) -> Iterator[dict[str, Any]]:
        """The objects of an NDJSON answer as they come, without heartbeats. An "error" becomes a `Failure`, with the exit
        code `refused` unless it is about who asks."""
        with self._exchange(method, path, query, body, kind, refused) as answer:
            while True:
                line = answer.readline(_LINE_BYTES)
                if not line:
                    return
                event = _json(line, path)
                if event.get("type") == "error":
                    raise _refused(event.get("error", {}), refused)
                if event.get("type") != "heartbeat":
                    yield event

    def pieces(self, method: str, path: str, query: dict[str, object] | None = None) -> Iterator[bytes]:
        """The answer's bytes as they come. An answer that is cut short becomes a `Failure`."""
        with self._exchange(method, path, query, None, "") as answer:
            while piece := answer.read1(1 << 20):
                yield piece

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        query: dict[str, object] | None,
        body: bytes | None,
        kind: str,
        refused: int = REFUSED,
        headers: dict[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        headers = {"Authorization": f"Bearer {self.endpoint.token}", "Accept": "application/json", **(headers or {})}
        if body is not None:
            headers["Content-Type"] = kind
        connection = http.client.HTTPConnection(self.endpoint.host, self.endpoint.api_port, timeout=_READ_SECONDS)
        try:
            answer = _send(connection, method, target, body, headers)
            if answer.status >= 400:
                raise _refused(_problem(answer.status, answer.read()), refused)
            yield answer
        except ConnectionRefusedError as error:
            cause = f"no platform answers at {self.endpoint.api}"
            raise Failure(UNREACHABLE, cause, "start it (martlet up), or give its folder: --data DIR") from error
        except (OSError, http.client.HTTPException) as error:
            cause = f"the connection to {self.endpoint.api} broke: {str(error) or type(error).__name__}"
            raise Failure(UNREACHABLE, cause, "see whether the platform still runs: martlet status") from error
        finally:
            connection.close()


def _send(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes | None, headers: dict[str, str]
) -> http.client.HTTPResponse:
    """Send and get the head. A platform that refuses a large body answers before it has read it all: that answer counts."""
    try:
        connection.request(method, target, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        if connection.sock is None:
            raise
    return connection.getresponse()


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json(content: bytes, path: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise Failure(
            UNREACHABLE, f"the answer to {path} is cut or not JSON", "is something else listening on the API's port?"
        ) from error


def _problem(status: int, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"detail": f"the platform answered HTTP {status}"}


def _refused(problem: dict[str, Any], exit_code: int) -> Failure:
    code = str(problem.get("type", "")).rpartition(":")[2]
    remedy = str(problem.get("remedy", ""))
    if code == "unauthenticated":
        remedy = remedy or "the data folder's credentials are not the running platform's: check --data"
    if code in ("unauthenticated", "access_denied"):
        exit_code = REFUSED
    return Failure(
        exit_code,
        str(problem.get("detail") or problem.get("message") or problem.get("Message") or "refused"),
        remedy,
        str(problem.get("stack") or ""),
    )
