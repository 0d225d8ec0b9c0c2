"""A template's sections, checked for shape. Pure; nothing is evaluated here.

The texts of faults are CloudFormation's own where it has one for the case.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from martlet.apps.stacks.reading import Map, Seq, TemplateFault, line_of
from martlet.limits import LIMITS, exceeded

__all__ = ["Declared", "Template", "parse"]

_SECTIONS: Final = frozenset(
    {
        "AWSTemplateFormatVersion", "Conditions", "Description", "Globals", "Hooks", "Mappings", "Metadata", "Outputs",
        "Parameters", "Resources", "Rules", "Transform",
    }
)  # fmt: skip
_MEMBERS: Final = frozenset(
    {
        "Condition", "Connectors", "CreationPolicy", "DeletionPolicy", "DependsOn", "Description", "IgnoreGlobals", "Metadata",
        "Properties", "Type", "UpdatePolicy", "UpdateReplacePolicy", "Version",
    }
)  # fmt: skip
_LOGICAL_ID: Final = re.compile(r"[A-Za-z0-9]{1,255}")
_DELETION: Final = ("Delete", "Retain", "RetainExceptOnCreate", "Snapshot")
_VERSION: Final = "2010-09-09"


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """A resource as the template declares it, nothing evaluated."""

    logical_id: str
    type: str
    properties: Map
    depends_on: tuple[str, ...] = ()
    condition: str = ""
    deletion_policy: Any = "Delete"
    update_replace_policy: Any = "Delete"
    metadata: Any = None
    creation_policy: Any = None
    update_policy: Any = None
    line: int = 0


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template's sections. Members of `parameters`, `conditions`, `mappings` and `outputs` are as they stand."""

    body: Map
    description: str
    transforms: tuple[Any, ...]
    parameters: Map
    mappings: Map
    conditions: Map
    rules: Map
    resources: dict[str, Declared]
    outputs: Map
    metadata: Map


def parse(body: Map) -> Template:
    """Check the sections of `body`. Raises `TemplateFault`, `LimitExceeded` (stack_resources, stack_outputs, …)."""
    unknown = [key for key in body if key not in _SECTIONS]
    if unknown:
        line = line_of(body, unknown[0])
        raise TemplateFault(f"Invalid template property or properties [{', '.join(unknown)}]", line)
    version = body.get("AWSTemplateFormatVersion", _VERSION)
    if str(version) != _VERSION:
        line = line_of(body, "AWSTemplateFormatVersion")
        raise TemplateFault("Template format error: unsupported value for AWSTemplateFormatVersion.", line)
    description = body.get("Description", "")
    if not isinstance(description, str):
        raise TemplateFault("Template format error: Description must be a string.", line_of(body, "Description"))
    if len(description.encode()) > LIMITS["template_description_bytes"].default:
        raise exceeded("template_description_bytes", len(description.encode()), "Description")
    resources = _resources(body)
    return Template(
        body=body,
        description=description,
        transforms=_transforms(body),
        parameters=_section(body, "Parameters", "stack_parameters"),
        mappings=_mappings(body),
        conditions=_section(body, "Conditions"),
        rules=_section(body, "Rules"),
        resources=resources,
        outputs=_outputs(body),
        metadata=_section(body, "Metadata"),
    )


def _section(body: Map, name: str, limit: str = "") -> Map:
    found = body.get(name)
    if found is None:
        return Map(line=line_of(body, name))
    if not isinstance(found, Map):
        raise TemplateFault(f"Template format error: {name} must be an object.", line_of(body, name))
    if limit and len(found) > LIMITS[limit].default:
        raise exceeded(limit, len(found), f"{name}, line {found.line}")
    return found


def _transforms(body: Map) -> tuple[Any, ...]:
    found = body.get("Transform")
    if found is None:
        return ()
    listed = found if isinstance(found, Seq) else [found]
    for one in listed:
        if not isinstance(one, str | Map):
            raise TemplateFault("Template format error: Transform must be a string or a list.", line_of(body, "Transform"))
    return tuple(listed)


def _mappings(body: Map) -> Map:
    found = _section(body, "Mappings", "stack_mappings")
    for name, tops in found.items():
        if name == "Fn::Transform" or name.startswith("Fn::ForEach::"):
            continue
        if not isinstance(tops, Map):
            raise TemplateFault(f"Template format error: Every Mappings member {name} must be a map", line_of(found, name))
        for top, seconds in tops.items():
            if top != "Fn::Transform" and not isinstance(seconds, Map):
                raise TemplateFault(
                    f"Template format error: Every Mappings attribute must be a map of maps: {name}.{top}", line_of(tops, top)
                )
    return found


