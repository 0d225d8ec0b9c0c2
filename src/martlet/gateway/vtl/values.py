"""What templates compute with: JSON's values, how Java would print them, and the work that they may cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, Protocol

import orjson

from martlet.errors import MartletError
from martlet.limits import LIMITS

__all__ = ["Budget", "Host", "JsonList", "TemplateFailed", "to_text"]

_DEPTH_AT_MOST: Final = 64
_INTEGER_BITS: Final = 1024


class TemplateFailed(MartletError):
    """The mapping template failed."""

    code = "template_failed"


class Host(Protocol):
    """An object of the gateway, such as $input. Raises `TemplateFailed` for wrong arguments."""

    def property(self, name: str) -> Any:
        """The property, or None if there is none."""
        ...

    def call(self, name: str, arguments: list[Any], budget: Budget) -> Any:
        """The method's value, or None if there is no such method."""
        ...


class JsonList(list[Any]):
    """A list that was parsed from JSON: prints as JSON, where a list of the template's own prints as Java's lists do."""


class Budget:
    """The work that one rendering may do. Every method raises `TemplateFailed` when it is used up."""

    __slots__ = ("characters", "steps")

    def __init__(self, steps: int | None = None, characters: int | None = None) -> None:
        self.steps = LIMITS["template_steps"].default if steps is None else steps
        self.characters = LIMITS["template_output_bytes"].default if characters is None else characters

    def step(self, count: int = 1) -> None:
        """`count` nodes rendered, or values made."""
        self.steps -= count
        if self.steps < 0:
            raise TemplateFailed("limit template_steps: the mapping template does too much work")

    def text(self, made: str) -> str:
        """A text that was made; what is made counts even if it is thrown away."""
        self.characters -= len(made)
        if self.characters < 0:
            raise TemplateFailed("limit template_output_bytes: the mapping template makes too much text")
        return made

    def room(self, characters: int) -> None:
        """A text of this length is about to be made."""
        if characters > self.characters:
            raise TemplateFailed("limit template_output_bytes: the mapping template makes too much text")

    def integer(self, made: int) -> int:
        if made.bit_length() > _INTEGER_BITS:
            raise TemplateFailed("the mapping template makes a number of more than 1024 bits")
        return made


def to_text(value: Any, budget: Budget, depth: int = 0) -> str:
    """A value as Java prints it; None is empty."""
    if value is None:
        return "" if not depth else "null"
    if type(value) is str:
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _double(value)
    if depth > _DEPTH_AT_MOST:
        raise TemplateFailed("the mapping template prints a value that is nested too deep")
    if isinstance(value, JsonList):
        return budget.text(json_text(value, budget))
    if isinstance(value, dict):
        parts = [
            f"{to_text(key, budget, depth + 1)}={to_text(item, budget, depth + 1)}" for key, item in _counted(value, budget)
        ]
        return budget.text("{" + ", ".join(parts) + "}")
    if isinstance(value, (list, tuple)):
        budget.step(len(value))
        return budget.text("[" + ", ".join([to_text(item, budget, depth + 1) for item in value]) + "]")
    printed = getattr(value, "printed", None)  # blocks of #define
    return printed() if printed is not None else ""


def _counted(value: dict[Any, Any], budget: Budget) -> list[tuple[Any, Any]]:
    budget.step(len(value))
    return list(value.items())


def json_text(value: Any, budget: Budget) -> str:
    """A value as compact JSON. Raises `TemplateFailed` for what JSON cannot hold."""
    _measure(value, budget, 0)
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError, orjson.JSONEncodeError) as error:
        raise TemplateFailed(f"the mapping template prints a value that is not JSON: {error}") from error


def _measure(value: Any, budget: Budget, depth: int) -> None:
    """Charge before the work is done; a list that holds itself ends here."""
    if depth > _DEPTH_AT_MOST:
        raise TemplateFailed("the mapping template prints a value that is nested too deep")
    if type(value) is str:
        budget.room(len(value))
    elif isinstance(value, dict):
        budget.step(len(value))
        for item in value.values():
            _measure(item, budget, depth + 1)
    elif isinstance(value, (list, tuple)):
        budget.step(len(value))
        for item in value:
            _measure(item, budget, depth + 1)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return list(value)
    raise TypeError(type(value).__name__)


def _double(value: float) -> str:
    """Java's Double.toString."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        text = repr(value)
        return text if "." in text else text + ".0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    number = "".join(map(str, digits))
    power = int(exponent) + len(number) - 1
    return f"{'-' * sign}{number[0]}.{number[1:] or '0'}E{power}"
