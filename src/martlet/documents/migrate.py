"""From layout 1 (rows under keys.encode("documents", database, collection, id)) to the present one, a few rows at a time.

A crash between two steps is harmless: a row is moved in one transaction, and what is left is moved by the next start."""

from __future__ import annotations

from typing import Final

import msgspec

from martlet.documents import layout
from martlet.documents.catalog import Catalog
from martlet.documents.layout import Row, pack_long
from martlet.documents.transaction import Transaction
from martlet.documents.usage import Usage
from martlet.documents.view import id_bytes
from martlet.errors import StartFailed
from martlet.store import Store, Tx, keys

__all__ = ["migrate"]

_AT_ONCE: Final = 20
_OLD_ROWS: Final = "documents"
_OLD_GONE: Final = "documents.gone"


class _OldRow(msgspec.Struct, frozen=True, array_like=True):
    version: int
    updated_at_ms: int
    value: bytes


_DECODE: Final = msgspec.msgpack.Decoder(_OldRow).decode


async def migrate(store: Store, catalog: Catalog) -> None:
    """Move what is there in an older layout. Raises `StartFailed` for a newer one."""
    found = store.read(lambda reader: reader.get(layout.META_FORMAT))
    if found == layout.FORMAT:
        return
    if found is not None:
        raise StartFailed(
            f"the documents are in layout {found.decode()}, this martlet knows {layout.FORMAT.decode()}",
            remedy="install the newer martlet",
        )
    while await store.transact(lambda tx: _move(tx, catalog)):
        pass
    await store.transact(lambda tx: tx.put(layout.META_FORMAT, layout.FORMAT))


def _move(tx: Tx, catalog: Catalog) -> bool:
    rows = tx.scan(*keys.prefix_range(_OLD_ROWS), limit=_AT_ONCE)
    gone = tx.scan(*keys.prefix_range(_OLD_GONE), limit=_AT_ONCE)
    for key, raw in rows:
        _, database, collection, id = map(str, keys.decode(key))
        target = Transaction(tx, catalog, database, Usage())
        compiled = target.writable(collection)
        old = _DECODE(raw)
        stamp = old.updated_at_ms * 1000
        tx.put(compiled.docs + id_bytes(id), Row(old.version, stamp, stamp, 0, old.value).pack())
        stats = target.stats(compiled)
        stats.documents += 1
        stats.body_bytes += len(old.value)
        target.finish()
        tx.delete(key)
    for key, raw in gone:
        _, database, collection, id = map(str, keys.decode(key))
        target = Transaction(tx, catalog, database, Usage())
        compiled = target.writable(collection)
        tx.put(b"Dg" + compiled.docs[2:] + id_bytes(id), raw + pack_long(target.stamp()))
        target.stats(compiled).deleted += 1
        target.finish()
        tx.delete(key)
    return bool(rows or gone)
