"""The grammar of statements (developer guide, "PartiQL for DynamoDB"), by recursive descent with a bound on nesting."""

from __future__ import annotations

from typing import Final, NamedTuple

from martlet.documents.dynamodb.expressions import syntax
from martlet.documents.dynamodb.expressions.errors import invalid
from martlet.documents.dynamodb.expressions.paths import Steps
from martlet.documents.dynamodb.expressions.values import AV
from martlet.documents.dynamodb.partiql import literals
from martlet.documents.dynamodb.partiql.reading import KEYWORDS, OPERATORS, Token, Tokens, malformed

__all__ = ["Column", "Order", "Parser"]

_DEPTH: Final = 48
_COMPARATORS: Final = {"=": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WHERE: Final = frozenset(("attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size"))
_TRUTHS: Final = _WHERE - {"size"}
_SETTERS: Final = {"set_add": "ADD", "set_delete": "DELETE"}
_TYPES: Final = """
BOOL BOOLEAN SMALLINT INTEGER2 INT2 INTEGER4 INT4 INT INTEGER8 INT8 INTEGER FLOAT REAL DOUBLE DECIMAL NUMERIC TIMESTAMP DATE
TIME CHAR CHARACTER VARCHAR STRING SYMBOL CLOB BLOB STRUCT TUPLE LIST SEXP BAG ANY
""".split()  # noqa: SIM905  # as a list it would be twenty lines
_INDEX_MOST: Final = 2_147_483_647


class Column(NamedTuple):
    """One of SELECT's columns and the name that it has in the answer."""

    steps: Steps
    name: str


class Order(NamedTuple):
    """One term of ORDER BY."""

    attribute: str
    descending: bool


class Parser:
    """One statement. What it finds is in its attributes; its variables are `constants` and, by position, `:p0` to `:pN`."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.depth = 0
        self.parameters = 0
        self.constants: dict[str, AV] = {}
        self.table = ""
        self.index: str | None = None
        self.columns: tuple[Column, ...] | None = None
        self.where: syntax.Condition | None = None
        self.order: list[Order] = []
        self.actions: list[syntax.Action] = []
        self.item: dict[str, str] = {}
        self.whole = ""
        self.returning = ""

    def statement(self, start: str) -> None:
        self.tokens.next()
        {
            "SELECT": self.select,
            "INSERT": self.insert,
            "UPDATE": self.update,
            "DELETE": self.delete,
            "FROM": self.from_first,
            "EXISTS": self.exists,
        }[start]()
        self.tokens.sign(";")
        if self.tokens.here.kind:
            raise malformed("Unexpected token after expression")

    # statements

    def select(self) -> None:
        tokens = self.tokens
        if tokens.sign("*"):
            if tokens.here.kind == ",":
                raise invalid("Other attributes should not be present in the projection when '*' is used.")
        else:
            columns = [self.column()]
            while tokens.sign(","):
                columns.append(self.column())
            self.columns = tuple(columns)
        if not tokens.keyword("FROM"):
            raise malformed("Expected FROM")
        self.source("Unexpected term")
        self.condition()
        if tokens.keyword("ORDER"):
            if not tokens.keyword("BY"):
                raise malformed("Expected BY")
            self.order.append(self.term())
            while tokens.sign(","):
                self.order.append(self.term())
        for word in ("LIMIT", "GROUP", "HAVING"):
            if tokens.word() == word:
                raise invalid(f"Unsupported clause: {word}")

    def column(self) -> Column:
        tokens = self.tokens
        if tokens.here.kind == "word" and tokens.ahead().kind == "(":
            raise invalid(f"Unexpected path component at {tokens.place(tokens.here)}")
        if literals.begins(tokens) or tokens.here.kind == "?":
            raise invalid(f"Unexpected path component at {tokens.place(tokens.here)}")
        steps = self.path()
        if tokens.word() == "AS" or (tokens.here.kind in ("word", "quoted") and tokens.word() not in KEYWORDS):
            raise invalid("Aliasing is not supported")
        last = max(number for number, step in enumerate(steps) if isinstance(step, str))
        return Column(steps, str(steps[last]) + "".join(f"[{step}]" for step in steps[last + 1 :]))

    def term(self) -> Order:
        steps = self.path()
        descending = self.tokens.keyword("DESC")
        if not descending:
            self.tokens.keyword("ASC")
        return Order(str(steps[0]), descending)

    def insert(self) -> None:
        tokens = self.tokens
        if not tokens.keyword("INTO"):
            raise malformed("Expected INTO")
        self.source("Expected identifier for simple path", alias=False)
        if self.index is not None:
            raise invalid("FROM clause may only contain a single table name")
        if not tokens.keyword("VALUE"):
            raise malformed("Unexpected token after expression" if tokens.here.kind else "Expected VALUE")
        if tokens.here.kind == "?":
            self.whole = self.parameter().name
            return
        if tokens.here.kind != "{":
            raise malformed("Unexpected term")
        tokens.next()
        while not tokens.sign("}"):
            if self.item and not tokens.sign(","):
                raise malformed("Expected comma")
            if tokens.here.kind not in ("text", "quoted"):
                raise malformed("Expected string literal")
            name = tokens.next().text
            if not tokens.sign(":"):
                raise malformed("Expected colon")
            self.item[name] = self.value().name

    def update(self) -> None:
        self.source("Expected identifier for simple path")
        self.no_index()
        self.changes()
        self.condition()
        self.returns("UPDATE")

    def from_first(self) -> None:
        self.source("Unexpected term")
        self.no_index()
        self.condition()
        self.changes()
        self.returns("UPDATE")

    def delete(self) -> None:
        if not self.tokens.keyword("FROM"):
            raise malformed("Expected FROM")
        self.source("Expected identifier for simple path")
        self.no_index()
        self.condition()
        self.returns("DELETE")

    def exists(self) -> None:
        if not self.tokens.sign("(") or not self.tokens.keyword("SELECT"):
            raise malformed("Expected SELECT")
        self.select()
        self.close()

    # clauses

    def source(self, absent: str, alias: bool = True) -> None:
        tokens = self.tokens
        parts = [self.component(absent)]
        while tokens.sign("."):
            parts.append(self.component(absent))
        if not all(parts):
            raise invalid("Path component cannot be an empty string")
        if len(parts) > 2:
            raise invalid("A path may contain at most 2 components in the FROM clause")
        self.table, self.index = parts[0], parts[1] if len(parts) > 1 else None
        if alias and (tokens.word() == "AS" or tokens.here.kind == "quoted" or self.plain_word()):
            raise invalid("Aliasing is not supported")

    def plain_word(self) -> bool:
        return self.tokens.here.kind == "word" and self.tokens.word() not in KEYWORDS | {"RETURNING"}

    def component(self, absent: str) -> str:
        if self.tokens.here.kind == "quoted" or (self.tokens.here.kind == "word" and self.tokens.word() not in KEYWORDS):
            return self.tokens.next().text
        raise malformed(absent)

    def no_index(self) -> None:
        if self.index is not None:
            raise invalid("This operation is not supported on an index")

    def changes(self) -> None:
        tokens = self.tokens
        while tokens.word() in ("SET", "REMOVE"):
            section = tokens.next().text.upper()
            self.change(section)
            while tokens.sign(","):
                self.change(section)
        if not self.actions:
            raise malformed("Expected SET or REMOVE" if tokens.here.kind else "Unexpected term")

    def change(self, section: str) -> None:
        path = syntax.Path(self.path())
        if section == "REMOVE":
            self.actions.append(syntax.Action(section, path, None))
            return
        if not self.tokens.sign("="):
            raise malformed("Expected EQ")
        name = self.tokens.here.text.lower() if self.tokens.ahead().kind == "(" else ""
        if name in _SETTERS:
            self.actions.append(syntax.Action(_SETTERS[name], path, self.setter(path)))
        else:
            self.actions.append(syntax.Action(section, path, self.sum()))

    def setter(self, target: syntax.Path) -> syntax.Operand:
        """set_add or set_delete: its first argument is the target, its second a set."""
        tokens = self.tokens
        called = tokens.next()
        name = called.text.upper()
        first = tokens.ahead()
        operands = self.arguments()
        if len(operands) != 2:
            raise invalid(f"{name} must have exactly two arguments at {tokens.place(called)}")
        if operands[0] != target:
            raise invalid(f"The first argument to {name} must equal the assignment value at {tokens.place(called)}")
        second = operands[1]
        value = self.constants.get(second.name, {"SS": ()}) if isinstance(second, syntax.Value) else {}
        if not value.keys() & {"SS", "NS", "BS"}:
            raise invalid(f"The second argument to {name} must be a value with type SET at {tokens.place(first)}")
        return second

    def sum(self) -> syntax.Operand:
        left = self.operand()
        if self.tokens.here.kind not in ("+", "-"):
            return left
        operator = self.tokens.next().kind
        return syntax.Call(operator, (left, self.operand()))

    def condition(self) -> None:
        if self.tokens.keyword("WHERE"):
            self.where = _condition(self.either())

    def returns(self, kind: str) -> None:
        tokens = self.tokens
        if not tokens.keyword("RETURNING"):
            return
        which, when = tokens.next().text.upper(), tokens.next().text.upper()
        if which not in ("ALL", "MODIFIED") or when not in ("OLD", "NEW") or not tokens.sign("*"):
            raise malformed("Expected ALL, MODIFIED, in a returning clause.")
        if kind == "DELETE" and (which, when) != ("ALL", "OLD"):
            raise invalid(
                f"Invalid returning clause: RETURNING {which} {when} *. "
                "Only RETURNING ALL OLD * is allowed in DELETE statements."
            )
        self.returning = f"{'ALL' if which == 'ALL' else 'UPDATED'}_{when}"

    # conditions

    def either(self) -> syntax.Condition | syntax.Operand:
        return self.joined("OR", self.both)

    def both(self) -> syntax.Condition | syntax.Operand:
        return self.joined("AND", self.negation)

    def joined(self, word: str, one: object) -> syntax.Condition | syntax.Operand:
        assert callable(one)
        found: syntax.Condition | syntax.Operand = one()
        if self.tokens.word() != word:
            return found
        conditions = [_condition(found)]
        while self.tokens.keyword(word):
            if not self.tokens.here.kind:
                raise malformed("Missing right-hand side expression of infix operator")
            conditions.append(_condition(one()))
        return syntax.Logic(word, tuple(conditions))

    def negation(self) -> syntax.Condition | syntax.Operand:
        if not self.tokens.keyword("NOT"):
            return self.test()
        self.enter()
        found = syntax.Not(_condition(self.negation()))
        self.depth -= 1
        return found

    def test(self) -> syntax.Condition | syntax.Operand:
        tokens = self.tokens
        if tokens.here.kind == "(":
            self.enter()
            tokens.next()
            found = self.either()
            self.close()
            self.depth -= 1
        else:
            found = self.operand()
        return self.compared(found)

    def compared(self, found: syntax.Condition | syntax.Operand) -> syntax.Condition | syntax.Operand:
        """What is said of an operand, or of a condition as a truth; if nothing is, itself."""
        tokens = self.tokens
        if tokens.here.kind in _COMPARATORS:
            operator = _COMPARATORS[tokens.next().kind]
            return syntax.Test(operator, (_operand(found), _operand(self.operand())))
        if tokens.keyword("IS"):
            return self.nothing(_operand(found))
        negated = tokens.word() == "NOT" and tokens.ahead().text.upper() in ("IN", "BETWEEN", "LIKE") and tokens.keyword("NOT")
        test = self.range(found)
        if test is None:
            return found
        return syntax.Not(test) if negated else test

    def range(self, left: syntax.Condition | syntax.Operand) -> syntax.Test | None:
        tokens = self.tokens
        if tokens.keyword("BETWEEN"):
            low = self.operand()
            if not tokens.keyword("AND"):
                raise malformed("Expected AND after BETWEEN")
            return syntax.Test("BETWEEN", (_operand(left), _operand(low), _operand(self.operand())))
        if tokens.keyword("IN"):
            return syntax.Test("IN", (_operand(left), *self.choices()))
        if tokens.word() == "LIKE":
            raise invalid("Unsupported operation: Like")
        return None

    def choices(self) -> tuple[syntax.Operand, ...]:
        tokens = self.tokens
        closing = {"[": "]", "(": ")"}.get(tokens.here.kind)
        if closing is None:
            raise malformed("Expected a list after IN")
        tokens.next()
        operands = [_operand(self.operand())]
        while tokens.sign(","):
            operands.append(_operand(self.operand()))
        if not tokens.sign(closing):
            raise malformed("Expected RIGHT_PAREN" if closing == ")" else "Expected RIGHT_BRACKET")
        if len(operands) > 100:
            raise invalid(f"The IN operator is provided with too many operands; number of operands: {len(operands)}")
        return tuple(operands)

    def nothing(self, left: syntax.Operand) -> syntax.Condition:
        """IS [NOT] MISSING, IS [NOT] NULL."""
        negated = self.tokens.keyword("NOT")
        word = self.tokens.word()
        if word == "MISSING":
            self.tokens.next()
            return syntax.Call("attribute_exists" if negated else "attribute_not_exists", (left,))
        if word == "NULL":
            self.tokens.next()
            test = syntax.Call("attribute_type", (left, self.constant({"S": "NULL"})))
            return syntax.Not(test) if negated else test
        self.type_name()
        raise invalid("Unsupported operation: IsType")

    def type_name(self) -> None:
        if self.tokens.word() not in _TYPES:
            raise malformed("Expected type name")

    def operand(self) -> syntax.Operand:
        tokens = self.tokens
        if tokens.here.kind == "?":
            return self.parameter()
        if literals.begins(tokens):
            return self.constant(literals.literal(tokens))
        if tokens.here.kind == "word" and tokens.ahead().kind == "(":
            return self.call()
        if tokens.here.kind == "(":
            self.enter()
            tokens.next()
            found = self.operand()
            self.close()
            self.depth -= 1
            return found
        return syntax.Path(self.path())

    def value(self) -> syntax.Value:
        """A literal or a parameter."""
        if self.tokens.here.kind == "?":
            return self.parameter()
        return self.constant(literals.literal(self.tokens))

    def call(self) -> syntax.Operand:
        tokens = self.tokens
        called = tokens.next()
        name = called.text.lower()
        if name not in _WHERE and name not in ("list_append", "if_not_exists"):
            raise invalid(f"Unrecognized function: {name} at {tokens.place(called)}")
        self.enter()
        operands = self.arguments()
        self.depth -= 1
        if not operands:
            raise invalid(
                f"Incorrect number of operands for operator or function; operator or function: {name}, number of operands: 0"
            )
        return syntax.Call(name, operands)

    def arguments(self) -> tuple[syntax.Operand, ...]:
        tokens = self.tokens
        tokens.next()
        if tokens.sign(")"):
            return ()
        operands = [self.operand()]
        while tokens.sign(","):
            operands.append(self.operand())
        self.close()
        return tuple(operands)

    # paths and variables

    def path(self) -> Steps:
        tokens = self.tokens
        word = tokens.word()
        if word in KEYWORDS:
            raise malformed("Unexpected operator" if word in OPERATORS else "Unexpected keyword")
        if tokens.here.kind not in ("word", "quoted"):
            raise malformed("Unexpected term")
        steps: list[str | int] = [tokens.next().text]
        while tokens.here.kind in (".", "["):
            if tokens.next().kind == ".":
                if tokens.here.kind not in ("word", "quoted") or tokens.word() in KEYWORDS:
                    raise malformed("Invalid path dot component")
                steps.append(tokens.next().text)
            else:
                steps.append(self.place())
        return tuple(steps)

    def place(self) -> str | int:
        """What is between square brackets in a path."""
        tokens = self.tokens
        step: str | int
        if tokens.here.kind == "text":
            step = tokens.next().text
        else:
            negative = tokens.sign("-")
            token = tokens.here
            if token.kind != "number" or not token.text.isdecimal():
                raise malformed("Invalid path component")
            step = self.checked_index(tokens.next(), negative)
        if not tokens.sign("]"):
            raise malformed("Expected RIGHT_BRACKET")
        return step

    def checked_index(self, token: Token, negative: bool) -> int:
        number = int(token.text) if len(token.text) < 20 else _INDEX_MOST + 1
        if (negative and number) or number > _INDEX_MOST:
            shown = f"-{token.text}" if negative else token.text
            raise invalid(f"List index is not within the allowable range; index: [{shown}] at {self.tokens.place(token)}")
        return number

    def parameter(self) -> syntax.Value:
        self.tokens.next()
        self.parameters += 1
        return syntax.Value(f":p{self.parameters - 1}")

    def constant(self, value: AV) -> syntax.Value:
        name = f":c{len(self.constants)}"
        self.constants[name] = value
        return syntax.Value(name)

    def close(self) -> None:
        if not self.tokens.sign(")"):
            raise malformed("Expected RIGHT_PAREN")

    def enter(self) -> None:
        self.depth += 1
        if self.depth > _DEPTH:
            raise malformed(f"conditions and calls may be nested {_DEPTH} levels deep")


def _condition(node: syntax.Condition | syntax.Operand) -> syntax.Condition:
    if isinstance(node, syntax.Path | syntax.Value | syntax.Truth):
        raise invalid("Unsupported operation: a condition is expected where a value is")
    return node


def _operand(node: syntax.Condition | syntax.Operand) -> syntax.Operand:
    """A condition where a value is wanted is true or false."""
    if isinstance(node, syntax.Test | syntax.Not | syntax.Logic) or (isinstance(node, syntax.Call) and node.name in _TRUTHS):
        return syntax.Truth(node)
    return node