def _outputs(body: Map) -> Map:
    found = _section(body, "Outputs", "stack_outputs")
    for name, output in found.items():
        if name.startswith("Fn::ForEach::") or name == "Fn::Transform":
            continue
        line = line_of(found, name)
        if not _LOGICAL_ID.fullmatch(name):
            raise TemplateFault(f"Template format error: Output name '{name}' is non alphanumeric.", line)
        if not isinstance(output, Map):
            raise TemplateFault(f"Template format error: Output {name} is malformed. Its value must be an object.", line)
        if "Value" not in output:
            raise TemplateFault(
                f"Template format error: [/Outputs/{name}] Every Outputs member must contain a Value object", line
            )
        extra = [key for key in output if key not in ("Value", "Description", "Export", "Condition")]
        if extra:
            raise TemplateFault(f"Template format error: Output {name} is malformed: {extra[0]}", line_of(output, extra[0]))
        export = output.get("Export")
        if export is not None and (not isinstance(export, Map) or set(export) != {"Name"}):
            raise TemplateFault(f"Template format error: Output {name} is malformed: Export needs a Name", line)
    return found


def _resources(body: Map) -> dict[str, Declared]:
    found = body.get("Resources")
    if not isinstance(found, Map):
        raise TemplateFault(
            "Template format error: At least one Resources member must be defined."
            if found is None
            else "Template format error: Resources must be an object.",
            line_of(body, "Resources"),
        )
    if not found:
        raise TemplateFault("Template format error: At least one Resources member must be defined.", found.line)
    if len(found) > LIMITS["stack_resources"].default:
        raise exceeded("stack_resources", len(found), f"Resources, line {found.line}")
    declared: dict[str, Declared] = {}
    for logical_id, raw in found.items():
        if logical_id.startswith("Fn::"):
            continue  # expanded by the transforms; what is left of them afterwards is refused there
        declared[logical_id] = _resource(logical_id, raw, line_of(found, logical_id))
    return declared


def _resource(logical_id: str, raw: Any, line: int) -> Declared:
    if not _LOGICAL_ID.fullmatch(logical_id):
        raise TemplateFault(
            f"Template format error: Resource name {logical_id} is non alphanumeric.", line, logical_id=logical_id
        )
    if not isinstance(raw, Map):
        raise TemplateFault(
            f"Template format error: [/Resources/{logical_id}] resource definition is malformed", line, logical_id=logical_id
        )
    kind = raw.get("Type")
    if kind is None:
        raise TemplateFault(
            f"Template format error: [/Resources/{logical_id}] Every Resources object must contain a Type member.",
            line,
            logical_id=logical_id,
        )
    if not isinstance(kind, str):
        raise TemplateFault(
            f"Template format error: [/Resources/{logical_id}/Type] 'null' values are not allowed in templates"
            if kind is None
            else f"Template format error: [/Resources/{logical_id}/Type] Type must be a string",
            line_of(raw, "Type"),
            logical_id=logical_id,
        )
    unknown = [key for key in raw if key not in _MEMBERS]
    if unknown:
        raise TemplateFault(
            f"Invalid template resource property '{unknown[0]}'", line_of(raw, unknown[0]), logical_id=logical_id
        )
    properties = raw.get("Properties")
    if properties is None:
        properties = Map(line=line)
    if not isinstance(properties, Map):
        raise TemplateFault(
            f"Template format error: [/Resources/{logical_id}/Properties] Properties must be an object",
            line_of(raw, "Properties"),
            logical_id=logical_id,
        )
    condition = raw.get("Condition", "")
    if not isinstance(condition, str):
        raise TemplateFault(
            f"Template format error: [/Resources/{logical_id}/Condition] Condition must be a string",
            line_of(raw, "Condition"),
            logical_id=logical_id,
        )
    return Declared(
        logical_id=logical_id,
        type=kind,
        properties=properties,
        depends_on=_depends_on(logical_id, raw),
        condition=condition,
        deletion_policy=_policy(logical_id, raw, "DeletionPolicy"),
        update_replace_policy=_policy(logical_id, raw, "UpdateReplacePolicy"),
        metadata=raw.get("Metadata"),
        creation_policy=raw.get("CreationPolicy"),
        update_policy=raw.get("UpdatePolicy"),
        line=line,
    )


def _depends_on(logical_id: str, raw: Map) -> tuple[str, ...]:
    found = raw.get("DependsOn")
    if found is None:
        return ()
    listed = found if isinstance(found, Seq) else [found]
    if not all(isinstance(one, str) for one in listed):
        raise TemplateFault(
            f"Template format error: [/Resources/{logical_id}/DependsOn] DependsOn must be a string or list of strings.",
            line_of(raw, "DependsOn"),
            logical_id=logical_id,
        )
    return tuple(dict.fromkeys(listed))


def _policy(logical_id: str, raw: Map, name: str) -> Any:
    found = raw.get(name, "Delete")
    allowed = _DELETION if name == "DeletionPolicy" else ("Delete", "Retain", "Snapshot")
    if isinstance(found, Map):
        return found  # an intrinsic, taken with AWS::LanguageExtensions
    if found not in allowed:
        raise TemplateFault(
            f"Template error: every {name} member must be one of [{', '.join(allowed)}], {logical_id} has {found!r}",
            line_of(raw, name),
            logical_id=logical_id,
        )
    return found
