"""The constraints of the models, checked before an operation is called, in the words of AWS's own framework (Coral).

"2 validation errors detected: Value null at 'name' failed to satisfy constraint: Member must not be null; Value '0' at …".
Paths are lower camel case, elements of lists "tags.1.member.key", values of maps "items.Orders.member.keys". Compiled once a
shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from martlet.errors import ServiceError
from martlet.protocols.codec import scalars
from martlet.protocols.codec.model import OperationModel, Shape
from martlet.protocols.codec.patterns import compiled

__all__ = ["check", "problems"]

_Check = Callable[[Any, str, list[str]], None]
_Rule = Callable[[Any], bool]

_SHOWN: Final = 4_096  # characters of a value that an error repeats

# The name of the error, where it is not the protocol's own. "": the service checks by itself, in its own words.
_CODES: Final = {
    "cognito-idp": "InvalidParameterException",
    "ecr": "InvalidParameterException",
    "logs": "InvalidParameterException",
    "s3": "",
    "sns": "",
    "sqs": "",
}
# Shapes whose values their service checks by itself, after the model's rules and in other words.
_OWN: Final = {"lambda": frozenset({"CompatibleArchitectures", "CompatibleRuntimes", "Runtime"})}


def check(operation: OperationModel, request: dict[str, Any]) -> None:
    """Return if `request` keeps the model's constraints, else raise the service's validation error."""
    shape = operation.input
    if shape is None:
        return
    service = operation.service
    code = _CODES.get(service.name)
    if code == "":
        return
    found = problems(shape, request, _OWN.get(service.name, frozenset()))
    if found:
        if service.name == "dynamodb":
            found = found[:10]  # it tells no more
        name = code or ("ValidationError" if service.protocol in ("query", "ec2", "rest-xml") else "ValidationException")
        errors = "error" if len(found) == 1 else "errors"
        raise ServiceError(name, f"{len(found)} validation {errors} detected: {'; '.join(found)}")


def problems(shape: Shape, value: dict[str, Any], own: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with `value`, one text a constraint. `own`: names of shapes that are not checked."""
    checker = _made.get((shape, own))
    if checker is None:
        checker = _Compiler(own).of(shape)
        _made[shape, own] = checker
    found: list[str] = []
    if checker is not None:
        checker(value, "", found)
    return found


_made: dict[tuple[Shape, frozenset[str]], _Check | None] = {}


class _Compiler:
    def __init__(self, own: frozenset[str]) -> None:
        self._own = own
        self._known: dict[Shape, _Check | None] = {}
        self._making: set[Shape] = set()

    def of(self, shape: Shape) -> _Check | None:
        """The check of a shape; None where there is nothing to check in it."""
        if shape in self._known:
            return self._known[shape]
        if shape in self._making:
            return lambda value, path, found: self._late(shape, value, path, found)
        self._making.add(shape)
        made = self._known[shape] = None if shape.name in self._own else self._compile(shape)
        self._making.discard(shape)
        return made

    def _late(self, shape: Shape, value: Any, path: str, found: list[str]) -> None:
        checker = self._known[shape]
        if checker is not None:
            checker(value, path, found)

    def _compile(self, shape: Shape) -> _Check | None:
        if shape.kind == "structure":
            return self._structure(shape)
        if shape.kind == "list":
            return self._list(shape)
        if shape.kind == "map":
            return self._map(shape)
        rules = _rules(shape)
        return _checker(rules, bool(shape.traits.get("sensitive"))) if rules else None

    def _structure(self, shape: Shape) -> _Check | None:
        if shape.document:
            return None
        required = frozenset(shape.required)
        fields = []
        for name, inner in _in_order(shape):
            checker = None if inner.event_stream else self.of(inner)
            if checker is not None or name in required:
                fields.append((name, _camel(name), checker, name in required))
        if not fields:
            return None

        return _structure_check(fields)

    def _list(self, shape: Shape) -> _Check | None:
        own = _checker(_rules(shape), bool(shape.traits.get("sensitive")))
        scalar = shape.member.kind not in ("structure", "list", "map")
        sparse = bool(shape.traits.get("sparse"))
        if scalar:
            rules = [] if shape.member.name in self._own else _rules(shape.member, element=True)
            texts = [text for text, _ in rules] + ([] if sparse else [_NOT_NULL])
            tests = [test for _, test in rules]
            hidden = bool(shape.member.traits.get("sensitive"))

            def check_scalars(value: Any, path: str, found: list[str]) -> None:
                own(value, path, found)
                if any(not sparse if item is None else not all(test(item) for test in tests) for item in value):
                    constraint = f"Member must satisfy constraint: [{', '.join(texts)}]"
                    found.append(_text(value, path, constraint, hidden))

            return check_scalars
        inner = self.of(shape.member)

        def check_structures(value: Any, path: str, found: list[str]) -> None:
            own(value, path, found)
            for number, item in enumerate(value, 1):
                if item is None:
                    if not sparse:
                        found.append(
                            f"Value null at '{path}{number}.member' failed to satisfy constraint: Member must not be null"
                        )
                elif inner is not None:
                    inner(item, f"{path}{number}.member.", found)

        return check_structures

    def _map(self, shape: Shape) -> _Check | None:
        own = _checker(_rules(shape), bool(shape.traits.get("sensitive")))
        keys = _rules(shape.key, element=True)
        scalar = shape.value.kind not in ("structure", "list", "map")
        values = _rules(shape.value, element=True) if scalar and shape.value.name not in self._own else []
        inner = None if scalar else self.of(shape.value)
        hidden = bool(shape.traits.get("sensitive") or shape.value.traits.get("sensitive"))

        def check_map(value: Any, path: str, found: list[str]) -> None:
            own(value, path, found)
            if any(not all(test(key) for _, test in keys) for key in value):
                constraint = f"Map keys must satisfy constraint: [{', '.join(text for text, _ in keys)}]"
                found.append(_text(value, path, constraint, hidden))
            if any(item is not None and not all(test(item) for _, test in values) for item in value.values()):
                texts = [text for text, _ in values]
                texts += [] if _NOT_NULL in texts else [_NOT_NULL]  # as recorded: values of maps are never null
                constraint = f"Map value must satisfy constraint: [{', '.join(texts)}]"
                found.append(_text(value, path, constraint, hidden))
            if inner is not None:
                for key, item in value.items():
                    if item is not None:
                        inner(item, f"{path}{key}.member.", found)

        return check_map


