"""A part of what can be done with a thing, for `uses=[orders.read]`: the least that a function needs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

__all__ = ["Right", "parted"]

_SENDING = ("send", "asend", "send_many", "publish", "apublish", "invoke", "ainvoke")


class Right:
    """To `read` or to `write` what `of` names."""

    __slots__ = ("name", "of")

    def __init__(self, of: Any, name: Literal["read", "write"]) -> None:
        self.of = of
        self.name = name

    def __repr__(self) -> str:
        return f"{self.of!r}.{self.name}"


def parted(used: Any) -> tuple[Any, str]:
    """(the thing, "read", "write" or ""): of `orders.read`, of `mail.send`, of `orders` itself."""
    if isinstance(used, Right):
        return used.of, f":{used.name}"
    if getattr(used, "__name__", "") in _SENDING and hasattr(used, "__self__"):
        return used.__self__, ""
    return used, ""
