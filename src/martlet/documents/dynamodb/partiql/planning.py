"""What a WHERE means for a table's keys: which parts of it a SELECT reads, and which item a write means.

A SELECT reads by key where its WHERE pins the partition key: `p = v`, `p IN [v, …]` or an OR of such conditions, each with what
it says of the sort key; otherwise it reads all of the table or index. What is not read by key is filtered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from martlet.documents.dynamodb.expressions import Condition, KeyCondition, numbers, paths, syntax, updates, values
from martlet.documents.dynamodb.expressions.binding import Binder
from martlet.documents.dynamodb.expressions.conditions import Plan, compile_condition
from martlet.documents.dynamodb.expressions.errors import invalid
from martlet.documents.dynamodb.expressions.paths import Steps
from martlet.documents.dynamodb.expressions.values import AV, Item
from martlet.documents.dynamodb.partiql.statements import Column, Delete, Select, Update

__all__ = [
    "Branch",
    "Columns",
    "Keyed",
    "Keys",
    "Read",
    "check_where",
    "missing_attributes",
    "plan_exists",
    "plan_key",
    "plan_read",
    "plan_update",
]

READS: Final = 50  # the service's bound of reads into which one statement falls apart
_NO_KEY: Final = "Where clause does not contain a mandatory equality on all key attributes"
_OVERLAPPING: Final = "Overlapping conditions with range keys are not supported in where clause"
_TOO_MANY: Final = "Too many decomposed read operations for a given query."
_RANGES: Final = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

_PLANS: Final = 16

T = TypeVar("T")
Variables = Mapping[str, AV]
Node = syntax.Condition


class Keys(NamedTuple):
    """The key attributes of a table or an index, with their types."""

    hash: str
    range: str | None
    types: Mapping[str, str]


class Branch(msgspec.Struct, frozen=True):
    """One part to be read and what to keep of it."""

    key: KeyCondition
    filter: Condition | None


class Read(msgspec.Struct, frozen=True):
    """What a SELECT reads: its branches one after the other, or, without any, everything that `filter` keeps.

    `exact`: the WHERE says the key and nothing else. `unprojected` are attributes that the first branch filters on.
    """

    branches: tuple[Branch, ...]
    filter: Condition | None
    reverse: bool
    exact: bool
    filtered: tuple[str, ...]


class Keyed(msgspec.Struct, frozen=True):
    """The item that a write means, and what else must hold of it (None: nothing)."""

    key: dict[str, Any]
    condition: Condition | None


class Columns:
    """SELECT's columns as a projection: each under the last name of its path."""

    __slots__ = ("columns",)

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns

    def paths(self) -> tuple[Steps, ...]:
        return tuple(column.steps for column in self.columns)

    def attributes(self) -> list[str]:
        """The top-level attributes, in the order of the statement."""
        return list(dict.fromkeys(str(column.steps[0]) for column in self.columns))

    def of(self, item: Item) -> dict[str, AV]:
        found = ((column.name, paths.get(item, column.steps)) for column in self.columns)
        return {name: value for name, value in found if value is not None}


class _Verbatim(Binder):
    """Names are what they are: no placeholders, no reserved words."""

    __slots__ = ()

    def steps(self, path: syntax.Path) -> tuple[Steps, str | None]:
        return path.steps, None


def check_where(statement: Select | Update | Delete) -> Condition | None:
    """The whole WHERE as a condition. Raises the service's errors that no table is needed for."""
    return _condition(statement, statement.where)


def _condition(statement: Select | Update | Delete, where: Node | None) -> Condition | None:
    """A part of a statement's WHERE as a condition; compiled once for all who run the statement."""
    if where is None:
        return None
    plan = _compiled(statement, where, lambda: _compile(where))
    for check in plan.checks:
        found = check(statement.values)
        if found is not None:
            raise invalid(found)
    return Condition(plan, statement.values)


def _compile(where: Node) -> Plan:
    problem, plan = compile_condition(where, _Verbatim({}))
    if problem:
        raise invalid(problem)
    return plan


def _compiled(statement: Select | Update | Delete, key: object, make: Callable[[], T]) -> T:
    plans = statement.plans
    found = plans.get(key)
    if found is None:
        found = make()
        if len(plans) >= _PLANS:
            plans.clear()  # tables of many kinds run one text: rare, and only slower
        plans[key] = found
    return found


