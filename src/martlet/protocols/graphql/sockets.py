"""GraphQL over a WebSocket: the subprotocol graphql-transport-ws.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md

Queries and mutations run as well as subscriptions. A client that ends a mutation early does not undo it: it runs on, unheard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from martlet.auth.acts import Act, witness
from martlet.errors import InvalidInput, MartletError
from martlet.limits import LIMITS, exceeded
from martlet.protocols.asgi import Socket
from martlet.protocols.graphql.asked import asked_of, decoded
from martlet.protocols.graphql.faults import Refusal, shown
from martlet.protocols.graphql.reader import Permit
from martlet.protocols.graphql.service import Service
from martlet.protocols.graphql.subscribing import Answers, subscribe

__all__ = ["SUBPROTOCOL", "Session"]

Note = Callable[[list[Act], int, MartletError | None], Awaitable[None]]

SUBPROTOCOL: Final = "graphql-transport-ws"
_INIT_SECONDS: Final = LIMITS["graphql_init_seconds"].default
_OPERATIONS: Final = LIMITS["graphql_operations"].default
_log = logging.getLogger("martlet.protocols.graphql")
_under_way: set[asyncio.Task[None]] = set()  # what runs on after its connection is gone


class _End(Exception):
    """Close the connection: (code, reason)."""


class _Operation:
    """One operation of a client, until `complete`."""

    __slots__ = ("id", "over", "streams", "task")

    def __init__(self, id: str) -> None:
        self.id = id
        self.over = False  # the client is told nothing more of it
        self.streams = False
        self.task: asyncio.Task[None]

    def end(self) -> None:
        """Its client wants no more."""
        self.over = True
        if self.streams:
            self.task.cancel()


class Session:
    """One connection. `enter(authorization)` says whose it is: the database and what is permitted there; or raises
    `MartletError`. `authorization` is what the client's connection_init gives by that name, "" for nothing.

    `note` hears of each operation what it was decided to do, as the audit hears of requests, before its answer leaves; it may
    raise `MartletError`.
    """

    def __init__(
        self, service: Service, socket: Socket, enter: Callable[[str], Awaitable[tuple[str, Permit]]], note: Note
    ) -> None:
        self._note = note
        self._service = service
        self._socket = socket
        self._enter = enter
        self._entered: tuple[str, Permit] | None = None
        self._operations: dict[str, _Operation] = {}

    async def run(self) -> None:
        if SUBPROTOCOL not in self._socket.subprotocols:
            await self._socket.accept()
            await self._socket.close(4406, "Subprotocol not acceptable")
            return
        await self._socket.accept(SUBPROTOCOL)
        try:
            if await self._begin():
                while await self._take():
                    pass
        except _End as end:
            await self._socket.close(*end.args)
        finally:
            for operation in tuple(self._operations.values()):
                operation.end()

    async def _begin(self) -> bool:
        """Up to connection_ack; False: the client left."""
        try:
            async with asyncio.timeout(_INIT_SECONDS):
                while self._entered is None:
                    if not await self._take():
                        return False
        except TimeoutError:
            raise _End(4408, "Connection initialisation timeout") from None
        return True

    async def _take(self) -> bool:
        """One message of the client's; False: it left."""
        raw = await self._socket.receive()
        if raw is None:
            return False
        message = _message(raw)
        kind = message.get("type")
        if kind == "connection_init":
            await self._initialise(message)
        elif kind == "ping":
            _payload(message)
            await self._say({"type": "pong", **({"payload": message["payload"]} if "payload" in message else {})})
        elif kind == "pong":
            _payload(message)
        elif kind == "subscribe":
            self._subscribe(message)
        elif kind == "complete":
            operation = self._operations.pop(_id(message), None)
            if operation is not None:
                operation.end()
        else:
            raise _End(4400, f"Invalid message type {str(kind)[:40]!r}")
        return True

    async def _initialise(self, message: dict[str, Any]) -> None:
        if self._entered is not None:
            raise _End(4429, "Too many initialisation requests")
        payload = _payload(message)
        given = [value for name, value in payload.items() if name.lower() == "authorization"]
        if len(given) > 1 or not all(isinstance(value, str) for value in given):
            raise _End(4400, "Invalid connection_init: authorization is one text")
        try:
            self._entered = await self._enter(given[0] if given else "")
        except MartletError as error:
            with contextlib.suppress(MartletError):  # it is refused whether or not that is noted
                await self._note([], error.http_status, error)
            raise _End(4403, f"Forbidden: {error.message}") from None
        await self._say({"type": "connection_ack"})

    def _subscribe(self, message: dict[str, Any]) -> None:
        id = _id(message)
        if not isinstance(message.get("payload"), dict):
            raise _End(4400, "Invalid subscribe: `payload` is no object")
        if not isinstance(message["payload"].get("query"), str) and "extensions" not in message["payload"]:
            raise _End(4400, "Invalid subscribe: `query` is no text")
        if self._entered is None:
            raise _End(4401, "Unauthorized")
        if id in self._operations:
            raise _End(4409, f"Subscriber for {id} already exists")
        operation = _Operation(id)
        full = len(self._operations) >= _OPERATIONS
        self._operations[id] = operation
        work = self._refuse(operation) if full else self._run(operation, message["payload"], *self._entered)
        task = operation.task = asyncio.get_running_loop().create_task(work)
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)

    # operations

    async def _refuse(self, operation: _Operation) -> None:
        with contextlib.suppress(OSError):
            await self._fault(operation, [shown(exceeded("graphql_operations", None, "this connection"))])

    async def _run(self, operation: _Operation, payload: dict[str, Any], database: str, permit: Permit) -> None:
        try:
            found = await self._start(payload, database, permit)
            if isinstance(found, dict):
                await self._next(operation, found)
            else:
                await self._follow(operation, found)
            await self._finish(operation, {"type": "complete"})
        except OSError:
            pass  # the client is gone
        except Refusal as refusal:
            await self._fault(operation, refusal.errors)
        except MartletError as error:
            await self._fault(operation, [shown(error)])
        except Exception:
            _log.exception("a GraphQL operation failed")
            await self._fault(operation, [{"message": "something went wrong inside Martlet; its log has the details"}])

    async def _start(self, payload: dict[str, Any], database: str, permit: Permit) -> dict[str, Any] | Answers:
        """An answer, or a subscription's answers. What was decided on the way is noted, however it ends."""
        status, failure = 200, None
        with witness() as acts:
            try:
                ready = await self._service.ready(database, asked_of(payload))
                if ready.kind == "subscription":
                    return await subscribe(self._service, ready, permit)
                return await self._service.run(ready, permit)
            except Refusal as refusal:
                status = refusal.status
                raise
            except MartletError as error:
                status, failure = error.http_status, error
                raise
            finally:
                await self._note(acts, status, failure)

    async def _follow(self, operation: _Operation, answers: Answers) -> None:
        operation.streams = True
        try:
            if operation.over:
                return
            async for answer in answers:
                await self._next(operation, answer)
        finally:
            await answers.aclose()  # type: ignore[attr-defined]

    async def _next(self, operation: _Operation, answer: dict[str, Any]) -> None:
        if not operation.over:
            await self._say({"id": operation.id, "type": "next", "payload": answer})

    async def _fault(self, operation: _Operation, errors: list[dict[str, Any]]) -> None:
        with contextlib.suppress(OSError):
            await self._finish(operation, {"type": "error", "payload": errors})

    async def _finish(self, operation: _Operation, last: dict[str, Any]) -> None:
        """The operation's last message; its id is free before the client reads it."""
        if not operation.over:
            operation.over = True
            self._operations.pop(operation.id, None)
            await self._say({"id": operation.id, **last})

    async def _say(self, message: dict[str, Any]) -> None:
        await self._socket.send(msgspec.json.encode(message).decode())


def _message(raw: str | bytes) -> dict[str, Any]:
    if isinstance(raw, bytes):
        raise _End(4400, "Invalid message: not text")
    try:
        found = decoded(raw.encode(), "message")
    except InvalidInput as error:
        raise _End(4400, f"Invalid message: {error.message}") from None
    if not isinstance(found, dict):
        raise _End(4400, "Invalid message: not an object")
    return found


def _payload(message: dict[str, Any]) -> dict[str, Any]:
    """An optional object."""
    found = message.get("payload")
    if found is not None and not isinstance(found, dict):
        raise _End(4400, f"Invalid {message['type']}: `payload` is no object")
    return found or {}


def _id(message: dict[str, Any]) -> str:
    found = message.get("id")
    if not isinstance(found, str) or not found:
        raise _End(4400, f"Invalid {message['type']}: `id` is no text")
    return found
