"""What Martlet does with every property of every resource type: honoured, taken or refused. Pure.

honoured: it has its effect. taken: accepted and remembered without effect, because it has no meaning here that a program
could see. refused: it would have one, and Martlet does not have it; the deploy fails by name. The reference page
`docs/reference/templates.md` is made from these tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from martlet.apps.stacks.intrinsics import is_pending
from martlet.apps.stacks.reading import line_of

__all__ = [
    "Fault",
    "Kind",
    "Property",
    "check",
    "fixed",
    "needs_replacement",
    "object_of",
    "one_of",
    "refused",
    "taken",
    "typed",
    "value",
]

Type = Literal["string", "integer", "number", "boolean", "list", "map", "json", "object"]
_NAMES: Final = {"string": "String", "integer": "Integer", "number": "Double", "boolean": "Boolean", "list": "List"}


class Property(msgspec.Struct, frozen=True, kw_only=True):
    """One property. `members` are an object's, `item` is what a list holds. `replace`: changing it makes a new resource."""

    type: Type = "json"
    state: Literal["honoured", "taken", "refused"] = "honoured"
    replace: bool = False
    required: bool = False
    members: Mapping[str, Property] | None = None
    item: Property | None = None
    why: str = ""
    among: tuple[str, ...] = ()  # the values that are honoured, the usual one first; () for all


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A resource type. `open`: takes any property (custom resources). `attributes` are those of Fn::GetAtt."""

    type: str
    properties: Mapping[str, Property] = {}
    attributes: tuple[str, ...] = ()
    open: bool = False
    state: Literal["honoured", "taken"] = "honoured"
    note: str = ""


class Fault(msgspec.Struct, frozen=True):
    """Something wrong with a resource. `unsupported`: it is well-formed, but not honoured here; `--lenient` lets it pass."""

    text: str
    line: int
    logical_id: str
    unsupported: bool = False


def value(
    type: Type = "string", *, replace: bool = False, required: bool = False, item: Property | None = None, why: str = ""
) -> Property:
    """A property that is honoured; `why` says how far."""
    return Property(type=type, replace=replace, required=required, item=item, why=why)


def one_of(*among: str, why: str) -> Property:
    """A text of which only these values are honoured."""
    return Property(type="string", among=among, why=why)


def fixed(type: Type = "string", *, required: bool = False) -> Property:
    """A property that is honoured, and whose change makes a new resource."""
    return Property(type=type, replace=True, required=required)


def taken(type: Type = "json", *, replace: bool = False, required: bool = False, why: str = "") -> Property:
    """A property that is remembered and has no effect."""
    return Property(type=type, state="taken", replace=replace, required=required, why=why)


def refused(why: str) -> Property:
    """A property that fails the deploy."""
    return Property(state="refused", why=why)


def object_of(
    members: Mapping[str, Property], *, replace: bool = False, required: bool = False, many: bool = False
) -> Property:
    """An object with these members, or a list of such objects."""
    one = Property(type="object", members=members, replace=replace, required=required)
    return Property(type="list", item=one, replace=replace, required=required) if many else one


def check(kind: Kind, properties: Any, logical_id: str, line: int) -> list[Fault]:
    """Everything that is wrong with a resource's evaluated `properties`."""
    if kind.open:
        return []
    root = Property(type="object", members=kind.properties)
    return list(_check(kind.type, root, properties, "", logical_id, line))


def _check(kind: str, rule: Property, found: Any, path: str, logical_id: str, line: int) -> Iterator[Fault]:
    if rule.state == "refused":
        if found not in ({}, [], None):
            why = f": {rule.why}" if rule.why else ""
            yield Fault(f"{kind} {logical_id}: property {path} is not supported{why}", line, logical_id, unsupported=True)
        return
    if rule.state == "taken" and rule.members is None:
        return
    wrong = _type_fault(rule.type, found)
    if wrong:
        yield Fault(f"{kind} {logical_id}: Value of property {path or 'Properties'} must be {wrong}", line, logical_id)
        return
    if _is_later(found):
        return
    if rule.among and found not in rule.among:
        text = f"{kind} {logical_id}: property {path}: {found} is not supported: {rule.why}"
        yield Fault(text, line, logical_id, unsupported=True)
    if rule.type == "object" and rule.members is not None:
        yield from _check_members(kind, rule.members, found, path, logical_id, line)
    elif rule.type == "list" and rule.item is not None:
        for at, one in enumerate(found):
            yield from _check(kind, rule.item, one, f"{path}[{at}]", logical_id, line_of(one) or line)


