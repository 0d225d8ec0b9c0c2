"""XML bodies, read without trust and written without a tree.

The reader takes elements, attributes and text. A document type is refused where it begins, and so is every entity beyond
XML's own five: nothing expands, nothing is fetched. Namespaces of elements do not matter, as with the services themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.parsers import expat

from martlet.protocols.codec import scalars
from martlet.protocols.codec.model import Shape
from martlet.protocols.codec.wire import DEPTH_MAX, Malformed

__all__ = ["Emit", "Node", "XmlDecoders", "XmlEncoders", "escape", "parse"]

Emit = Callable[[list[str], str, Any], None]  # (pieces of the answer, element's name, value)
_Read = Callable[["Node"], Any]

_SPECIAL = re.compile('[&<>"\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]')
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#xD;"}


class Node:
    """An element: its name without prefix, its attributes as written, its text, the elements in it."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.text = ""
        self.children: list[Node] = []

    def named(self, name: str) -> list[Node]:
        return [child for child in self.children if child.name == name]


def parse(body: bytes) -> Node:
    """The root element. Raises `Malformed` (kind "body")."""
    root = Node("", {})
    stack = [root]
    texts: list[list[str]] = [[]]
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > DEPTH_MAX:
            raise Malformed(f"the XML is nested more than {DEPTH_MAX} deep", "body")
        node = Node(name.rpartition(":")[2], attributes)
        stack[-1].children.append(node)
        stack.append(node)
        texts.append([])

    def end(name: str) -> None:
        stack.pop().text = "".join(texts.pop())

    def refuse(*_: object) -> int:
        raise Malformed("document types and entities are not allowed in XML here", "body")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise Malformed(f"the XML is not well-formed: {error}", "body") from error
    except (LookupError, ValueError) as error:  # an encoding that nobody knows
        raise Malformed("the XML has an unknown encoding", "body") from error
    return root.children[0]


def escape(text: str) -> str:
    """`text` as character data or attribute value; what XML 1.0 cannot carry becomes U+FFFD."""
    return _SPECIAL.sub(lambda found: _ESCAPES.get(found[0], "\ufffd"), text)


def list_name(name: str, shape: Shape) -> str:
    """The element of a flattened list's items: as the list's member is called, else as the list is."""
    return shape.member.wire_name(shape.wire_name(name))


class XmlDecoders:
    """From elements to the API's own shapes."""

    def __init__(self) -> None:
        self._made: dict[Shape, _Read] = {}

    def of(self, shape: Shape) -> _Read:
        found = self._made.get(shape)
        if found is None:
            self._made[shape] = lambda node: self._made[shape](node)  # until it is compiled, for shapes that hold themselves
            found = self._made[shape] = self._compile(shape)
        return found

    def _compile(self, shape: Shape) -> _Read:
        if shape.kind == "structure":
            return self.structure(shape.members)
        if shape.kind == "list":
            item, name = self.of(shape.member), shape.member.wire_name("member")
            return lambda node: [item(child) for child in node.children if child.name == name]
        if shape.kind == "map":
            entry = self._entry(shape)
            return lambda node: dict(entry(child) for child in node.named("entry"))
        convert = scalars.text_decoder(shape, "iso8601")
        if convert is None:
            return lambda node: node.text
        return lambda node: convert(node.text.strip())

    def structure(self, members: dict[str, Shape]) -> _Read:
        fields = [(name, self._field(name, shape)) for name, shape in members.items()]

        def decode(node: Node) -> dict[str, Any]:
            out = {}
            for name, read in fields:
                value = read(node)
                if value is not None:
                    out[name] = value
            return out

        return decode

    def _field(self, name: str, shape: Shape) -> _Read:
        wire = shape.wire_name(name)
        if shape.traits.get("xmlAttribute"):
            return lambda node: node.attributes.get(wire)
        if shape.flattened and shape.kind == "list":
            item, names = self.of(shape.member), {wire, list_name(name, shape)}
            return lambda node: [item(child) for child in node.children if child.name in names] or None
        if shape.flattened and shape.kind == "map":
            entry = self._entry(shape)
            return lambda node: dict(entry(child) for child in node.named(wire)) or None
        read = self.of(shape)

        def one(node: Node) -> Any:
            for child in node.children:
                if child.name == wire:
                    return read(child)
            return None

        return one

    def _entry(self, shape: Shape) -> Callable[[Node], tuple[Any, Any]]:
        key_name, value_name = shape.key.wire_name("key"), shape.value.wire_name("value")
        key, value = self.of(shape.key), self.of(shape.value)

        def decode(node: Node) -> tuple[Any, Any]:
            keys, values = node.named(key_name), node.named(value_name)
            if len(keys) != 1 or len(values) != 1:
                raise Malformed(f"an entry of a map must hold one {key_name} and one {value_name}")
            return key(keys[0]), value(values[0])

        return decode


