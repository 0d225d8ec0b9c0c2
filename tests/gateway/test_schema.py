"""Models: JSON Schema draft 4 as API Gateway checks bodies with it, and schemas that mean harm."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.errors import InvalidInput
from martlet.gateway.schema import Schema, TooMuchWork

CASES: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    ({"type": "object"}, [{}], [[], None, 1, "a"]),
    ({"type": ["integer", "null"]}, [1, None, -3], [1.5, "1", True, 1.0]),
    ({"type": "number"}, [1, 1.5], [True, "1"]),
    ({"enum": [1, "a", None, {"x": [1]}]}, [1, "a", None, {"x": [1]}], [True, "b", {"x": [True]}]),
    ({"minimum": 3, "maximum": 5}, [3, 5, 4.5, "text"], [2.9, 6]),
    ({"minimum": 3, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": True}, [4], [3, 5]),
    ({"multipleOf": 0.1}, [0.3, 1, "x"], [0.35]),
    ({"multipleOf": 3}, [9, 0, -3], [10]),
    ({"minLength": 2, "maxLength": 3}, ["ab", "äöü", 1], ["a", "abcd"]),
    ({"pattern": "b+"}, ["abc", 7], ["ac"]),
    ({"pattern": "^(?=.*[A-Z])(?!.*x)[A-Za-z]{3,}$"}, ["abC"], ["abc", "aBx", "aB"]),
    ({"items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], ["a"], [1, 2, 3]]),
    ({"items": [{"type": "integer"}], "additionalItems": False}, [[1], []], [[1, 2], ["a"]]),
    ({"items": [{}], "additionalItems": {"type": "string"}}, [[1, "a"]], [[1, 2]]),
    ({"uniqueItems": True}, [[1, True, "1"], [{"a": 1}, {"a": 2}]], [[1, 1.0], [{"a": 1}, {"a": 1}]]),
    ({"required": ["a"]}, [{"a": None}, []], [{}]),
    ({"properties": {"a": {"type": "string"}}}, [{"a": "x", "b": 1}, {}], [{"a": 1}]),
    ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}], [{"b": 1}]),
    ({"additionalProperties": {"type": "integer"}}, [{"b": 1}], [{"b": "x"}]),
    ({"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False}, [{"x-a": "1"}], [{"x-a": 1}, {"y": 1}]),
    ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
    ({"dependencies": {"a": ["b"], "c": {"required": ["d"]}}}, [{"a": 1, "b": 1}, {}], [{"a": 1}, {"c": 1}]),
    ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1], [3]),
    ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["a", 6], [1]),
    ({"oneOf": [{"minimum": 1}, {"maximum": 3}]}, [0, 4], [2]),
    ({"not": {"type": "string"}}, [1], ["a"]),
    ({"format": "date-time", "title": "t", "default": 1, "x-unknown": 1}, ["anything"], []),
    ({"definitions": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/definitions/n"}}}, [{"a": 1}], [{"a": "x"}]),
    (
        {"properties": {"child": {"$ref": "#"}, "v": {"type": "integer"}}},
        [{"child": {"child": {"v": 1}}}],
        [{"child": {"v": "x"}}],
    ),
    ({"required": True}, [{}], []),
]


@pytest.mark.parametrize(("schema", "good", "bad"), CASES)
def test_keywords(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    compiled = Schema(schema)
    assert [value for value in good if not compiled.valid(value)] == []
    assert [value for value in bad if compiled.valid(value)] == []


@pytest.mark.parametrize(
    "reference",
    ["https://apigateway.amazonaws.com/restapis/abc/models/Pet", "#/definitions/Pet", "#/components/schemas/Pet"],
)
def test_models_refer_to_models(reference: str) -> None:
    models = {"Pet": {"type": "object", "required": ["name"], "properties": {"friend": {"$ref": "#/definitions/Pet"}}}}
    schema = Schema({"type": "array", "items": {"$ref": reference}}, models)
    assert schema.valid([{"name": "a", "friend": {"name": "b"}}])
    assert not schema.valid([{"name": "a", "friend": {}}])


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#/nowhere/at/all"}, "leads nowhere"),
        ({"$ref": "https://apigateway.amazonaws.com/restapis/a/models/Nope"}, "no such model"),
        ({"$ref": 7}, "not text"),
        ({"type": "strnig"}, "strnig"),
        ({"pattern": "(a"}, "pattern"),
        ({"pattern": "a(?=b)"}, "look-around|invalid perl"),
        ({"pattern": r"(a)\1"}, "invalid escape|back-ref"),
        ({"minLength": -1}, "minLength"),
        ({"anyOf": []}, "anyOf"),
        ({"properties": []}, "properties|object"),
        ([], "object"),
        ({"multipleOf": 0}, "multipleOf"),
    ],
)
def test_a_malformed_model_is_refused_when_it_is_compiled(schema: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Schema(schema)


def test_exponential_schemas_are_given_up() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(30):
        schema = {"anyOf": [{"allOf": [schema, {"not": {}}]}, {"allOf": [schema, {"not": {}}]}]}
    with pytest.raises(TooMuchWork):
        Schema(schema).valid("x")


def test_deep_bodies_and_endless_references_are_given_up() -> None:
    body: Any = {}
    for _ in range(500):
        body = {"child": body}
    with pytest.raises(TooMuchWork):
        Schema({"properties": {"child": {"$ref": "#"}}}).valid(body)
    with pytest.raises(TooMuchWork):
        Schema({"allOf": [{"$ref": "#"}]}).valid(1)


def test_unique_items_of_a_large_list_is_bounded() -> None:
    with pytest.raises(TooMuchWork):
        Schema({"uniqueItems": True}).valid(list(range(5000)))


def test_patterns_do_not_backtrack() -> None:
    assert not Schema({"pattern": "^(a+)+$"}).valid("a" * 50_000 + "!")
