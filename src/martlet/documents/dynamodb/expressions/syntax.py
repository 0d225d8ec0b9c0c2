"""From an expression's text to its tree. Purely syntax: what names and values stand for is looked at later.

A path is a tuple of steps: a str (an attribute's name, `#placeholder` kept as it is) or an int (a list's index).
Nesting in the text costs no depth of calls here: brackets are counted or kept on a stack of our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from martlet.documents.dynamodb.expressions.lexing import KEYWORDS, Tokens

__all__ = [
    "Action",
    "Call",
    "Condition",
    "Logic",
    "Not",
    "Operand",
    "Parsed",
    "Path",
    "Test",
    "Truth",
    "Value",
    "condition",
    "projection",
    "update",
]

_CALL_DEPTH: Final = 40  # deeper calls are wrong whatever they are: no function takes a function that deep
PATH_STEPS: Final = 32  # as deep as a document may be
_COMPARATORS: Final = frozenset(("=", "<>", "<", "<=", ">", ">="))
_SECTIONS: Final = frozenset(("SET", "REMOVE", "ADD", "DELETE"))


class Path(msgspec.Struct, frozen=True):
    """A document path, e.g. ("a", 0, "#b")."""

    steps: tuple[str | int, ...]


class Value(msgspec.Struct, frozen=True):
    """`:name`."""

    name: str


class Call(msgspec.Struct, frozen=True):
    """A function call; `+` and `-` are calls as well."""

    name: str
    operands: tuple[Operand, ...]


class Truth(msgspec.Struct, frozen=True):
    """Whether a condition holds, as a value. No expression can say it; PartiQL can: `attribute_exists(a) = false`."""

    condition: Condition


Operand = Path | Value | Call | Truth


class Test(msgspec.Struct, frozen=True):
    """A comparison, BETWEEN or IN."""

    operator: str
    operands: tuple[Operand, ...]


class Not(msgspec.Struct, frozen=True):
    """NOT condition."""

    condition: Condition


class Logic(msgspec.Struct, frozen=True):
    """Conditions joined by one operator, AND or OR."""

    operator: str
    conditions: tuple[Condition, ...]


Condition = Test | Not | Logic | Call


class Action(msgspec.Struct, frozen=True):
    """One action of an update. `value` is None for REMOVE."""

    section: str
    path: Path
    value: Operand | None


class Parsed(msgspec.Struct, frozen=True):
    """A tree with what was seen on the way. `repeated` names a section that came twice."""

    tree: Condition | tuple[Action, ...] | tuple[Path, ...]
    redundant: bool = False
    operators: int = 0
    repeated: str = ""
    too_many: int = 0
    deepest: int = 0  # steps of the longest path


class _Reader:
    """What the three grammars have in common: paths, values, calls and brackets around them."""

    counts_calls = False  # does a call count as an operator?

    def __init__(self, tokens: Tokens, keywords: frozenset[str], *, grouped_paths: bool = False) -> None:
        self.tokens = tokens
        self.keywords = keywords
        self.grouped_paths = grouped_paths
        self.redundant = False
        self.operators = 0
        self.depth = 0
        self.deepest = 0

    def name(self) -> str:
        token = self.tokens.here
        if token.kind not in ("word", "#") or token.text.upper() in self.keywords:
            raise self.tokens.unexpected()
        return self.tokens.next().text

    def path(self) -> Path:
        return self.checked((self.name(), *self.steps()))

    def checked(self, steps: tuple[str | int, ...]) -> Path:
        self.deepest = max(self.deepest, len(steps))
        return Path(steps)

    def steps(self) -> Iterator[str | int]:
        tokens = self.tokens
        while True:
            if tokens.here.kind == ".":
                tokens.next()
                yield self.name()
            elif tokens.here.kind == "[":
                tokens.next()
                digits = tokens.take("number").text
                tokens.take("]")
                if len(digits) > 10:
                    raise tokens.fail(f"List index is not within the allowable range; index: [{digits}]")
                yield int(digits)
            else:
                return

    def atom(self) -> Operand:
        """A path, a value or a call, without brackets around it."""
        tokens = self.tokens
        if tokens.here.kind == ":":
            return Value(tokens.next().text)
        if tokens.here.kind == "word" and tokens.ahead() == "(" and tokens.keyword() not in self.keywords:
            return self.call()
        return self.path()

    def call(self) -> Call:
        tokens = self.tokens
        name = tokens.next().text
        tokens.next()
        self.depth += 1
        if self.depth > _CALL_DEPTH:
            raise tokens.fail(f"The function is not allowed to be used this way in an expression; function: {name}")
        operands = self.operands()
        tokens.take(")")
        self.depth -= 1
        self.operators += self.counts_calls
        return Call(name, operands)

    def operands(self) -> tuple[Operand, ...]:
        found = [self.operand()]
        while self.tokens.here.kind == ",":
            self.tokens.next()
            found.append(self.operand())
        return tuple(found)

    def operand(self) -> Operand:
        """An atom in any number of brackets; in conditions, further steps may come behind the bracket of a path."""
        tokens = self.tokens
        brackets = 0
        while tokens.here.kind == "(":
            tokens.next()
            brackets += 1
        found = self.atom()
        bare = False
        for _ in range(brackets):
            tokens.take(")")
            self.redundant |= bare
            bare = True
            if self.grouped_paths and isinstance(found, Path) and tokens.here.kind in (".", "["):
                found = self.checked((*found.steps, *self.steps()))
                bare = False
        return found


class _Conditions(_Reader):
    """Conditions by operator precedence, with stacks of our own for brackets and operators that wait."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens, KEYWORDS, grouped_paths=True)
        self.waiting: list[str] = []
        self.found: list[Condition | Operand] = []
        self.whole: list[bool] = []  # is the condition beside it in `found` a bracket?
        self.too_many = 0

    def read(self) -> Parsed:
        tokens = self.tokens
        self.before()
        while self.behind():
            self.before()
        self.reduce(0)
        if self.waiting:
            raise tokens.unexpected()
        tree = self.found.pop()
        assert not isinstance(tree, Path | Value | Truth)
        return Parsed(tree, self.redundant, self.operators, too_many=self.too_many, deepest=self.deepest)

    def before(self) -> None:
        """Where a condition begins: brackets and NOT, then an operand."""
        tokens = self.tokens
        while tokens.here.kind == "(" or tokens.keyword() == "NOT":
            self.waiting.append("(" if tokens.next().text == "(" else "NOT")
            self.operators += self.waiting[-1] == "NOT"
        self.push(self.atom(), False)

    def behind(self) -> bool:
        """After an operand or a condition: comparators and closing brackets, until AND or OR (True: more comes) or the end."""
        tokens = self.tokens
        while True:
            kind, word = tokens.here.kind, tokens.keyword()
            if kind in _COMPARATORS or word in ("BETWEEN", "IN"):
                self.test()
            elif kind == ")":
                self.close()
            elif kind in (".", "[") and self.whole[-1] and isinstance(self.found[-1], Path):
                self.found[-1] = self.checked((*self.found[-1].steps, *self.steps()))
                self.whole[-1] = False
            elif word in ("AND", "OR") or not kind:
                self.need_condition()
                if word:
                    self.reduce(2 if word == "AND" else 1)
                    self.waiting.append(word)
                    self.operators += 1
                    tokens.next()
                return bool(word)
            else:
                raise tokens.unexpected()

    def test(self) -> None:
        tokens = self.tokens
        if not isinstance(self.found[-1], Path | Value | Call | Truth):
            raise tokens.unexpected()
        left = self.found.pop()
        self.whole.pop()
        assert isinstance(left, Path | Value | Call)
        self.operators += 1
        operator = tokens.next().text.upper()
        if operator == "BETWEEN":
            low = self.operand()
            if tokens.keyword() != "AND":
                raise tokens.unexpected()
            tokens.next()
            operands: tuple[Operand, ...] = (left, low, self.operand())
        elif operator == "IN":
            tokens.take("(")
            operands = (left, *self.operands())
            tokens.take(")")
            if len(operands) > 101:
                self.too_many = len(operands) - 1
        else:
            operands = (left, self.operand())
        self.push(Test(operator, operands), False)

    def close(self) -> None:
        tokens = self.tokens
        if self.waiting and self.waiting[-1] != "(":
            self.need_condition()
        self.reduce(0)
        if not self.waiting:
            raise tokens.unexpected()
        self.waiting.pop()
        tokens.next()
        self.redundant |= self.whole[-1]
        self.whole[-1] = True

    def need_condition(self) -> None:
        if isinstance(self.found[-1], Path | Value):
            raise self.tokens.unexpected()

    def push(self, node: Condition | Operand, whole: bool) -> None:
        self.found.append(node)
        self.whole.append(whole)

    def reduce(self, level: int) -> None:
        """Apply the operators that wait and bind more tightly than `level` (OR 1, AND 2, NOT 3), up to the last bracket."""
        waiting = self.waiting
        while waiting and waiting[-1] != "(":
            operator = waiting[-1]
            if operator == "NOT":
                waiting.pop()
                self.push(Not(self.pop()), False)
                continue
            if level >= (2 if operator == "AND" else 1):
                return  # the same operator goes on, or a tighter one takes what is on the left
            conditions = [self.pop()]
            while waiting and waiting[-1] == operator:
                waiting.pop()
                conditions.append(self.pop())
            conditions.reverse()
            self.push(Logic(operator, tuple(conditions)), False)

    def pop(self) -> Condition:
        self.whole.pop()
        node = self.found.pop()
        assert not isinstance(node, Path | Value | Truth)
        return node


