"""Keys sort as their tuples do, and come back as they were."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.errors import InvalidInput
from martlet.store.keys import Part, decode, encode, prefix_range

PARTS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-300, 300),
    st.integers(-(1 << 2039), 1 << 2039),
    st.floats(allow_nan=False),
    st.sampled_from((0.5, -0.5, 1.0, 1.5, -1.5, 255.0, 256.5, -255.5, 5e-324, -5e-324, 1e308, 2.0**53)),
    st.text(),
    st.binary(),
    st.sampled_from(("", "a", "a\x00", "a\x00\xff", "ab", b"", b"\x00", b"\x00\xff", b"\xff")),
)
TUPLES = st.lists(PARTS, max_size=4).map(tuple)


def rank(part: Part) -> tuple[object, ...]:
    """Sorts as keys should: by class, then by value, then an int before the float of the same value."""
    if part is None:
        return (0,)
    if isinstance(part, bool):
        return (1, part)
    if isinstance(part, int | float):
        return (2, part, isinstance(part, float) and not math.isinf(part))
    return (3, part) if isinstance(part, str) else (4, part)


@given(TUPLES)
def test_decode_gives_back_what_encode_took(parts: tuple[Part, ...]) -> None:
    found = decode(encode(*parts))
    assert found == parts
    assert [type(part) for part in found] == [type(part) for part in parts]


@given(TUPLES, TUPLES)
def test_bytes_sort_as_tuples(left: tuple[Part, ...], right: tuple[Part, ...]) -> None:
    ranked = [rank(part) for part in left] < [rank(part) for part in right]
    assert (encode(*left) < encode(*right)) == ranked


@given(st.floats(allow_nan=False), st.integers(-(1 << 70), 1 << 70))
def test_ints_and_floats_share_one_order(real: float, whole: int) -> None:
    if real != whole:
        assert (encode(real) < encode(whole)) == (real < whole)


@given(TUPLES, TUPLES)
def test_a_prefix_range_holds_exactly_what_begins_with_it(prefix: tuple[Part, ...], other: tuple[Part, ...]) -> None:
    low, high = prefix_range(*prefix)
    assert low <= encode(*prefix, *other) < high
    begins = [rank(part) for part in other[: len(prefix)]] == [rank(part) for part in prefix]
    assert (low <= encode(*other) < high) == begins


@given(TUPLES)
def test_first_bytes_leave_room_for_the_stores_own_rows(parts: tuple[Part, ...]) -> None:
    key = encode(*parts)
    assert not key or 0x01 < key[0] < 0xFF


@pytest.mark.parametrize("part", [math.nan, "\ud800", 1 << 2040, -(1 << 2040), 1j, bytearray(b"x"), ["x"]])
def test_what_has_no_place_is_refused(part: Part) -> None:
    with pytest.raises(InvalidInput):
        encode(part)


@given(st.binary(max_size=40))
def test_foreign_bytes_are_refused_or_decode_to_a_tuple(raw: bytes) -> None:
    try:
        parts = decode(raw)
    except InvalidInput:
        return
    decode(encode(*parts))


@pytest.mark.parametrize("raw", [b"\x00", b"\x01", b"\xff", b"\x30ab", b"\x10", b"\x10\x05", b"\x0f\x04\x00", b"\x30\xff\x00"])
def test_cut_keys_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a key"):
        decode(raw)
