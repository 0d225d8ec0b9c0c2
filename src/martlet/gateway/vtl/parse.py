"""From a template's text to its syntax tree. Grammar and white space as Velocity 1.7's parser has them.

Of white space: `#set` takes the blanks before it; the closing bracket of a directive, `#else` and `#end` take the rest of
their line when it is blank, with its line break.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from martlet.errors import MartletError
from martlet.gateway.vtl.nodes import (
    Accessor,
    Binary,
    Block,
    Break,
    Call,
    Define,
    Escaped,
    Expression,
    Foreach,
    If,
    Index,
    Interpolated,
    ListOf,
    Literal,
    MacroCall,
    MapOf,
    Node,
    Not,
    Property,
    Range,
    Reference,
    Set,
    Stop,
    Text,
)
from martlet.limits import LIMITS, exceeded

__all__ = ["Macro", "TemplateSyntax", "parse"]

Macro = tuple[tuple[str, ...], Block]

_DEPTH_AT_MOST: Final = 48
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SPECIAL: Final = re.compile(r"[$#\\]")
_BLANK_LINE: Final = re.compile(r"[ \t]*(?:\r\n|\n|\r)")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]{1,3})?)?")
_WORD: Final = re.compile(r"#(?:\{([a-z]+)\}|([A-Za-z_][A-Za-z0-9_-]*))")
_MACRO: Final = re.compile(r"#macro[ \t]*\([ \t\r\n]*([A-Za-z_][A-Za-z0-9_-]*)")
_REFERENCE: Final = re.compile(r"\$!?\{?(?=[A-Za-z_])")
_OPERATORS: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    (("||", "or"), ("or", "or")),
    (("&&", "and"), ("and", "and")),
    (("==", "=="), ("!=", "!="), ("eq", "=="), ("ne", "!=")),
    (("<=", "<="), (">=", ">="), ("<", "<"), (">", ">"), ("le", "<="), ("ge", ">="), ("lt", "<"), ("gt", ">")),
    (("+", "+"), ("-", "-")),
    (("*", "*"), ("/", "/"), ("%", "%")),
)
_DIRECTIVES: Final = frozenset(("set", "if", "foreach", "define", "macro", "break", "stop", "include", "parse", "evaluate"))


class TemplateSyntax(MartletError):
    """The mapping template is malformed."""

    http_status = 400
    code = "template_syntax"


def parse(text: str) -> tuple[Block, dict[str, Macro]]:
    """The tree and the macros of a template. Raises `TemplateSyntax` with the line, `LimitExceeded`."""
    if len(text) > LIMITS["mapping_template_bytes"].default:
        raise exceeded("mapping_template_bytes", len(text), "mapping template")
    parser = _Parser(text, frozenset(_MACRO.findall(text)), {})
    block, end = parser.block(())
    assert not end
    return block, parser.macros


class _Parser:
    """A reader with one position, which only a failed guess moves back."""

    def __init__(self, text: str, macro_names: frozenset[str], macros: dict[str, Macro], depth: int = 0) -> None:
        self.text = text
        self.at = 0
        self.depth = depth
        self.macro_names = macro_names
        self.macros = macros

    def fail(self, what: str) -> TemplateSyntax:
        line = self.text.count("\n", 0, self.at) + 1
        return TemplateSyntax(f"mapping template, line {line}: {what}")

    # blocks

    def block(self, ends: tuple[str, ...]) -> tuple[Block, str]:
        """Nodes up to one of the directives `ends`, which is read; without `ends`, up to the end of the text."""
        self.depth += 1
        if self.depth > _DEPTH_AT_MOST:
            raise self.fail("nested too deep")
        nodes: list[Node] = []
        text = self.text
        while True:
            found = _SPECIAL.search(text, self.at)
            start = found.start() if found else len(text)
            if start > self.at:
                _append(nodes, text[self.at : start])
                self.at = start
            if found is None:
                if ends:
                    raise self.fail(f"#end is missing (one of {', '.join(ends)})")
                break
            if text[start] == "\\":
                self._backslashes(nodes)
            elif text[start] == "$":
                self._dollar(nodes)
            else:
                end = self._hash(nodes, ends)
                if end:
                    self.depth -= 1
                    return tuple(nodes), end
        self.depth -= 1
        return tuple(nodes), ""

    def _backslashes(self, nodes: list[Node]) -> None:
        start = self.at
        end = start
        while end < len(self.text) and self.text[end] == "\\":
            end += 1
        count = end - start
        self.at = end
        if end < len(self.text) and self.text[end] == "$":
            reference = self._reference_in_text()
            if reference is not None:
                _append(nodes, "\\" * (count // 2))
                nodes.append(Escaped(reference, self.text[end : self.at]) if count % 2 else reference)
                return
        elif end < len(self.text) and self.text[end] == "#":
            word = _WORD.match(self.text, end)
            name = (word[1] or word[2]) if word else ""
            if word and (name in _DIRECTIVES or name in ("else", "elseif", "end") or name in self.macro_names):
                _append(nodes, "\\" * (count // 2))
                if count % 2:
                    _append(nodes, word[0])
                    self.at = word.end()
                return
        _append(nodes, "\\" * count)

    def _dollar(self, nodes: list[Node]) -> None:
        reference = self._reference_in_text()
        if reference is None:
            _append(nodes, "$")
            self.at += 1
        else:
            nodes.append(reference)

    def _reference_in_text(self) -> Reference | None:
        """A reference at this place, or None, and then nothing is read."""
        start = self.at
        opening = _REFERENCE.match(self.text, start)
        if opening is None:
            return None
        try:
            return self._reference()
        except TemplateSyntax:
            self.at = start
            return None

    def _hash(self, nodes: list[Node], ends: tuple[str, ...]) -> str:
        """A directive, a comment or a lone "#". Returns the directive if it is one of `ends`."""
        text, start = self.text, self.at
        if text.startswith("##", start):
            newline = text.find("\n", start)
            self.at = len(text) if newline < 0 else newline + 1
            return ""
        if text.startswith("#*", start):
            close = text.find("*#", start + 2)
            self.at = len(text) if close < 0 else close + 2
            return ""
        if text.startswith("#[[", start):
            close = text.find("]]#", start + 3)
            if close >= 0:
                _append(nodes, text[start + 3 : close])
                self.at = close + 3
                return ""
        word = _WORD.match(text, start)
        name = (word[1] or word[2]) if word else ""
        for known in ("elseif", "else", "end"):  # "#elsefoo" is #else, then foo
            if word and word[2] and name not in self.macro_names and name.startswith(known):
                name = known
                break
        if word and name in ends:
            self.at = word.end() if word[1] else start + 1 + len(name)
            if name != "elseif":
                self._rest_of_line()
            return name
        if word and name in ("else", "elseif", "end"):
            raise self.fail(f"#{name} without its beginning")
        if word and self._directive(name, word.end(), nodes):
            return ""
        _append(nodes, "#")
        self.at = start + 1
        return ""

    def _rest_of_line(self) -> None:
        blank = _BLANK_LINE.match(self.text, self.at)
        if blank:
            self.at = blank.end()

    # directives

    def _directive(self, name: str, after: int, nodes: list[Node]) -> bool:
        """Read a directive; False if it is only text."""
        start = self.at
        if name in ("break", "stop"):
            self.at = after
            self._rest_of_line()
            nodes.append(Break() if name == "break" else Stop())
            return True
        macro = name in self.macro_names
        if not macro and name not in _DIRECTIVES:
            return False
        self.at = after
        self.at = _SPACE.match(self.text, after).end()  # type: ignore[union-attr]
        if self.at >= len(self.text) or self.text[self.at] != "(":
            self.at = start
            return False
        self.at += 1
        if macro:
            nodes.append(MacroCall(name, self._arguments(",", ")", optional=True)))
            self._rest_of_line()
        elif name == "set":
            _strip_blanks(nodes)
            nodes.append(self._set())
        elif name == "if":
            nodes.append(self._if())
        elif name == "foreach":
            nodes.append(self._foreach())
        elif name == "define":
            nodes.append(self._define())
        elif name == "macro":
            self._macro()
        else:
            raise self.fail(f"#{name} is not available in mapping templates")
        return True

    def _set(self) -> Set:
        self.space()
        target = self._reference()
        self.space()
        self.expect("=")
        value = self._close(self.expression)
        return Set(target, value)

    def _close(self, read: Callable[[], Expression]) -> Expression:
        value = read()
        self.space()
        self.expect(")")
        self._rest_of_line()
        return value

    def _if(self) -> If:
        branches: list[tuple[Expression, Block]] = []
        condition = self._close(self.expression)
        while True:
            body, end = self.block(("elseif", "else", "end"))
            branches.append((condition, body))
            if end == "end":
                return If(tuple(branches), ())
            if end == "else":
                otherwise, _ = self.block(("end",))
                return If(tuple(branches), otherwise)
            self.space()
            self.expect("(")
            condition = self._close(self.expression)

    def _foreach(self) -> Foreach:
        self.space()
        variable = self._reference()
        if variable.path:
            raise self.fail("#foreach needs a plain variable")
        self.space()
        if not self.word("in"):
            raise self.fail("#foreach($item in $items): `in` is missing")
        items = self._close(self.expression)
        body, _ = self.block(("end",))
        return Foreach(variable.name, items, body)

    def _define(self) -> Define:
        self.space()
        target = self._reference()
        if target.path:
            raise self.fail("#define needs a plain variable")
        self.space()
        self.expect(")")
        self._rest_of_line()
        body, _ = self.block(("end",))
        return Define(target.name, body)

    def _macro(self) -> None:
        self.space()
        name = self.name()
        parameters: list[str] = []
        while True:
            self.space()
            if self.take(","):
                self.space()
            if self.take(")"):
                break
            parameters.append(self._reference().name)
        self._rest_of_line()
        body, _ = self.block(("end",))
        self.macros.setdefault(name, (tuple(parameters), body))

    # references

    def _reference(self) -> Reference:
        opening = _REFERENCE.match(self.text, self.at)
        if opening is None:
            raise self.fail("a reference such as $name is missing")
        self.at = opening.end()
        formal = opening[0].endswith("{")
        name = self.name()
        path: list[Accessor] = []
        while True:
            accessor = self._accessor()
            if accessor is None:
                break
            path.append(accessor)
        if formal:
            self.expect("}")
        return Reference(name, tuple(path))

    def _accessor(self) -> Accessor | None:
        text, start = self.text, self.at
        if text.startswith(".", start):
            found = _NAME.match(text, start + 1)
            if found is None:
                return None
            self.at = found.end()
            if not text.startswith("(", self.at):
                return Property(found[0])
            self.at += 1
            return Call(found[0], self._arguments(",", ")"))
        if text.startswith("[", start):
            self.at += 1
            try:
                key = self.expression()
                self.space()
                self.expect("]")
            except TemplateSyntax:
                self.at = start
                return None
            return Index(key)
        return None

    def _arguments(self, separator: str, close: str, optional: bool = False) -> tuple[Expression, ...]:
        """Expressions up to `close`; with `optional`, macro arguments, which need no commas."""
        found: list[Expression] = []
        self.space()
        if self.take(close):
            return ()
        while True:
            found.append(self.expression())
            self.space()
            if self.take(close):
                return tuple(found)
            if not self.take(separator) and not optional:
                raise self.fail(f"{separator!r} or {close!r} is missing")

    # expressions

    def expression(self, level: int = 0) -> Expression:
        if level == len(_OPERATORS):
            return self._unary()
        self.depth += 1
        if self.depth > _DEPTH_AT_MOST * 8:
            raise self.fail("nested too deep")
        left = self.expression(level + 1)
        while True:
            operator = self._operator(level)
            if not operator:
                self.depth -= 1
                return left
            left = Binary(operator, left, self.expression(level + 1))

    def _operator(self, level: int) -> str:
        self.space()
        for text, operator in _OPERATORS[level]:
            if text.isalpha():
                if self.word(text):
                    return operator
            elif self.text.startswith(text, self.at):
                self.at += len(text)
                return operator
        return ""

    def _unary(self) -> Expression:
        self.space()
        self.depth += 1
        if self.depth > _DEPTH_AT_MOST * 8:
            raise self.fail("nested too deep")
        try:
            if self.text.startswith("!", self.at) and not self.text.startswith("!=", self.at):
                self.at += 1
                return Not(self._unary())
            if self.word("not"):
                return Not(self._unary())
            return self._primary()
        finally:
            self.depth -= 1

    def _primary(self) -> Expression:
        text = self.text
        character = text[self.at : self.at + 1]
        if character == "$":
            return self._reference()
        if character in ('"', "'"):
            return self._string(character)
        if character == "(":
            self.at += 1
            inner = self.expression()
            self.space()
            self.expect(")")
            return inner
        if character == "[":
            self.at += 1
            return self._list()
        if character == "{":
            self.at += 1
            return self._map()
        number = _NUMBER.match(text, self.at)
        if number:
            self.at = number.end()
            return Literal(float(number[0]) if "." in number[0] else int(number[0][:400]))
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self.word(word):
                return Literal(value)
        raise self.fail("an expression is missing")

    def _string(self, quote: str) -> Expression:
        """Velocity has no backslash escapes in strings; a doubled quote is one quote."""
        start = self.at + 1
        at = start
        while True:
            at = self.text.find(quote, at)
            if at < 0:
                raise self.fail("a string without its end")
            if not self.text.startswith(quote * 2, at):
                break
            at += 2
        self.at = at + 1
        content = self.text[start:at].replace(quote * 2, quote)
        if quote == '"' and ("$" in content or "#" in content):
            inner = _Parser(content, self.macro_names, self.macros, self.depth)
            block, _ = inner.block(())
            return Interpolated(block)
        return Literal(content)

    def _list(self) -> Expression:
        self.space()
        if self.take("]"):
            return ListOf(())
        first = self.expression()
        self.space()
        if self.take(".."):
            last = self.expression()
            self.space()
            self.expect("]")
            return Range(first, last)
        if self.take("]"):
            return ListOf((first,))
        self.expect(",")
        return ListOf((first, *self._arguments(",", "]")))

    def _map(self) -> Expression:
        items: list[tuple[Expression, Expression]] = []
        self.space()
        if self.take("}"):
            return MapOf(())
        while True:
            key = self.expression()
            self.space()
            self.expect(":")
            items.append((key, self.expression()))
            self.space()
            if self.take("}"):
                return MapOf(tuple(items))
            self.expect(",")

    # characters

    def space(self) -> None:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]

    def take(self, wanted: str) -> bool:
        if self.text.startswith(wanted, self.at):
            self.at += len(wanted)
            return True
        return False

    def word(self, wanted: str) -> bool:
        found = _NAME.match(self.text, self.at)
        if found and found[0] == wanted:
            self.at = found.end()
            return True
        return False

    def expect(self, wanted: str) -> None:
        if not self.take(wanted):
            raise self.fail(f"{wanted!r} is missing")

    def name(self) -> str:
        found = _NAME.match(self.text, self.at)
        if found is None:
            raise self.fail("a name is missing")
        self.at = found.end()
        return found[0]


def _append(nodes: list[Node], text: str) -> None:
    if not text:
        return
    if nodes and isinstance(nodes[-1], Text):
        nodes[-1] = Text(nodes[-1].text + text)
    else:
        nodes.append(Text(text))


def _strip_blanks(nodes: list[Node]) -> None:
    """`#set` takes the blanks before it."""
    if nodes and isinstance(nodes[-1], Text):
        kept = nodes[-1].text.rstrip(" \t")
        if kept:
            nodes[-1] = Text(kept)
        else:
            nodes.pop()
