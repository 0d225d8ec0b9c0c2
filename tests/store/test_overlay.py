"""The overlay shows what a plain dictionary would."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from martlet.store.overlay import Overlay

KEYS = st.integers(0, 60).map(lambda number: b"%02d" % number)
WRITES = st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=2)), max_size=50)


@given(
    st.dictionaries(KEYS, st.binary(max_size=2), max_size=50),
    st.lists(st.tuples(st.booleans(), WRITES), max_size=5),
    KEYS,
    KEYS,
    st.integers(1, 10),
    st.booleans(),
)
def test_scans_see_rows_below_through_the_overlay(
    below: dict[bytes, bytes],
    steps: list[tuple[bool, dict[bytes, bytes | None]]],
    low: bytes,
    high: bytes,
    limit: int,
    reverse: bool,
) -> None:
    def scan_below(low: bytes, high: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        return sorted(((k, v) for k, v in below.items() if low <= k < high), reverse=reverse)[:limit]

    overlay, model = Overlay(), dict[bytes, bytes | None]()
    for forget, writes in steps:
        if forget:
            overlay.forget(writes)
            model = {key: value for key, value in model.items() if key not in writes}
        else:
            overlay.update(writes)
            model.update(writes)
        seen = {**below, **model}
        wanted = sorted(((k, v) for k, v in seen.items() if v is not None and low <= k < high), reverse=reverse)[:limit]
        assert overlay.scan(scan_below, low, high, limit, reverse) == wanted


def test_single_puts_keep_the_order() -> None:
    overlay = Overlay()
    overlay.put(b"b", b"1")
    assert overlay.scan(lambda *_: [], b"a", b"z", 10, False) == [(b"b", b"1")]
    for key in (b"c", b"a", b"b"):
        overlay.put(key, b"2")
    overlay.forget([b"c", b"unknown"])
    found = overlay.scan(lambda *_: [], b"a", b"z", 10, True)
    assert [key for key, _ in found] == sorted((b"a", b"b"), reverse=True)
    assert bisect_left([key for key, _ in found], b"a") == 0
