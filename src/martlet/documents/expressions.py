"""A small, total language over documents: conditions, checks, computed fields, filters.

    left >= $quantity and status in ["open", "held"] and not exists(cancelled_at)

Literals (numbers, "text", 'text', true, false, null, [lists]), fields (a.b, items[0]), $parameters, `+ - * / %`, comparisons,
`in`, `and or not`, and the functions of FUNCTIONS. Nothing raises while it is evaluated: a field that is not there, a wrong
type and a division by zero are null, and a comparison with null is false, save == and !=. No loops, no calls out of the
language: work is bounded by `expression_nodes` and the size of the document. Whole numbers are exact (beyond 64 bits they
become decimals); decimals have 38 digits and are rounded to even beyond those, as a quotient must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Context, Decimal, DecimalException
from functools import lru_cache
from typing import Any, Final

from martlet.documents.values import INT_LEAST, INT_MOST, plain_number
from martlet.errors import InvalidInput
from martlet.limits import LIMITS, exceeded

__all__ = ["FUNCTIONS", "Expression", "compile_expression"]

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?)
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<parameter>\$[A-Za-z_][A-Za-z0-9_]*)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>==|!=|<=|>=|&&|\|\||[-+*/%<>()\[\].,!]))""",
    re.VERBOSE,
)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_CONTEXT: Final = Context(prec=38)
_TEXT_MOST: Final = LIMITS["document_bytes"].default

Evaluate = Callable[[Any, Mapping[str, Any]], Any]


class Expression:
    """A compiled expression. `nodes` is its cost; `fields` are the first names of the fields that it reads."""

    __slots__ = ("_run", "fields", "nodes", "parameters", "text")

    def __init__(self, text: str, run: Evaluate, nodes: int, fields: frozenset[str], parameters: frozenset[str]) -> None:
        self.text = text
        self._run = run
        self.nodes = nodes
        self.fields = fields
        self.parameters = parameters

    def value(self, scope: Any, parameters: Mapping[str, Any] | None = None) -> Any:
        """The value for a scope (a document's object). Raises `InvalidInput` for a parameter that is not given."""
        given = parameters or {}
        if not self.parameters <= given.keys():
            missing = ", ".join(sorted(f"${name}" for name in self.parameters - given.keys()))
            raise InvalidInput(f"the expression {self.text[:80]!r} has no value for {missing}", field="parameters")
        return self._run(scope, given)

    def holds(self, scope: Any, parameters: Mapping[str, Any] | None = None) -> bool:
        """Whether the value is true itself; null and everything else is not."""
        return self.value(scope, parameters) is True


