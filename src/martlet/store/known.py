"""What a node knows of a shared engine: committed rows at one position, and what changed lately."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final

from martlet.store.engine import Change, Seen, Span
from martlet.store.guesses import Guesses
from martlet.store.overlay import MISSING

__all__ = ["Base", "DaringWindow", "Known", "Needs", "Window"]

_KEPT_BYTES: Final = 33_554_432  # of rows
_ROW_BYTES: Final = 200  # what a row costs beside its key and value
_RECENT: Final = 256  # commits that are remembered
_SLACK: Final = 32  # rows asked for beyond a scan's limit: others of this node may delete some meanwhile
_KEPT_RANGES: Final = 128  # ranges that are kept, since the same ones are asked again and again (what is due, who waits) ...
_KEPT_RANGE_ROWS: Final = 256  # ... of at most so many rows ...
_KEPT_RANGE_BYTES: Final = 65_536  # ... and bytes, when they were fetched

_Rows = list[tuple[bytes, bytes]]


class Needs:
    """What a function asked for and was not there."""

    __slots__ = ("keys", "spans")

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.spans: set[Span] = set()

    def __bool__(self) -> bool:
        return bool(self.keys or self.spans)


class Known:
    """All rows of a range, as of one position."""

    __slots__ = ("high", "low", "position", "rows")

    def __init__(self, span: Span, rows: _Rows, position: int) -> None:
        self.low, self.high, self.rows, self.position = span.low, span.high, sorted(rows), position
        if len(rows) >= span.limit:  # cut: what lies beyond the last one is not known
            if span.reverse:
                self.low = self.rows[0][0]
            else:
                self.high = self.rows[-1][0] + b"\x00"

    def answer(self, low: bytes, high: bytes, limit: int, reverse: bool) -> _Rows | None:
        """The scan's rows; None if it looks beyond this range."""
        start = bisect_left(self.rows, (low,)) if low > self.low else 0
        end = bisect_left(self.rows, (high,)) if high < self.high else len(self.rows)
        if reverse:
            if high > self.high or (low < self.low and end - start < limit):
                return None
            return self.rows[max(start, end - limit) : end][::-1]
        if low < self.low or (high > self.high and end - start < limit):
            return None
        return self.rows[start : min(end, start + limit)]

    def follow(self, past: _Past) -> bool:
        """Bring the range over one commit; False if another node may have changed it."""
        keys = past.ordered()
        start = bisect_left(keys, self.low)
        if start == len(keys) or keys[start] >= self.high:
            return True
        if past.writes is None:
            return False
        self._patch(keys[start : bisect_left(keys, self.high)], past.writes)
        return True

    def _patch(self, mine: list[bytes], writes: Mapping[bytes, bytes | None]) -> None:
        if mine:
            rows: dict[bytes, bytes | None] = dict(self.rows)
            for key in mine:
                rows[key] = writes[key]
            self.rows = sorted((key, value) for key, value in rows.items() if value is not None)


class _Past:
    """One commit that is remembered."""

    __slots__ = ("_ordered", "keys", "position", "writes")

    def __init__(self, position: int, keys: Collection[bytes], writes: Mapping[bytes, bytes | None] | None) -> None:
        self.position, self.keys, self.writes = position, keys, writes
        self._ordered: list[bytes] | None = None

    def ordered(self) -> list[bytes]:
        if self._ordered is None:
            self._ordered = sorted(self.keys)
        return self._ordered