_Field = tuple[str, str, _Check | None, bool]  # name, name in a path, its check, whether it is required


def _structure_check(fields: list[_Field]) -> _Check:
    """Goes through what was given, which is less than what might be; tells what is wrong in the order of `fields`."""
    checked = {name: (at, f"{camel}.", checker) for at, (name, camel, checker, _) in enumerate(fields) if checker is not None}
    required = [(at, name, camel) for at, (name, camel, _, needed) in enumerate(fields) if needed]

    def check_structure(value: Any, path: str, found: list[str]) -> None:
        wrong: list[tuple[int, list[str]]] = []
        for name, item in value.items():
            field = checked.get(name)
            if field is None or item is None:
                continue
            at, camel, checker = field
            before = len(found)
            checker(item, path + camel, found)
            if len(found) > before:
                wrong.append((at, found[before:]))
                del found[before:]
        for at, name, camel in required:
            if value.get(name) is None:
                wrong.append((at, [f"Value null at '{path}{camel}' failed to satisfy constraint: Member must not be null"]))
        for _, texts in sorted(wrong):
            found += texts

    return check_structure


_NOT_NULL: Final = "Member must not be null"

# The order in which a service tells of members, where that is not the model's: recorded. Members that are not named come last.
_ORDER: Final = {
    name: members.split()
    for name, members in (
        ("BatchGetItemInput", "RequestItems ReturnConsumedCapacity"),
        ("BatchWriteItemInput", "ReturnConsumedCapacity ReturnItemCollectionMetrics RequestItems"),
        ("CreateTableInput", "AttributeDefinitions TableName BillingMode KeySchema GlobalSecondaryIndexes"),
        (
            "DeleteItemInput",
            "ReturnConsumedCapacity TableName ReturnValues ReturnItemCollectionMetrics Key ConditionalOperator Expected",
        ),
        ("GetItemInput", "ReturnConsumedCapacity AttributesToGet TableName Key"),
        ("PutItemInput", "ReturnConsumedCapacity TableName Item ConditionalOperator Expected ReturnValues"),
        ("QueryInput", "Select IndexName ReturnConsumedCapacity QueryFilter TableName ConditionalOperator"),
        ("ScanInput", "Select IndexName TotalSegments ReturnConsumedCapacity TableName ConditionalOperator ScanFilter"),
        ("TransactWriteItemsInput", "ClientRequestToken"),
        (
            "UpdateItemInput",
            "ReturnConsumedCapacity TableName ReturnItemCollectionMetrics ReturnValues ConditionalOperator Key Expected",
        ),
    )
}


def _in_order(shape: Shape) -> list[tuple[str, Shape]]:
    first = [name for name in _ORDER.get(shape.name, ()) if name in shape.members]
    return [(name, shape.members[name]) for name in (*first, *(name for name in shape.members if name not in first))]


