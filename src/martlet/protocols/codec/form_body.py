"""Forms of the query protocol: "Tags.member.1.Key=a" and its like become the API's own shapes. EC2's dialect too.

The names are split at their dots into a tree once; what the model does not know of it is left out, as the services do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from martlet.protocols.codec import scalars
from martlet.protocols.codec.model import Shape
from martlet.protocols.codec.wire import Malformed

__all__ = ["FIELDS_MAX", "FormDecoders", "Tree", "parse"]

FIELDS_MAX: Final = 20_000  # of one form; the longest lists of AWS's query services have a few hundred entries
_PARTS_MAX: Final = 32  # of one name
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

_Read = Callable[["Tree"], Any]


class Tree:
    """One part of a name: its value, if one ends here, and the parts that follow."""

    __slots__ = ("below", "value")

    def __init__(self) -> None:
        self.value: str | None = None
        self.below: dict[str, Tree] = {}

    def numbered(self) -> list[Tree]:
        """What follows "1", "2", "3" … in order; gaps do not matter."""
        found = [(int(part), tree) for part, tree in self.below.items() if part.isascii() and part.isdigit() and len(part) < 10]
        return [tree for _, tree in sorted(found, key=lambda pair: pair[0])]


def parse(body: bytes) -> Tree:
    """The form's names as a tree. Raises `Malformed` (kind "body") for bad escapes, bad UTF-8 and forms that are bombs."""
    root = Tree()
    parts = body.split(b"&")
    if len(parts) > FIELDS_MAX:
        raise Malformed(f"the form has {len(parts)} fields; the most is {FIELDS_MAX}", "body")
    if _BAD_ESCAPE.search(body):
        raise Malformed("the form holds a % that is not followed by two hexadecimal digits", "body")
    for part in parts:
        if part:
            name, _, value = part.partition(b"=")
            path = _text(name).split(".")
            if len(path) > _PARTS_MAX:
                raise Malformed(f"a name in the form has {len(path)} parts; the most is {_PARTS_MAX}", "body")
            tree = root
            for step in path:
                tree = tree.below.setdefault(step, Tree())
            tree.value = _text(value)
    return root


def _text(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError as error:
        raise Malformed("the form holds bytes that are not UTF-8", "body") from error


class FormDecoders:
    """From the tree to the API's own shapes. `ec2`: EC2's rules of names (capital letters, lists always flat)."""

    def __init__(self, *, ec2: bool = False) -> None:
        self._made: dict[Shape, _Read] = {}
        self._ec2 = ec2

    def of(self, shape: Shape) -> _Read:
        found = self._made.get(shape)
        if found is None:
            self._made[shape] = lambda tree: self._made[shape](tree)
            found = self._made[shape] = self._compile(shape)
        return found

    def _compile(self, shape: Shape) -> _Read:
        if shape.kind == "structure":
            return self._structure(shape)
        if shape.kind == "list":
            return self._list(shape)
        if shape.kind == "map":
            return self._map(shape)
        convert = scalars.text_decoder(shape, "iso8601")

        def decode(tree: Tree) -> Any:
            if tree.value is None:
                raise Malformed("Start of structure or map found where not expected")
            return tree.value if convert is None else convert(tree.value)

        return decode

    def _structure(self, shape: Shape) -> _Read:
        fields = [(name, self._names(name, inner), self.of(inner)) for name, inner in shape.members.items()]

        def decode(tree: Tree) -> dict[str, Any]:
            out = {}
            for name, wires, read in fields:
                for wire in wires:
                    found = tree.below.get(wire)
                    if found is not None:
                        out[name] = read(found)
                        break
            return out

        return decode

    def _names(self, name: str, shape: Shape) -> tuple[str, ...]:
        """How a member may be spelled."""
        if self._ec2:
            if "queryName" in shape.traits:
                return (str(shape.traits["queryName"]),)
            wire = str(shape.traits.get("locationName", ""))
            return (wire[:1].upper() + wire[1:],) if wire else (name, name[:1].upper() + name[1:])
        wire = shape.wire_name(name)
        if shape.kind == "list" and shape.flattened and "locationName" in shape.member.traits:
            return (shape.member.wire_name(wire), wire)
        return (wire,)

    def _list(self, shape: Shape) -> _Read:
        item = self.of(shape.member)
        steps = () if self._ec2 or shape.flattened else tuple(dict.fromkeys((shape.member.wire_name("member"), "member")))

        def decode(tree: Tree) -> list[Any]:
            inner: Tree | None = tree
            if steps:
                inner = next((tree.below[step] for step in steps if step in tree.below), None)
            return [] if inner is None else [item(element) for element in inner.numbered()]

        return decode

    def _map(self, shape: Shape) -> _Read:
        key_name, value_name = shape.key.wire_name("key"), shape.value.wire_name("value")
        value_of = self.of(shape.value)

        def decode(tree: Tree) -> dict[str, Any]:
            inner = tree if shape.flattened else tree.below.get("entry", Tree())
            out = {}
            for entry in inner.numbered():
                key, value = entry.below.get(key_name), entry.below.get(value_name)
                if key is None or key.value is None or value is None:
                    raise Malformed(f"an entry of a map must have a {key_name} and a {value_name}")
                out[key.value] = value_of(value)
            return out

        return decode
