"""From a compiled template and what is there to a plan: what is made, changed, replaced and removed. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from martlet.apps.stacks import kinds
from martlet.apps.stacks.compiling import Compiled
from martlet.apps.stacks.intrinsics import NO_VALUE, Scope, is_pending, pending
from martlet.apps.stacks.kinds import Fault
from martlet.apps.stacks.providers.provider import Context, Physical, Provider
from martlet.apps.stacks.reading import Map, TemplateFault
from martlet.apps.stacks.records import State, StoredResource
from martlet.apps.stacks.references import dependencies, order
from martlet.apps.stacks.template import Declared
from martlet.errors import MartletError, Unsupported

__all__ = ["Change", "Node", "Plan", "Planner", "attribute_of"]

Action = Literal["Add", "Modify", "Remove", "Keep"]
_CUSTOM: Final = "Custom::"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A resource of the new template."""

    logical_id: str
    declared: Declared
    kind: str  # the catalogue's name: the type, or "AWS::CloudFormation::CustomResource" for Custom::…
    needs: frozenset[str]
    expected: Physical  # what Ref and attributes will be, as far as known
    properties: dict[str, Any]  # evaluated as far as known
    deletion_policy: str
    update_replace_policy: str
    token: str
    is_dropped: bool = False  # not honoured and let pass by --lenient: it is not made


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to one resource. `replacement`: True, False, or Conditional while a value is not known."""

    logical_id: str
    type: str
    action: Action
    physical_id: str = ""
    replacement: Literal["", "True", "False", "Conditional"] = ""
    properties: tuple[tuple[str, bool], ...] = ()  # (name, whether its change makes a new resource)
    line: int = 0

    def text(self) -> str:
        mark = {"Add": "+", "Modify": "~", "Remove": "-", "Keep": " "}[self.action]
        why = f"  ({', '.join(name for name, _ in self.properties)})" if self.properties else ""
        replaced = {"True": "  replacement", "Conditional": "  replacement if the value changes"}.get(self.replacement, "")
        return f"{mark} {self.type}  {self.logical_id}{why}{replaced}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation will do. `order` is by need."""

    nodes: dict[str, Node]
    order: tuple[str, ...]
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return all(change.action == "Keep" for change in self.changes)


def attribute_of(kind: kinds.Kind, logical_id: str, physical: Physical, attribute: str) -> Any:
    """An attribute by its name, which may lead into one: "SnapStartResponse.ApplyOn". Raises `TemplateFault`."""
    if attribute in physical.attributes:
        return physical.attributes[attribute]
    first, _, rest = attribute.partition(".")
    holder = physical.attributes.get(first)
    if rest and isinstance(holder, dict) and rest in holder:
        return holder[rest]
    if kind.open or attribute in kind.attributes:
        if not physical.id or is_pending(list(physical.attributes.values())) or not physical.attributes:
            return pending(f"{logical_id}.{attribute}")
        raise TemplateFault(f"Attribute {attribute} of resource {logical_id} was not given by its maker")
    raise TemplateFault(
        f"Template error: resource {logical_id} does not support attribute type {attribute} in Fn::GetAtt",
        remedy=f"{kind.type} has: {', '.join(kind.attributes) or 'no attributes'}",
    )


