"""The guesser of absent rows: dares after it has seen enough, pays for what was wrong."""

from __future__ import annotations

from martlet.store.guesses import Guesses


def key(number: int, kind: bytes = b"Dd0001") -> bytes:
    return kind + b"%d" % number


def runs_until_it_dares(guesses: Guesses) -> int:
    for number in range(100_000):
        if guesses.absent(key(0)):
            return number
        guesses.fetched(key(number), False)
    raise AssertionError("it never dares")


def test_it_dares_once_many_in_a_row_were_absent() -> None:
    guesses = Guesses()
    assert not guesses.absent(key(1))
    for number in range(7):
        guesses.fetched(key(number), False)
    guesses.fetched(key(8), True)  # one that was there: from the beginning
    assert runs_until_it_dares(guesses) == 8
    assert not guesses.absent(key(1, b"Di0002"))  # of that kind nothing was seen


def test_a_wrong_guess_makes_the_next_one_dearer_and_right_ones_cheaper_again() -> None:
    guesses = Guesses()
    dear = []
    for _ in range(6):
        dear.append(runs_until_it_dares(guesses))
        guesses.wrong(key(1))
        assert not guesses.absent(key(1))
    assert dear == [8, 64, 512, 4_096, 32_768, 65_536]
    runs_until_it_dares(guesses)
    guesses.right(key(number) for number in range(2_000_000))
    guesses.wrong(key(1))
    assert runs_until_it_dares(guesses) <= 64


def test_what_it_remembers_is_bounded() -> None:
    guesses = Guesses()
    for number in range(20_000):
        guesses.fetched(b"%06d" % number, False)
    assert len(guesses._kinds) <= 4_096
    guesses.right([b"unseen1"])
    guesses.wrong(b"unseen2")
    assert not guesses.absent(b"unseen1")
