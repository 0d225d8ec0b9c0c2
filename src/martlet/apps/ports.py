"""What the room asks of its collaborators, in its own words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar

from martlet.types import AppGraph, CollectionDeclaration, FunctionConfig, FunctionVersion, ScheduleConfig

__all__ = [
    "ApiSchemas",
    "Build",
    "CheckSchedule",
    "Collections",
    "Consumers",
    "Functions",
    "Listeners",
    "Progress",
    "Schedules",
    "Store",
    "Transaction",
]

T = TypeVar("T")
Progress = Callable[[str], None]
CheckSchedule = Callable[[str, str], None]  # (expression, timezone); raises InvalidInput


class Build(Protocol):
    """What running an app's module in a sandbox gave: the resource graph it declared and the modules it imported."""

    @property
    def graph(self) -> dict[str, Any]: ...
    @property
    def imports(self) -> tuple[str, ...]: ...


class Functions(Protocol):
    """The functions room, as far as a deployment needs it."""

    async def build(self, *, app: str, code: str, layer: str, module: str) -> Build: ...
    async def publish(
        self, app: str, config: FunctionConfig, *, code: str, layer: str, imports: tuple[str, ...]
    ) -> FunctionVersion: ...
    async def restore(self, previous: FunctionVersion) -> None: ...
    async def remove(self, name: str) -> None: ...
    async def followed(self) -> None: ...
    def get(self, name: str) -> FunctionVersion | None: ...
    def list(self) -> list[FunctionVersion]: ...


class Schedules(Protocol):
    """The schedules of the triggers room; `put` and `remove` write within the caller's transaction."""

    def check(self, expression: str, timezone: str) -> None: ...
    def put(self, tx: Any, app: str, config: ScheduleConfig, function: str) -> None: ...
    def remove(self, tx: Any, app: str, name: str) -> None: ...


class Listeners(Protocol):
    """Event buses and topics and who hears them, as far as apps have them."""

    def check(self, app: str, graph: AppGraph) -> None:
        """Whether `prepare` would take it; changes nothing. Raises `MartletError`."""

    async def prepare(self, app: str, graph: AppGraph) -> None:
        """Make the app's buses and topics as `graph` says. May be repeated. Raises `MartletError`."""

    async def listen(self, app: str, graph: AppGraph) -> None:
        """From now on these functions hear these buses and topics, and no others of the app. May be repeated."""


class Consumers(Protocol):
    """Queues and who takes their messages, as far as apps have them."""

    def check(self, app: str, graph: AppGraph) -> None:
        """Whether `prepare` would take it; changes nothing. Raises `MartletError`."""

    async def prepare(self, app: str, graph: AppGraph) -> None:
        """Make the app's queues as `graph` says. May be repeated. Raises `MartletError`."""

    async def consume(self, app: str, graph: AppGraph) -> None:
        """From now on these functions take these queues' messages, and no others of the app. May be repeated."""


class ApiSchemas(Protocol):
    """The GraphQL schema of an app's database, as far as deployments put it in place; "" is none."""

    def current(self, app: str) -> str: ...

    async def check(self, app: str, sdl: str) -> tuple[str, ...]:
        """What would change, a line each. Raises `DeployFailed`."""

    def changing(self) -> AbstractContextManager[None]:
        """Around the transaction of the store that `put` is part of."""

    def put(self, tx: Any, app: str, sdl: str) -> None: ...


class Collections(Protocol):
    """Collections of documents, as far as apps declare them."""

    def check(self, declarations: Sequence[CollectionDeclaration]) -> None:
        """Raises `MartletError` for settings that no collection can have."""

    async def apply(
        self, app: str, declarations: Sequence[CollectionDeclaration], say: Callable[[str], None] | None = None
    ) -> None:
        """Make the collections of the app's database so, and `say` how indexes are built. May be repeated. Raises
        `MartletError`."""


class Transaction(Protocol):
    """The part of a store's transaction that this room uses."""

    def get(self, key: bytes, /) -> bytes | None: ...
    def put(self, key: bytes, value: bytes, /) -> None: ...
    def delete(self, key: bytes, /) -> None: ...
    def scan(self, low: bytes, high: bytes, /, limit: int) -> Iterable[tuple[bytes, bytes]]: ...


class Store(Protocol):
    """The store: `transact` answers after the commit."""

    async def transact(self, fn: Callable[[Any], T], /) -> T: ...
    def read(self, fn: Callable[[Any], T], /) -> T: ...
    def watch(self, low: bytes, high: bytes, told: Callable[[Sequence[bytes] | None], None], /) -> None: ...
    def turn(self, name: str, wait_seconds: float | None, /) -> AbstractAsyncContextManager[bool]: ...
    def on_departure(self, told: Callable[[str], None], /) -> None: ...
