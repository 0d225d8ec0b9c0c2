"""Strict conversion of what clients send into what annotations say.

`from_text(annotation)` is for path, query and header values, `from_body` and `from_json` for JSON. Each gives a function
`(value, path, errors) -> result`: it appends `(path, message)` for every mistake and then returns anything. One rule for
scalars and dataclasses, whether or not pydantic or msgspec is installed, so that an app behaves alike on every machine;
models of pydantic and Structs of msgspec are validated by their own library.

Strict: no guessing. An integer is ASCII digits with an optional sign; a boolean is true, false, 1 or 0; a number is finite;
JSON true is not 1; a dataclass takes no unknown members; text becomes None never.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Errors = list[tuple[str, str]]
    Convert = Callable[[Any, str, Errors], Any]

__all__ = [
    "arguments",
    "describe",
    "from_body",
    "from_json",
    "from_text",
    "is_model",
    "is_text",
    "items_of",
    "metadata",
    "resolve",
    "strip",
]

_UNION = type(int | None)
_NONE = type(None)
_ARRAYS = (list, set, frozenset, tuple)


def strip(annotation: Any) -> Any:
    """The annotation under Annotated, NewType and `type X = ...`."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def metadata(annotation: Any) -> tuple[Any, ...]:
    """What Annotated carries."""
    return getattr(annotation, "__metadata__", ())


def _typing(name: str) -> Any:
    """A name of `typing`; an annotation that uses it has loaded the module."""
    return getattr(sys.modules.get("typing"), name, None)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, else the annotation alone."""
    if isinstance(annotation, _UNION) or getattr(annotation, "__origin__", None) is _typing("Union") is not None:
        return tuple(annotation.__args__)
    return (annotation,)


def arguments(annotation: Any) -> tuple[Any, ...]:
    """The members of a union without None, stripped."""
    return tuple(strip(part) for part in _members(strip(annotation)) if part not in (None, _NONE))


def items_of(annotation: Any) -> tuple[Any, Any] | None:
    """(container, item annotation) of list[T], set[T], frozenset[T], tuple[T, ...]; bare ones hold str. Else None."""
    kind = strip(annotation)
    origin = getattr(kind, "__origin__", kind)
    if origin not in _ARRAYS:
        return None
    inside = getattr(kind, "__args__", ())
    if origin is tuple and inside and not (len(inside) == 2 and inside[1] is Ellipsis):
        return None
    return origin, (inside[0] if inside else str)


def _scalar(kind: Any) -> Any:
    """The text converter of one scalar type, or None."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    if getattr(kind, "__origin__", None) is _typing("Literal") is not None:
        return _choice({str(value): value for value in kind.__args__})
    if isinstance(kind, type):
        if _is_enum(kind):
            return _choice({str(item.value): item for item in kind.__members__.values()})  # type: ignore[attr-defined]
        known = _LATE.get(f"{kind.__module__}.{kind.__qualname__}")
        if known is not None:
            return known(kind)
    return None


def _is_enum(kind: type) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and issubclass(kind, enum.Enum)


def is_text(annotation: Any) -> bool:
    """Whether one piece of text can carry it."""
    kinds = arguments(annotation)
    return bool(kinds) and all(_scalar(kind) is not None for kind in kinds)


def library(annotation: Any) -> str:
    """ "pydantic" or "msgspec" when the annotation, or something inside it, belongs to that library; else ""."""
    for extra in metadata(annotation):
        root = type(extra).__module__.partition(".")[0]
        if root in ("pydantic", "annotated_types"):
            return "pydantic"
        if root == "msgspec":
            return "msgspec"
    kind = strip(annotation)
    if hasattr(kind, "__pydantic_validator__") or hasattr(kind, "__pydantic_core_schema__"):
        return "pydantic"
    if isinstance(kind, type) and hasattr(kind, "__struct_fields__"):
        return "msgspec"
    if getattr(kind, "__origin__", None) is _typing("Literal") is not None:
        return ""
    return next(filter(None, map(library, getattr(kind, "__args__", ()))), "")


def is_model(annotation: Any) -> bool:
    """Whether only a JSON body can carry it: models, dataclasses, TypedDicts, dict, and arrays and unions of such."""
    if library(annotation) and not is_text(annotation):
        array = items_of(annotation)
        return array is None or not is_text(array[1])
    return any(_structured(kind) for kind in arguments(annotation))


