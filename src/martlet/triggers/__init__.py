"""Event sources become invocations: schedules now, through one delivery loop behind the change log.

Owns: schedules and their due times, deliveries under way, dead letters.
Offers: `Triggers` (check, put, remove, list, start, stop, run_due, dead_letters).
Never: runs functions itself (it is given `dispatch`), polls the store, or loses an event between its cause and its end.
"""