class XmlEncoders:
    """From the API's own shapes to elements. `milliseconds`: write them in every time, as S3 does."""

    def __init__(self, *, milliseconds: bool = False) -> None:
        self._made: dict[Shape, Emit] = {}
        self._milliseconds = milliseconds

    def of(self, shape: Shape) -> Emit:
        found = self._made.get(shape)
        if found is None:
            self._made[shape] = lambda out, name, value: self._made[shape](out, name, value)
            found = self._made[shape] = self._compile(shape)
        return found

    def _compile(self, shape: Shape) -> Emit:
        attributes = _namespace(shape)
        if shape.kind == "structure":
            return self._structure(shape, attributes)
        if shape.kind == "list":
            return self._list(shape, attributes)
        if shape.kind == "map":
            return self._map(shape, attributes)
        convert = scalars.text_encoder(shape, "iso8601")
        if self._milliseconds and shape.kind == "timestamp" and scalars.time_format(shape, "iso8601") == "iso8601":
            convert = _iso_with_milliseconds

        def emit(out: list[str], name: str, value: Any) -> None:
            out.append(f"<{name}{attributes}>{escape(convert(value))}</{name}>")

        return emit

    def content(self, members: dict[str, Shape]) -> Callable[[list[str], dict[str, Any]], None]:
        """Writes the elements of a structure's members, without an element around them."""
        fields = {name: self._field(name, shape) for name, shape in members.items() if not shape.traits.get("xmlAttribute")}

        def write(out: list[str], value: dict[str, Any]) -> None:
            for name, (wire, emit) in fields.items():  # in the model's order, as the services have it
                item = value.get(name)
                if item is not None:
                    emit(out, wire, item)

        return write

    def _field(self, name: str, shape: Shape) -> tuple[str, Emit]:
        if shape.kind == "list" and shape.flattened:
            return list_name(name, shape), self.of(shape)
        return shape.wire_name(name), self.of(shape)

    def _structure(self, shape: Shape, namespace: str) -> Emit:
        write = self.content(shape.members)
        attributes = [(n, s.wire_name(n)) for n, s in shape.members.items() if s.traits.get("xmlAttribute")]

        def emit(out: list[str], name: str, value: Any) -> None:
            own = "".join(f' {wire}="{escape(str(value[n]))}"' for n, wire in attributes if value.get(n) is not None)
            out.append(f"<{name}{namespace}{own}>")
            write(out, value)
            out.append(f"</{name}>")

        return emit

    def _list(self, shape: Shape, attributes: str) -> Emit:
        item = self.of(shape.member)
        if shape.flattened:

            def emit_flat(out: list[str], name: str, value: Any) -> None:
                for element in value:
                    item(out, name, element)

            return emit_flat
        item_name = shape.member.wire_name("member")

        def emit(out: list[str], name: str, value: Any) -> None:
            out.append(f"<{name}{attributes}>")
            for element in value:
                item(out, item_name, element)
            out.append(f"</{name}>")

        return emit

    def _map(self, shape: Shape, attributes: str) -> Emit:
        key, value_of = self.of(shape.key), self.of(shape.value)
        key_name, value_name = shape.key.wire_name("key"), shape.value.wire_name("value")

        def entries(out: list[str], name: str, value: Any) -> None:
            for inner, element in value.items():
                if element is not None:
                    out.append(f"<{name}>")
                    key(out, key_name, inner)
                    value_of(out, value_name, element)
                    out.append(f"</{name}>")

        if shape.flattened:
            return entries

        def emit(out: list[str], name: str, value: Any) -> None:
            out.append(f"<{name}{attributes}>")
            entries(out, "entry", value)
            out.append(f"</{name}>")

        return emit


def _iso_with_milliseconds(value: Any) -> str:
    return scalars.iso_text(value, always_milliseconds=True)


def _namespace(shape: Shape) -> str:
    found = shape.traits.get("xmlNamespace")
    if not found:
        return ""
    if isinstance(found, str):
        return f' xmlns="{escape(found)}"'
    prefix = f":{found['prefix']}" if found.get("prefix") else ""
    return f' xmlns{prefix}="{escape(found["uri"])}"'
