"""Connections of WebSocket APIs, and what backends may do with them: @connections, the service "apigatewaymanagementapi".

Source: API Gateway developer guide, "Use @connections commands in your backend service"; errors as botocore's model names them.
A connection lives on this node and is not stored: when the platform stops, its clients are told to come back.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import orjson

from martlet.clock import Clock
from martlet.errors import AccessDenied, MartletError, ServiceError, Unauthenticated
from martlet.gateway.apis.call import Call
from martlet.gateway.websocket import WebSocket
from martlet.limits import LIMITS, exceeded
from martlet.types import ACCOUNT

__all__ = ["Connection", "Connections", "ManagementApi", "management_id"]

_MARK: Final = b"/@connections/"
_MANAGE: Final = "execute-api:ManageConnections"
_METHODS: Final = {"PostToConnection": "POST", "GetConnection": "GET", "DeleteConnection": "DELETE"}
_UNSENT: Final = LIMITS["websocket_unsent_bytes"].default
_MESSAGE: Final = LIMITS["api_message_bytes"].default


class Connection:
    """An open connection: `call` is its opening request, `id` its name."""

    __slots__ = ("authorizer", "call", "connected_at_ms", "id", "socket")

    def __init__(self, id: str, call: Call, socket: WebSocket, connected_at_ms: int) -> None:
        self.id = id
        self.call = call
        self.socket = socket
        self.connected_at_ms = connected_at_ms
        self.authorizer = call.authorizer


class Connections:
    """All of this node, by id."""

    def __init__(self, clock: Clock, region: str) -> None:
        self._clock = clock
        self._region = region
        self._open: dict[str, Connection] = {}
        self.has_others: Callable[[], bool] = lambda: False  # other nodes, which have connections of their own

    def add(self, connection: Connection) -> None:
        self._open[connection.id] = connection

    def remove(self, connection: Connection) -> None:
        self._open.pop(connection.id, None)

    def find(self, id: str) -> Connection | None:
        return self._open.get(id)

    def leave(self, api_ids: set[str]) -> None:
        """These APIs are gone, and with them their connections."""
        for connection in tuple(self._open.values()):
            if connection.call.api_id in api_ids:
                connection.socket.close(1001, "Going away")

    def resource(self, id: str, method: str) -> str | None:
        """The ARN that a policy names; None where there is no such connection, which is all that anybody is told of it."""
        found = self._open.get(id)
        if found is None:
            self._refuse_elsewhere()
            return None
        call = found.call
        return f"arn:aws:execute-api:{self._region}:{ACCOUNT}:{call.api_id}/{call.stage}/{method}/@connections/{id}"

    def get(self, id: str) -> Connection:
        """Raises `ServiceError` (GoneException)."""
        found = self._open.get(id)
        if found is None or not found.socket.connected:
            self._refuse_elsewhere()
            raise ServiceError("GoneException", "", 410)
        return found

    def _refuse_elsewhere(self) -> None:
        """ "Gone" would be a guess, on which callers forget a connection that lives."""
        if self.has_others():
            said = "the connection is not at this node; whether another node of this database has it is not known here"
            raise ServiceError("NotImplementedException", said, 501)

    def post(self, id: str, data: bytes) -> None:
        """One message to the client. Raises `ServiceError`."""
        socket = self.get(id).socket
        check_size(data)
        if socket.unsent_bytes + len(data) > _UNSENT:
            said = exceeded("websocket_unsent_bytes", socket.unsent_bytes + len(data), "what the client has not read").message
            raise ServiceError("LimitExceededException", said, 429)
        try:
            socket.send(data.decode())
        except UnicodeDecodeError as error:
            raise ServiceError("BadRequestException", f"messages are text in UTF-8: {error}", 400) from None

    def describe(self, id: str) -> dict[str, Any]:
        """Members of GetConnection's answer."""
        found = self.get(id)
        agent = found.call.request.header(b"user-agent") or b""
        idle_ms = (self._clock.monotonic_ns() - found.socket.last_active) // 1_000_000
        return {
            "ConnectedAt": _when(found.connected_at_ms),
            "Identity": {"SourceIp": found.call.request.client[0], "UserAgent": agent.decode("latin-1")},
            "LastActiveAt": _when(max(self._clock.now_ms() - idle_ms, found.connected_at_ms)),
        }

    def delete(self, id: str) -> None:
        self.get(id).socket.close(1000, "")

    # at the edge, by HTTP

    def answer(self, edge: Any, exchange: Any, id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """What an @connections request is answered. `edge` says who signed it, and what they may."""
        method = exchange.request.method
        try:
            principal = edge.signed_by(exchange, "execute-api")
            if method not in _METHODS.values():
                raise ServiceError("ForbiddenException", "Forbidden", 403)
            resource = self.resource(id, method)
            if resource is not None:
                edge.permit(principal, _MANAGE, resource)
            if method == "POST":
                self.post(id, exchange.request.body)
                return 200, [], b""
            if method == "DELETE":
                self.delete(id)
                return 204, [], b""
            return 200, [_JSON], orjson.dumps(_spelled(self.describe(id)))
        except ServiceError as error:
            return _refused(error.http_status, error.name, error.message)
        except (Unauthenticated, AccessDenied) as error:
            return _refused(403, "ForbiddenException", error.message)
        except MartletError as error:
            return _refused(error.http_status, "InternalServerErrorException", error.message)


_JSON: Final = (b"content-type", b"application/json")


def _refused(status: int, name: str, message: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    body = orjson.dumps({"message": message, "__type": name})
    return status, [_JSON, (b"x-amzn-errortype", name.encode())], body


def _spelled(members: dict[str, Any]) -> dict[str, Any]:
    """As on the wire: `connectedAt`, times in ISO 8601."""
    found: dict[str, Any] = {}
    for name, value in members.items():
        wire = name[:1].lower() + name[1:]
        if isinstance(value, dict):
            found[wire] = _spelled(value)
        else:
            found[wire] = (
                value.isoformat(timespec="milliseconds").replace("+00:00", "Z") if isinstance(value, datetime) else value
            )
    return found


def _when(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


def check_size(data: bytes) -> None:
    """Raises `ServiceError` (PayloadTooLargeException)."""
    if len(data) > _MESSAGE:
        raise ServiceError("PayloadTooLargeException", exceeded("api_message_bytes", len(data), "the message").message, 413)


def management_id(path: bytes) -> str | None:
    """The connection's id in a path without its stage, "/@connections/<id>"; None for any other path."""
    if not path.startswith(_MARK):
        return None
    return unquote_to_bytes(path[len(_MARK) :]).decode("utf-8", "replace")


class ManagementApi:
    """The service "apigatewaymanagementapi" of the api listener and of sandboxes."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def permission(self, operation: str, request: dict[str, Any]) -> tuple[str, str] | None:
        resource = self._connections.resource(str(request.get("ConnectionId", "")), _METHODS[operation])
        return None if resource is None else (_MANAGE, resource)

    def precheck(self, operation: str, request: dict[str, Any]) -> None:
        check_size(bytes(request.get("Data") or b""))  # else the model's constraint, which the service names otherwise

    async def post_to_connection(self, caller: Any, request: dict[str, Any]) -> None:
        self._connections.post(request["ConnectionId"], bytes(request["Data"]))

    async def get_connection(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        return self._connections.describe(request["ConnectionId"])

    async def delete_connection(self, caller: Any, request: dict[str, Any]) -> None:
        self._connections.delete(request["ConnectionId"])
