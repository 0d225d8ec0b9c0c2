"""Buses: what happened is told to whoever wants to know. Amazon EventBridge's and SNS's rules, in rows of the store.

Owns: event buses, rules, targets, archives, replays, connections and API destinations; topics and subscriptions; schedules of
the Scheduler and their groups; what a target is given of an event.
Offers: `Events`, `Sns` and `Scheduler` (the operations of the services "events", "sns" and "scheduler", dict to dict, and
`publish` for other rooms), `Rulebook` (which rules an event concerns).
Never: says "published" before the event is durable, delivers anything by itself (the triggers' loop reads the log and does), or
shows a secret.
"""

from martlet.buses.events import Events
from martlet.buses.rulebook import Rulebook
from martlet.buses.scheduler import Scheduler, Services
from martlet.buses.signing import Signer
from martlet.buses.sns import Sns

__all__ = ["Events", "Rulebook", "Scheduler", "Services", "Signer", "Sns"]