def plan_update(statement: Update) -> updates.Update:
    """SET and REMOVE as an update. Raises the service's errors."""

    def compiled() -> updates.Plan:
        problem, plan = updates.compile_update(statement.actions, _Verbatim({}))
        if problem:
            raise invalid(problem)
        return plan

    plan = _compiled(statement, "SET", compiled)
    for check in plan.checks:
        found = check(statement.values)
        if found is not None:
            raise invalid(found)
    return updates.Update(plan, statement.values)


def plan_key(statement: Update | Delete, keys: Keys) -> Keyed:
    """The one item that a write means. Raises the service's errors when its WHERE does not say which."""
    found: dict[str, AV] = {}
    rest: list[Node] = []
    for node in _conjuncts(statement.where):
        pinned = _equality(node, statement.values)
        if pinned is None or pinned[0] not in (keys.hash, keys.range):
            rest.append(node)
            continue
        name, value = pinned
        if name in found and not values.equals(found[name], value):
            raise invalid(f"Multiple conditions on same key {name}. Only single item Update/Insert/Delete are supported")
        found[name] = value
    if len(found) < (1 if keys.range is None else 2):
        raise invalid(_NO_KEY)
    ordered = {name: found[name] for name in (keys.hash, keys.range) if name is not None}
    return Keyed(ordered, _condition(statement, _all(rest)))


def plan_exists(statement: Select, keys: Keys) -> Keyed:
    """The item and the condition of an EXISTS. Raises the service's errors when it has not both."""
    found: dict[str, AV] = {}
    rest: list[Node] = []
    for node in _conjuncts(statement.where):
        pinned = _equality(node, statement.values)
        if pinned is not None and pinned[0] in (keys.hash, keys.range) and pinned[0] not in found:
            found[pinned[0]] = pinned[1]
        else:
            rest.append(node)
    condition = _condition(statement, _all(rest))
    if len(found) < (1 if keys.range is None else 2) or condition is None:
        raise invalid("EXISTS() must contain a single item read with additional condition")
    return Keyed(found, condition)


def plan_read(statement: Select, keys: Keys, check_types: bool = True) -> Read:
    """What a SELECT reads of a table or an index with these keys. Raises the service's errors."""
    whole = check_where(statement)
    branches = _branches(statement.where, keys, statement.values)
    reverse = _direction(statement, keys, branches)
    if branches is None:
        return Read((), whole, False, False, ())
    if len(branches) > READS:
        raise invalid(_TOO_MANY)
    if check_types:
        _check_types(branches, keys)
    _check_overlap(branches)
    first = min(reversed(branches), key=lambda branch: _bucket(branch.hash))  # the service looks at one, as recorded
    filtered = _compiled(statement, first.rest, lambda: _java_order(_attributes(first.rest)))
    if any(name == keys.hash for name in filtered):
        filtered = ()
    exact = all(not branch.rest for branch in branches) and len(branches) == 1
    made = [Branch(branch.key(), _condition(statement, _all(branch.rest))) for branch in _sorted(branches, statement, keys)]
    return Read(tuple(made), None, reverse, exact, filtered)


def missing_attributes(read: Read, projected: Iterable[str]) -> list[str]:
    """Attributes that a read by key filters on and its index does not have."""
    there = set(projected)
    return [name for name in read.filtered if name not in there]


# how a WHERE falls apart


class _Part(NamedTuple):
    """One branch while it is being found."""

    hash: AV
    operator: str | None
    operands: tuple[AV, ...]
    rest: tuple[Node, ...]

    def key(self) -> KeyCondition:
        if self.operator is None:
            return KeyCondition(self.hash)
        return KeyCondition(self.hash, self.operator, self.operands[0], self.operands[1] if len(self.operands) > 1 else None)


def _conjuncts(node: Node | None) -> list[Node]:
    if node is None:
        return []
    if isinstance(node, syntax.Logic) and node.operator == "AND":
        return [part for each in node.conditions for part in _conjuncts(each)]
    return [node]


def _all(nodes: Iterable[Node]) -> Node | None:
    parts = tuple(nodes)
    if len(parts) < 2:
        return parts[0] if parts else None
    return syntax.Logic("AND", parts)


def _equality(node: Node, variables: Variables) -> tuple[str, AV] | None:
    """(attribute, value) of `attribute = value`."""
    found = _range(node, variables)
    return (found[0], found[2][0]) if found is not None and found[1] == "=" else None


