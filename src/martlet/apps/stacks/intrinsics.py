"""Intrinsic functions. Pure: what a resource's Ref or attribute is, the `Scope` is told by its owner.

A value that is not known before the stack is applied is a text with a mark in it (`pending`), so that every function works
on it as on any text; `is_pending` tells. Faults have CloudFormation's texts where it has one.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from martlet.apps.stacks.reading import Map, TemplateFault, line_of

__all__ = ["NO_VALUE", "PSEUDO", "Scope", "intrinsic_of", "is_pending", "pending", "substitutions"]

NO_VALUE: Final = object()
PSEUDO: Final = frozenset(
    {
        "AWS::AccountId", "AWS::NoValue", "AWS::NotificationARNs", "AWS::Partition", "AWS::Region", "AWS::StackId",
        "AWS::StackName", "AWS::URLSuffix",
    }
)  # fmt: skip
_PENDING: Final = "{{changeSet:KNOWN_AFTER_APPLY:"
_VARIABLE: Final = re.compile(r"\$\{([^!}][^}]*)\}")
_LITERAL: Final = re.compile(r"\$\{!([^}]*)\}")
_LANGUAGE: Final = frozenset({"Fn::Length", "Fn::ToJsonString"})
_TEXT_BYTES: Final = 4_194_304  # of one value that functions made: Join within Join could multiply without end


def pending(what: str) -> str:
    """The text that stands for a value which is known only after the stack is applied."""
    return f"{_PENDING}{what}}}}}"


def is_pending(value: Any) -> bool:
    """Whether `value`, or something inside it, is not known yet."""
    if isinstance(value, str):
        return _PENDING in value
    if isinstance(value, dict):
        return any(is_pending(one) for one in value.values()) or any(_PENDING in key for key in value)
    if isinstance(value, list | tuple):
        return any(is_pending(one) for one in value)
    return False


def intrinsic_of(value: Any) -> str:
    """The function's name if `value` is a call of one, else ""."""
    if isinstance(value, dict) and len(value) == 1:
        (name,) = value
        if name in ("Ref", "Condition") or name.startswith("Fn::"):
            return str(name)
    return ""


def substitutions(text: str) -> list[str]:
    """The names in `${…}` of a Fn::Sub text, in order."""
    return [found.strip() for found in _VARIABLE.findall(text)]


