"""Tables over one store: what the services "dynamodb" and "dynamodbstreams" share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from martlet.clock import Clock, token_hex
from martlet.documents.dynamodb.capacity import Capacity
from martlet.documents.dynamodb.failures import no_resource
from martlet.documents.dynamodb.housekeeping import Housekeeping
from martlet.documents.dynamodb.imports import Imports
from martlet.documents.dynamodb.streams import Streams
from martlet.documents.dynamodb.tables import Catalog, Table
from martlet.documents.dynamodb.writing import DATABASE, Done, Write, apply
from martlet.documents.usage import Usage
from martlet.store import Reader, Store, Tx

__all__ = ["Tables"]

T = TypeVar("T")
Record = Callable[[str, Usage], None]


class Tables:
    """`record` gets ("aws:dynamodb/<table>", usage) for each request. `exclusive`: no other process writes to this store.

    `start` runs what goes on in the background: index builds, expiry, removal."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        region: str = "us-east-1",
        record: Record | None = None,
        holder: str = "",
        exclusive: bool = True,
    ) -> None:
        self.store = store
        self.clock = clock
        self.region = region
        self._record = record
        self.catalog = Catalog((lambda: store.generation) if exclusive and not store.shared else None)
        self.housekeeping = Housekeeping(store, clock, self.catalog, holder or token_hex(8))
        self.streams = Streams(store, self.catalog, region)
        self.imports = Imports(store, self.catalog, region, holder or token_hex(8))

    async def start(self) -> None:
        self.housekeeping.start()
        self.imports.start()

    async def stop(self) -> None:
        await self.imports.stop()
        await self.housekeeping.stop()

    def demand(self, reader: Reader, name: str) -> Table:
        """The table, or ResourceNotFoundException."""
        table = self.catalog.table(reader, name)
        if table is None:
            raise no_resource()
        return table

    def table(self, name: str) -> Table:
        return self.store.read(lambda reader: self.demand(reader, name))

    async def write(self, write: Write) -> Done:
        """One item's write, durable on return."""
        done = await self.store.transact(lambda tx: apply(tx, self.demand(tx, write.table), write))
        if done.expires:
            self.housekeeping.wake()
        self.account(write.table, done.capacity, wrote=True)
        return done

    async def change(self, fn: Callable[[Tx], T]) -> T:
        """A transaction that changes definitions."""
        self.catalog.changing()
        try:
            return await self.store.transact(fn)
        finally:
            self.catalog.settled()
            self.housekeeping.wake()

    def account(self, table: str, capacity: Capacity, *, wrote: bool) -> None:
        """Hand what a request used to the ledger."""
        if self._record is None:
            return
        units = int(-(-capacity.total // 1))
        usage = Usage(write_operations=units) if wrote else Usage(read_operations=units)
        self._record(f"{DATABASE}/{table}", usage)