def _range(node: Node, variables: Variables) -> tuple[str, str, tuple[AV, ...]] | None:
    """(attribute, operator, operands) of a condition that a sort key can be read by."""
    if isinstance(node, syntax.Test) and node.operator in (*_RANGES, "BETWEEN"):
        operator, operands = node.operator, node.operands
        if isinstance(operands[0], syntax.Value) and operator != "BETWEEN":
            operator, operands = _RANGES[operator], (operands[1], operands[0])
    elif isinstance(node, syntax.Call) and node.name == "begins_with":
        operator, operands = node.name, node.operands
    else:
        return None
    path, *given = operands
    if not isinstance(path, syntax.Path) or len(path.steps) > 1:
        return None
    found = tuple(variables[each.name] for each in given if isinstance(each, syntax.Value))
    return (str(path.steps[0]), operator, found) if len(found) == len(given) else None


def _choices(node: Node, name: str, variables: Variables) -> list[AV] | None:
    """The values of `name = v` or `name IN [v, …]`."""
    pinned = _equality(node, variables)
    if pinned is not None:
        return [pinned[1]] if pinned[0] == name else None
    if isinstance(node, syntax.Test) and node.operator == "IN" and node.operands[0] == syntax.Path((name,)):
        given = node.operands[1:]
        found = [variables[each.name] for each in given if isinstance(each, syntax.Value)]
        return found if len(found) == len(given) else None
    return None


def _branches(where: Node | None, keys: Keys, variables: Variables) -> list[_Part] | None:
    """The parts by key, None when the WHERE does not pin the partition key."""
    parts = _conjuncts(where)
    for number, part in enumerate(parts):
        rest = [*parts[:number], *parts[number + 1 :]]
        chosen = _choices(part, keys.hash, variables)
        if chosen is not None:
            if len(chosen) == 1:
                rest = [node for node in rest if _choices(node, keys.hash, variables) != chosen]
            return [branch for value in chosen for branch in _with_range(value, rest, keys, variables)]
        if isinstance(part, syntax.Logic) and _pins(part, keys.hash, variables):
            found: list[_Part] = []
            for each in part.conditions:
                found += _branches(_all([each, *rest]), keys, variables) or ()
                if len(found) > READS:
                    raise invalid(_TOO_MANY)
            return found
    return None


def _pins(node: Node, name: str, variables: Variables) -> bool:
    """Does the condition by itself say which values the attribute has?"""
    if isinstance(node, syntax.Logic) and node.operator == "OR":
        return all(_pins(each, name, variables) for each in node.conditions)
    return any(
        _pins(each, name, variables) if each is not node else _choices(each, name, variables) is not None
        for each in _conjuncts(node)
    )


def _with_range(value: AV, parts: list[Node], keys: Keys, variables: Variables) -> list[_Part]:
    if keys.range is not None:
        for number, part in enumerate(parts):
            found = _ranges(part, keys.range, variables)
            if found:
                same = found[0][1] if len(found) == 1 and found[0][0] == "=" else None
                others = [*parts[:number], *parts[number + 1 :]]
                rest = tuple(node for node in others if same is None or _choices(node, keys.range, variables) != list(same))
                return [_Part(value, operator, operands, (*inner, *rest)) for operator, operands, inner in found]
    return [_Part(value, None, (), tuple(parts))]


def _ranges(part: Node, name: str, variables: Variables) -> list[tuple[str | None, tuple[AV, ...], tuple[Node, ...]]]:
    """What a condition says of the sort key, one after the other; () when it says nothing that can be read by."""
    chosen = _choices(part, name, variables)
    if chosen is not None:
        return [("=", (value,), ()) for value in chosen]
    single = _range(part, variables)
    if single is not None:
        return [(single[1], single[2], ())] if single[0] == name else []
    if not isinstance(part, syntax.Logic) or part.operator != "OR":
        return []
    found = [(each, _ranges(each, name, variables)) for each in part.conditions]
    if not any(below for _, below in found):
        return []
    whole: list[tuple[str | None, tuple[AV, ...], tuple[Node, ...]]] = []
    for each, below in found:
        whole += below or [(None, (), (each,))]
    return whole


