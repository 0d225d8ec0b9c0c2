"""The Java methods that templates may call on values: a closed list. A method that is not here is nothing, as in Velocity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from martlet.errors import InvalidInput
from martlet.gateway.patterns import compile_pattern, replace_all, split_all
from martlet.gateway.vtl.values import Budget, TemplateFailed, to_text

__all__ = ["call_method", "get_property"]

Method = Callable[..., Any]


class Entry:
    """One entry of a map, from `entrySet`."""

    __slots__ = ("_key", "_map")

    def __init__(self, owner: dict[Any, Any], key: Any) -> None:
        self._map = owner
        self._key = key

    def property(self, name: str) -> Any:
        return self._key if name == "key" else self._map.get(self._key) if name == "value" else None

    def call(self, name: str, arguments: list[Any], budget: Budget) -> Any:
        if name in ("getKey", "getValue") and not arguments:
            return self.property(name[3:].lower())
        return None


def get_property(value: Any, name: str) -> Any:
    """`$value.name`: a map's item, a host object's property, or a bean property."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        return not value if name == "empty" else None
    if isinstance(value, (str, list)):
        return not value if name == "empty" else None
    found = getattr(type(value), "property", None)
    return value.property(name) if found is not None and callable(found) else None


def call_method(value: Any, name: str, arguments: list[Any], budget: Budget) -> Any:
    """`$value.name(arguments)`; None where Java's class has no such method. Raises `TemplateFailed`."""
    if name == "toString" and not arguments:
        return to_text(value, budget)
    if name == "equals" and len(arguments) == 1:
        return type(value) is type(arguments[0]) and value == arguments[0]
    table = _table(value)
    if table is None:
        found = getattr(type(value), "call", None)
        return value.call(name, arguments, budget) if found is not None else None
    known = table.get((name, len(arguments)))
    if known is None:
        return None
    try:
        return known(budget, value, *arguments)
    except InvalidInput as error:
        raise TemplateFailed(error.message) from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise TemplateFailed(f"the mapping template calls {name} with a wrong argument") from error


def _table(value: Any) -> dict[tuple[str, int], Method] | None:
    if isinstance(value, str):
        return _TEXTS
    if isinstance(value, dict):
        return _MAPS
    if isinstance(value, list):
        return _LISTS
    if isinstance(value, (int, float)):
        return _NUMBERS
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _substring(budget: Budget, text: str, first: int, last: int | None = None) -> str:
    end = len(text) if last is None else last
    if not 0 <= first <= end <= len(text):
        raise IndexError
    return budget.text(text[first:end])


def _replace(budget: Budget, text: str, old: str, new: str) -> str:
    budget.room(len(text) + text.count(_text(old)) * len(_text(new)))
    return budget.text(text.replace(old, new))


def _replace_all(budget: Budget, text: str, pattern: str, new: str, count: int = 0) -> str:
    return budget.text(replace_all(_text(pattern), _text(new), text, budget.step, budget.characters, count))


def _split(budget: Budget, text: str, pattern: str) -> list[str]:
    budget.text(text)
    return list(split_all(_text(pattern), text, budget.step))


def _concat(budget: Budget, text: str, other: str) -> str:
    return budget.text(text + _text(other))


def _matches(budget: Budget, text: str, pattern: str) -> bool:
    budget.text(text)
    return compile_pattern(_text(pattern)).fullmatch(text)


def _lower(budget: Budget, text: str) -> str:
    return budget.text(text.lower())


def _upper(budget: Budget, text: str) -> str:
    return budget.text(text.upper())


_TEXTS: Final[dict[tuple[str, int], Method]] = {
    ("length", 0): lambda _, text: len(text),
    ("isEmpty", 0): lambda _, text: not text,
    ("substring", 1): _substring,
    ("substring", 2): _substring,
    ("indexOf", 1): lambda _, text, part: text.find(_text(part)),
    ("indexOf", 2): lambda _, text, part, start: text.find(_text(part), start),
    ("lastIndexOf", 1): lambda _, text, part: text.rfind(_text(part)),
    ("contains", 1): lambda _, text, part: _text(part) in text,
    ("startsWith", 1): lambda _, text, part: text.startswith(_text(part)),
    ("endsWith", 1): lambda _, text, part: text.endswith(_text(part)),
    ("equalsIgnoreCase", 1): lambda _, text, other: isinstance(other, str) and text.casefold() == other.casefold(),
    ("compareTo", 1): lambda _, text, other: (text > _text(other)) - (text < other),
    ("toLowerCase", 0): _lower,
    ("toUpperCase", 0): _upper,
    ("trim", 0): lambda budget, text: budget.text(text.strip("".join(map(chr, range(33))))),
    ("replace", 2): _replace,
    ("replaceAll", 2): _replace_all,
    ("replaceFirst", 2): lambda budget, text, pattern, new: _replace_all(budget, text, pattern, new, 1),
    ("split", 1): _split,
    ("matches", 1): _matches,
    ("charAt", 1): lambda _, text, index: text[index] if index >= 0 else _out_of_range(),
    ("concat", 1): _concat,
    ("hashCode", 0): lambda budget, text: _hash(budget, text),
}


