"""Connections and API destinations: where events go over HTTP, and as whom. Source: EventBridge API reference and user guide,
"API destinations as targets"; recorded answers.

Secrets of a connection are kept in the store, beside everything else that the platform's owner alone can read; no answer
shows them.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from martlet.buses.desk import BusDesk, Request, at, invalid, no_such, page
from martlet.buses.rows import Connection, Destination, Tables
from martlet.clock import token_hex, uuid4_text
from martlet.errors import ServiceError, Unsupported
from martlet.types import ACCOUNT

__all__ = ["EndpointOperations"]

_KINDS: Final = {
    "BASIC": ("BasicAuthParameters", "basic"),
    "API_KEY": ("ApiKeyAuthParameters", "api key"),
    "OAUTH_CLIENT_CREDENTIALS": ("OAuthParameters", "oauth"),
}
_CONNECTION_ARN = re.compile(r"arn:aws[a-z-]*:events:[a-z0-9-]*:[0-9]{12}:connection/(?P<name>[.\-_A-Za-z0-9]+)/[\-A-Za-z0-9]+")


class EndpointOperations(BusDesk):
    """Connections and API destinations."""

    async def create_connection(self, caller: Any, request: Request) -> Request:
        """Raises `ServiceError` ResourceAlreadyExistsException, ValidationException."""
        name, kind = str(request["Name"]), str(request["AuthorizationType"])
        parameters = request.get("AuthParameters") or {}
        _check(kind, parameters, request)
        now_ms = self._clock.now_ms()
        connection = Connection(
            name=name,
            id=uuid4_text(),
            secret=f"{uuid4_text()}-{token_hex(3)}",
            kind=kind,
            parameters=parameters,
            created_at_ms=now_ms,
            modified_at_ms=now_ms,
            description=request.get("Description") or "",
            state=_state(kind),
        )

        def create(tables: Tables) -> None:
            if tables.get(Connection, name) is not None:
                raise ServiceError("ResourceAlreadyExistsException", f"Connection {name} already exists.", 400)
            tables.put(connection)

        await self._write(create)
        return self._connection_state(connection)

    def _connection_state(self, connection: Connection, *, known: bool = False) -> Request:
        return {
            "ConnectionArn": self._arn("connection", connection.name, connection.id),
            "ConnectionState": connection.state,
            "CreationTime": at(connection.created_at_ms),
            "LastModifiedTime": at(connection.modified_at_ms),
            "LastAuthorizedTime": at(connection.modified_at_ms) if known else None,
        }

    async def update_connection(self, caller: Any, request: Request) -> Request:
        def update(tables: Tables) -> Connection:
            before = _connection(tables, str(request["Name"]))
            kind = request.get("AuthorizationType") or before.kind
            changes: dict[str, Any] = {"kind": kind, "modified_at_ms": self._clock.now_ms()}
            if request.get("AuthParameters") is not None:
                parameters = _merged(before.parameters, request["AuthParameters"])
                if kind != before.kind:
                    parameters.pop(_KINDS[before.kind][0], None)
                _check(kind, parameters, request)
                changes |= {"parameters": parameters, "state": _state(kind)}
            if request.get("Description") is not None:
                changes["description"] = request["Description"]
            after: Connection = msgspec.structs.replace(before, **changes)
            tables.put(after)
            return after

        return self._connection_state(await self._write(update), known=True)

    async def describe_connection(self, caller: Any, request: Request) -> Request:
        name = str(request["Name"])
        found = self._read(lambda tables: tables.get(Connection, name))
        if found is None:
            raise no_such(f"Failed to describe the connection(s). Connection '{name}' does not exist.")
        secret = f"events!connection/{found.name}/{found.secret}"
        return {
            **self._connection_state(found, known=True),
            "Name": found.name,
            "Description": found.description or None,
            "AuthorizationType": found.kind,
            "SecretArn": f"arn:aws:secretsmanager:{self.region}:{ACCOUNT}:secret:{secret}",
            "AuthParameters": _without_secrets(found.parameters),
        }

    async def deauthorize_connection(self, caller: Any, request: Request) -> Request:
        def forget(tables: Tables) -> Connection:
            before = _connection(tables, str(request["Name"]))
            member = _KINDS[before.kind][0]
            left = {name: value for name, value in before.parameters.items() if name != member}
            after = msgspec.structs.replace(before, parameters=left, state="DEAUTHORIZED", modified_at_ms=self._clock.now_ms())
            tables.put(after)
            return after

        return self._connection_state(await self._write(forget), known=True)

    async def delete_connection(self, caller: Any, request: Request) -> Request:
        def delete(tables: Tables) -> Connection:
            found = _connection(tables, str(request["Name"]))
            tables.delete(found)
            return msgspec.structs.replace(found, state="DELETING")

        return self._connection_state(await self._write(delete), known=True)

    async def list_connections(self, caller: Any, request: Request) -> Request:
        prefix, state = request.get("NamePrefix") or "", request.get("ConnectionState")
        found = self._read(lambda tables: [one for one in tables.every(Connection) if one.name.startswith(prefix)])
        shown, more = page([(one.name, one) for one in found if state in (None, one.state)], request)
        connections = [
            {**self._connection_state(one, known=True), "Name": one.name, "AuthorizationType": one.kind} for one in shown
        ]
        return {"Connections": connections, **more}

    # --- API destinations

    async def create_api_destination(self, caller: Any, request: Request) -> Request:
        """Raises `ServiceError` ResourceAlreadyExistsException, ResourceNotFoundException, ValidationException."""
        name = str(request["Name"])
        now_ms = self._clock.now_ms()

        def create(tables: Tables) -> Destination:
            connection = self._named_connection(tables, str(request["ConnectionArn"]))
            if tables.get(Destination, name) is not None:
                raise ServiceError("ResourceAlreadyExistsException", f"An api-destination '{name}' already exists.", 400)
            made = Destination(
                name=name,
                id=uuid4_text(),
                connection=connection.name,
                connection_arn=str(request["ConnectionArn"]),
                endpoint=_endpoint(request),
                method=str(request["HttpMethod"]),
                rate=request.get("InvocationRateLimitPerSecond") or 300,
                description=request.get("Description") or "",
                created_at_ms=now_ms,
                modified_at_ms=now_ms,
            )
            tables.put(made)
            return made

        return self._destination_state(await self._write(create))

    def _named_connection(self, tables: Tables, arn: str) -> Connection:
        found = _CONNECTION_ARN.fullmatch(arn)
        name = found["name"] if found else arn
        connection = tables.get(Connection, name)
        if connection is None:
            raise no_such(f"Connection '{name}' does not exist.")
        return connection

    def _destination_state(self, one: Destination) -> Request:
        connection = self._read(lambda tables: tables.get(Connection, one.connection))
        authorized = connection is not None and connection.state == "AUTHORIZED"
        return {
            "ApiDestinationArn": self._arn("api-destination", one.name, one.id),
            "ApiDestinationState": "ACTIVE" if authorized else "INACTIVE",
            "CreationTime": at(one.created_at_ms),
            "LastModifiedTime": at(one.modified_at_ms),
        }

    async def update_api_destination(self, caller: Any, request: Request) -> Request:
        def update(tables: Tables) -> Destination:
            before = _destination(tables, str(request["Name"]))
            changes: dict[str, Any] = {"modified_at_ms": self._clock.now_ms()}
            if request.get("ConnectionArn"):
                connection = self._named_connection(tables, str(request["ConnectionArn"]))
                changes |= {"connection": connection.name, "connection_arn": request["ConnectionArn"]}
            if request.get("InvocationEndpoint"):
                changes["endpoint"] = _endpoint(request)
            fields = (("HttpMethod", "method"), ("InvocationRateLimitPerSecond", "rate"), ("Description", "description"))
            changes |= {field: request[member] for member, field in fields if request.get(member) is not None}
            after: Destination = msgspec.structs.replace(before, **changes)
            tables.put(after)
            return after

        return self._destination_state(await self._write(update))

    async def describe_api_destination(self, caller: Any, request: Request) -> Request:
        name = str(request["Name"])
        found = self._read(lambda tables: tables.get(Destination, name))
        if found is None:
            raise no_such(f"Failed to describe the api-destination(s). An api-destination '{name}' does not exist.")
        return {**self._shown_destination(found), "Description": found.description or None}

    def _shown_destination(self, one: Destination) -> Request:
        return {
            **self._destination_state(one),
            "Name": one.name,
            "ConnectionArn": one.connection_arn,
            "InvocationEndpoint": one.endpoint,
            "HttpMethod": one.method,
            "InvocationRateLimitPerSecond": one.rate,
        }

    async def delete_api_destination(self, caller: Any, request: Request) -> None:
        await self._write(lambda tables: tables.delete(_destination(tables, str(request["Name"]))))

    async def list_api_destinations(self, caller: Any, request: Request) -> Request:
        prefix, arn = request.get("NamePrefix") or "", request.get("ConnectionArn")
        found = self._read(lambda tables: [one for one in tables.every(Destination) if one.name.startswith(prefix)])
        shown, more = page([(one.name, one) for one in found if arn in (None, one.connection_arn)], request)
        return {"ApiDestinations": [self._shown_destination(one) for one in shown], **more}


def _state(kind: str) -> str:
    return "AUTHORIZING" if kind == "OAUTH_CLIENT_CREDENTIALS" else "AUTHORIZED"


def _check(kind: str, parameters: dict[str, Any], request: Request) -> None:
    if request.get("InvocationConnectivityParameters") or parameters.get("ConnectivityParameters"):
        raise Unsupported("connections to private APIs (ConnectivityParameters) are not supported")
    member, name = _KINDS[kind]
    if not parameters.get(member):
        raise invalid(f"Parameter AuthParameters is not valid. Reason: {member} must be specified for {name} authorization.")


def _endpoint(request: Request) -> str:
    endpoint = str(request["InvocationEndpoint"])
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        sound = False
    if not sound:
        raise invalid("Parameter InvocationEndpoint is not valid. Reason: it must be an http or https URL.")
    return endpoint


def _connection(tables: Tables, name: str) -> Connection:
    found = tables.get(Connection, name)
    if found is None:
        raise no_such(f"Connection '{name}' does not exist.")
    return found


def _destination(tables: Tables, name: str) -> Destination:
    found = tables.get(Destination, name)
    if found is None:
        raise no_such(f"An api-destination '{name}' does not exist.")
    return found


def _merged(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    found = dict(before)
    for name, value in given.items():
        old = found.get(name)
        found[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found


def _without_secrets(parameters: dict[str, Any]) -> dict[str, Any]:
    """As DescribeConnection shows it: no passwords, keys, client secrets, nor values that are said to be secret."""
    shown: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in ("Password", "ApiKeyValue", "ClientSecret"):
            continue
        if isinstance(value, dict):
            shown[name] = _without_secrets(value)
        elif isinstance(value, list):
            shown[name] = [
                {key: item for key, item in one.items() if key != "Value" or one.get("IsValueSecret") is False} for one in value
            ]
        else:
            shown[name] = value
    return shown
