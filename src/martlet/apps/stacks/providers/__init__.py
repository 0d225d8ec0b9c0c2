"""Charter: one file for each family of resource types. A provider says what the type's properties are (`kind`), what its
physical id and attributes will be, and makes, changes and removes it through the face of the room that owns it. A provider
keeps nothing: everything it knows of a resource is in the stack's record."""

from __future__ import annotations

from martlet.apps.stacks.providers.provider import REPLACE, Context, Physical, Provider

__all__ = ["REPLACE", "Context", "Physical", "Provider"]
