"""Instances forked from one zygote: what they must not have in common, and what they must not have at all."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import pytest
from tests.security.stage import Stage

SIBLINGS = 20


@pytest.fixture(scope="module")
def random_siblings(stage: Stage) -> list[dict[str, Any]]:
    """What twenty instances, each at its first event, think is random."""
    found: list[dict[str, Any]] = []
    for _ in range(4 * SIBLINGS):
        result = stage.try_attack("siblings.randomness_once", "cold")
        if result.whole["cold"] and not result.error:  # else it met the one before, which was about to end
            found.append(result.payload)
        if len(found) == SIBLINGS:
            return found
    pytest.fail(f"only {len(found)} fresh siblings")


@pytest.mark.parametrize(
    "source", ["random", "random.Random", "uuid4", "secrets", "urandom", "ssl", "tempfile", "system", "shuffle"]
)
def test_siblings_share_no_randomness(attacked: Stage, random_siblings: list[dict[str, Any]], source: str) -> None:
    assert len({sibling[source] for sibling in random_siblings}) == SIBLINGS


def test_a_fresh_sibling_carries_no_secret(attacked: Stage) -> None:
    attacked.victim_is_well()
    found = attacked.attack("siblings.traces", "cold")
    text = str(found)
    for secret in ("platform-environment-secret-9d31", "victim-env-secret-77ab", attacked.platform.token):
        assert secret not in text
    assert found["tmp"] == []
    assert not [name for name in found["variables"] if name.startswith(("UV_", "PLATFORM", "VICTIM"))]


def test_a_fresh_siblings_memory_holds_no_secret(attacked: Stage) -> None:
    """The zygote has forked victims before; none of what they learned may be in what it forks next."""
    attacked.victim_is_well()
    own = "own-secret-of-this-test-0c1d"
    secrets = [
        "platform-environment-secret-9d31",
        "victim-env-secret-77ab",
        "victim-code-secret-5f2c",
        attacked.platform.token,
        own,
    ]
    needles = [[secret[:8], len(secret), hashlib.sha256(secret.encode()).hexdigest()] for secret in secrets]
    event = {"attack": "files.scan_own_memory", "with": {"needles": needles}, "known": own}
    assert attacked.invoke("attacker-cold", event).payload == [len(secrets) - 1], "only what came with the event is there"


def test_siblings_have_their_own_user_ids(attacked: Stage) -> None:
    """Of instances that run at one time, which a busy host may not grant to all four at once."""
    met = 0
    for _ in range(12):
        event = {"attack": "siblings.traces", "seconds": 3}
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, event=event: attacked.invoke("attacker-sibling", event).payload, range(4)))  # type: ignore[misc]
        for one, other in combinations(found, 2):
            if max(one["ran"][0], other["ran"][0]) < min(one["ran"][1], other["ran"][1]):
                assert one["uid"] != other["uid"]
                met += 1
        if met >= 6:
            return
    assert met, "no two instances ever ran at one time"