class Base:
    """Committed rows at `position`. Moves forward with each snapshot and each commit of this node."""

    def __init__(self) -> None:
        self.position = -1
        self.seq, self.first = 0, 1
        self.rows: dict[bytes, bytes | None] = {}
        self._size = 0
        self._recent: deque[_Past] = deque(maxlen=_RECENT)
        self._ranges: dict[tuple[bytes, bytes, bool], Known] = {}

    def advance(self, seen: Seen, own: Callable[[Change], Mapping[bytes, bytes | None] | None]) -> list[list[bytes]] | None:
        """Move to a snapshot, if it is newer. Returns the keys that other nodes changed, commit by commit; None: unknown, so
        that anything may have changed. `own` gives the rows of a commit of this node, and None of others."""
        if seen.position <= self.position:
            return []
        foreign: list[list[bytes]] | None = []
        if seen.changes is None:
            self.forget()
            foreign = None
        else:
            for change in seen.changes:
                if change.position <= self.position:
                    continue
                writes = own(change)
                self._recent.append(_Past(change.position, frozenset(change.keys), writes))
                if writes is not None:
                    self._keep(writes)
                elif change.keys:
                    for key in change.keys:
                        self.rows.pop(key, None)
                    assert foreign is not None
                    foreign.append(change.keys)
        self.position, self.seq, self.first = seen.position, seen.seq, max(seen.first, 1)
        return foreign

    def committed(self, position: int, seq: int, writes: Mapping[bytes, bytes | None], trim_through: int) -> None:
        """This node's commit came directly after `position`."""
        self._recent.append(_Past(position, writes.keys(), writes))
        self._keep(writes)
        self.position, self.seq = position, seq
        if trim_through:
            self.first = trim_through + 1

    def learn(self, seen: Seen, keys: Collection[bytes]) -> None:
        """Keep the rows of a snapshot that was taken at or before `position`, where they still hold."""
        rows = self.rows
        if seen.position != self.position:
            past = self._since(seen.position)
            if past is None:
                return
            changed = set().union(*(each.keys for each in past)) if past else set()
            keys = [key for key in keys if key not in changed]
        for key in keys:
            if key not in rows:
                value = rows[key] = seen.rows.get(key)
                self._size += len(key) + len(value or b"") + _ROW_BYTES
        if self._size > _KEPT_BYTES:
            self._shrink(set(keys))

    def current(self, known: Known) -> bool:
        """Bring a range up to `position`; False if another node may have changed it."""
        if known.position == self.position:
            return True
        past = self._since(known.position)
        if past is None:
            return False
        if not all(known.follow(each) for each in past):
            return False
        known.position = self.position
        return True

    def keep(self, span: Span, known: Known) -> None:
        """Remember a range that was fetched, for scans with the same bounds."""
        ranges = self._ranges
        ranges.pop((span.low, span.high, span.reverse), None)
        small = len(known.rows) <= _KEPT_RANGE_ROWS
        if small and sum(len(key) + len(value) for key, value in known.rows) <= _KEPT_RANGE_BYTES:
            if len(ranges) >= _KEPT_RANGES:
                del ranges[next(iter(ranges))]
            ranges[span.low, span.high, span.reverse] = known

    def kept(self, low: bytes, high: bytes, limit: int, reverse: bool) -> _Rows | None:
        """The rows of a scan whose range is remembered; None if it is not, or is no longer known so far."""
        known = self._ranges.get((low, high, reverse))
        if known is None:
            return None
        if self.current(known) and len(known.rows) <= 4 * _KEPT_RANGE_ROWS:
            return known.answer(low, high, limit, reverse)
        del self._ranges[low, high, reverse]
        return None

    def forget(self) -> None:
        self.rows.clear()
        self._ranges.clear()
        self._recent.clear()
        self._size = 0

    def _since(self, position: int) -> list[_Past] | None:
        if position > self.position:
            return None
        recent, count = self._recent, self.position - position
        if not count:
            return []
        if count > len(recent) or recent[-count].position != position + 1:
            return None
        return [recent[at] for at in range(-count, 0)]

    def _keep(self, writes: Mapping[bytes, bytes | None]) -> None:
        self.rows.update(writes)
        self._size += sum(len(key) + len(value or b"") + _ROW_BYTES for key, value in writes.items())
        if self._size > _KEPT_BYTES:
            self._shrink(())

    def _shrink(self, needed: Collection[bytes]) -> None:
        """The older half goes, by when it was first kept."""
        rows = self.rows
        for key in list(rows)[: len(rows) // 2]:
            if key not in needed:
                del rows[key]
        self._size = sum(len(key) + len(value or b"") + _ROW_BYTES for key, value in rows.items())


class Window:
    """Reads of the base for one function: the engine below its transaction. What is not there is noted in `needs`, and taken
    for absent: the run is thrown away, but it may say at once what else it needs."""

    __slots__ = ("_base", "known", "needs")

    def __init__(self, base: Base, known: list[Known]) -> None:
        self._base = base
        self.known = known
        self.needs = Needs()

    def get(self, key: bytes) -> bytes | None:
        value = self._base.rows.get(key, MISSING)
        if value is not MISSING:
            return value
        for each in self.known:
            if each.low <= key < each.high:
                found = each.answer(key, key + b"\x00", 1, False)
                return found[0][1] if found else None
        self.needs.keys.add(key)
        return None

    def scan(self, low: bytes, high: bytes, limit: int, reverse: bool) -> _Rows:
        if low >= high:
            return []
        for each in self.known:
            found = each.answer(low, high, limit, reverse)
            if found is not None:
                return found
        kept = self._base.kept(low, high, limit, reverse)
        if kept is not None:
            return kept
        self.needs.spans.add(Span(low, high, limit + _SLACK, reverse))
        return []


class DaringWindow(Window):
    """Takes rows that are probably absent for absent: `guessed` is to be proved by the commit."""

    __slots__ = ("_guesses", "guessed")

    def __init__(self, base: Base, known: list[Known], guesses: Guesses) -> None:
        super().__init__(base, known)
        self._guesses = guesses
        self.guessed: set[bytes] = set()

    def get(self, key: bytes) -> bytes | None:
        value = self._base.rows.get(key, MISSING)
        if value is not MISSING:
            return value
        if not self.known and self._guesses.absent(key):
            self.guessed.add(key)
            return None
        return super().get(key)
