"""A template's parameters: what is given, or their defaults, checked against what the template asks of them. Pure.

The texts of faults are CloudFormation's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from martlet.apps.stacks.reading import Map, Seq, TemplateFault, line_of
from martlet.limits import LIMITS, exceeded

__all__ = ["MASK", "Matches", "Parameter", "declare", "plain_match", "resolve"]

MASK: Final = "****"
Matches = Callable[[str, str], bool]  # (pattern, value): does the whole value match; raises ValueError for a bad pattern
_MEMBERS: Final = frozenset(
    {
        "AllowedPattern", "AllowedValues", "ConstraintDescription", "Default", "Description", "MaxLength", "MaxValue",
        "MinLength", "MinValue", "NoEcho", "Type",
    }
)  # fmt: skip
_BOOTSTRAP: Final = "/cdk-bootstrap/"  # the CDK asks which version of its own resources an account has; here it needs none
_BOOTSTRAPPED: Final = "30"
_STORED: Final = "AWS::SSM::Parameter::Value<"
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_LISTED_MOST: Final = 20
_NAME: Final = re.compile(r"[A-Za-z0-9]{1,255}")
_RESOURCE_TYPE: Final = re.compile(r"AWS::[A-Za-z0-9]+::[A-Za-z0-9]+(?:::[A-Za-z0-9]+)+")


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter as declared. `default` is None for one that must be given; texts as they stand in the template."""

    name: str
    type: str
    default: str | None = None
    description: str = ""
    no_echo: bool = False
    allowed_values: tuple[str, ...] = ()
    allowed_pattern: str = ""
    constraint: str = ""
    min_length: int | None = None
    max_length: int | None = None
    min_value: float | None = None
    max_value: float | None = None
    line: int = 0

    @property
    def is_stored(self) -> bool:
        """Its value is the name of a parameter that Systems Manager keeps."""
        return self.type.startswith(_STORED)

    @property
    def is_stored_list(self) -> bool:
        return self.type.removeprefix(_STORED).startswith(("List<", "CommaDelimitedList"))

    @property
    def is_list(self) -> bool:
        return self.type == "CommaDelimitedList" or self.type.startswith("List<")


def plain_match(pattern: str, value: str) -> bool:
    """Python's own matcher. A hostile pattern can keep it busy for ever: the room gives one that has a time limit."""
    try:
        return re.fullmatch(pattern, value) is not None
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error


def declare(section: Map) -> dict[str, Parameter]:
    """The `Parameters` section. Raises `TemplateFault`."""
    return {name: _declare(name, raw, line_of(section, name)) for name, raw in section.items()}


def _declare(name: str, raw: Any, line: int) -> Parameter:
    if not _NAME.fullmatch(name):
        raise TemplateFault(f"Template format error: Parameter name {name} is non alphanumeric.", line)
    if not isinstance(raw, Map):
        raise TemplateFault(f"Template format error: Every Parameters object must be an object: {name}", line)
    unknown = [key for key in raw if key not in _MEMBERS]
    if unknown:
        raise TemplateFault(f"Invalid template parameter property '{unknown[0]}'", line_of(raw, unknown[0]))
    kind = raw.get("Type")
    if not isinstance(kind, str):
        raise TemplateFault("Template format error: Every Parameters object must contain a Type member.", line)
    bootstrap = str(raw.get("Default", "")).startswith(_BOOTSTRAP)
    _check_type(name, kind, line_of(raw, "Type"), bootstrap)
    if bootstrap and kind.startswith("AWS::SSM::"):
        return Parameter(name=name, type="String", default=_BOOTSTRAPPED, line=line)
    values = raw.get("AllowedValues", Seq())
    if not isinstance(values, Seq):
        raise TemplateFault(
            f"Template format error: AllowedValues of parameter {name} must be a list.", line_of(raw, "AllowedValues")
        )
    default = raw.get("Default")
    return Parameter(
        name=name,
        type=kind,
        default=None if default is None else _text(default, f"Default of parameter {name}", line_of(raw, "Default")),
        description=str(raw.get("Description", "")),
        no_echo=str(raw.get("NoEcho", "false")).lower() == "true",
        allowed_values=tuple(_text(one, f"AllowedValues of parameter {name}", line_of(raw, "AllowedValues")) for one in values),
        allowed_pattern=str(raw.get("AllowedPattern", "")),
        constraint=str(raw.get("ConstraintDescription", "")),
        min_length=_whole(raw, "MinLength", name),
        max_length=_whole(raw, "MaxLength", name),
        min_value=_bound(raw, "MinValue", name),
        max_value=_bound(raw, "MaxValue", name),
        line=line,
    )


