"""The service "lambda" as its clients see it: functions and event source mappings are one API there."""

from __future__ import annotations

from typing import Any

from martlet.functions.control import Control
from martlet.triggers.sources import OPERATIONS, EventSources

__all__ = ["Lambda"]


class Lambda:
    """The service "lambda": the control plane of functions, and the event source mappings of the triggers beside it."""

    parts = (Control, EventSources)

    def __init__(self, control: Control, sources: EventSources) -> None:
        self._control, self._sources = control, sources
        for name in OPERATIONS:
            setattr(self, name, getattr(sources, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    def _tagged(self, request: dict[str, Any]) -> Any:
        return self._sources if ":event-source-mapping:" in request["Resource"] else self._control

    async def list_tags(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        return await self._tagged(request).list_tags(caller, request)  # type: ignore[no-any-return]

    async def tag_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        return await self._tagged(request).tag_resource(caller, request)  # type: ignore[no-any-return]

    async def untag_resource(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        return await self._tagged(request).untag_resource(caller, request)  # type: ignore[no-any-return]