class Scope:
    """Everything that names in a template may mean."""

    def __init__(
        self,
        *,
        parameters: Mapping[str, Any],
        pseudo: Mapping[str, Any],
        mappings: Map,
        conditions: Map,
        ref: Callable[[str], Any],
        attribute: Callable[[str, str], Any],
        imported: Callable[[str], Any],
        resources: frozenset[str] | Mapping[str, Any] = frozenset(),
        language: bool = False,
    ) -> None:
        """`ref` and `attribute` answer for resources (raise `TemplateFault` for an attribute that is not there),
        `imported` for Fn::ImportValue. `language`: the template has the transform AWS::LanguageExtensions."""
        self.parameters = parameters
        self.pseudo = pseudo
        self._mappings = mappings
        self._conditions = conditions
        self._ref = ref
        self._attribute = attribute
        self._imported = imported
        self._resources = resources
        self._language = language
        self._decided: dict[str, bool] = {}
        self._deciding: list[str] = []

    # --- conditions

    def condition(self, name: str, line: int = 0) -> bool:
        """Whether condition `name` holds. Raises `TemplateFault` for one that is missing or depends on itself."""
        if name in self._decided:
            return self._decided[name]
        if name not in self._conditions:
            raise TemplateFault(
                f"Template format error: Unresolved condition dependency {name} in the Conditions block of the template", line
            )
        if name in self._deciding:
            circle = [*self._deciding[self._deciding.index(name) :], name]
            raise TemplateFault(
                f"Template format error: Circular condition dependency: {' → '.join(circle)}", line_of(self._conditions, name)
            )
        self._deciding.append(name)
        try:
            found = self.truth(self._conditions[name], f"condition {name}", line_of(self._conditions, name))
        finally:
            self._deciding.pop()
        self._decided[name] = found
        return found

    def conditions(self) -> dict[str, bool]:
        """Every condition, evaluated."""
        return {name: self.condition(name, line_of(self._conditions, name)) for name in self._conditions}

    def truth(self, value: Any, what: str, line: int) -> bool:
        name = intrinsic_of(value)
        place = line_of(value) or line
        if name == "Condition":
            inner = value[name]
            if intrinsic_of(inner) == "Condition":  # so SAM's translator writes combined conditions
                inner = inner["Condition"]
            if not isinstance(inner, str):
                raise TemplateFault("Template error: Condition takes the name of a condition", place)
            return self.condition(inner, place)
        if name == "Fn::Not":
            (one,) = self._operands(value[name], "Fn::Not", 1, 1, place)
            return not self.truth(one, what, place)
        if name in ("Fn::And", "Fn::Or"):
            inner = [self.truth(one, what, place) for one in self._operands(value[name], name, 2, 10, place)]
            return all(inner) if name == "Fn::And" else any(inner)
        if name == "Fn::Equals":
            left, right = self._operands(value[name], name, 2, 2, place)
            return bool(_comparable(self.evaluate(left)) == _comparable(self.evaluate(right)))
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value in ("true", "false"):
            return value == "true"
        raise TemplateFault(
            f"Template format error: {what} must be made of Fn::And, Fn::Equals, Fn::Not, Fn::Or or Condition", place
        )

    def _operands(self, value: Any, name: str, least: int, most: int, line: int) -> list[Any]:
        if isinstance(value, list) and least <= len(value) <= most:
            return value
        count = str(least) if least == most else f"{least} to {most}"
        raise TemplateFault(f"Template error: every {name} object requires {count} parameters", line)

    # --- values

    def evaluate(self, value: Any) -> Any:
        """`value` with every function replaced by what it yields; plain dicts and lists. `NO_VALUE` for AWS::NoValue alone."""
        if isinstance(value, dict):
            name = intrinsic_of(value)
            if name and name != "Condition":
                return self._call(name, value[name], line_of(value, name))
            if any(str(key).startswith("Fn::") for key in value):
                strange = next(key for key in value if str(key).startswith("Fn::"))
                raise TemplateFault(f"Template error: {strange} stands beside other keys", line_of(value, strange))
            members = ((key, self.evaluate(one)) for key, one in value.items())
            return Map(((key, one) for key, one in members if one is not NO_VALUE), line_of(value), _lines(value))
        if isinstance(value, list):
            return [one for one in map(self.evaluate, value) if one is not NO_VALUE]
        return value

    def _call(self, name: str, argument: Any, line: int) -> Any:
        if name in _LANGUAGE and not self._language:
            raise TemplateFault(
                f"Template error: {name} needs the transform AWS::LanguageExtensions", line, remedy="add it under Transform"
            )
        function = _FUNCTIONS.get(name)
        if function is None:
            raise TemplateFault(f"Template error: {name} is not a function that Martlet knows", line)
        return function(self, argument, line)

    def text(self, value: Any, what: str, line: int) -> str:
        """`value`, evaluated, as a string. Raises `TemplateFault` if it is none."""
        found = self.evaluate(value)
        if isinstance(found, bool):
            return "true" if found else "false"
        if isinstance(found, str | int | float):
            return str(found)
        raise TemplateFault(f"Template error: {what} must be a string", line)

    def ref(self, name: Any, line: int) -> Any:
        if not isinstance(name, str):
            raise TemplateFault("Template error: every Ref object must have a single String value.", line)
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        if name in self._resources:
            return self._ref(name)
        raise TemplateFault(
            f"Template format error: Unresolved resource dependencies [{name}] in the Resources block of the template", line
        )

    def attribute(self, logical_id: str, attribute: str, line: int) -> Any:
        if logical_id not in self._resources:
            raise TemplateFault(f"Template error: instance of Fn::GetAtt references undefined resource {logical_id}", line)
        try:
            return self._attribute(logical_id, attribute)
        except TemplateFault as fault:
            raise TemplateFault(fault.text, line or fault.line, logical_id=logical_id, remedy=fault.remedy) from None

    def mapping(self, name: str, top: str, second: str, line: int, default: Any = NO_VALUE) -> Any:
        tops = self._mappings.get(name)
        seconds = tops.get(top) if isinstance(tops, dict) else None
        if isinstance(seconds, dict) and second in seconds:
            return self.evaluate(seconds[second])
        if default is not NO_VALUE:
            return self.evaluate(default)
        if not isinstance(tops, dict):
            raise TemplateFault(
                f"Template error: Mapping named '{name}' is not present in the 'Mappings' section of template.", line
            )
        raise TemplateFault(f"Template error: Unable to get mapping for {name}::{top}::{second}", line)

    def imported(self, name: str, line: int) -> Any:
        try:
            return self._imported(name)
        except TemplateFault as fault:
            raise TemplateFault(fault.text, line, remedy=fault.remedy) from None


def _comparable(value: Any) -> Any:
    """Fn::Equals compares texts: true equals "true", 1 equals "1"."""
    if value is NO_VALUE:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return [_comparable(one) for one in value]
    return value


