"""Updates of both kinds, as `writing` wants them: UpdateExpression, and AttributeUpdates from before."""

from __future__ import annotations

from typing import Any

from martlet.documents.dynamodb import expressions, legacy
from martlet.documents.dynamodb.tables import Item

__all__ = ["AttributeUpdates", "ExpressionUpdate"]


class AttributeUpdates:
    """The parameter AttributeUpdates, checked."""

    __slots__ = ("_updates", "heads", "makes")

    def __init__(self, updates: dict[str, Any]) -> None:
        self._updates = legacy.checked_updates(updates)
        self.heads = frozenset(self._updates)
        self.makes = not self._updates or any(action != "DELETE" for action, _ in self._updates.values())

    def apply(self, item: Item) -> Item:
        return legacy.updated(item, self._updates)

    def shown(self, item: Item) -> Item:
        return {name: item[name] for name in self._updates if name in item}


class ExpressionUpdate:
    """The parameter UpdateExpression, parsed."""

    __slots__ = ("_parsed", "_shown", "heads", "makes")

    def __init__(self, parsed: expressions.Update) -> None:
        self._parsed = parsed
        self._shown = expressions.Projection(parsed.paths())
        self.heads = frozenset(str(steps[0]) for steps in parsed.paths())
        self.makes = parsed.makes()

    def apply(self, item: Item) -> Item:
        return self._parsed.apply(item)[0]  # type: ignore[return-value]

    def shown(self, item: Item) -> Item:
        return self._shown.of(item)  # type: ignore[return-value]
