"""Which runtime stands in for one that is not installed, with `--lenient`."""

from __future__ import annotations

import pytest

from martlet.functions.runtimes import Runtime, RuntimeUnavailable, nearest


class Programs:
    """A host with these runtimes."""

    def __init__(self, *there: str) -> None:
        self._there = there

    def program(self, runtime: Runtime) -> str:
        if runtime.identifier not in self._there:
            raise RuntimeUnavailable("not here")
        return "/bin/x"


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        ("nodejs22.x", ("nodejs20.x", "nodejs22.x"), "nodejs22.x"),
        ("nodejs18.x", ("nodejs20.x", "nodejs24.x", "python3.11"), "nodejs20.x"),
        ("nodejs22.x", ("nodejs20.x", "nodejs24.x"), "nodejs24.x"),  # as near: the newer
        ("python3.12", ("python3.9", "python3.11", "python3.14"), "python3.11"),
        ("python3.12", ("nodejs20.x",), "python3.12"),  # another language is no stand-in
        ("java21", ("python3.11",), "java21"),
        ("cobol85", ("python3.11",), "cobol85"),
    ],
)
def test_nearest(wanted: str, there: tuple[str, ...], found: str) -> None:
    assert nearest(Programs(*there), wanted) == found  # type: ignore[arg-type]
