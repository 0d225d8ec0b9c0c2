"""Whether rows agree with each other: every index entry has its document and every document its entries, counted again."""

from __future__ import annotations

from typing import Any

from martlet.documents import values
from martlet.documents.catalog import Catalog
from martlet.documents.layout import entry_of, numbered, row_of, stats_of


def rows(reader: Any, low: bytes, high: bytes) -> list[tuple[bytes, bytes]]:
    return list(reader.scan(low, high, limit=10_000_000))


def problems(reader: Any) -> list[str]:
    """One sentence for each disagreement. Collections that were dropped are not looked at."""
    catalog, found = Catalog(), []
    for _, raw in rows(reader, b"Dc", b"Dd"):
        compiled = catalog.compiled(raw)
        record = compiled.record
        docs = {key[6:]: row_of(value) for key, value in rows(reader, compiled.docs, compiled.docs + b"\xff")}
        stats = stats_of(reader.get(numbered(b"Ds", record.number)))
        if (stats.documents, stats.body_bytes) != (len(docs), sum(len(row.body) for row in docs.values())):
            found.append(f"{record.name}: counted {stats}, there are {len(docs)}")
        for index in compiled.indexes:
            there = {key: entry_of(key[6:], value).covered for key, value in rows(reader, index.prefix, index.prefix + b"\xff")}
            wanted: dict[bytes, bytes] = {}
            for id, row in docs.items():
                made = index.entries(values.load(row.body), id, row.stamp, row.expires_at_ms)
                wanted.update({key: entry_of(key[6:], value).covered for key, value in made.items()})
            building = index.record.status == "building"
            if not building and there != wanted:
                found.append(f"{record.name}.{index.record.name}: {len(there)} entries, {len(wanted)} wanted")
            if building and not there.items() <= wanted.items():
                found.append(f"{record.name}.{index.record.name}: entries without documents while it is built")
        for key, _ in rows(reader, compiled.past, compiled.past + b"\xff"):
            row = row_of(reader.get(key))
            if row.stamp >= int.from_bytes(key[-8:], "big"):
                found.append(f"{record.name}: a version ended before it began")
    return found
