"""Part of the room `functions`: how a function of each runtime is run.

Owns: the table of Lambda's runtime identifiers, where the programs for them are found or installed, the environment that they
see, Lambda layers merged for `/opt`, and the Runtime API with extensions and telemetry on an instance's own loopback.
Offers: `Runtimes` (what a version's zygote, instance and INIT frame are), `RUNTIMES`, `RuntimeUnavailable`.
Never: starts a process, decides which instance takes an event (the pool does), or trusts what a runtime says.
"""

from martlet.functions.runtimes.ahead import PER_INSTANCE, Ahead
from martlet.functions.runtimes.catalogue import RUNTIMES, Runtime, RuntimeUnavailable, available, nearest
from martlet.functions.runtimes.plan import Plan, Runtimes, native_environment

__all__ = [
    "PER_INSTANCE",
    "RUNTIMES",
    "Ahead",
    "Plan",
    "Runtime",
    "RuntimeUnavailable",
    "Runtimes",
    "available",
    "native_environment",
    "nearest",
]
