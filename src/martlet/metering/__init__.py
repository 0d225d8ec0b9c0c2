"""Metering: the ledger of what was used, exact and durable.

Owns: the sums of every invocation by function, version and hour, and their rows in the store. Offers `Ledger`
(`record` on the hot path, `usage`). Never: slows an invocation down by more than an addition, waits for the disk in
`record`, counts anything twice, shows what a crash could take back, prices anything.
"""

from martlet.metering.documents import DocumentLedger, DocumentUsage
from martlet.metering.ledger import Ledger, UsageRow

__all__ = ["DocumentLedger", "DocumentUsage", "Ledger", "UsageRow"]