def _out_of_range() -> Any:
    raise IndexError


def _hash(budget: Budget, text: str) -> int:
    budget.step(len(text))
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _add(budget: Budget, items: list[Any], item: Any) -> bool:
    budget.step()
    items.append(item)
    return True


def _insert(budget: Budget, items: list[Any], index: int, item: Any) -> None:
    if not 0 <= index <= len(items):
        raise IndexError
    budget.step(len(items))
    items.insert(index, item)


def _add_all(budget: Budget, items: list[Any], more: Any) -> bool:
    budget.step(len(more))
    items.extend(list(more))
    return bool(more)


def _item(_: Budget, items: list[Any], index: int) -> Any:
    if index < 0:
        raise IndexError
    return items[index]


def _remove(budget: Budget, items: list[Any], what: Any) -> Any:
    budget.step(len(items))
    if type(what) is int:
        return items.pop(what) if what >= 0 else _out_of_range()
    if what in items:
        items.remove(what)
        return True
    return False


def _set_item(_: Budget, items: list[Any], index: int, item: Any) -> Any:
    before = _item(_, items, index)
    items[index] = item
    return before


def _index_of(budget: Budget, items: list[Any], item: Any) -> int:
    budget.step(len(items))
    return items.index(item) if item in items else -1


def _sublist(budget: Budget, items: list[Any], first: int, last: int) -> list[Any]:
    if not 0 <= first <= last <= len(items):
        raise IndexError
    budget.step(last - first)
    return items[first:last]


def _clear(_: Budget, items: Any) -> None:
    items.clear()


_LISTS: Final[dict[tuple[str, int], Method]] = {
    ("size", 0): lambda _, items: len(items),
    ("isEmpty", 0): lambda _, items: not items,
    ("get", 1): _item,
    ("set", 2): _set_item,
    ("add", 1): _add,
    ("add", 2): _insert,
    ("addAll", 1): _add_all,
    ("contains", 1): lambda budget, items, item: _index_of(budget, items, item) >= 0,
    ("indexOf", 1): _index_of,
    ("remove", 1): _remove,
    ("subList", 2): _sublist,
    ("clear", 0): _clear,
}


def _put(budget: Budget, items: dict[Any, Any], key: Any, value: Any) -> Any:
    budget.step()
    before = items.get(key)
    items[key] = value
    return before


def _put_all(budget: Budget, items: dict[Any, Any], more: Any) -> None:
    budget.step(len(more))
    items.update(more)


def _listed(budget: Budget, items: dict[Any, Any], what: Callable[[], Any]) -> list[Any]:
    budget.step(len(items))
    return list(what())


_MAPS: Final[dict[tuple[str, int], Method]] = {
    ("get", 1): lambda _, items, key: items.get(key),
    ("getOrDefault", 2): lambda _, items, key, other: items.get(key, other),
    ("put", 2): _put,
    ("putAll", 1): _put_all,
    ("remove", 1): lambda _, items, key: items.pop(key, None),
    ("containsKey", 1): lambda _, items, key: key in items,
    ("containsValue", 1): lambda budget, items, value: value in _listed(budget, items, items.values),
    ("keySet", 0): lambda budget, items: _listed(budget, items, items.keys),
    ("values", 0): lambda budget, items: _listed(budget, items, items.values),
    ("entrySet", 0): lambda budget, items: [Entry(items, key) for key in _listed(budget, items, items.keys)],
    ("size", 0): lambda _, items: len(items),
    ("isEmpty", 0): lambda _, items: not items,
    ("clear", 0): _clear,
}


def _parse_integer(_: Budget, value: Any, text: str) -> int:
    if len(_text(text)) > 20 or not text.lstrip("+-").isdecimal():
        raise TemplateFailed(f"the mapping template reads {text[:40]!r} as a whole number")
    return int(text)


def _parse_double(_: Budget, value: Any, text: Any) -> float:
    return float(text)


_NUMBERS: Final[dict[tuple[str, int], Method]] = {  # `#set($Integer = 0)` and then $Integer.parseInt(...) is a common idiom
    ("parseInt", 1): _parse_integer,
    ("parseLong", 1): _parse_integer,
    ("valueOf", 1): lambda budget, value, other: other if type(other) is int else _parse_integer(budget, value, other),
    ("parseDouble", 1): _parse_double,
    ("intValue", 0): lambda _, value: int(value),
    ("longValue", 0): lambda _, value: int(value),
    ("doubleValue", 0): lambda _, value: float(value),
}
