"""From a template's text and parameters to resources that are ready to be planned: read, include, loops, SAM, conditions.

Pure but for what it is given: `load` reads a file that the template names, `artifacts` turns local code into an address,
`translate` is SAM's translator, `matches` a matcher with a time limit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from martlet.apps.stacks import language
from martlet.apps.stacks.intrinsics import Scope
from martlet.apps.stacks.parameters import Parameter, declare, resolve
from martlet.apps.stacks.reading import Map, TemplateFault, line_of, read
from martlet.apps.stacks.references import check_names
from martlet.apps.stacks.rules import check_rules
from martlet.apps.stacks.template import Declared, Template, parse
from martlet.errors import MartletError, Unsupported

__all__ = ["CODE_BUCKET", "Artifact", "Compiled", "Environment", "compile_template"]

CODE_BUCKET: Final = "martlet-code"  # stands for the platform's own content-addressed code; keys are addresses
_CODE: Final = {  # type -> (property that may be a local path, what is there)
    "AWS::Serverless::Function": ("CodeUri", "function"),
    "AWS::Serverless::LayerVersion": ("ContentUri", "layer"),
    "AWS::Lambda::Function": ("Code", "function"),
    "AWS::Lambda::LayerVersion": ("Content", "layer"),
    "AWS::Serverless::Api": ("DefinitionUri", "document"),
    "AWS::Serverless::HttpApi": ("DefinitionUri", "document"),
    "AWS::Serverless::StateMachine": ("DefinitionUri", "document"),
    "AWS::ApiGateway::RestApi": ("BodyS3Location", "document"),
    "AWS::ApiGatewayV2::Api": ("BodyS3Location", "document"),
}
_BODIES: Final = {"DefinitionUri": "DefinitionBody", "BodyS3Location": "Body"}


# (resource, its code, evaluate) -> the local path of code that a packaging tool left beside the template
Asset = Callable[[Mapping[str, Any], Mapping[str, Any], Callable[[Any], Any]], str | None]


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """Local code that a template names. `build` is Metadata.BuildMethod, "" for none."""

    logical_id: str
    what: str  # "function" or "layer"
    location: str
    runtime: str = ""
    architecture: str = ""
    handler: str = ""
    build: str = ""
    metadata: Any = None
    line: int = 0


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What compiling needs from outside."""

    pseudo: Mapping[str, Any]
    load: language.Load  # (location, line) -> bytes
    package: Callable[[Artifact], Awaitable[str]]  # -> the address of the code
    translate: Callable[[Map, dict[str, Any]], Awaitable[Map]]
    matches: Callable[[str, str], Awaitable[bool]]
    imported: Callable[[str], Any]  # exports by name; raises TemplateFault
    local: bool = False  # whether paths of the template mean anything
    asset: Asset = lambda raw, code, evaluate: None
    stored: Callable[[str], Awaitable[str]] | None = None  # a parameter of Systems Manager; raises MartletError


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A template with every transform applied and its parameters resolved."""

    template: Template
    declared: dict[str, Parameter]
    parameters: dict[str, str | list[str]]
    given: dict[str, str]
    conditions: dict[str, bool]
    active: dict[str, Declared]  # resources whose condition holds
    transforms: tuple[str, ...]
    is_language: bool

    def scope(
        self,
        pseudo: Mapping[str, Any],
        ref: Callable[[str], Any],
        attribute: Callable[[str, str], Any],
        imported: Callable[[str], Any],
    ) -> Scope:
        """A scope in which the template's values can be evaluated; `ref` and `attribute` answer for resources."""
        return Scope(
            parameters=self.parameters,
            pseudo=pseudo,
            mappings=self.template.mappings,
            conditions=self.template.conditions,
            ref=ref,
            attribute=attribute,
            imported=imported,
            resources=self.template.resources,
            language=self.is_language,
        )


async def compile_template(text: str | bytes | Map, given: Mapping[str, str], environment: Environment) -> Compiled:
    """Read `text` and apply its transforms. Raises `TemplateFault`, `LimitExceeded`, `Unsupported`."""
    body = text if isinstance(text, Map) else read(text)
    section = body.get("Parameters")
    if section is not None and not isinstance(section, Map):
        raise TemplateFault("Template format error: Parameters must be an object.", line_of(body, "Parameters"))
    declared = declare(section if section is not None else Map())
    parameters = await _resolve(declared, given, environment)
    for name, one in declared.items():
        if one.is_stored:
            parameters[name] = await _stored(one, str(parameters[name]), environment)
    scope = _parameter_scope(body, parameters, environment)
    body = language.include(body, environment.load, scope)
    first = body.get("Transform")
    transforms = language.transform_names(() if first is None else tuple(first) if isinstance(first, list) else (first,))
    is_language = language.LANGUAGE in transforms
    if is_language:
        body = language.expand_loops(body, _parameter_scope(body, parameters, environment, language_extensions=True))
    else:
        _refuse_loops(body)
    scope = _parameter_scope(body, parameters, environment, language_extensions=is_language)
    await _package(body, scope, environment)
    if language.SERVERLESS in transforms:
        _refuse_applications(body)
        parse(body)  # faults of shape in our words and with their lines, before the translator's
        body = await environment.translate(body, _texts(declared, given))
    else:
        _refuse_serverless(body)
    template = parse(body)
    check_names(template)
    return _decide(template, declared, parameters, dict(given), transforms, is_language, environment)


