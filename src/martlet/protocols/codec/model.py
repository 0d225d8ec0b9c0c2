"""AWS's public service models, read from botocore's data files without importing botocore.

botocore is a dependency for this data only: importing it costs 150 ms and 56 MB. A model is read when its service is first
asked for (1 to 40 ms) and kept; its prose is dropped at once.
"""

from __future__ import annotations

import gzip
import importlib.util
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import orjson

from martlet.errors import StartFailed

__all__ = ["OperationModel", "ServiceModel", "Shape", "load", "method_name"]

_WORD = re.compile(r"OTel|[A-Z]{2,}s$|[A-Z]+[0-9]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+[0-9]*|[0-9]+")
_NOT_TRAITS = frozenset({"shape", "documentation", "members", "member", "key", "value", "type"})


class Shape:
    """A shape as one place of the model refers to it: the traits of the reference over those of the shape.

    There is one object for each pair of shape and differing traits, so that what is compiled for it can be kept by identity.
    `kind` is the model's type: structure, list, map, string, integer, long, float, double, boolean, timestamp, blob …
    """

    def __init__(self, service: ServiceModel, name: str, definition: dict[str, Any], traits: dict[str, Any]) -> None:
        self._service = service
        self._definition = definition
        self.name = name
        self.kind: str = definition["type"]
        self.traits = traits

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    @cached_property
    def members(self) -> dict[str, Shape]:
        """Of a structure."""
        return {name: self._service.shape(reference) for name, reference in self._definition.get("members", {}).items()}

    @cached_property
    def member(self) -> Shape:
        """Of a list."""
        return self._service.shape(self._definition["member"])

    @cached_property
    def key(self) -> Shape:
        """Of a map."""
        return self._service.shape(self._definition["key"])

    @cached_property
    def value(self) -> Shape:
        """Of a map."""
        return self._service.shape(self._definition["value"])

    @property
    def required(self) -> list[str]:
        found: list[str] = self.traits.get("required", [])
        return found

    @property
    def location(self) -> str:
        """Where a REST protocol carries it: uri, querystring, header, headers, statusCode; "" in the body."""
        return str(self.traits.get("location", ""))

    @property
    def payload(self) -> str:
        """The member of a structure that is the whole body, or ""."""
        return str(self.traits.get("payload", ""))

    @property
    def flattened(self) -> bool:
        return bool(self.traits.get("flattened"))

    @property
    def document(self) -> bool:
        """Any JSON value."""
        return bool(self.traits.get("document"))

    @property
    def event_stream(self) -> bool:
        return bool(self.traits.get("eventstream"))

    def wire_name(self, member: str) -> str:
        return str(self.traits.get("locationName", member))

    def stream_member(self) -> tuple[str, Shape] | None:
        """The member of a structure that is an event stream."""
        return next(((name, shape) for name, shape in self.members.items() if shape.event_stream), None)


class OperationModel:
    """One operation of a service."""

    def __init__(self, service: ServiceModel, name: str, definition: dict[str, Any]) -> None:
        self.service = service
        self.name = name
        self.method_name = method_name(name)
        self.http_method: str = definition.get("http", {}).get("method", "POST")
        self.uri: str = definition.get("http", {}).get("requestUri", "/")
        self.http_status = int(definition.get("http", {}).get("responseCode", 200))
        self.deprecated = bool(definition.get("deprecated"))
        self.compressed = "requestcompression" in definition
        self.anonymous = definition.get("authtype") == "none"
        self._definition = definition

    def __repr__(self) -> str:
        return f"<{self.service.name}:{self.name}>"

    @cached_property
    def input(self) -> Shape | None:
        return self._referred("input")

    @cached_property
    def output(self) -> Shape | None:
        return self._referred("output")

    @cached_property
    def errors(self) -> tuple[Shape, ...]:
        return tuple(self.service.shape(reference) for reference in self._definition.get("errors", ()))

    def _referred(self, name: str) -> Shape | None:
        reference = self._definition.get(name)
        return None if reference is None else self.service.shape(reference)


