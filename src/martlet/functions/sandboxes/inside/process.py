"""An instance without isolation: a plain process of the platform's user (`--sandbox process`). For your own code only."""

from __future__ import annotations

import json
import os
import resource
import sys

from . import life, runtime

EVENTS, RESULTS = 3, 4


def main() -> None:
    order = json.loads(sys.argv[2])
    os.setsid()
    runtime.TASK = order["code"]
    runtime.prepare()
    sys.path[:0] = [order["code"], *order["path"]]
    os.chdir(order["code"])
    for name, value in order["rlimits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    sys.argv = ["sandbox"]
    life.main(EVENTS, RESULTS, order["environment"])
