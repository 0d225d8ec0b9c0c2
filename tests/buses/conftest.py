from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .platform import Platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    data: Path = tmp_path_factory.mktemp("buses") / "data"
    running = Platform(data, "localhost")
    yield running
    running.stop()