class ServiceModel:
    """One service. `name` is boto3's (also the folder of the data), `signing_name` the one in credential scopes."""

    def __init__(self, name: str, definition: dict[str, Any]) -> None:
        metadata = definition["metadata"]
        self.name = name
        self.metadata: dict[str, Any] = metadata
        self.protocol: str = metadata["protocol"]
        self.api_version: str = metadata.get("apiVersion", "")
        self.json_version: str = metadata.get("jsonVersion", "1.0")
        self.target_prefix: str = metadata.get("targetPrefix", "")
        self.signing_name: str = metadata.get("signingName", metadata.get("endpointPrefix", name))
        self.namespace = _uri(metadata.get("xmlNamespace"))
        self.query_compatible = "awsQueryCompatible" in metadata
        self._shapes: dict[str, Any] = definition.get("shapes", {})
        self._made: dict[tuple[str, bytes], Shape] = {}
        self.operations = {key: OperationModel(self, key, value) for key, value in definition["operations"].items()}

    def shape(self, reference: dict[str, Any]) -> Shape:
        """The shape that a reference {"shape": name, traits …} means."""
        name = reference["shape"]
        own = {key: value for key, value in reference.items() if key not in _NOT_TRAITS}
        identity = (name, orjson.dumps(own, option=orjson.OPT_SORT_KEYS))
        found = self._made.get(identity)
        if found is None:
            definition = self._shapes[name]
            traits = {key: value for key, value in definition.items() if key not in _NOT_TRAITS}
            found = self._made[identity] = Shape(self, name, definition, {**traits, **own})
        return found

    @cached_property
    def exceptions(self) -> dict[str, Shape]:
        """Every error's shape, by the name on the wire and by the shape's own."""
        found: dict[str, Shape] = {}
        for name in self._shapes:
            if self._shapes[name].get("exception") or "error" in self._shapes[name]:
                shape = self.shape({"shape": name})
                found[name] = shape
                found.setdefault(error_code(shape), shape)
        return found

    def exception(self, operation: OperationModel | None, code: str) -> Shape | None:
        """The shape of error `code`; the operation's own goes first where two share a code."""
        if operation is not None:
            for shape in operation.errors:
                if code in (shape.name, error_code(shape)):
                    return shape
        return self.exceptions.get(code)


def error_code(shape: Shape) -> str:
    """The name of an error on the wire of the query and XML protocols."""
    return str(shape.traits.get("error", {}).get("code", shape.name))


def method_name(operation: str) -> str:
    """The operation's name in snake_case, as boto3 spells its methods: "ListMFADevices" is "list_mfa_devices"."""
    words = [word.lower() for word in _WORD.findall(operation)]
    return "_".join(words)


def load(name: str) -> ServiceModel | None:
    """The newest model of service `name`, or None if botocore has none. Blocks; raises `StartFailed` without botocore."""
    return _loaded(name) if name in _known() else None


@cache
def _known() -> frozenset[str]:
    return frozenset(folder.name for folder in data_folder().iterdir() if folder.is_dir())


@cache
def _loaded(name: str) -> ServiceModel | None:
    for version in sorted((data_folder() / name).iterdir(), reverse=True):
        for path in (version / "service-2.json.gz", version / "service-2.json"):
            if path.is_file():
                raw = path.read_bytes()
                definition = orjson.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
                return ServiceModel(name, _without_prose(definition))
    return None


@cache
def data_folder() -> Path:
    """Where botocore keeps its models."""
    spec = importlib.util.find_spec("botocore")  # of a top-level package: looks, and runs nothing of it
    for location in (spec.submodule_search_locations or ()) if spec else ():
        return Path(location) / "data"
    raise StartFailed("botocore is not installed, whose service models the AWS protocols need", remedy="pip install botocore")


def _without_prose(definition: dict[str, Any]) -> dict[str, Any]:
    for holder in _holders(definition):
        holder.pop("documentation", None)
    return definition


def _holders(definition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from definition["operations"].values()
    for shape in definition.get("shapes", {}).values():
        yield shape
        yield from shape.get("members", {}).values()
        for part in ("member", "key", "value"):
            if part in shape:
                yield shape[part]


def _uri(namespace: object) -> str:
    if isinstance(namespace, dict):
        return str(namespace.get("uri", ""))
    return str(namespace or "")
