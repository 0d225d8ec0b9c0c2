"""kill -9 of the platform's processes while messages are enqueued one by one, in batches, by user code and by transactions: no
acknowledged message is lost, none comes again within its lease, and the order in each FIFO group holds.

`MARTLET_TEST_ENQUEUES` is the number of messages (the long form: 1000000), `MARTLET_TEST_STRIKES` the number of kills.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import APPS
from tests.e2e.enqueuing import Fire
from tests.e2e.test_killed import named
from tests.ports import free_ports
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e
ENQUEUES = int(os.environ.get("MARTLET_TEST_ENQUEUES", "4000"))
STRIKES = int(os.environ.get("MARTLET_TEST_STRIKES", "4"))
LEASE_SECONDS = 2 if ENQUEUES <= 100_000 else 10


async def test_enqueues_under_fire(start: Start, tmp_path: Path) -> None:
    chance = random.Random(ENQUEUES)
    environ = {"MARTLET_PORT": str(free_ports(2))}
    platform = start(APPS / "enqueues", "--no-watch", data=tmp_path / "data", environ=environ)
    fire = Fire(platform, ENQUEUES, LEASE_SECONDS)
    struck: list[str] = []

    def strike() -> RunningPlatform:
        """The platform itself first, then whichever; a supervisor takes its zygotes along."""
        role = "platform" if not struck else chance.choice(("platform", "platform", "supervisor", "zygote"))
        struck.append(role)
        if role == "platform":
            fire.platform.kill()
            return start(None, data=tmp_path / "data", environ=environ)
        for pid in named(fire.platform, role)[:1]:
            os.kill(pid, signal.SIGKILL)
        return fire.platform

    began = time.perf_counter()
    strikes = sorted(chance.randrange(ENQUEUES // 20, ENQUEUES * 9 // 10) for _ in range(STRIKES))
    checked = (await fire.run(strikes, strike)).check(LEASE_SECONDS)
    print(f"{checked} in {time.perf_counter() - began:.0f} s; killed: {', '.join(struck)}")
    assert checked.acknowledged >= sum(fire.wanted.values()) * 0.9
    assert set(checked.kinds) == set(fire.wanted)
    assert len(struck) == STRIKES
