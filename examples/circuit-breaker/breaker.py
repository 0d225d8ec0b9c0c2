"""A circuit breaker. Its state is one document, so all instances of all functions share it."""

import math
import time
from collections.abc import Callable
from typing import Any

from martlet import Collection, Conflict

CLOSED = {"state": "closed", "term": 0, "failures": 0, "until": 0.0, "probes": 0}


class Open(Exception):
    """The call was not made. `retry_after_seconds`: when one may be made again."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the circuit is open")
        self.retry_after_seconds = max(1, math.ceil(seconds))


class Breaker:
    """`threshold` failures in a row open it for `cool_down` seconds; then one caller, the probe, decides whether it closes.

    A state has a term, which grows with each change: the outcome of a call counts only in the term in which it was admitted, so
    that one which comes late neither opens nor closes anything. A probe that is not heard of for `lease` seconds is given up.
    """

    def __init__(self, states: Collection, name: str, *, threshold: int, cool_down: float, lease: float) -> None:
        self.states, self.name = states, name
        self.threshold, self.cool_down, self.lease = threshold, cool_down, lease

    def call(self, work: Callable[[], Any]) -> Any:
        """What `work` returns or raises; or `Open`, at once."""
        term = self._admit()
        try:
            result = work()
        except Exception:
            self._record(term, failed=True)
            raise
        self._record(term, failed=False)
        return result

    def state(self) -> dict:
        return self._read()[0]

    def _read(self) -> tuple[dict, int]:
        found = self.states.get(self.name)
        return (CLOSED, 0) if found is None else (found.value, found.version)

    def _admit(self) -> int:
        """The term in which the call is made."""
        state, version = self._read()
        now = time.time()
        if state["state"] == "closed":
            return state["term"]
        if now < state["until"]:
            raise Open(state["until"] - now)
        term = state["term"] + 1
        probing = {**state, "state": "probing", "term": term, "until": now + self.lease, "probes": state["probes"] + 1}
        try:
            self.states.put(self.name, probing, version=version)
        except Conflict:  # of all who saw that the time has come, another one is the probe
            raise Open(self.cool_down) from None
        return term

    def _record(self, term: int, failed: bool) -> None:
        while True:
            state, version = self._read()
            if state["term"] != term or not (failed or state["failures"] or state["state"] == "probing"):
                return
            try:
                self.states.put(self.name, self._after(state, failed), version=version)
                return
            except Conflict:
                continue  # another call's outcome was first: look again

    def _after(self, state: dict, failed: bool) -> dict:
        probed = state["state"] == "probing"
        if not failed:
            return {**state, "state": "closed", "failures": 0, "term": state["term"] + probed}
        failures = state["failures"] + 1
        if probed or failures >= self.threshold:
            until = time.time() + self.cool_down
            return {**state, "state": "open", "failures": failures, "term": state["term"] + 1, "until": until}
        return {**state, "failures": failures}
