"""Charter of the room apps.

Owns: what an app is (its record in the store), packages and dependency layers on disk, and the way from a folder of source
to functions, routes and schedules that serve: package → layer → graph → plan → apply.
Offers: `Apps` (deploy, destroy, list, get, routes), `Deployment`; `package` and `archive` for the command line; `watch`
redeploys on save.
Never: runs an app's code (the functions room does, in a sandbox), trusts what that code declared, changes an app by halves, or
builds a dependency from source on the host unless the app's owner asked for it.
"""

from __future__ import annotations

from martlet.apps.deployment import Apps, Deployment
from martlet.apps.plan import AppRecord, Step

__all__ = ["AppRecord", "Apps", "Deployment", "Step"]
