"""Templates as text: lines, short tags, and what is refused."""

from __future__ import annotations

import json

import pytest

from martlet.apps.stacks.reading import Map, TemplateFault, line_of, read
from martlet.apps.stacks.template import parse
from martlet.errors import LimitExceeded


def test_values_remember_their_lines():
    body = read("Resources:\n  A:\n    Type: X\n    Properties:\n      List:\n        - 1\n        - b: 2\n")
    a = body["Resources"]["A"]
    assert line_of(body, "Resources") == 1
    assert line_of(a, "Type") == 3
    assert line_of(a["Properties"]["List"], 1) == 7


def test_json_has_lines_too():
    body = read('{\n "Resources": {\n\t"A": {"Type": "X"}\n }\n}')
    assert line_of(body["Resources"], "A") == 3


def test_json_strings_stay_what_json_says():
    text = json.dumps({"Resources": {"A": {"Type": "x", "Properties": {"s": "\U0001f600 / é", "k" * 2000: "yes", "n": 10}}}})
    found = read(text)["Resources"]["A"]["Properties"]
    assert found == {"s": "\U0001f600 / é", "k" * 2000: "yes", "n": 10}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!Ref A", {"Ref": "A"}),
        ("!GetAtt A.B.C", {"Fn::GetAtt": ["A", "B.C"]}),
        ("!GetAtt [A, B]", {"Fn::GetAtt": ["A", "B"]}),
        ("!Sub '${A}'", {"Fn::Sub": "${A}"}),
        ("!Sub 12", {"Fn::Sub": "12"}),
        ("!Join [',', [a, !Ref B]]", {"Fn::Join": [",", ["a", {"Ref": "B"}]]}),
        ("!If [C, 1, !Ref 'AWS::NoValue']", {"Fn::If": ["C", 1, {"Ref": "AWS::NoValue"}]}),
        ("!Condition C", {"Condition": "C"}),
        ("!Base64 x", {"Fn::Base64": "x"}),
        ("2010-09-09", "2010-09-09"),
        ("012345678901", "012345678901"),
        ("0x10", 16),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("'5'", "5"),
        ("5", 5),
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("12:30:45", "12:30:45"),
        ("1_000", 1000),
        ("!!str 5", "5"),
        ("!!int 5", 5),
        (".", "."),
        ("-", None),
    ],
)
def test_scalars_and_tags(text: str, value: object):
    if text == "-":
        assert read("v:\n  -\n")["v"] == [None]
        return
    found = read(f"v: {text}\n")["v"]
    assert found == value
    assert type(found) is type(value) or isinstance(found, Map)


def test_aliases_and_merge_keys_are_taken():
    body = read("a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  l: 3\nc: *x\n")
    assert body["b"] == {"k": 1, "l": 3}
    assert body["c"] == {"k": 1, "l": 2}


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key 'a'"),
        ("a:\n  b: !Rain x\n", 2, "!Rain"),
        ("a: !!binary x\n", 1, "!!binary"),
        ("a: !!python/object:os.system x\n", 1, "!!python"),
        ("a: *nothing\n", 1, "nothing"),
        ("a: &x [*x]\n", 1, "x"),
        ("a: 1\n---\nb: 2\n", 2, "more than one"),
        ("- a\n", 1, "unsupported structure"),
        ("just text", 1, "unsupported structure"),
        ("", 1, ""),
        ("a: [1, 2\n", 0, "not well-formed"),
        ("a: b: c\n", 0, "not well-formed"),
        ("a: {[1]: 2}\n", 1, "a key must be a string"),
        ('{"a": 1, "a": 2}', 0, "duplicate key 'a'"),
        ('{"a": NaN}', 0, "NaN"),
        ("\ta: 1", 0, "not well-formed"),
    ],
)
def test_what_is_refused(text: str, line: int, why: str):
    with pytest.raises(TemplateFault) as caught:
        read(text)
    assert why in caught.value.text
    if line:
        assert caught.value.line == line


def test_billion_laughs_are_counted_not_laughed_at():
    rows = ['a0: &a0 ["lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol"]']
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(LimitExceeded, match="template_values"):
        read("\n".join(rows))


@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * 500 + "]" * 500, '{"a": ' + "[" * 90_000 + "]" * 90_000 + "}", "a: " + "{b: " * 150 + "1" + "}" * 150],
)
def test_deep_nesting_is_a_limit(text: str):
    with pytest.raises((LimitExceeded, TemplateFault)):
        read(text)


def test_one_megabyte_is_the_limit():
    with pytest.raises(LimitExceeded, match="template_bytes"):
        read("a: " + "x" * 1_048_577)
    assert len(read("a: " + "x" * 1_000_000)["a"]) == 1_000_000


def test_bytes_that_are_not_utf8():
    with pytest.raises(TemplateFault, match="UTF-8"):
        read(b"a: \xff\xfe")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Foo: 1\nResources: {A: {Type: X}}", "Invalid template property or properties [Foo]"),
        ("Description: hi", "Template format error: At least one Resources member must be defined."),
        ("Resources: {}", "Template format error: At least one Resources member must be defined."),
        ("Resources: []", "Template format error: Resources must be an object."),
        ("Resources: {A: {}}", "Template format error: [/Resources/A] Every Resources object must contain a Type member."),
        ("Resources: {A: {Type: 1}}", "Template format error: [/Resources/A/Type] Type must be a string"),
        ("Resources: {A-b: {Type: X}}", "Template format error: Resource name A-b is non alphanumeric."),
        ("Resources: {A: {Type: X, Foo: 1}}", "Invalid template resource property 'Foo'"),
        ("Resources: {A: 1}", "Template format error: [/Resources/A] resource definition is malformed"),
        (
            "Resources: {A: {Type: X, Properties: [1]}}",
            "Template format error: [/Resources/A/Properties] Properties must be an object",
        ),
        (
            "Resources: {A: {Type: X, DependsOn: {a: b}}}",
            "Template format error: [/Resources/A/DependsOn] DependsOn must be a string or list of strings.",
        ),
        ("Resources: {A: {Type: X, DeletionPolicy: Maybe}}", "Template error: every DeletionPolicy member"),
        (
            "AWSTemplateFormatVersion: 2011-01-01\nResources: {A: {Type: X}}",
            "Template format error: unsupported value for AWSTemplateFormatVersion.",
        ),
        (
            "Resources: {A: {Type: X}}\nOutputs: {O: {}}",
            "Template format error: [/Outputs/O] Every Outputs member must contain a Value object",
        ),
        ("Resources: {A: {Type: X}}\nMappings: {M: 1}", "Template format error: Every Mappings member M must be a map"),
    ],
)
def test_sections(text: str, message: str):
    with pytest.raises(TemplateFault) as caught:
        parse(read(text))
    assert caught.value.text.startswith(message)


def test_too_many_resources():
    text = "Resources:\n" + "".join(f"  R{n}: {{Type: X}}\n" for n in range(501))
    with pytest.raises(LimitExceeded, match="stack_resources"):
        parse(read(text))
