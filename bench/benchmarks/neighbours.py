"""One app's queue gets ten times what its consumers bear; does the other app on the platform notice?

The neighbour is asked at a fixed rate, in rounds: nothing else goes on; the same flood goes to a second platform on this
machine; it goes to a queue beside the neighbour; that queue only drains. The sender and the consumers need processors wherever
the queue is, so the second platform is what the third is held to; the first is told, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.running_platform import RunningPlatform

from bench import apps
from bench.context import Context
from bench.load import Connection, Latencies, fixed_rate
from bench.table import Row, milliseconds

__all__ = ["run"]

_ROUNDS = 4
_SECONDS = 5
_RATE = 100  # requests a second to the neighbour
_BORNE = 200  # messages a second that the consumers take
_ENTRY = "import sys; from martlet.cli import main; sys.exit(main())"
_FLOOD = Path(__file__).resolve().parents[1] / "apps" / "flood.py"


def run(ctx: Context) -> list[Row]:
    found: dict[str, list[Latencies]] = {"alone": [], "elsewhere": [], "flooded": [], "draining": []}
    sent = 0
    app = apps.copy("flooded", ctx.new_folder("app"))
    with ctx.platform(apps.copy("noop", ctx.new_folder("app"))) as platform, ctx.platform(None) as second:
        for _ in range(_ROUNDS):
            found["alone"].append(_neighbour(platform))
            for name, where in (("elsewhere", second), ("flooded", platform)):
                _martlet(where, "deploy", str(app))
                flood = _flood(where)
                found[name].append(_neighbour(platform))
                out, _ = flood.communicate(timeout=60)
                if flood.returncode:
                    raise RuntimeError("the flood ended with an error")
                sent += int(out) if where is platform else 0
                if where is platform:
                    found["draining"].append(_neighbour(platform))
                _martlet(where, "destroy", "flooded", "--yes")
    alone, elsewhere, flooded, draining = (_together(rounds) for rounds in found.values())
    rate = sent / (_ROUNDS * _SECONDS)
    ratio = flooded.p50 / elsewhere.p50
    return [
        Row(f"an app at {_RATE}/s, nothing else", "", milliseconds(alone)),
        Row("… the flood goes to another platform on this machine", "", milliseconds(elsewhere), _beside(elsewhere, alone)),
        Row(
            f"… beside a queue that gets {rate:,.0f} messages/s and bears {_BORNE}",
            "p50 ≤ 1.2 × elsewhere",
            milliseconds(flooded),
            _beside(flooded, elsewhere),
            ratio <= 1.2 and rate >= 9 * _BORNE and not flooded.failed,
        ),
        Row("… beside a queue that only drains", "", milliseconds(draining), _beside(draining, alone)),
    ]


def _beside(these: Latencies, those: Latencies) -> str:
    return f"{these.p50 / those.p50:.2f} × p50, {these.p99 / those.p99:.2f} × p99"


def _together(rounds: list[Latencies]) -> Latencies:
    return Latencies([taken for one in rounds for taken in one.seconds], sum(one.failed for one in rounds))


def _martlet(platform: RunningPlatform, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", _ENTRY, *arguments, "--data", str(platform.data)], check=True, capture_output=True)


def _neighbour(platform: RunningPlatform) -> Latencies:
    with Connection(platform.port) as warm:
        warm.get("/noop")
    arrivals = fixed_rate(platform.port, "/noop", _RATE, _SECONDS)
    failed = arrivals.lost + arrivals.unsent + sum(status != 200 for status, _, _ in arrivals.answers)
    return Latencies([done - due for _, due, done in arrivals.answers], failed)


def _flood(platform: RunningPlatform) -> subprocess.Popen[str]:
    """Ten times what the consumers bear, for one round."""
    given = {"url": platform.api_url, "token": platform.token, "rate": 10 * _BORNE, "seconds": _SECONDS}
    process = subprocess.Popen([sys.executable, str(_FLOOD), json.dumps(given)], stdout=subprocess.PIPE, text=True)
    time.sleep(0.2)  # it has to start
    return process