def _check_members(
    kind: str, members: Mapping[str, Property], found: Any, path: str, logical_id: str, line: int
) -> Iterator[Fault]:
    for name, one in found.items():
        where = f"{path}.{name}" if path else name
        rule = members.get(name)
        if rule is None:
            text = f"{kind} {logical_id}: Encountered unsupported property {where}"
            yield Fault(text, line_of(found, name) or line, logical_id, unsupported=True)
        else:
            yield from _check(kind, rule, one, where, logical_id, line_of(found, name) or line)
    for name, rule in members.items():
        if rule.required and name not in found:
            where = f"{path}.{name}" if path else name
            yield Fault(f"{kind} {logical_id}: Property {where} cannot be empty.", line_of(found) or line, logical_id)


def _type_fault(type: Type, found: Any) -> str:
    if type == "json" or _is_later(found):
        return ""
    ok: bool
    if type in ("object", "map"):
        return "" if isinstance(found, dict) else "an object"
    if type == "list":
        ok = isinstance(found, list)
    elif type == "boolean":
        ok = isinstance(found, bool) or found in ("true", "false", "True", "False")
    elif type == "integer":
        ok = not isinstance(found, bool) and (isinstance(found, int) or _whole(found))
    elif type == "number":
        ok = not isinstance(found, bool) and (isinstance(found, int | float) or _number(found))
    else:
        ok = isinstance(found, str | int | float | bool)
    return "" if ok else f"of type {_NAMES[type]}"


def _is_later(found: Any) -> bool:
    """A text that is not the value yet: of a resource that is still to be made, or a dynamic reference."""
    return isinstance(found, str) and (is_pending(found) or "{{resolve:" in found)


def _whole(found: Any) -> bool:
    if isinstance(found, float):
        return found.is_integer()
    return isinstance(found, str) and len(found) <= 20 and found.lstrip("-").isascii() and found.lstrip("-").isdigit()


def _number(found: Any) -> bool:
    try:
        return isinstance(found, str) and float(found) == float(found)
    except ValueError:
        return False


def typed(kind: Kind, properties: Mapping[str, Any]) -> dict[str, Any]:
    """`properties`, which have been checked, in their types ("256" as 256) and without what is refused or not known."""
    if kind.open:
        return _plain(properties)  # type: ignore[no-any-return]
    return _typed(Property(type="object", members=kind.properties), properties)  # type: ignore[no-any-return]


def _typed(rule: Property, found: Any) -> Any:
    if _is_later(found):
        return found
    if rule.type == "object" and rule.members is not None and isinstance(found, dict):
        known = rule.members
        return {
            name: _typed(known[name], one) for name, one in found.items() if name in known and known[name].state != "refused"
        }
    if rule.type == "list" and isinstance(found, list):
        return [_typed(rule.item, one) if rule.item else _plain(one) for one in found]
    if rule.type == "integer":
        return int(found)
    if rule.type == "number":
        return float(found) if not isinstance(found, int) else found
    if rule.type == "boolean":
        return found if isinstance(found, bool) else str(found).lower() == "true"
    if rule.among and found not in rule.among:
        return rule.among[0]
    if rule.type == "string" and not isinstance(found, dict | list):
        return _text(found)
    return _plain(found)


def _text(found: Any) -> str:
    if isinstance(found, bool):
        return "true" if found else "false"
    return found if isinstance(found, str) else json.dumps(found)


def _plain(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _plain(one) for name, one in found.items()}
    if isinstance(found, list):
        return [_plain(one) for one in found]
    return found


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names of the properties that differ."""
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def needs_replacement(kind: Kind, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Of the changed properties, those whose change makes a new resource."""
    return [name for name in changed(old, new) if (rule := kind.properties.get(name)) is not None and rule.replace]
