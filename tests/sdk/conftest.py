from __future__ import annotations

from collections.abc import Iterator

import pytest

from martlet.sdk import client


@pytest.fixture(autouse=True)
def no_idle_sockets() -> Iterator[None]:
    """Each test begins and ends without kept connections."""
    yield
    while client._pool._idle:
        client._pool._idle.pop()[1].close()