def _decide(
    template: Template,
    declared: dict[str, Parameter],
    parameters: dict[str, str | list[str]],
    given: dict[str, str],
    transforms: list[str],
    is_language: bool,
    environment: Environment,
) -> Compiled:
    scope = _parameter_scope(template.body, parameters, environment, language_extensions=is_language)
    check_rules(template.rules, scope)
    conditions = scope.conditions()
    active = {name: one for name, one in template.resources.items() if not one.condition or conditions[one.condition]}
    return Compiled(
        template=template,
        declared=declared,
        parameters=parameters,
        given=given,
        conditions=conditions,
        active=active,
        transforms=tuple(transforms),
        is_language=is_language,
    )


async def _resolve(
    declared: dict[str, Parameter], given: Mapping[str, str], environment: Environment
) -> dict[str, str | list[str]]:
    """Patterns are matched one after the other where a time limit holds; the rest is `parameters.resolve`'s."""
    verdicts: dict[tuple[str, str], bool | ValueError] = {}
    asked: list[tuple[str, str]] = []

    def matches(pattern: str, value: str) -> bool:
        verdict = verdicts.get((pattern, value))
        if verdict is None:
            asked.append((pattern, value))
            return True
        if isinstance(verdict, ValueError):
            raise verdict
        return verdict

    while True:
        asked.clear()
        resolved = resolve(declared, given, matches)
        if not asked:
            return resolved
        for pattern, value in asked:
            try:
                verdicts[pattern, value] = await environment.matches(pattern, value)
            except ValueError as error:
                verdicts[pattern, value] = error


async def _stored(parameter: Parameter, name: str, environment: Environment) -> str | list[str]:
    """The value that Systems Manager keeps under the name that the parameter was given."""
    if environment.stored is None:
        raise TemplateFault(f"parameter {parameter.name}: there are no Systems Manager parameters here", parameter.line)
    try:
        text = await environment.stored(name)
    except MartletError as error:
        what = f"parameter {parameter.name}: cannot read the Systems Manager parameter {name!r}: {error.message}"
        raise TemplateFault(what, parameter.line, remedy=f"make it (aws ssm put-parameter --name {name} …)") from error
    return [one.strip() for one in text.split(",")] if parameter.is_stored_list else text


def _texts(declared: dict[str, Parameter], given: Mapping[str, str]) -> dict[str, Any]:
    return {name: given.get(name, one.default) for name, one in declared.items()}


def _parameter_scope(
    body: Map, parameters: dict[str, Any], environment: Environment, *, language_extensions: bool = True
) -> Scope:
    """A scope without resources: for what must be known before there are any."""

    def no_resource(*_: str) -> Any:
        raise TemplateFault("Template error: a resource cannot be used here")

    mappings, conditions = body.get("Mappings"), body.get("Conditions")
    return Scope(
        parameters=parameters,
        pseudo=environment.pseudo,
        mappings=mappings if isinstance(mappings, Map) else Map(),
        conditions=conditions if isinstance(conditions, Map) else Map(),
        ref=no_resource,
        attribute=no_resource,
        imported=environment.imported,
        language=language_extensions,
    )


def _refuse_loops(body: Map) -> None:
    for section in ("Resources", "Conditions", "Outputs", "Mappings"):
        for key in body.get(section) or ():
            if str(key).startswith("Fn::ForEach::"):
                raise TemplateFault(
                    f"Template error: {key} needs the transform AWS::LanguageExtensions",
                    line_of(body[section], key),
                    remedy="add it under Transform",
                )


def _refuse_applications(body: Map) -> None:
    resources = body.get("Resources")
    for name, raw in resources.items() if isinstance(resources, Map) else ():
        properties = raw.get("Properties") if isinstance(raw, Map) else None
        if not isinstance(properties, Map) or raw.get("Type") != "AWS::Serverless::Application":
            continue
        if isinstance(properties.get("Location"), dict):
            raise Unsupported(
                f"{name}: applications of the Serverless Application Repository are not supported",
                remedy="copy its template beside yours, and name it as Location",
                line=line_of(properties, "Location"),
            )


def _refuse_serverless(body: Map) -> None:
    resources = body.get("Resources")
    if not isinstance(resources, Map):
        return
    for name, raw in resources.items():
        kind = raw.get("Type") if isinstance(raw, dict) else None
        if isinstance(kind, str) and kind.startswith("AWS::Serverless::"):
            raise TemplateFault(
                f"Template format error: Unrecognized resource types: [{kind}]",
                line_of(raw, "Type"),
                logical_id=name,
                remedy="add at the top: Transform: AWS::Serverless-2016-10-31",
            )