def _check_types(branches: list[_Part], keys: Keys) -> None:
    for branch in branches:
        for name, operands in ((keys.hash, (branch.hash,)), (keys.range, branch.operands)):
            if name is not None and any(keys.types[name] not in operand for operand in operands):
                raise invalid(f"Key attribute's data type should match its data type in table's schema: Key {name}")


def _check_overlap(branches: list[_Part]) -> None:
    """Two branches that could return one item are refused."""
    by_hash: dict[str, list[_Part]] = {}
    for branch in branches:
        by_hash.setdefault(repr(branch.hash), []).append(branch)
    for group in by_hash.values():
        for number, one in enumerate(group):
            if any(_overlap(one, two) for two in group[number + 1 :]):
                raise invalid(_OVERLAPPING)


def _overlap(one: _Part, two: _Part) -> bool:
    if one.operator is None or two.operator is None:
        return True
    return not (_before(one, two) or _before(two, one))


def _before(one: _Part, two: _Part) -> bool:
    """Does everything of `one` come before everything of `two`?"""
    high, closed = _end(one)
    low, open_ = _start(two)
    if high is None or low is None:
        return False
    order = values.compare(high, low)
    return order is not None and (order < 0 or (order == 0 and not (closed and not open_)))


def _end(part: _Part) -> tuple[AV | None, bool]:
    """(upper bound, is it included); begins_with ends before the prefix with its last character raised."""
    if part.operator in ("=", "<=", "BETWEEN"):
        return part.operands[-1], True
    if part.operator == "<":
        return part.operands[0], False
    if part.operator == "begins_with":
        ((kind, prefix),) = part.operands[0].items()
        if not prefix:
            return None, True
        return {kind: prefix + ("\U0010ffff" if kind == "S" else b"\xff" * 8)}, True
    return None, True


def _start(part: _Part) -> tuple[AV | None, bool]:
    """(lower bound, is it left out)."""
    if part.operator in ("<", "<="):
        return None, False
    return part.operands[0], part.operator == ">"


# order


def _direction(statement: Select, keys: Keys, branches: list[_Part] | None) -> bool:
    """Are sort keys read from high to low? Raises the service's errors about ORDER BY."""
    if not statement.order:
        return False
    if statement.where is None:
        raise invalid("Must have WHERE clause in the statement when using ORDER BY clause.")
    for term in statement.order:
        if term.attribute not in (keys.hash, keys.range):
            raise invalid(f"Attribute {term.attribute} in ORDER BY clause must be part of the primary key")
    if branches is None:
        raise invalid("Must have at least one non-optional hash key condition in WHERE clause when using ORDER BY clause.")
    several = len({repr(branch.hash) for branch in branches}) > 1
    if several and not any(term.attribute == keys.hash for term in statement.order):
        raise invalid("Must have hash key in ORDER BY clause when more than one hash key condition specified in WHERE clause.")
    by_range = [term.descending for term in statement.order if term.attribute == keys.range]
    return by_range[0] if by_range else True  # so the service does, as recorded


def _sorted(branches: list[_Part], statement: Select, keys: Keys) -> list[_Part]:
    for term in statement.order:
        if term.attribute == keys.hash:
            rank: Callable[[_Part], object] = lambda branch: _rank(branch.hash)  # noqa: E731
            branches = sorted(branches, key=rank, reverse=term.descending)  # type: ignore[arg-type]
    return branches


def _rank(value: AV) -> object:
    ((kind, content),) = value.items()
    return numbers.decimal(content) if kind == "N" else content


# names, as the service lists them: in the order of a Java HashSet


def _attributes(nodes: Iterable[Node]) -> list[str]:
    node = _all(nodes)
    if node is None:
        return []
    _, plan = compile_condition(node, _Verbatim({}))
    return list(dict.fromkeys(str(steps[0]) for steps in plan.steps))


def _java_order(names: list[str]) -> tuple[str, ...]:
    size = 16
    while len(names) > size * 3 // 4:
        size *= 2
    return tuple(sorted(names, key=lambda name: _java_hash(name) % size))


def _java_hash(text: str) -> int:
    code = 0
    for unit in memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H"):
        code = (31 * code + unit) & 0xFFFFFFFF
    return code ^ (code >> 16)


def _bucket(value: AV) -> int:
    ((_, content),) = value.items()
    return _java_hash(content) % 16 if isinstance(content, str) else 0