@lru_cache(maxsize=1024)
def compile_expression(text: str) -> Expression:
    """Parse `text`. Raises `InvalidInput` with the place, `LimitExceeded` (expression_bytes, _nodes, _depth)."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > LIMITS["expression_bytes"].default:
        raise exceeded("expression_bytes", size, "expression")
    parser = _Parser(text)
    run = parser.whole()
    return Expression(text, run, parser.nodes, frozenset(parser.fields), frozenset(parser.parameters))


class _Parser:
    """Recursive descent; each method returns a closure."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        self._depth = 0
        self.nodes = 0
        self.fields: set[str] = set()
        self.parameters: set[str] = set()
        place = 0
        end = len(text.rstrip())
        while place < end:
            match = _TOKEN.match(text, place)
            if match is None or match.lastgroup is None:
                raise self._wrong(place, "this is no part of the language")
            self._tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
            place = match.end()

    def whole(self) -> Evaluate:
        found = self._either()
        if self._at < len(self._tokens):
            raise self._wrong(self._tokens[self._at][2], "an operator or the end is expected")
        return found

    # levels of precedence, weakest first

    def _either(self) -> Evaluate:
        self._depth += 1
        if self._depth > LIMITS["expression_depth"].default:
            raise exceeded("expression_depth", self._depth, "expression")
        left = self._both()
        while self._take("or", "||"):
            left = self._node(_either_of(left, self._both()))
        self._depth -= 1
        return left

    def _both(self) -> Evaluate:
        left = self._negated()
        while self._take("and", "&&"):
            left = self._node(_both_of(left, self._negated()))
        return left

    def _negated(self) -> Evaluate:
        negations = 0
        while self._take("not", "!"):
            negations += 1
        found = self._comparison()
        for _ in range(negations):
            found = self._node(_not(found))
        return found

    def _comparison(self) -> Evaluate:
        left = self._sum()
        sign = self._take("==", "!=", "<", "<=", ">", ">=", "in")
        return self._node(_binary(_COMPARISONS[sign], left, self._sum())) if sign else left

    def _sum(self) -> Evaluate:
        left = self._product()
        while sign := self._take("+", "-"):
            left = self._node(_binary(_ARITHMETIC[sign], left, self._product()))
        return left

    def _product(self) -> Evaluate:
        left = self._signed()
        while sign := self._take("*", "/", "%"):
            left = self._node(_binary(_ARITHMETIC[sign], left, self._signed()))
        return left

    def _signed(self) -> Evaluate:
        negations = 0
        while self._take("-"):
            negations += 1
        found = self._place()
        return self._node(_binary(_subtract, _constant(0), found)) if negations % 2 else found

    def _place(self) -> Evaluate:
        found = self._first()
        while sign := self._take(".", "["):
            if sign == ".":
                found = self._node(_member(found, self._expect("name")))
            else:
                found = self._node(_binary(_at, found, self._either()))
                self._must("]")
        return found

    def _first(self) -> Evaluate:
        if self._at >= len(self._tokens):
            raise self._wrong(len(self._text), "it ends too early")
        kind, text, place = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            return self._node(_constant(_literal_number(text)))
        if kind == "text":
            return self._node(_constant(_literal_text(text)))
        if kind == "parameter":
            self.parameters.add(text[1:])
            return self._node(_parameter(text[1:]))
        if text == "(":
            found = self._either()
            self._must(")")
            return found
        if text == "[":
            return self._node(_list(self._items("]")))
        if kind == "name" and text not in ("and", "or", "not", "in"):
            return self._named(text, place)
        raise self._wrong(place, f"{text!r} is not expected here")

    def _named(self, name: str, place: int) -> Evaluate:
        if name in _WORDS:
            return self._node(_constant(_WORDS[name]))
        if not self._take("("):
            self.fields.add(name)
            return self._node(_root(name))
        if name not in FUNCTIONS:
            raise self._wrong(place, f"there is no function {name}; there are {', '.join(sorted(FUNCTIONS))}")
        function, least, most = FUNCTIONS[name]
        arguments = self._items(")")
        if not least <= len(arguments) <= most:
            raise self._wrong(place, f"{name} takes {least} to {most} arguments, not {len(arguments)}")
        return self._node(_call(function, arguments))

    def _items(self, end: str) -> list[Evaluate]:
        items: list[Evaluate] = []
        if self._take(end):
            return items
        while True:
            items.append(self._either())
            if self._take(end):
                return items
            self._must(",")

    # tokens

    def _node(self, run: Evaluate) -> Evaluate:
        self.nodes += 1
        if self.nodes > LIMITS["expression_nodes"].default:
            raise exceeded("expression_nodes", self.nodes, "expression")
        return run

    def _take(self, *texts: str) -> str:
        if self._at < len(self._tokens):
            kind, text, _ = self._tokens[self._at]
            if text in texts and kind in ("sign", "name"):
                self._at += 1
                return text
        return ""

    def _must(self, text: str) -> None:
        if not self._take(text):
            place = self._tokens[self._at][2] if self._at < len(self._tokens) else len(self._text)
            raise self._wrong(place, f"{text!r} is expected")

    def _expect(self, kind: str) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at][0] != kind:
            place = self._tokens[self._at][2] if self._at < len(self._tokens) else len(self._text)
            raise self._wrong(place, f"a {kind} is expected")
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _wrong(self, place: int, why: str) -> InvalidInput:
        shown = f"{self._text[:place][-30:]}⟨here⟩{self._text[place:][:30]}"
        return InvalidInput(f"the expression is malformed at character {place}: {why}: {shown}", field="expression", at=place)


