"""Budgets of apps, as endpoints of the management API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from martlet.errors import InvalidInput, NotFound
from martlet.metering import Budget, Budgets
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Operation, Request
from martlet.protocols.rooms import Rooms
from martlet.types import Principal

__all__ = ["BudgetEndpoints"]

_BYTES = "request_line_bytes"


class BudgetEndpoints:
    def __init__(self, rooms: Rooms, identify: Callable[..., Awaitable[tuple[Principal, bytes]]]) -> None:
        self._rooms = rooms
        self._budgets = rooms.budgets
        self._identify = identify
        self._auth = rooms.auth

    def operations(self) -> tuple[Operation, ...]:
        if self._budgets is None:
            return ()
        return (
            Operation("GET", "/v1/budgets", self.list),
            Operation("PUT", "/v1/budgets/{app}", self.put),
            Operation("DELETE", "/v1/budgets/{app}", self.delete),
        )

    async def _asked(self, request: Request, action: str, resource: str) -> tuple[Budgets, bytes]:
        principal, body = await self._identify(request, _BYTES)
        self._auth.authorize(principal, action, resource)
        assert self._budgets is not None
        return self._budgets, body

    async def list(self, request: Request) -> Answer:
        request.query(())
        budgets, _ = await self._asked(request, "budgets:List", "*")
        return asgi.json_answer({"budgets": [msgspec.to_builtins(spent) for spent in await budgets.list()]})

    async def put(self, request: Request) -> Answer:
        app = request.parameters["app"]
        budgets, body = await self._asked(request, "budgets:Put", app)
        try:
            given = msgspec.json.decode(body)
            if not isinstance(given, dict):
                raise InvalidInput("a budget is a JSON object")
            budget = msgspec.convert({**given, "app": app}, Budget)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"this is no budget: {error}") from error
        if not self._is_app(app):
            raise NotFound(f"there is no app {app}", remedy="see: martlet apps")
        if budget.tell and self._rooms.functions.find(budget.tell) is None:
            raise NotFound(f"tell: there is no function {budget.tell}", remedy="see: martlet functions")
        await budgets.put(budget)
        return Answer(204)

    def _is_app(self, name: str) -> bool:
        stacks = self._rooms.stacks
        return any(one.name == name for one in self._rooms.apps.list()) or (
            stacks is not None and stacks.find(name) is not None
        )

    async def delete(self, request: Request) -> Answer:
        app = request.parameters["app"]
        budgets, _ = await self._asked(request, "budgets:Delete", app)
        await budgets.delete(app)
        return Answer(204)