def _structured(kind: Any) -> bool:
    if getattr(kind, "__origin__", kind) is dict or _record_fields(kind) is not None:
        return True
    array = items_of(kind)
    return array is not None and is_model(array[1])


# --- text ---------------------------------------------------------------------------------------------------------------------


def from_text(annotation: Any) -> Convert:
    """The converter of one piece of text. Raises `TypeError` for an annotation that text cannot carry."""
    if library(annotation) == "pydantic":
        return _by_pydantic(annotation)
    if library(annotation) == "msgspec":
        return _by_msgspec(annotation)
    kinds = arguments(annotation)
    converters = [_scalar(kind) for kind in kinds]
    if not kinds or None in converters:
        raise TypeError(f"{describe(annotation)} cannot be read from text")
    expected = " or ".join(describe(kind) for kind in kinds)

    def convert(text: str, path: str, errors: Errors) -> Any:
        message = ""
        for converter in converters:
            try:
                return converter(text)
            except ValueError as error:
                message = str(error)
        errors.append((path, message if len(converters) == 1 else f"must be {expected}"))
        return None

    return convert


def _int(text: str) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("must be an integer")
    try:
        return int(text)
    except ValueError:  # CPython's limit on digits
        raise ValueError("must be an integer of at most 4300 digits") from None


def _float(text: str) -> float:
    if not text.isascii() or "_" in text or text != text.strip():
        raise ValueError("must be a number")
    try:
        value = float(text)
    except ValueError:
        raise ValueError("must be a number") from None
    if value - value != 0:
        raise ValueError("must be a finite number")
    return value


def _bool(text: str) -> bool:
    value = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if value is None:
        raise ValueError("must be true or false")
    return value


