"""Event sources become invocations: schedules through one delivery loop behind the change log, queues by their consumers,
changes of documents by followers of the log.

Owns: schedules and their due times, deliveries under way, dead letters; event source mappings and their cursors; the language
of event patterns.
Offers: `Triggers` (check, put, remove, list, dead_letters, start, stop, run_due), `EventSources` (the operations on mappings),
`patterns`.
Never: runs functions itself (it is given `dispatch`), polls the store, or loses an event between its cause and its end.
"""

from martlet.triggers.event import DeadLetter, Event
from martlet.triggers.schedules import Schedule
from martlet.triggers.sources import EventSources, Target
from martlet.triggers.targets import ObjectTargets
from martlet.triggers.triggers import Triggers

__all__ = ["DeadLetter", "Event", "EventSources", "ObjectTargets", "Schedule", "Target", "Triggers"]
