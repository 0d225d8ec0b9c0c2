"""Event sources become invocations: schedules now, through one delivery loop behind the change log.

Owns: schedules and their due times, deliveries under way, dead letters.
Offers: `Triggers` (check, put, remove, list, dead_letters, start, stop, run_due).
Never: runs functions itself (it is given `dispatch`), polls the store, or loses an event between its cause and its end.
"""

from martlet.triggers.event import DeadLetter, Event
from martlet.triggers.schedules import Schedule
from martlet.triggers.triggers import Triggers

__all__ = ["DeadLetter", "Event", "Schedule", "Triggers"]
