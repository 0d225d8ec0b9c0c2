"""Which resource needs which, and in what order they are made. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from martlet.apps.stacks.intrinsics import PSEUDO, Scope, intrinsic_of, substitutions
from martlet.apps.stacks.reading import TemplateFault, line_of
from martlet.apps.stacks.template import Declared, Template

__all__ = ["check_names", "dependencies", "names_in", "order"]


def names_in(value: Any, scope: Scope | None = None, line: int = 0) -> Iterator[tuple[str, bool, int]]:
    """Names that Ref, Fn::GetAtt and Fn::Sub in `value` use: (name, whether as an attribute, line).

    With a `scope`, only of the branches of Fn::If that are taken.
    """
    if isinstance(value, list):
        for one in value:
            yield from names_in(one, scope, line)
        return
    if not isinstance(value, dict):
        return
    called = intrinsic_of(value)
    if called:
        yield from _names_of_call(called, value[called], scope, line_of(value, called) or line)
        return
    for key, one in value.items():
        yield from names_in(one, scope, line_of(value, key) or line)


def _names_of_call(called: str, argument: Any, scope: Scope | None, line: int) -> Iterator[tuple[str, bool, int]]:
    if called == "Ref":
        if isinstance(argument, str):
            yield argument, False, line
    elif called == "Fn::GetAtt":
        if isinstance(argument, str):
            yield argument.partition(".")[0], True, line
        elif isinstance(argument, list) and argument and isinstance(argument[0], str):
            yield argument[0], True, line
            yield from names_in(argument[1:], scope, line)
    elif called == "Fn::Sub":
        yield from _names_of_sub(argument, scope, line)
    elif called == "Fn::If" and scope is not None and isinstance(argument, list) and len(argument) == 3:
        if isinstance(argument[0], str):
            yield from names_in(argument[1 if scope.condition(argument[0], line) else 2], scope, line)
    else:
        yield from names_in(argument, scope, line)


def _names_of_sub(argument: Any, scope: Scope | None, line: int) -> Iterator[tuple[str, bool, int]]:
    own: dict[str, Any] = {}
    text = argument
    if isinstance(argument, list) and len(argument) == 2 and isinstance(argument[1], dict):
        text, own = argument
        yield from names_in(own, scope, line)
    if isinstance(text, str):
        for name in substitutions(text):
            if name not in own:
                logical_id, dot, _ = name.partition(".")
                yield logical_id, bool(dot), line


def check_names(template: Template) -> None:
    """Every name that resources and outputs use is there, in whatever branch. Raises `TemplateFault`."""
    known = {*template.resources, *template.parameters, *PSEUDO}
    for declared in template.resources.values():
        for name, attribute, line in names_in(declared.properties, None, declared.line):
            _check_name(name, attribute, line, template, known, "Resources", declared.logical_id)
        for name in declared.depends_on:
            if name not in template.resources:
                raise TemplateFault(
                    f"Template format error: Unresolved resource dependencies [{name}] in the Resources block of the template",
                    declared.line,
                    logical_id=declared.logical_id,
                )
        if declared.condition and declared.condition not in template.conditions:
            raise TemplateFault(
                f"Template format error: Unresolved condition dependency {declared.condition} in the Conditions block of the "
                "template",
                declared.line,
                logical_id=declared.logical_id,
            )
    for name, output in template.outputs.items():
        for used, attribute, line in names_in(output, None, line_of(template.outputs, name)):
            _check_name(used, attribute, line, template, known, "Outputs", name)
    for name, condition in template.conditions.items():
        for used, attribute, line in names_in(condition, None, line_of(template.conditions, name)):
            if used in template.resources or attribute:
                raise TemplateFault(
                    f"Template format error: Unresolved dependencies [{used}]. Cannot reference resources in the Conditions "
                    "block of the template",
                    line,
                )
            _check_name(used, attribute, line, template, known, "Conditions", name)


def _check_name(name: str, attribute: bool, line: int, template: Template, known: set[str], block: str, where: str) -> None:
    if attribute and name not in template.resources:
        raise TemplateFault(
            f"Template error: instance of Fn::GetAtt references undefined resource {name}", line, logical_id=where
        )
    if name not in known:
        raise TemplateFault(
            f"Template format error: Unresolved resource dependencies [{name}] in the {block} block of the template",
            line,
            logical_id=where,
        )


def dependencies(declared: Declared, scope: Scope, active: Mapping[str, Any]) -> frozenset[str]:
    """Logical ids, of those that are `active`, that must be there before `declared`. Raises `TemplateFault` when it uses one
    whose condition does not hold."""
    found: set[str] = set()
    for name, _, line in names_in(declared.properties, scope, declared.line):
        if name in active:
            found.add(name)
        elif name not in scope.parameters and name not in PSEUDO:
            raise TemplateFault(
                f"Template format error: Unresolved resource dependencies [{name}] in the Resources block of the template",
                line,
                logical_id=declared.logical_id,
                remedy=f"the condition of {name} does not hold: use it only inside a Fn::If with the same condition",
            )
    found.update(name for name in declared.depends_on if name in active)
    return frozenset(found)


def order(needs: Mapping[str, frozenset[str]], lines: Mapping[str, int] | None = None) -> list[str]:
    """The names so that each comes after what it needs, else in their given order. Raises `TemplateFault` naming a circle."""
    ordered: list[str] = []
    state: dict[str, int] = {}  # 1: being visited, 2: done
    for start in needs:
        if start in state:
            continue
        trail: list[tuple[str, Iterator[str]]] = [(start, iter(sorted(needs[start])))]
        state[start] = 1
        while trail:
            name, rest = trail[-1]
            following = next((one for one in rest if state.get(one) != 2 and one in needs), None)
            if following is None:
                state[name] = 2
                ordered.append(name)
                trail.pop()
            elif state.get(following) == 1:
                names = [one for one, _ in trail]
                circle = names[names.index(following) :]
                raise TemplateFault(
                    f"Circular dependency between resources: [{', '.join(sorted(circle))}]",
                    (lines or {}).get(circle[0], 0),
                    logical_id=circle[0],
                )
            else:
                state[following] = 1
                trail.append((following, iter(sorted(needs[following]))))
    return ordered