def _check_type(name: str, kind: str, line: int, bootstrap: bool) -> None:
    if bootstrap and kind == "AWS::SSM::Parameter::Value<String>":
        return
    if kind in ("String", "Number", "CommaDelimitedList", "List<Number>", "List<String>", "AWS::SSM::Parameter::Name"):
        return
    if kind.startswith(_STORED) and kind.endswith(">"):
        kind = kind[len(_STORED) : -1]
        if kind in ("String", "CommaDelimitedList", "List<String>"):
            return
    inner = kind[5:-1] if kind.startswith("List<") and kind.endswith(">") else kind
    if not _RESOURCE_TYPE.fullmatch(inner):
        raise TemplateFault(f"Template format error: Unrecognized parameter type: {kind}", line)


def _text(value: Any, what: str, line: int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, Seq) and all(isinstance(one, str | int | float) for one in value):
        return ",".join(_text(one, what, line) for one in value)
    raise TemplateFault(f"Template format error: {what} must be a string.", line)


def _whole(raw: Map, key: str, name: str) -> int | None:
    bound = _bound(raw, key, name)
    return None if bound is None else int(bound)


def _bound(raw: Map, key: str, name: str) -> float | None:
    if key not in raw:
        return None
    text = str(raw[key])
    if isinstance(raw[key], bool) or not _NUMBER.fullmatch(text):
        raise TemplateFault(f"Template format error: {key} of parameter {name} must be a number.", line_of(raw, key))
    return float(text)


def resolve(
    declared: Mapping[str, Parameter],
    given: Mapping[str, str],
    matches: Matches = plain_match,
) -> dict[str, str | list[str]]:
    """The value of every parameter; lists are split. Raises `TemplateFault`, `LimitExceeded` (stack_parameter_bytes)."""
    surplus = sorted(name for name in given if name not in declared)
    if surplus:
        raise TemplateFault(
            f"Parameters: [{', '.join(surplus)}] do not exist in the template",
            remedy=f"the template has: {', '.join(declared) or 'no parameters'}",
        )
    missing = [name for name, one in declared.items() if one.default is None and name not in given]
    if missing:
        raise TemplateFault(
            f"Parameters: [{', '.join(missing)}] must have values",
            declared[missing[0]].line,
            remedy="give them: " + " ".join(f"--param {name}=…" for name in missing),
        )
    return {name: _check(one, given.get(name, one.default or ""), matches) for name, one in declared.items()}


def _check(parameter: Parameter, text: str, matches: Matches) -> str | list[str]:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > LIMITS["stack_parameter_bytes"].default:
        raise exceeded("stack_parameter_bytes", size, f"parameter {parameter.name}")
    if not parameter.is_list:
        _check_one(parameter, text, matches)
        return text
    members = [one.strip() for one in text.split(",")] if text else []
    for one in members:
        _check_one(parameter, one, matches)
    return members


def _check_one(parameter: Parameter, text: str, matches: Matches) -> None:
    fault = _fault(parameter, text, matches)
    if fault:
        if parameter.constraint:
            fault = f"Parameter {parameter.name} failed to satisfy constraint: {parameter.constraint}"
        remedy = f"give another value: --param {parameter.name}=…"
        if parameter.allowed_values:
            remedy = f"AllowedValues are {_listed(parameter.allowed_values)}: --param {parameter.name}=…"
        raise TemplateFault(fault, parameter.line, remedy=remedy)


def _listed(values: tuple[str, ...]) -> str:
    shown = ", ".join(one or '""' for one in values[:_LISTED_MOST])
    return f"{shown} and {len(values) - _LISTED_MOST} more" if len(values) > _LISTED_MOST else shown


def _fault(parameter: Parameter, text: str, matches: Matches) -> str:
    name = parameter.name
    if parameter.type in ("Number", "List<Number>"):
        if not _NUMBER.fullmatch(text):
            return f"Parameter '{name}' must be a number"
        number = float(text)
        if parameter.min_value is not None and number < parameter.min_value:
            return f"Parameter '{name}' must be a number not less than {parameter.min_value:g}"
        if parameter.max_value is not None and number > parameter.max_value:
            return f"Parameter '{name}' must be a number not greater than {parameter.max_value:g}"
    if parameter.allowed_values and text not in parameter.allowed_values:
        return f"Parameter '{name}' must be one of AllowedValues"
    if parameter.min_length is not None and len(text) < parameter.min_length:
        return f"Parameter '{name}' must contain at least {parameter.min_length} characters"
    if parameter.max_length is not None and len(text) > parameter.max_length:
        return f"Parameter '{name}' must contain at most {parameter.max_length} characters"
    if parameter.allowed_pattern:
        try:
            matched = matches(parameter.allowed_pattern, text)
        except ValueError as error:
            return f"Parameter '{name}': AllowedPattern {parameter.allowed_pattern} is not a pattern: {error}"
        if not matched:
            return f"Parameter '{name}' must match pattern {parameter.allowed_pattern}"
    return ""