def _rules(shape: Shape, *, element: bool = False) -> list[tuple[str, _Rule]]:
    """A shape's own constraints: (text, test). Elements of lists list theirs the other way round: lengths, then the pattern."""
    if shape.name == "TableArn" and not element:  # DynamoDB's: a table's name, or its ARN
        return _TABLE_RULES
    lengths = shape.kind in ("string", "blob", "list", "map")
    size = _length if lengths else _number
    word = "length" if lengths else "value"
    bounds: list[tuple[str, _Rule]] = []
    if "max" in shape.traits and not (shape.kind == "blob" and shape.traits.get("streaming")):
        bounds.append(
            (f"Member must have {word} less than or equal to {shape.traits['max']}", _most(shape.traits["max"], size))
        )
    if "min" in shape.traits and (shape.traits["min"] or element or not lengths):
        least = shape.traits["min"]
        bounds.append((f"Member must have {word} greater than or equal to {least}", _least(least, size)))
    contents: list[tuple[str, _Rule]] = []
    if "enum" in shape.traits:
        allowed = shape.traits["enum"]
        allowed = _AS_TOLD.get(frozenset(allowed), allowed)
        contents.append((f"Member must satisfy enum value set: [{', '.join(allowed)}]", frozenset(allowed).__contains__))
    if "pattern" in shape.traits:
        pattern = shape.traits["pattern"]
        matches = compiled(pattern)
        if matches is not None:
            contents.append((f"Member must satisfy regular expression pattern: {pattern}", matches))
    return bounds + contents if element else contents + bounds


# The service tells some sets in an order of its own, which no model has: recorded.
_AS_TOLD: Final = {
    frozenset(values): values
    for values in (
        ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON"),
        ("HEAD", "POST", "PATCH", "DELETE", "PUT", "GET", "OPTIONS"),
        ("HTTP", "MOCK", "AWS_PROXY", "HTTP_PROXY", "AWS"),
        ("PRIVATE", "EDGE", "REGIONAL"),
        ("RESPONSE_STREAM", "BUFFERED"),
        ("Terminate", "Allow"),
        ("add", "remove", "move", "test", "replace", "copy"),
        ("w3c", "raw", "json", "plain", "parquet"),
        # DynamoDB's
        ("INDEXES", "TOTAL", "NONE"),
        ("SIZE", "NONE"),
        ("ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"),
        ("SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES"),
        ("IN", "NULL", "BETWEEN", "LT", "NOT_CONTAINS", "EQ", "GT", "NOT_NULL", "NE", "LE", "BEGINS_WITH", "GE", "CONTAINS"),
        ("OR", "AND"),
        ("ADD", "DELETE", "PUT"),
        ("B", "N", "S"),
        ("ALL", "INCLUDE", "KEYS_ONLY"),
        ("PROVISIONED", "PAY_PER_REQUEST"),
    )
}
_TABLE_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]+")
_TABLE_RULES: Final[list[tuple[str, _Rule]]] = [
    (
        "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
        lambda value: not value or value.startswith("arn:") or bool(_TABLE_NAME.fullmatch(value)),
    ),
    ("Member must have length greater than or equal to 1", bool),
    ("Member must have length greater than or equal to 3", lambda value: not value or len(value) >= 3),
    ("Member must have length less than or equal to 255", lambda value: value.startswith("arn:") or len(value) <= 255),
]


def _length(value: Any) -> int:
    return len(value)


def _number(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value


def _most(limit: float, size: Callable[[Any], Any]) -> _Rule:
    return lambda value: bool(size(value) <= limit)


def _least(limit: float, size: Callable[[Any], Any]) -> _Rule:
    return lambda value: bool(size(value) >= limit)


def _checker(rules: list[tuple[str, _Rule]], hidden: bool) -> _Check:
    def check_value(value: Any, path: str, found: list[str]) -> None:
        for text, test in rules:
            if not test(value):
                found.append(_text(value, path, text, hidden))

    return check_value


def _text(value: Any, path: str, constraint: str, hidden: bool) -> str:
    shown = "" if hidden else f" '{_cut(_shown(value))}'"
    return f"Value{shown} at '{path.removesuffix('.')}' failed to satisfy constraint: {constraint}"


def _cut(shown: str) -> str:
    """So much of a value as an error repeats; of a list or map the end as well."""
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}{shown[-1] if shown[-1] in ']}' else ''}"


def _shown(value: Any) -> str:
    """A value as Java prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return f"java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]"
    if isinstance(value, datetime):
        return scalars.iso_text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) + "}"
    return "null" if value is None else str(value)


def _camel(name: str) -> str:
    """As Java beans spell it: "FunctionName" is "functionName", "KMSKeyArn" is "kMSKeyArn"."""
    return name[:1].lower() + name[1:]