def _literal_number(text: str) -> int | Decimal:
    if text.isdigit() and len(text) < 20 and int(text) <= INT_MOST:
        return int(text)
    number = Decimal(text)
    if len(number.as_tuple().digits) > LIMITS["decimal_digits"].default:
        raise exceeded("decimal_digits", len(number.as_tuple().digits), "number in an expression")
    return number


def _literal_text(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1], flags=re.DOTALL)


# --- nodes


def _constant(value: Any) -> Evaluate:
    return lambda scope, given: value


def _parameter(name: str) -> Evaluate:
    return lambda scope, given: given[name]


def _root(name: str) -> Evaluate:
    return lambda scope, given: scope.get(name) if isinstance(scope, Mapping) else None


def _member(of: Evaluate, name: str) -> Evaluate:
    def run(scope: Any, given: Mapping[str, Any]) -> Any:
        value = of(scope, given)
        return value.get(name) if isinstance(value, Mapping) else None

    return run


def _list(items: list[Evaluate]) -> Evaluate:
    return lambda scope, given: [item(scope, given) for item in items]


def _not(of: Evaluate) -> Evaluate:
    return lambda scope, given: of(scope, given) is not True


def _either_of(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope, given: left(scope, given) is True or right(scope, given) is True


def _both_of(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope, given: left(scope, given) is True and right(scope, given) is True


def _binary(operator: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope, given: operator(left(scope, given), right(scope, given))


def _call(function: Callable[..., Any], arguments: list[Evaluate]) -> Evaluate:
    return lambda scope, given: function(*[argument(scope, given) for argument in arguments])


# --- operators


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float | Decimal):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, datetime):
        return "time"
    if isinstance(value, bytes):
        return "bytes"
    return "list" if isinstance(value, list) else "set" if isinstance(value, frozenset) else "object"


def same(left: Any, right: Any) -> bool:
    """Equality by value within one class; 1, 1.0 and 1.00 are equal, 1 and true are not."""
    kind = _kind(left)
    if kind != _kind(right):
        return False
    if kind == "number":
        return plain_number(left) == plain_number(right)
    if kind == "list":
        return len(left) == len(right) and all(map(same, left, right))
    if kind == "object":
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def run(left: Any, right: Any) -> bool:
        kind = _kind(left)
        if kind != _kind(right) or kind not in ("number", "text", "time", "bytes", "bool"):
            return False
        if kind == "number":
            return compare(plain_number(left), plain_number(right))
        return compare(left, right)

    return run


def _within(item: Any, group: Any) -> bool:
    if isinstance(group, list | frozenset):
        return any(same(item, member) for member in group)
    if isinstance(group, str):
        return isinstance(item, str) and item in group
    return isinstance(group, Mapping) and isinstance(item, str) and item in group


def _number_of(value: Any) -> Any:
    """A result that a document can hold, else null."""
    if isinstance(value, int) and not INT_LEAST <= value <= INT_MOST:
        value = Decimal(value)
    if isinstance(value, Decimal) and (not value.is_finite() or len(value.as_tuple().digits) > 38):
        return None
    return value


def _arithmetic(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def run(left: Any, right: Any) -> Any:
        if _kind(left) != "number" or _kind(right) != "number":
            return None
        left, right = plain_number(left), plain_number(right)
        try:
            if isinstance(left, Decimal) or isinstance(right, Decimal):
                left, right = Decimal(left), Decimal(right)
            return _number_of(operate(left, right))
        except (DecimalException, ZeroDivisionError):
            return None

    return run


def _decimal_or(whole: Callable[[int, int], Any], decimal: Callable[[Decimal, Decimal], Decimal]) -> Callable[[Any, Any], Any]:
    return lambda left, right: decimal(left, right) if isinstance(left, Decimal) else whole(left, right)


def _divide_whole(left: int, right: int) -> int | Decimal:
    quotient, rest = divmod(left, right)
    return quotient if not rest else _CONTEXT.divide(Decimal(left), Decimal(right))


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        if len(left) + len(right) > _TEXT_MOST:
            return None
        return left + right
    return _sum_of(left, right)


_sum_of: Final = _arithmetic(_decimal_or(lambda left, right: left + right, _CONTEXT.add))
_subtract: Final = _arithmetic(_decimal_or(lambda left, right: left - right, _CONTEXT.subtract))


def _remainder(left: Any, right: Any) -> Any:
    """Of the sign of the divisor, whole numbers and decimals alike."""
    rest = left % right
    return rest + right if isinstance(rest, Decimal) and rest and (rest < 0) != (right < 0) else rest


_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": _add,
    "-": _subtract,
    "*": _arithmetic(_decimal_or(lambda left, right: left * right, _CONTEXT.multiply)),
    "/": _arithmetic(_decimal_or(_divide_whole, _CONTEXT.divide)),
    "%": _arithmetic(_remainder),
}
_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": same,
    "!=": lambda left, right: not same(left, right),
    "<": _ordered(lambda left, right: left < right),
    "<=": _ordered(lambda left, right: left <= right),
    ">": _ordered(lambda left, right: left > right),
    ">=": _ordered(lambda left, right: left >= right),
    "in": _within,
}


