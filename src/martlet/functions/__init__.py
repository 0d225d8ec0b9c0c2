"""Room `functions`: code that runs on demand.

Owns: published function versions (store keys `("fn", name)`), pools of instances, the logs of their invocations, and the port
to sandboxes. Offers: `Functions.publish/restore/remove` (a version is verified before it serves), `dispatch` (the hot path, by
callback), `invoke` (awaitable), `build` (import an app's module in a sandbox), `status`; `LogGroups`, the service "logs".
Never: speaks HTTP, knows routes or triggers, runs user code in this process, waits for a disk on the way of an invocation.
"""

from martlet.functions.functions import Build, Functions

__all__ = ["Build", "Functions"]