class _Updates(_Reader):
    """The sections of an update."""

    counts_calls = True

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens, _SECTIONS)

    def read(self) -> Parsed:
        tokens = self.tokens
        actions: list[Action] = []
        seen: set[str] = set()
        repeated = ""
        while tokens.here.kind or not actions:
            section = tokens.keyword()
            if section not in _SECTIONS:
                raise tokens.unexpected()
            tokens.next()
            if section in seen:
                repeated = repeated or section
            seen.add(section)
            actions.append(self.action(section))
            while tokens.here.kind == ",":
                tokens.next()
                actions.append(self.action(section))
        return Parsed(tuple(actions), self.redundant, self.operators, repeated, deepest=self.deepest)

    def action(self, section: str) -> Action:
        path = self.path()
        if section == "REMOVE":
            return Action(section, path, None)
        if section == "SET":
            self.tokens.take("=")
            return Action(section, path, self.value())
        return Action(section, path, Value(self.tokens.take(":").text))

    def value(self) -> Operand:
        """An operand, or two with + or - between them, perhaps in brackets."""
        tokens = self.tokens
        brackets = closed = 0
        while tokens.here.kind == "(":
            tokens.next()
            brackets += 1
        found = self.atom()
        while closed < brackets and tokens.here.kind == ")":
            tokens.next()
            closed += 1
        if tokens.here.kind in ("+", "-"):
            self.operators += 1
            found = Call(tokens.next().kind, (found, self.operand()))
        for _ in range(brackets - closed):
            tokens.take(")")
        self.redundant |= closed > 1 or brackets - closed > 1
        return found


def condition(tokens: Tokens) -> Parsed:
    """The tree of a condition, filter or key condition."""
    return _bounded(tokens, _Conditions(tokens).read())


def update(tokens: Tokens) -> Parsed:
    """The actions of an update expression, in their order."""
    return _bounded(tokens, _Updates(tokens).read())


def projection(tokens: Tokens) -> Parsed:
    """The paths of a projection expression."""
    reader = _Reader(tokens, frozenset())
    paths = [reader.path()]
    while tokens.here.kind == ",":
        tokens.next()
        paths.append(reader.path())
    if tokens.here.kind:
        raise tokens.unexpected()
    return _bounded(tokens, Parsed(tuple(paths), deepest=reader.deepest))


def _bounded(tokens: Tokens, parsed: Parsed) -> Parsed:
    if parsed.deepest > PATH_STEPS:
        raise tokens.fail(f"The document path has too many nesting levels; nesting levels: {parsed.deepest}")
    return parsed