class Planner:
    """Plans one operation of one stack."""

    def __init__(
        self,
        compiled: Compiled,
        existing: Mapping[str, StoredResource],
        *,
        providers: Mapping[str, Provider],
        context: Callable[[str, str], Context],
        pseudo: Mapping[str, Any],
        imported: Callable[[str], Any],
        new_token: Callable[[], str],
        is_lenient: bool = False,
        rewrite: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        """`context` makes a provider's from a logical id and a token. `rewrite` changes evaluated properties (addresses)."""
        self._compiled = compiled
        self._existing = existing
        self._providers = providers
        self._context = context
        self._new_token = new_token
        self._lenient = is_lenient
        self._rewrite = rewrite
        self._nodes: dict[str, Node] = {}
        self._faults: list[Fault] = []
        self._dropped: set[str] = set()
        self.scope: Scope = compiled.scope(pseudo, self._ref, self._attribute, imported)

    def plan(self) -> Plan:
        """Raises `TemplateFault` and, listing everything that is not honoured, `Unsupported`."""
        active = self._compiled.active
        for declared in active.values():
            self._check_kind(declared)
        known = {name: one for name, one in active.items() if name not in self._dropped}
        needs = {name: dependencies(one, self.scope, active) & known.keys() for name, one in known.items()}
        ordered = order(needs, {name: one.line for name, one in known.items()})
        for name in ordered:
            self._nodes[name] = self._node(known[name], frozenset(needs[name]))
        self._raise_faults()
        changes = [self._change(self._nodes[name]) for name in ordered]
        removed = [name for name, one in self._existing.items() if one.now is not None and name not in self._nodes]
        changes += [self._removal(self._existing[name]) for name in removed]
        warnings = [f"{fault.text} (line {fault.line})" if fault.line else fault.text for fault in self._faults]
        return Plan(nodes=self._nodes, order=tuple(ordered), changes=tuple(changes), warnings=tuple(warnings))

    # --- faults

    def kind_of(self, type: str) -> str:
        """The catalogue's name of a type."""
        return "AWS::CloudFormation::CustomResource" if type.startswith(_CUSTOM) else type

    def _check_kind(self, declared: Declared) -> None:
        if self.kind_of(declared.type) in self._providers:
            return
        text = f"the resource type {declared.type} of {declared.logical_id} is not supported"
        self._faults.append(Fault(text, declared.line, declared.logical_id, unsupported=True))
        if self._lenient:
            self._dropped.add(declared.logical_id)

    def _raise_faults(self) -> None:
        wrong = [fault for fault in self._faults if not fault.unsupported]
        if wrong:
            rest = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise TemplateFault(wrong[0].text + rest, wrong[0].line, logical_id=wrong[0].logical_id)
        if self._faults and not self._lenient:
            texts = [f"{fault.text} (line {fault.line})" if fault.line else fault.text for fault in self._faults]
            raise Unsupported(
                "; ".join(texts),
                remedy="remove it from the template, or deploy with --lenient, which leaves it out and says so",
                line=self._faults[0].line,
                unsupported=texts,
            )

    # --- nodes

    def _node(self, declared: Declared, needs: frozenset[str]) -> Node:
        kind = self.kind_of(declared.type)
        provider = self._providers.get(kind)
        found = self._existing.get(declared.logical_id)
        state = found.now if found is not None else None
        if provider is None:  # already a fault; the rest is looked at all the same, so that all faults are told at once
            return self._unknown_node(declared, needs)
        evaluated = self._evaluate(declared)
        faults = [*_policy_faults(declared), *kinds.check(provider.kind, evaluated, declared.logical_id, declared.line)]
        self._faults += faults
        if any(not fault.unsupported for fault in faults):
            return self._unknown_node(declared, needs)
        properties = self._rewrite(kinds.typed(provider.kind, evaluated))
        token = state.token if state is not None else self._new_token()
        expected = self._expected(provider, declared, properties, state, token)
        if state is not None and not is_pending(properties) and state.type == declared.type:
            replaced = kinds.needs_replacement(provider.kind, state.properties, properties)
            if replaced:
                token = self._new_token()
                expected = self._expected(provider, declared, properties, None, token)
        return Node(
            logical_id=declared.logical_id,
            declared=declared,
            kind=kind,
            needs=needs,
            expected=expected,
            properties=properties,
            deletion_policy=self._policy(declared, "DeletionPolicy", declared.deletion_policy),
            update_replace_policy=self._policy(declared, "UpdateReplacePolicy", declared.update_replace_policy),
            token=token,
        )

    def _policy(self, declared: Declared, name: str, value: Any) -> str:
        found = self.scope.evaluate(value) if isinstance(value, Map) else value
        if found not in ("Delete", "Retain", "RetainExceptOnCreate", "Snapshot"):
            raise TemplateFault(f"Template error: {name} {found!r} is not one")
        if found == "Snapshot":
            text = f"{declared.type} {declared.logical_id}: {name} Snapshot is not supported: say Retain, as --lenient does"
            self._faults.append(Fault(text, declared.line, declared.logical_id, unsupported=True))
        return "Retain" if found == "Snapshot" else str(found)  # with --lenient it is kept, not lost

    def _unknown_node(self, declared: Declared, needs: frozenset[str]) -> Node:
        return Node(
            logical_id=declared.logical_id,
            declared=declared,
            kind="",
            needs=needs,
            expected=Physical(""),
            properties={},
            deletion_policy="Delete",
            update_replace_policy="Delete",
            token="",
            is_dropped=True,
        )

    def _evaluate(self, declared: Declared) -> Any:
        try:
            found = self.scope.evaluate(declared.properties)
        except TemplateFault as fault:
            if fault.logical_id:
                raise
            line = fault.line or declared.line
            raise TemplateFault(fault.text, line, logical_id=declared.logical_id, remedy=fault.remedy) from fault
        except Unsupported as error:
            self._faults.append(Fault(error.message, declared.line, declared.logical_id))
            return Map()
        return Map() if found is NO_VALUE else found

    def _expected(
        self, provider: Provider, declared: Declared, properties: dict[str, Any], state: State | None, token: str
    ) -> Physical:
        """What is there counts; what the provider can tell ahead is used for what is new."""
        if state is not None and state.is_made and state.type == declared.type:
            return Physical(state.physical_id, state.attributes)
        try:
            return provider.identify(self._context(declared.logical_id, token), properties)
        except (KeyError, TypeError, ValueError, MartletError) as error:
            where = "" if declared.logical_id in str(error) else f"{declared.type} {declared.logical_id}: "
            raise TemplateFault(f"{where}{error}", declared.line, logical_id=declared.logical_id) from error

    # --- what names mean while planning

    def _ref(self, logical_id: str) -> Any:
        if logical_id in self._dropped:
            return left_out(logical_id)
        node = self._nodes.get(logical_id)
        if node is None or not node.expected.id:
            return pending(logical_id)
        return node.expected.id

    def _attribute(self, logical_id: str, attribute: str) -> Any:
        if logical_id in self._dropped:
            return left_out(logical_id)
        node = self._nodes.get(logical_id)
        if node is None or node.is_dropped:
            return pending(f"{logical_id}.{attribute}")
        return attribute_of(self._providers[node.kind].kind, logical_id, node.expected, attribute)

    # --- changes

    def _change(self, node: Node) -> Change:
        declared = node.declared
        found = self._existing.get(node.logical_id)
        state = found.now if found is not None else None
        shape = {"logical_id": node.logical_id, "type": declared.type, "line": declared.line}
        if state is None:
            return Change(action="Add", **shape)  # type: ignore[arg-type]
        if state.type != declared.type:
            raise TemplateFault(
                f"Update of resource type is not permitted. The new template modifies resource type of the following "
                f"resources: [{node.logical_id}]",
                declared.line,
                logical_id=node.logical_id,
            )
        kind = self._providers[node.kind].kind
        names = kinds.changed(state.properties, node.properties)
        if not names:
            return Change(action="Keep", physical_id=state.physical_id, **shape)  # type: ignore[arg-type]
        marks = []
        replacement = "False"
        for name in names:
            rule = kind.properties.get(name)
            replaces = rule is not None and rule.replace
            marks.append((name, replaces))
            if replaces:
                unsure = is_pending(node.properties.get(name))
                replacement = "Conditional" if unsure and replacement != "True" else "True"
        return Change(
            action="Modify",
            physical_id=state.physical_id,
            replacement=replacement,  # type: ignore[arg-type]
            properties=tuple(marks),
            **shape,  # type: ignore[arg-type]
        )

    def _removal(self, resource: StoredResource) -> Change:
        state = resource.now
        assert state is not None
        return Change(logical_id=resource.logical_id, type=state.type, action="Remove", physical_id=state.physical_id)


def _policy_faults(declared: Declared) -> list[Fault]:
    """CreationPolicy and UpdatePolicy wait for signals and shift traffic: neither is here."""
    found = []
    for name, policy in (("CreationPolicy", declared.creation_policy), ("UpdatePolicy", declared.update_policy)):
        if policy:
            text = f"{declared.type} {declared.logical_id}: {name} is not supported"
            found.append(Fault(text, declared.line, declared.logical_id, unsupported=True))
    return found


def left_out(logical_id: str) -> str:
    """What names of a resource mean that `--lenient` left out."""
    return f"left-out-{logical_id}"


def metadata_text(declared: Declared) -> str:
    """A resource's Metadata as JSON, "" for none."""
    return json.dumps(declared.metadata, default=str) if declared.metadata is not None else ""