# --- local code


async def _package(body: Map, scope: Scope, environment: Environment) -> None:
    """Replace the paths of local code by addresses in the platform's own store of code, where the template has its own."""
    resources = body.get("Resources")
    if not isinstance(resources, Map):
        return
    shared = body.get("Globals")
    functions = shared.get("Function") if isinstance(shared, dict) else None
    inherited: Map = functions if isinstance(functions, Map) else Map()
    wanted: list[tuple[Map, str, Artifact]] = []
    for logical_id, raw in resources.items():
        kind = raw.get("Type") if isinstance(raw, Map) else None
        if not isinstance(kind, str) or kind not in _CODE:
            continue
        properties = raw.get("Properties")
        if properties is None:
            properties = raw["Properties"] = Map(line=line_of(resources, logical_id))
        if not isinstance(properties, Map):
            continue
        name, what = _CODE[raw["Type"]]
        if what == "document":
            body_name = "Definition" if kind == "AWS::Serverless::StateMachine" else _BODIES[name]
            _inline_document(properties, name, body_name, environment)
            continue
        if environment.local and kind == "AWS::Serverless::Function" and _is_image(properties, inherited):
            properties.setdefault(
                "ImageUri", "local"
            )  # so that what is said is that images are not run, not that one is missing
        location = _location(raw["Type"], name, properties, inherited, environment.local)
        found = properties.get(name)
        if isinstance(found, Map) and ("S3Key" in found or "S3Bucket" in found):
            location = _uploaded(raw, found, scope, environment)
        if location is not None:
            artifact = _artifact(logical_id, raw, what, location, inherited, scope)
            wanted.append((properties, name, artifact))
    if isinstance(inherited.get("CodeUri"), str) and environment.local:
        del inherited["CodeUri"]  # every function has its own address now
    for properties, name, artifact in wanted:
        address = await environment.package(artifact)
        sam = name in ("CodeUri", "ContentUri")
        line = line_of(properties, name)
        properties[name] = f"s3://{CODE_BUCKET}/{address}" if sam else Map({"S3Bucket": CODE_BUCKET, "S3Key": address}, line)
        properties.lines.setdefault(name, line)


def _location(kind: str, name: str, properties: Map, inherited: Map, local: bool) -> str | None:
    """The local path of a resource's code; None where it is none: inline, an image, or already somewhere else."""
    found = properties.get(name)
    if kind == "AWS::Serverless::Function" and found is None:
        if "InlineCode" in properties or "ImageUri" in properties or str(properties.get("PackageType")) == "Image":
            return None
        found = inherited.get(name)
        if found is None and local and not (str(inherited.get("PackageType")) == "Image" or "ImageUri" in inherited):
            return "."  # as `sam build` does
    if not isinstance(found, str) or found.startswith(("s3://", "https://")):
        return None
    if not local:
        raise TemplateFault(
            f"'{name}' is not a valid S3 Uri of the form 's3://bucket/key' with optional versionId query parameter.",
            line_of(properties, name),
            remedy="a local path works with `martlet deploy` and `martlet up`, which see your files",
        )
    return found


def _uploaded(raw: Map, code: Map, scope: Scope, environment: Environment) -> str | None:
    """Code that is said to be in a bucket, where a packaging tool has left it beside the template; None: it is there."""
    if code.get("S3Bucket") == CODE_BUCKET:
        return None
    return environment.asset(raw, code, scope.evaluate)


def _artifact(logical_id: str, raw: Map, what: str, location: str, inherited: Map, scope: Scope) -> Artifact:
    properties = raw["Properties"]
    metadata = raw.get("Metadata")

    def text(name: str) -> str:
        value = properties.get(name, inherited.get(name) if what == "function" else None)
        if isinstance(value, list):
            value = value[0] if value else None
        if value is None:
            return ""
        try:
            return str(scope.evaluate(value))
        except TemplateFault:
            return ""  # it hangs on a resource; the build then goes by what is in the folder

    build = metadata.get("BuildMethod") if isinstance(metadata, dict) else None
    return Artifact(
        logical_id=logical_id,
        what=what,
        location=location,
        runtime=text("Runtime"),
        architecture=text("Architectures"),
        handler=text("Handler"),
        build=build if isinstance(build, str) else "",
        metadata=metadata,
        line=line_of(properties, _CODE[raw["Type"]][0]),
    )


def _is_image(properties: Map, inherited: Map) -> bool:
    return str(properties.get("PackageType", inherited.get("PackageType"))) == "Image"


def _inline_document(properties: Map, name: str, body: str, environment: Environment) -> None:
    location = properties.get(name)
    if not isinstance(location, str) or location.startswith(("s3://", "https://")) or not environment.local:
        return
    line = line_of(properties, name)
    document = read(environment.load(location, line))
    del properties[name]
    properties[body] = document
    properties.lines[body] = line