def _lines(value: Any) -> dict[str, int]:
    return value.lines if isinstance(value, Map) else {}


def _bounded(text: str, name: str, line: int) -> str:
    if len(text) > _TEXT_BYTES:
        raise TemplateFault(f"Template error: {name} makes a text of {len(text)} characters, the most is {_TEXT_BYTES}", line)
    return text


# --- the functions


def _get_att(scope: Scope, argument: Any, line: int) -> Any:
    if isinstance(argument, str):
        logical_id, _, attribute = argument.partition(".")
        argument = [logical_id, attribute]
    ok = isinstance(argument, list) and len(argument) >= 2 and all(isinstance(one, str) and one for one in argument[:1])
    if not ok:
        raise TemplateFault(
            "Template error: every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource "
            "attribute",
            line,
        )
    attribute = ".".join(scope.text(one, "an attribute's name", line) for one in argument[1:])
    if not attribute:
        raise TemplateFault(
            "Template error: every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource "
            "attribute",
            line,
        )
    return scope.attribute(argument[0], attribute, line)


def _sub(scope: Scope, argument: Any, line: int) -> Any:
    variables: dict[str, Any] = {}
    if isinstance(argument, list):
        if len(argument) != 2 or not isinstance(argument[0], str) or not isinstance(argument[1], dict):
            raise TemplateFault(
                "Template error: One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify a string as "
                "first argument, and an optional second argument to specify a mapping of values to replace in the string",
                line,
            )
        argument, variables = argument
    if not isinstance(argument, str):
        raise TemplateFault(
            "Template error: One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify a string as "
            "first argument, and an optional second argument to specify a mapping of values to replace in the string",
            line,
        )

    def found(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name in variables:
            return scope.text(variables[name], f"the value of ${{{name}}} in Fn::Sub", line)
        if name in scope.pseudo or name in scope.parameters or "." not in name:
            value = scope.ref(name, line)
        else:
            logical_id, _, attribute = name.partition(".")
            value = scope.attribute(logical_id, attribute, line)
        if value is NO_VALUE:
            return ""
        if isinstance(value, list | dict):
            raise TemplateFault(f"Template error: ${{{name}}} in Fn::Sub is not a string", line)
        return scope.text(value, f"${{{name}}} in Fn::Sub", line)

    text = _bounded(_LITERAL.sub(r"${\1}", _VARIABLE.sub(found, argument)), "Fn::Sub", line)
    return text


def _join(scope: Scope, argument: Any, line: int) -> Any:
    if not isinstance(argument, list) or len(argument) != 2 or not isinstance(argument[0], str):
        raise TemplateFault(
            "Template error: every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of strings "
            "to be joined or a function that returns a list of strings (such as Fn::GetAZs) to be joined.",
            line,
        )
    members = scope.evaluate(argument[1])
    if isinstance(members, str) and is_pending(members):
        return members
    if not isinstance(members, list):
        raise TemplateFault(
            "Template error: every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of strings "
            "to be joined or a function that returns a list of strings (such as Fn::GetAZs) to be joined.",
            line,
        )
    text = argument[0].join(scope.text(one, "every member of Fn::Join", line) for one in members)
    return _bounded(text, "Fn::Join", line)


def _select(scope: Scope, argument: Any, line: int) -> Any:
    if not isinstance(argument, list) or len(argument) != 2:
        raise TemplateFault(
            "Template error: Fn::Select requires a list argument with two elements: an integer index and a list", line
        )
    index = scope.text(argument[0], "the index of Fn::Select", line)
    members = scope.evaluate(argument[1])
    if isinstance(members, str) and is_pending(members):
        return members
    if not re.fullmatch(r"[0-9]{1,6}", index) or not isinstance(members, list):
        raise TemplateFault(
            "Template error: Fn::Select requires a list argument with two elements: an integer index and a list", line
        )
    if int(index) >= len(members):
        if any(is_pending(one) for one in members):
            return next(one for one in members if is_pending(one))
        raise TemplateFault(f"Template error: Fn::Select  cannot select nonexistent value at index {index}", line)
    return members[int(index)]


def _split(scope: Scope, argument: Any, line: int) -> Any:
    if not isinstance(argument, list) or len(argument) != 2 or not isinstance(argument[0], str) or not argument[0]:
        raise TemplateFault(
            "Template error: every Fn::Split object requires two parameters, (1) a string delimiter and (2) a string to be "
            "split or a function that returns a string to be split.",
            line,
        )
    return scope.text(argument[1], "the second parameter of Fn::Split", line).split(argument[0])


def _find_in_map(scope: Scope, argument: Any, line: int) -> Any:
    if not isinstance(argument, list) or len(argument) not in (3, 4):
        raise TemplateFault(
            "Template error: every Fn::FindInMap object requires three parameters, the map name, map key and the attribute for "
            "return value",
            line,
        )
    name, top, second = (scope.text(one, "a parameter of Fn::FindInMap", line) for one in argument[:3])
    default: Any = NO_VALUE
    if len(argument) == 4:
        options = argument[3]
        if not isinstance(options, dict) or set(options) != {"DefaultValue"}:
            raise TemplateFault("Template error: the fourth parameter of Fn::FindInMap is an object with DefaultValue", line)
        default = options["DefaultValue"]
    return scope.mapping(name, top, second, line, default)


def _if(scope: Scope, argument: Any, line: int) -> Any:
    if not isinstance(argument, list) or len(argument) != 3 or not isinstance(argument[0], str):
        raise TemplateFault(
            "Template error: Fn::If requires a list argument with three elements: a condition's name and two values", line
        )
    return scope.evaluate(argument[1] if scope.condition(argument[0], line) else argument[2])


def _base64(scope: Scope, argument: Any, line: int) -> Any:
    text = scope.text(argument, "the parameter of Fn::Base64", line)
    return text if is_pending(text) else base64.b64encode(text.encode()).decode()


def _cidr(scope: Scope, argument: Any, line: int) -> Any:
    found = [scope.evaluate(one) for one in argument] if isinstance(argument, list) else []
    if is_pending(found):
        return next(one for one in found if is_pending(one))
    if len(found) not in (2, 3):
        raise TemplateFault("Template error: Fn::Cidr requires an address block, a count and optionally a number of bits", line)
    try:
        block = ipaddress.ip_network(str(found[0]), strict=False)
        count = int(found[1])
        bits = int(found[2]) if len(found) == 3 else 8
        if not 1 <= count <= 256 or not 1 <= bits <= 128:
            raise ValueError("the count is 1 to 256 and the bits are 1 to 128")
        prefix = block.max_prefixlen - bits
        if prefix < block.prefixlen or 2 ** min(prefix - block.prefixlen, 16) < count:
            raise ValueError(f"{block} does not hold {count} blocks with {bits} bits each")
        size = 1 << bits
        return [f"{block.network_address + at * size}/{prefix}" for at in range(count)]
    except ValueError as error:
        raise TemplateFault(f"Template error: Fn::Cidr: {error}", line) from error


def _get_azs(scope: Scope, argument: Any, line: int) -> Any:
    region = scope.text(argument, "the parameter of Fn::GetAZs", line) or str(scope.pseudo["AWS::Region"])
    return [f"{region}{letter}" for letter in "abc"]


def _import_value(scope: Scope, argument: Any, line: int) -> Any:
    return scope.imported(scope.text(argument, "the parameter of Fn::ImportValue", line), line)


def _length(scope: Scope, argument: Any, line: int) -> Any:
    found = scope.evaluate(argument)
    if not isinstance(found, list):
        raise TemplateFault("Template error: Fn::Length requires a list", line)
    return len(found)


def _to_json(scope: Scope, argument: Any, line: int) -> Any:
    found = scope.evaluate(argument)
    if not isinstance(found, dict | list):
        raise TemplateFault("Template error: Fn::ToJsonString requires an object or a list", line)
    return _bounded(json.dumps(found, separators=(",", ":"), ensure_ascii=False), "Fn::ToJsonString", line)


def _boolean(name: str) -> Callable[[Scope, Any, int], Any]:
    def evaluate(scope: Scope, argument: Any, line: int) -> Any:
        return scope.truth(Map({name: argument}, line, {name: line}), name, line)

    return evaluate


_FUNCTIONS: Final[dict[str, Callable[[Scope, Any, int], Any]]] = {
    "Ref": lambda scope, argument, line: scope.ref(argument, line),
    "Fn::And": _boolean("Fn::And"),
    "Fn::Base64": _base64,
    "Fn::Cidr": _cidr,
    "Fn::Equals": _boolean("Fn::Equals"),
    "Fn::FindInMap": _find_in_map,
    "Fn::GetAZs": _get_azs,
    "Fn::GetAtt": _get_att,
    "Fn::If": _if,
    "Fn::ImportValue": _import_value,
    "Fn::Join": _join,
    "Fn::Length": _length,
    "Fn::Not": _boolean("Fn::Not"),
    "Fn::Or": _boolean("Fn::Or"),
    "Fn::Select": _select,
    "Fn::Split": _split,
    "Fn::Sub": _sub,
    "Fn::ToJsonString": _to_json,
}
