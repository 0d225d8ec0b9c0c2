"""What a request used: counted while it runs, returned with its answer, and handed to the ledger."""

from __future__ import annotations

import msgspec

__all__ = ["Usage"]

_READ_BYTES = 4_096  # DynamoDB: one read unit
_WRITE_BYTES = 1_024  # DynamoDB: one write unit
_NODES = 50  # evaluated nodes of expressions in one compute operation


class Usage(msgspec.Struct):
    """Operations and bytes of one request. `read_operations`: one for each started 4 KiB of a document or of index entries
    that were read; `write_operations`: one for each started 1 KiB of a document written or deleted, and one for each index
    entry changed; `compute_operations`: one for each started 50 nodes of expressions evaluated."""

    read_operations: int = 0
    write_operations: int = 0
    compute_operations: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    nodes: int = 0
    entry_bytes: int = 0

    def read(self, size: int) -> None:
        self.read_operations += -(-size // _READ_BYTES) or 1
        self.bytes_out += size

    def wrote(self, size: int) -> None:
        self.write_operations += -(-size // _WRITE_BYTES) or 1
        self.bytes_in += size

    def close(self) -> Usage:
        """Round up what was counted in parts."""
        self.compute_operations += -(-self.nodes // _NODES)
        self.read_operations += -(-self.entry_bytes // _READ_BYTES)
        self.nodes = self.entry_bytes = 0
        return self

    def text(self) -> str:
        """As an answer's header says it."""
        return (
            f"read={self.read_operations}, write={self.write_operations}, compute={self.compute_operations}, "
            f"bytes-in={self.bytes_in}, bytes-out={self.bytes_out}"
        )

    def add(self, other: Usage) -> None:
        self.read_operations += other.read_operations
        self.write_operations += other.write_operations
        self.compute_operations += other.compute_operations
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.nodes += other.nodes
        self.entry_bytes += other.entry_bytes
