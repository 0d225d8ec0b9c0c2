"""Memory, disk and inodes: limits hold, and their end has the right name."""

from __future__ import annotations

import errno

import pytest
from tests.security.stage import Stage


@pytest.mark.parametrize("attack", ["eat_heap", "eat_memfd", "eat_shared_mapping"])
def test_memory_eaters_are_out_of_memory(attacked: Stage, attack: str) -> None:
    before = attacked.resident_mb()
    result = attacked.try_attack(f"exhaustion.{attack}", megabytes=400)
    assert result.error_type == "Runtime.OutOfMemory", result.whole
    assert result.whole["peak_mb"] <= 129
    assert attacked.resident_mb() < before + 100


def test_children_share_their_parents_limit(attacked: Stage) -> None:
    result = attacked.try_attack("exhaustion.eat_in_children", megabytes_each=60, children=6)
    assert result.whole["peak_mb"] <= 129


def test_tmp_is_full_at_its_limit(attacked: Stage) -> None:
    found = attacked.attack("exhaustion.fill_tmp")
    assert found["ended"] == errno.ENOSPC
    assert found["written"] <= 16 << 20


def test_inodes_are_limited(attacked: Stage) -> None:
    found = attacked.attack("exhaustion.fill_inodes")
    assert found["ended"] == errno.ENOSPC
    assert found["made"] <= 4096


def test_a_sparse_file_is_never_more_than_tmp(attacked: Stage) -> None:
    assert attacked.attack("exhaustion.sparse")["fallocate"] in ("ENOSPC", "EFBIG")


def test_memory_cannot_be_locked(attacked: Stage) -> None:
    found = attacked.attack("exhaustion.lock_memory")
    assert found["result"] == -1
    assert found["all"] == -1
