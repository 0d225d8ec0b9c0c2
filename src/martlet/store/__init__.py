"""The store: one transactional store with a change log, the ground floor of everything that is kept.

Owns: the data folder's file or the database's schema, the order of transactions, the log and its retention, cursors, leases.
Offers `Store` (`transact`, `read`, `look`, `tail`, `wait`, `watch`, `turn`, `maintain`), `Folders` that nodes share, and
order-preserving `keys`; below it the port `engine.Engine`, and `engine.SharedEngine` for what several nodes share.
Never: acknowledges what is not durable, names an engine (it takes one), knows what a row means, runs asynchronous code
inside a transaction, polls.
"""

from martlet.store.engine import Engine, LogEntry
from martlet.store.folders import Folders
from martlet.store.nodes import is_alive, node_names
from martlet.store.store import Maintenance, Statistics, Store
from martlet.store.transaction import Lease, Reader, Tx, counter_value

__all__ = [
    "Engine",
    "Folders",
    "Lease",
    "LogEntry",
    "Maintenance",
    "Reader",
    "Statistics",
    "Store",
    "Tx",
    "counter_value",
    "is_alive",
    "node_names",
]