def _at(of: Any, place: Any) -> Any:
    if isinstance(of, list) and isinstance(place, int) and not isinstance(place, bool):
        return of[place] if -len(of) <= place < len(of) else None
    return of.get(place) if isinstance(of, Mapping) and isinstance(place, str) else None


# --- functions


def _of_text(function: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: function(value) if isinstance(value, str) else None


def _of_texts(function: Callable[[str, str], Any]) -> Callable[[Any, Any], Any]:
    return lambda left, right: function(left, right) if isinstance(left, str) and isinstance(right, str) else None


def _contains(group: Any, item: Any) -> bool:
    return _within(item, group)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, str | bytes | list | frozenset | Mapping) else None


def _rounded(rounding: str) -> Callable[..., Any]:
    def run(value: Any, digits: Any = 0) -> Any:
        if _kind(value) != "number" or not isinstance(digits, int) or not 0 <= digits <= 30:
            return None
        try:
            number = Decimal(plain_number(value)).quantize(Decimal(1).scaleb(-digits), rounding=rounding, context=_CONTEXT)
        except DecimalException:
            return None
        return _number_of(int(number)) if digits == 0 else number

    return run


def _extreme(choose: Callable[[Any, Any], bool]) -> Callable[..., Any]:
    ordered = _ordered(choose)

    def run(*values: Any) -> Any:
        given = list(values[0]) if len(values) == 1 and isinstance(values[0], list) else list(values)
        best = given[0] if given else None
        for value in given[1:]:
            if ordered(value, best):
                best = value
        return best

    return run


def _absolute(value: Any) -> Any:
    return _number_of(abs(plain_number(value))) if _kind(value) == "number" else None


def _coalesce(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}
FUNCTIONS: Final[dict[str, tuple[Callable[..., Any], int, int]]] = {  # name: (function, least and most arguments)
    "abs": (_absolute, 1, 1),
    "ceil": (_rounded("ROUND_CEILING"), 1, 1),
    "coalesce": (_coalesce, 1, 20),
    "contains": (_contains, 2, 2),
    "ends_with": (_of_texts(str.endswith), 2, 2),
    "exists": (lambda value: value is not None, 1, 1),
    "floor": (_rounded("ROUND_FLOOR"), 1, 1),
    "len": (_length, 1, 1),
    "lower": (_of_text(str.lower), 1, 1),
    "max": (_extreme(lambda left, right: left > right), 1, 20),
    "min": (_extreme(lambda left, right: left < right), 1, 20),
    "round": (_rounded("ROUND_HALF_EVEN"), 1, 2),
    "starts_with": (_of_texts(str.startswith), 2, 2),
    "trim": (_of_text(str.strip), 1, 1),
    "type": (_kind, 1, 1),
    "upper": (_of_text(str.upper), 1, 1),
}
