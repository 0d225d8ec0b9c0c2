"""Values of a model's shapes, made by hypothesis, and botocore's halves of the protocols to hold ours against."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import botocore.loaders
import botocore.parsers
import botocore.serialize
from botocore.awsrequest import HeadersDict
from botocore.model import OperationModel as TheirOperation
from botocore.model import ServiceModel as TheirService
from botocore.utils import percent_encode_sequence
from hypothesis import strategies as st

from martlet.protocols.codec import WireAnswer, WireRequest, load
from martlet.protocols.codec.model import ServiceModel, Shape

DEPTH = 4
# What XML 1.0 can carry and does not normalize, which is also all that the other protocols are asked to carry.
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff", include_characters="\n\t"),
    max_size=12,
)
WORD = st.text("abcXYZ09 ./%+~&=é雪", min_size=1, max_size=8).filter(lambda text: text.strip() == text)
HEADER = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='\\"'), min_size=1, max_size=10)
NAME = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=6)
MOMENTS = st.integers(0, 4_000_000_000).map(lambda seconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}


def values_of(shape: Shape, depth: int = DEPTH) -> st.SearchStrategy[Any]:
    """Any value of a shape in the body."""
    if shape.kind == "structure":
        if shape.document:
            return st.dictionaries(st.text(max_size=4), JSON, max_size=3)
        return structure_of(shape, depth)
    if shape.kind == "list":
        return st.lists(values_of(shape.member, depth - 1), min_size=1, max_size=3 if depth > 0 else 1)
    if shape.kind == "map":
        return st.dictionaries(scalars_of(shape.key), values_of(shape.value, depth - 1), min_size=1, max_size=2)
    return scalars_of(shape)


def scalars_of(shape: Shape, text: st.SearchStrategy[str] = TEXT) -> st.SearchStrategy[Any]:
    if shape.traits.get("jsonvalue"):
        return JSON.filter(lambda value: value is not None)
    if "enum" in shape.traits:
        return st.sampled_from(shape.traits["enum"])
    if shape.kind in RANGES:
        return st.integers(*RANGES[shape.kind])
    if shape.kind in ("float", "double"):
        return st.floats(allow_nan=False, allow_infinity=False, width=32)
    kinds: dict[str, st.SearchStrategy[Any]] = {"boolean": st.booleans(), "blob": st.binary(max_size=8), "timestamp": MOMENTS}
    return kinds.get(shape.kind, text)


def members_of(shape: Shape, answer: bool) -> dict[str, Shape]:
    out_of_reach = [name for name, inner in shape.members.items() if inner.event_stream or inner.location == "statusCode"]
    if answer and shape.payload and shape.members[shape.payload].kind == "blob":
        out_of_reach.append(shape.payload)  # streamed: botocore's parser leaves it to its client
    return {name: inner for name, inner in shape.members.items() if name not in out_of_reach}


def structure_of(shape: Shape, depth: int = DEPTH, *, answer: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Any value of a structure: what is required, and some of the rest; of a union, one member."""
    members = members_of(shape, answer)
    if shape.traits.get("union"):
        return st.sampled_from(sorted(members)).flatmap(
            lambda name: place_of(name, members[name], depth).map(lambda value: {name: value})
        )

    @st.composite
    def draw_members(draw: st.DrawFn) -> dict[str, Any]:
        optional = [name for name in members if name not in shape.required]
        chosen = draw(st.lists(st.sampled_from(optional), max_size=4 if depth > 0 else 0, unique=True)) if optional else []
        if answer and depth == DEPTH:
            chosen = optional if draw(st.booleans()) else chosen
        names = [name for name in members if name in shape.required or name in chosen]
        found = {name: draw(place_of(name, members[name], depth)) for name in names}
        return {name: value for name, value in found.items() if name != shape.payload or value not in (b"", "")}

    return draw_members()


def place_of(name: str, shape: Shape, depth: int) -> st.SearchStrategy[Any]:
    """Any value of a member, as far as the place where it travels can carry it."""
    if shape.location == "uri":
        return scalars_of(shape, WORD)
    if shape.location == "header" and shape.kind == "list":
        return st.lists(scalars_of(shape.member, HEADER.filter(lambda text: "," not in text)), min_size=1, max_size=3)
    if shape.location == "header":
        return scalars_of(shape, HEADER)
    if shape.location == "headers":
        return st.dictionaries(NAME, HEADER, min_size=1, max_size=2)
    if shape.location == "querystring" and shape.kind == "list":
        return st.lists(scalars_of(shape.member, WORD), min_size=1, max_size=3)
    if shape.location == "querystring" and shape.kind != "map":
        return scalars_of(shape, WORD)
    return values_of(shape, depth - 1)


# --- botocore's halves


@cache
def theirs(name: str) -> TheirService:
    loader = botocore.loaders.Loader(include_default_extras=False)  # the service's own model, without the clients' wishes
    return TheirService(loader.load_service_model(name, "service-2"), name)


@cache
def ours(name: str) -> ServiceModel:
    model = load(name)
    assert model is not None
    return model


def serialized(service: str, operation: str, params: dict[str, Any], protocol: str = "") -> WireRequest:
    """The request that botocore sends, as it comes over the wire."""
    model = theirs(service)
    their_operation: TheirOperation = model.operation_model(operation)
    serializer = botocore.serialize.create_serializer(protocol or model.metadata["protocol"], include_validation=False)
    made = serializer.serialize_to_request(params, their_operation)
    path, _, query = made["url_path"].partition("?")
    more = made["query_string"] if isinstance(made["query_string"], str) else percent_encode_sequence(made["query_string"])
    body = made["body"]
    raw = percent_encode_sequence(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    headers = {key.lower(): str(value) for key, value in made["headers"].items()}
    version = f"Credential=K/20260101/us-east-1/{model.signing_name}/aws4_request"
    headers["authorization"] = f"AWS4-HMAC-SHA256 {version}, SignedHeaders=host, Signature=0"
    return WireRequest(
        made["method"], path.encode(), "&".join(part for part in (query, more) if part).encode(), headers, bytes(raw)
    )


def parsed(service: str, operation: str, answer: WireAnswer, protocol: str = "") -> dict[str, Any]:
    """What botocore makes of an answer."""
    model = theirs(service)
    their_operation = model.operation_model(operation)
    parser = botocore.parsers.create_parser(protocol or model.metadata["protocol"])
    response = {
        "status_code": answer.status,
        "headers": HeadersDict(dict(answer.headers)),
        "body": answer.body,
        "context": {"operation_name": operation},
    }
    found: dict[str, Any] = parser.parse(response, their_operation.output_shape)
    return found


def plain(value: Any, *, form: bool = False) -> Any:
    """A value in a form that two sides can be compared in: no empty containers (not every protocol can tell them from
    nothing; a `form` cannot even in a list), times as seconds, floats as text."""
    if isinstance(value, dict):
        items = {str(key): plain(item, form=form) for key, item in value.items() if item is not None}
        return {key: item for key, item in items.items() if item not in ({}, [])}
    if isinstance(value, list):
        return [item for item in (plain(item, form=form) for item in value) if not form or item not in ({}, [])]
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, float):
        return repr(value + 0.0)
    return value


def shown(value: Any) -> str:
    return json.dumps(value, default=repr, indent=1, sort_keys=True)
