"""The `Rules` section: assertions about parameters, checked before anything is made. Pure."""

from __future__ import annotations

from typing import Any, Final

from martlet.apps.stacks.intrinsics import Scope, intrinsic_of
from martlet.apps.stacks.reading import Map, TemplateFault, line_of
from martlet.errors import Unsupported

__all__ = ["check_rules"]

_OWN: Final = ("Fn::Contains", "Fn::EachMemberIn", "Fn::EachMemberEquals")


def check_rules(rules: Map, scope: Scope) -> None:
    """Raises `TemplateFault` with the description of the first assertion that fails, `Unsupported` for a rule function that
    needs what only AWS knows."""
    for name, rule in rules.items():
        line = line_of(rules, name)
        if not isinstance(rule, Map) or not isinstance(rule.get("Assertions"), list):
            raise TemplateFault(f"Template format error: rule {name} needs a list of Assertions", line)
        if "RuleCondition" in rule and not _holds(rule["RuleCondition"], scope, line):
            continue
        for assertion in rule["Assertions"]:
            if not isinstance(assertion, dict) or "Assert" not in assertion:
                raise TemplateFault(f"Template format error: an assertion of rule {name} needs Assert", line)
            if not _holds(assertion["Assert"], scope, line_of(assertion) or line):
                why = assertion.get("AssertDescription", "an assertion does not hold")
                raise TemplateFault(f"Rule {name}: {why}", line_of(assertion) or line, remedy="give other parameters")


def _holds(value: Any, scope: Scope, line: int) -> bool:
    name = intrinsic_of(value)
    place = line_of(value) or line
    if name in ("Fn::And", "Fn::Or") and isinstance(value[name], list):
        inner = [_holds(one, scope, place) for one in value[name]]
        return all(inner) if name == "Fn::And" else any(inner)
    if name == "Fn::Not" and isinstance(value[name], list) and len(value[name]) == 1:
        return not _holds(value[name][0], scope, place)
    if name in _OWN:
        return _member(name, value[name], scope, place)
    if name in ("Fn::RefAll", "Fn::ValueOf", "Fn::ValueOfAll"):
        raise Unsupported(f"the rule function {name} is not supported", line=place)
    return bool(scope.evaluate(value)) if name == "Fn::Equals" else _refuse(place)


def _refuse(line: int) -> bool:
    raise TemplateFault("Template format error: a rule is made of functions that are true or false", line)


def _member(name: str, argument: Any, scope: Scope, line: int) -> bool:
    if not isinstance(argument, list) or len(argument) != 2:
        raise TemplateFault(f"Template error: every {name} object requires two parameters", line)
    left, right = (scope.evaluate(one) for one in argument)
    left = left if isinstance(left, list) else [left]
    if name == "Fn::Contains":
        return str(right) in map(str, left)
    if name == "Fn::EachMemberEquals":
        return all(str(one) == str(right) for one in left)
    return all(str(one) in map(str, right if isinstance(right, list) else [right]) for one in left)