def _choice(values: dict[str, Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        if text not in values:
            raise ValueError("must be one of " + ", ".join(values))
        return values[text]

    return convert


def _decimal(kind: Any) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        _float(text)
        return kind(text)

    return convert


def _uuid(kind: Any) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError("must be a UUID") from None
        if str(value) != text.lower():  # uuid.UUID also takes braces, urn: and misplaced dashes
            raise ValueError("must be a UUID")
        return value

    return convert


def _moment(kind: Any) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return kind.fromisoformat(text)
        except ValueError:
            raise ValueError(f"must be an ISO 8601 {kind.__name__}") from None

    return convert


_SCALARS: dict[Any, Callable[[str], Any]] = {str: str, int: _int, float: _float, bool: _bool}
_LATE: dict[str, Callable[[Any], Callable[[str], Any]]] = {  # by name, so that we load none of their modules
    "decimal.Decimal": _decimal,
    "uuid.UUID": _uuid,
    "datetime.datetime": _moment,
    "datetime.date": _moment,
    "datetime.time": _moment,
}


# --- JSON ---------------------------------------------------------------------------------------------------------------------


def from_body(annotation: Any) -> Convert:
    """The converter of a body's bytes. Malformed JSON is reported with the path "" and a message that starts with "JSON"."""
    by_library = library(annotation)
    if by_library == "pydantic":
        return _body_by_pydantic(annotation)
    if by_library == "msgspec":
        return _body_by_msgspec(annotation)
    convert = from_json(annotation)

    def convert_body(body: bytes, path: str, errors: Errors) -> Any:
        import json

        try:
            value = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            errors.append(("", f"JSON is malformed: {error}"))
            return None
        return convert(value, path, errors)

    return convert_body


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def from_json(annotation: Any) -> Convert:
    """The converter of a JSON value. Raises `TypeError` for an annotation that JSON cannot carry."""
    if library(annotation) == "pydantic":
        return _by_pydantic(annotation)
    if library(annotation) == "msgspec":
        return _by_msgspec(annotation)
    kind = strip(annotation)
    if kind is _typing("Any") or kind is object:
        return lambda value, path, errors: value
    members = _members(kind)
    if len(members) > 1:
        return _json_union(members)
    if kind in (None, _NONE):
        return _json_exact(_NONE, "null")
    if kind in _JSON_EXACT:
        return _json_exact(*_JSON_EXACT[kind])
    if kind is float:
        return _json_number
    scalar = _scalar(kind)
    if scalar is not None:
        return _json_scalar(kind, scalar)
    array = items_of(kind)
    if array is not None:
        return _json_array(array[0], from_json(array[1]) if getattr(kind, "__args__", ()) else None)
    if getattr(kind, "__origin__", kind) is dict:
        return _json_object(kind)
    fields = _record_fields(kind)
    if fields is None:
        raise TypeError(f"{describe(annotation)} cannot be read from JSON")
    return _json_record(kind, fields)


_JSON_EXACT: dict[Any, tuple[Any, str]] = {str: (str, "a string"), int: (int, "an integer"), bool: (bool, "true or false")}


def _json_exact(kind: Any, name: str) -> Convert:
    def convert(value: Any, path: str, errors: Errors) -> Any:
        if type(value) is not kind:
            errors.append((path, f"must be {name}"))
        return value

    return convert


def _json_number(value: Any, path: str, errors: Errors) -> Any:
    if type(value) not in (int, float) or value - value != 0:
        errors.append((path, "must be a finite number"))
        return value
    try:
        return float(value)
    except OverflowError:
        errors.append((path, "must be a number in the range of a double"))
        return value


def _json_scalar(kind: Any, scalar: Callable[[str], Any]) -> Convert:
    """Scalars that JSON writes as text (UUID, datetime …), or as their own value (Enum, Literal, Decimal)."""
    if getattr(kind, "__origin__", None) is not None:  # Literal
        values = {(type(value), value): value for value in kind.__args__}
    elif hasattr(kind, "__members__"):
        values = {(type(item.value), item.value): item for item in kind}
    else:
        values = {}
    number = f"{kind.__module__}.{kind.__qualname__}" == "decimal.Decimal" if isinstance(kind, type) else False

    def convert(value: Any, path: str, errors: Errors) -> Any:
        if values:
            if isinstance(value, (list, dict)) or (type(value), value) not in values:
                errors.append((path, "must be one of " + ", ".join(str(known) for _, known in values)))
                return None
            return values[(type(value), value)]
        try:
            if number and type(value) in (int, float):
                return scalar(repr(value))
            if type(value) is not str:
                raise ValueError("must be a string")
            return scalar(value)
        except ValueError as error:
            errors.append((path, str(error)))
            return None

    return convert


def _json_union(members: tuple[Any, ...]) -> Convert:
    converters = [from_json(member) for member in members]
    names = " or ".join("null" if member in (None, _NONE) else describe(member) for member in members)

    def convert(value: Any, path: str, errors: Errors) -> Any:
        attempts: list[Errors] = []
        for member, converter in zip(members, converters, strict=True):
            mistakes: Errors = []
            result = converter(value, path, mistakes)
            if not mistakes:
                return result
            if member not in (None, _NONE):
                attempts.append(mistakes)
        errors.extend(attempts[0] if len(attempts) == 1 else [(path, f"must be {names}")])
        return None

    return convert


def _json_array(container: Any, item: Convert | None) -> Convert:
    def convert(value: Any, path: str, errors: Errors) -> Any:
        if not isinstance(value, list):
            errors.append((path, "must be an array"))
            return None
        if item is not None:
            value = [item(part, f"{path}[{index}]", errors) for index, part in enumerate(value)]
        try:
            return value if container is list else container(value)
        except TypeError:
            errors.append((path, "must be an array of scalars"))
            return None

    return convert


def _json_object(kind: Any) -> Convert:
    inside = getattr(kind, "__args__", ())
    key = from_text(inside[0]) if inside else None
    item = from_json(inside[1]) if inside else None

    def convert(value: Any, path: str, errors: Errors) -> Any:
        if not isinstance(value, dict):
            errors.append((path, "must be an object"))
            return None
        if key is None or item is None:
            return value
        return {key(name, _join(path, name), errors): item(part, _join(path, name), errors) for name, part in value.items()}

    return convert


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _record_fields(kind: Any) -> dict[str, tuple[Any, bool]] | None:
    """name → (annotation, required) of a dataclass or TypedDict; else None."""
    if not isinstance(kind, type):
        return None
    space = {**vars(sys.modules.get(kind.__module__, sys)), kind.__name__: kind}
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import MISSING, fields

        return {
            field.name: (resolve(field.type, space), field.default is MISSING and field.default_factory is MISSING)
            for field in fields(kind)
            if field.init
        }
    if hasattr(kind, "__required_keys__"):
        from typing import get_type_hints

        required = kind.__required_keys__
        return {name: (hint, name in required) for name, hint in get_type_hints(kind).items()}
    return None


_records: dict[Any, Convert] = {}  # made once each: a dataclass may contain itself


def _json_record(kind: Any, fields: dict[str, tuple[Any, bool]]) -> Convert:
    if kind in _records:
        return _records[kind]
    members: dict[str, tuple[Convert, bool]] = {}

    def convert(value: Any, path: str, errors: Errors) -> Any:
        if not isinstance(value, dict):
            errors.append((path, "must be an object"))
            return None
        before = len(errors)
        values = {}
        for name, (converter, required) in members.items():
            if name in value:
                values[name] = converter(value[name], _join(path, name), errors)
            elif required:
                errors.append((_join(path, name), "is missing"))
        errors.extend((_join(path, name), "is not a known member") for name in value if name not in members)
        if len(errors) > before:
            return None
        try:
            return kind(**values)
        except ValueError as error:  # the dataclass's own __post_init__
            errors.append((path, str(error)))
            return None

    _records[kind] = convert
    try:
        members.update({name: (from_json(annotation), required) for name, (annotation, required) in fields.items()})
    except TypeError:
        del _records[kind]
        raise
    return convert


# --- the user's own libraries -------------------------------------------------------------------------------------------------


def _loaded(name: str, annotation: Any) -> Any:
    """The user's own library. Its types have loaded it; we never do. Raises `TypeError` for constraints without it."""
    if name not in sys.modules:  # e.g. annotated_types alone
        raise TypeError(f"{describe(annotation)} has constraints that {name} checks: import {name} in your module")
    return sys.modules[name]


def _pydantic_errors(error: Any, path: str, errors: Errors) -> None:
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        if item["type"] == "json_invalid":
            errors.append(("", f"JSON is malformed: {item['msg']}"))
            continue
        place = path
        for step in item["loc"]:
            place = f"{place}[{step}]" if isinstance(step, int) else _join(place, str(step))
        errors.append((place, item["msg"]))


def _by_pydantic(annotation: Any) -> Convert:
    pydantic = _loaded("pydantic", annotation)
    adapter = pydantic.TypeAdapter(annotation)

    def convert(value: Any, path: str, errors: Errors) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            _pydantic_errors(error, path, errors)
            return None

    return convert


def _body_by_pydantic(annotation: Any) -> Convert:
    pydantic = _loaded("pydantic", annotation)
    adapter = pydantic.TypeAdapter(annotation)

    def convert(body: bytes, path: str, errors: Errors) -> Any:
        try:
            return adapter.validate_json(body)
        except pydantic.ValidationError as error:
            _pydantic_errors(error, path, errors)
            return None

    return convert


def _msgspec_error(error: Exception, path: str, errors: Errors) -> None:
    message, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`")
    errors.append((path + place if path else place.removeprefix("."), message))


def _by_msgspec(annotation: Any) -> Convert:
    msgspec = _loaded("msgspec", annotation)

    def convert(value: Any, path: str, errors: Errors) -> Any:
        try:
            return msgspec.convert(value, annotation, strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            _msgspec_error(error, path, errors)
            return None

    return convert


def _body_by_msgspec(annotation: Any) -> Convert:
    msgspec = _loaded("msgspec", annotation)

    decoder = msgspec.json.Decoder(annotation)

    def convert(body: bytes, path: str, errors: Errors) -> Any:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            _msgspec_error(error, path, errors)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            errors.append(("", f"JSON is malformed: {error}"))
        return None

    return convert


# --- annotations --------------------------------------------------------------------------------------------------------------


def resolve(annotation: Any, space: dict[str, Any]) -> Any:
    """An annotation that `from __future__ import annotations` left as text. Raises `TypeError` when a name is unknown."""
    while isinstance(annotation, str):  # twice text when it was also written in quotes
        try:
            annotation = eval(annotation, space)  # the user's own source text, in the user's own module
        except Exception as error:
            raise TypeError(f"cannot resolve the annotation {annotation!r}: {error}") from error
    return annotation


def describe(annotation: Any) -> str:
    """An annotation as its author wrote it, about."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
