"""Adapters of the sandbox port (`functions/sandbox.py`).

Owns: `isolated` (namespaces, control groups, seccomp, Landlock; through a supervisor process) and `process` (none of it).
Offers: classes that `server.py` picks by name from its table. Never: is imported by anyone else.
"""
