"""A circuit breaker. Its state is one item of a table, so all instances of all functions share it."""

import math
import time
from decimal import Decimal

CLOSED = {"state": "closed", "term": 0, "failures": 0, "until": 0, "probes": 0, "version": 0}


class Open(Exception):
    """The call was not made. `retry_after_seconds`: when one may be made again."""

    def __init__(self, seconds):
        super().__init__("the circuit is open")
        self.retry_after_seconds = max(1, math.ceil(seconds))


class Breaker:
    """`threshold` failures in a row open it for `cool_down` seconds; then one caller, the probe, decides whether it closes.

    A state has a term, which grows with each change: the outcome of a call counts only in the term in which it was admitted, so
    that one which comes late neither opens nor closes anything. A probe that is not heard of for `lease` seconds is given up.
    """

    def __init__(self, table, name, *, threshold, cool_down, lease):
        self.table, self.name = table, name
        self.threshold, self.cool_down, self.lease = threshold, cool_down, lease
        self.conflict = table.meta.client.exceptions.ConditionalCheckFailedException

    def call(self, work):
        """What `work` returns or raises; or `Open`, at once."""
        term = self._admit()
        try:
            result = work()
        except Exception:
            self._record(term, failed=True)
            raise
        self._record(term, failed=False)
        return result

    def state(self):
        found = self.table.get_item(Key={"name": self.name}, ConsistentRead=True).get("Item")
        return found or {"name": self.name, **CLOSED}

    def _write(self, seen, **changes):
        """Write `seen` with `changes`, unless somebody else has written since."""
        self.table.put_item(
            Item={**seen, **changes, "version": seen["version"] + 1},
            ConditionExpression="attribute_not_exists(#n) OR #v = :seen",
            ExpressionAttributeNames={"#n": "name", "#v": "version"},
            ExpressionAttributeValues={":seen": seen["version"]},
        )

    def _admit(self):
        """The term in which the call is made."""
        seen, now = self.state(), Decimal(str(time.time()))
        if seen["state"] == "closed":
            return seen["term"]
        if now < seen["until"]:
            raise Open(seen["until"] - now)
        term = seen["term"] + 1
        try:
            self._write(seen, state="probing", term=term, until=now + self.lease, probes=seen["probes"] + 1)
        except self.conflict:  # of all who saw that the time has come, another one is the probe
            raise Open(self.cool_down) from None
        return term

    def _record(self, term, failed):
        while True:
            seen = self.state()
            if seen["term"] != term or not (failed or seen["failures"] or seen["state"] == "probing"):
                return
            try:
                self._write(seen, **self._after(seen, failed))
                return
            except self.conflict:
                continue  # another call's outcome was first: look again

    def _after(self, seen, failed):
        probed = seen["state"] == "probing"
        if not failed:
            return {"state": "closed", "failures": 0, "term": seen["term"] + probed}
        failures = seen["failures"] + 1
        if probed or failures >= self.threshold:
            until = Decimal(str(time.time())) + self.cool_down
            return {"state": "open", "failures": failures, "term": seen["term"] + 1, "until": until}
        return {"failures": failures}
