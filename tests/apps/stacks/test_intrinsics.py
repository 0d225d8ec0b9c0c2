"""Functions, conditions, parameters, loops and includes."""

from __future__ import annotations

from typing import Any

import pytest

from martlet.apps.stacks.intrinsics import NO_VALUE, Scope, is_pending, pending
from martlet.apps.stacks.language import expand_loops, include
from martlet.apps.stacks.parameters import declare, resolve
from martlet.apps.stacks.reading import Map, TemplateFault, read
from martlet.apps.stacks.rules import check_rules
from martlet.errors import MartletError


def scope(conditions: str = "{}", language: bool = False) -> Scope:
    return Scope(
        parameters={"P": "value", "L": ["a", "b"], "N": "5", "Empty": ""},
        pseudo={"AWS::Region": "us-east-1", "AWS::AccountId": "000000000000", "AWS::StackName": "s"},
        mappings=read("M: {us-east-1: {ami: m-1, list: [x, y]}}")["M"] and read("M: {us-east-1: {ami: m-1, list: [x, y]}}"),
        conditions=read(f"c: {conditions}")["c"],
        ref=lambda name: f"id-{name}",
        attribute=lambda name, attribute: f"{name}/{attribute}",
        imported=lambda name: f"import-{name}",
        resources=frozenset({"R", "S"}),
        language=language,
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!Ref P", "value"),
        ("!Ref R", "id-R"),
        ("!Ref L", ["a", "b"]),
        ("!Ref 'AWS::Region'", "us-east-1"),
        ("!GetAtt R.Arn", "R/Arn"),
        ("!GetAtt R.Nested.Name", "R/Nested.Name"),
        ("!Sub '${P}-${R}-${R.Arn}-${AWS::Region}-${!Literal}-$x-${ P }'", "value-id-R-R/Arn-us-east-1-${Literal}-$x-value"),
        ("!Sub ['${x}${y}', {x: !Ref P, y: 2}]", "value2"),
        ("!Join ['-', [a, !Ref P, 3]]", "a-value-3"),
        ("!Join ['', !Ref L]", "ab"),
        ("!Select [1, !Ref L]", "b"),
        ("!Select ['0', [x, y]]", "x"),
        ("!Split [',', 'a,b,,c']", ["a", "b", "", "c"]),
        ("!Select [1, !Split ['/', !Ref P]]", TemplateFault),
        ("!FindInMap [M, !Ref 'AWS::Region', ami]", "m-1"),
        ("!FindInMap [M, us-east-1, list]", ["x", "y"]),
        ("!FindInMap [M, eu-west-9, ami, {DefaultValue: none}]", "none"),
        ("!Base64 hello", "aGVsbG8="),
        ("!Cidr ['10.0.0.0/16', 2, 8]", ["10.0.0.0/24", "10.0.1.0/24"]),
        ("!GetAZs ''", ["us-east-1a", "us-east-1b", "us-east-1c"]),
        ("!ImportValue x", "import-x"),
        ("!If [Cond, a, b]", "a"),
        ("[1, !Ref 'AWS::NoValue', 2]", [1, 2]),
        ("{a: !Ref 'AWS::NoValue', b: 1}", {"b": 1}),
        ("{Condition: {StringEquals: {a: b}}}", {"Condition": {"StringEquals": {"a": "b"}}}),
        ("{a: {b: [{c: !Sub '${P}'}]}}", {"a": {"b": [{"c": "value"}]}}),
    ],
)
def test_functions(text: str, value: Any):
    given = read(f"v: {text}")["v"]
    if value is TemplateFault:
        with pytest.raises(TemplateFault, match="nonexistent value at index 1"):
            scope("{Cond: !Equals [a, a]}").evaluate(given)
        return
    assert scope("{Cond: !Equals [a, a]}").evaluate(given) == value


def test_no_value_alone():
    assert scope().evaluate(read("v: !Ref AWS::NoValue")["v"]) is NO_VALUE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!Ref Nobody", "Unresolved resource dependencies [Nobody]"),
        ("!GetAtt Nobody.Arn", "undefined resource Nobody"),
        ("!GetAtt R", "requires two non-empty parameters"),
        ("!Sub [1, 2]", "don't specify expected arguments"),
        ("!Sub '${L}'", "is not a string"),
        ("!Join [',']", "every Fn::Join object requires two parameters"),
        ("!Join [',', x]", "every Fn::Join object requires two parameters"),
        ("!Join [',', [[a]]]", "must be a string"),
        ("!Select [9, [a]]", "nonexistent value at index 9"),
        ("!Select [x, [a]]", "an integer index and a list"),
        ("!Select [-1, [a]]", "an integer index and a list"),
        ("!Split [',']", "every Fn::Split object requires two parameters"),
        ("!FindInMap [M, x, y]", "Unable to get mapping for M::x::y"),
        ("!FindInMap [Z, x, y]", "Mapping named 'Z' is not present"),
        ("!Cidr ['nonsense', 1, 8]", "Fn::Cidr"),
        ("!Cidr ['10.0.0.0/24', 9999, 8]", "Fn::Cidr"),
        ("!If [Nothing, a, b]", "Unresolved condition dependency Nothing"),
        ("!If [a]", "three elements"),
        ("!Length [1]", "AWS::LanguageExtensions"),
        ("{'Fn::Foo': 1}", "Fn::Foo is not a function"),
        ("{'Fn::Sub': a, b: c}", "stands beside other keys"),
    ],
)
def test_faults_name_the_function_and_line(text: str, message: str):
    with pytest.raises(TemplateFault) as caught:
        scope().evaluate(read(f"x: 1\nv: {text}"))
    assert message in caught.value.text
    assert caught.value.line == 2


def test_language_functions():
    there = scope(language=True)
    assert there.evaluate(read("v: !Length [a, b]")["v"]) == 2
    assert there.evaluate(read("v: !ToJsonString {a: [1, !Ref P]}")["v"]) == '{"a":[1,"value"]}'


def test_dynamic_references_stay_as_they_are():
    text = "a {{resolve:ssm:name:1}} b"
    assert scope().evaluate(text) == text
    assert scope().evaluate(read("v: !Join ['-', [x, '{{resolve:ssm-secure:y}}']]")["v"]) == "x-{{resolve:ssm-secure:y}}"


CONDITIONS = """
  A: !Equals [!Ref P, value]
  B: !Not [!Condition A]
  C: !And [!Condition A, !Not [!Condition B]]
  D: !Or [!Condition B, !Equals [1, '1']]
  E: !Equals [true, 'true']
  F: {Condition: {Condition: A}}
"""


def test_conditions():
    there = Scope(
        parameters={"P": "value"}, pseudo={}, mappings=Map(), conditions=read(f"c: {CONDITIONS}")["c"], ref=str, attribute=lambda a, b: "",
        imported=str,
    )  # fmt: skip
    assert there.conditions() == {"A": True, "B": False, "C": True, "D": True, "E": True, "F": True}


def test_circular_conditions_are_named():
    with pytest.raises(TemplateFault, match=r"A → B → A"):
        scope("{A: !Not [!Condition B], B: !Not [!Condition A]}").conditions()


def test_a_condition_that_is_none():
    with pytest.raises(TemplateFault, match="must be made of"):
        scope("{A: [1, 2]}").conditions()


def test_pending_values_go_through_every_function():
    there = Scope(
        parameters={}, pseudo={"AWS::Region": "r"}, mappings=Map(), conditions=Map(), ref=pending,
        attribute=lambda name, attribute: pending(f"{name}.{attribute}"), imported=str, resources={"R": 1},
    )  # fmt: skip
    for text in (
        "!Ref R",
        "!Sub 'a${R.B}'",
        "!Join [x, [!Ref R]]",
        "!Join [x, !Ref R]",
        "!Select [3, !Split ['/', !Ref R]]",
        "!Base64 !Ref R",
    ):
        if "!Base64" in text:
            text = "{'Fn::Base64': !Ref R}"
        assert is_pending(there.evaluate(read(f"v: {text}")["v"])), text


def test_text_cannot_grow_without_end():
    text = "x" * 500_000
    value: Any = [text] * 20
    with pytest.raises(TemplateFault, match="the most is"):
        scope().evaluate(Map({"Fn::Join": ["", value]}, 3, {"Fn::Join": 3}))


PARAMETERS = """
Name: {Type: String, Default: abc, AllowedPattern: '[a-z]+', MinLength: 2, MaxLength: 5}
Env: {Type: String, AllowedValues: [dev, prod], Default: dev}
Count: {Type: Number, Default: 3, MinValue: 1, MaxValue: 10}
List: {Type: CommaDelimitedList, Default: 'a, b,c'}
Numbers: {Type: 'List<Number>', Default: '1,2'}
Subnets: {Type: 'List<AWS::EC2::Subnet::Id>', Default: ''}
Secret: {Type: String, NoEcho: true, Default: hush}
Flag: {Type: String, Default: true}
"""


def test_parameters_and_their_defaults():
    assert resolve(declare(read(PARAMETERS)), {"Count": "7"}) == {
        "Name": "abc", "Env": "dev", "Count": "7", "List": ["a", "b", "c"], "Numbers": ["1", "2"], "Subnets": [], "Secret": "hush",
        "Flag": "true",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Name": "ABC"}, "Parameter 'Name' must match pattern [a-z]+"),
        ({"Name": "a"}, "Parameter 'Name' must contain at least 2 characters"),
        ({"Name": "abcdef"}, "Parameter 'Name' must contain at most 5 characters"),
        ({"Env": "test"}, "Parameter 'Env' must be one of AllowedValues"),
        ({"Count": "0"}, "Parameter 'Count' must be a number not less than 1"),
        ({"Count": "11"}, "Parameter 'Count' must be a number not greater than 10"),
        ({"Count": "many"}, "Parameter 'Count' must be a number"),
        ({"Numbers": "1,x"}, "Parameter 'Numbers' must be a number"),
        ({"Other": "x", "And": "y"}, "Parameters: [And, Other] do not exist in the template"),
    ],
)
def test_parameters_that_do_not_fit(given: dict[str, str], message: str):
    with pytest.raises(TemplateFault) as caught:
        resolve(declare(read(PARAMETERS)), given)
    assert caught.value.text == message


def test_allowed_values_are_told():
    with pytest.raises(TemplateFault) as caught:
        resolve(declare(read(PARAMETERS)), {"Env": "test"})
    assert caught.value.remedy == "AllowedValues are dev, prod: --param Env=…"
    many = "E: {Type: String, Default: a, AllowedValues: [" + ", ".join(f"v{number}" for number in range(30)) + "]}"
    with pytest.raises(TemplateFault, match="AllowedValues") as caught:
        resolve(declare(read(many)), {})
    assert "v19 and 10 more" in caught.value.remedy


def test_parameters_without_values():
    with pytest.raises(TemplateFault) as caught:
        resolve(declare(read("A: {Type: String}\nB: {Type: Number}\nC: {Type: String, Default: ''}")), {})
    assert caught.value.text == "Parameters: [A, B] must have values"


@pytest.mark.parametrize(
    "text",
    [
        "A: {Type: Strong}", "A: {Type: 'AWS::SSM::Parameter::Value<Foo>'}", "A: {}", "A: 1", "A: {Type: String, Foo: 1}",
        "A: {Type: String, MinLength: x}", "A: {Type: String, Default: {a: b}}", "A-b: {Type: String}", "A: {Type: 'List<Foo>'}",
    ],
)  # fmt: skip
def test_declarations_that_are_refused(text: str):
    with pytest.raises(MartletError) as caught:
        declare(read(text))
    assert getattr(caught.value, "line", 1) == 1


LOOPS = """
Transform: AWS::LanguageExtensions
Resources:
  Fn::ForEach::Topics:
    - Name
    - !Ref L
    - Topic${Name}:
        Type: X
        Properties: {Name: !Ref Name, Text: !Sub 'x-${Name}-${P}'}
  Fn::ForEach::Outer:
    - I
    - ['1', '2']
    - Fn::ForEach::Inner:
        - J
        - [a-b]
        - R${I}&{J}: {Type: Y, Properties: {V: '${I}/${J}'}}
"""


def test_loops_are_written_out():
    found = expand_loops(read(LOOPS), scope())["Resources"]
    assert list(found) == ["Topica", "Topicb", "R1ab", "R2ab"]
    assert found["Topicb"]["Properties"] == {"Name": "b", "Text": {"Fn::Sub": "x-b-${P}"}}
    assert found["R2ab"]["Properties"] == {"V": "2/a-b"}


@pytest.mark.parametrize(
    "text",
    [
        "Fn::ForEach::A: [x, [a], {R: 1}]\nFn::ForEach::B: [y, [a], {R: 1}]",
        "Fn::ForEach::A: [x, [a]]",
        "Fn::ForEach::A: [P, [a], {R: 1}]",
        "Fn::ForEach::A: [x, {a: 1}, {R: 1}]",
        "Fn::ForEach::A: [x, [a, b], {R: 1}]",
    ],
)
def test_loops_that_are_refused(text: str):
    with pytest.raises(TemplateFault, match="ForEach"):
        expand_loops(read(text), scope())


def test_loops_cannot_multiply_without_end():
    many = "[" + ",".join(f"'{n}'" for n in range(100)) + "]"
    text = f"Fn::ForEach::A: [a, {many}, {{'Fn::ForEach::B': [b, {many}, {{'Fn::ForEach::C': [c, {many}, {{'R${{a}}x${{b}}x${{c}}': 1}}]}}]}}]"
    with pytest.raises(MartletError, match="template_values"):
        expand_loops(read(text), scope())


def test_include():
    files = {"a.yaml": b"Type: X\nProperties: {Name: !Ref P}", "list.yaml": b"Resources: {B: {Type: Z}}"}
    body = read(
        "Resources:\n  A:\n    Fn::Transform: {Name: AWS::Include, Parameters: {Location: !Sub 'a.yaml'}}\n    Condition: C\n"
        "Transform: {Name: AWS::Include, Parameters: {Location: list.yaml}}"
    )
    found = include(body, lambda location, line: files[location], scope())["Resources"]
    assert found["A"] == {"Type": "X", "Properties": {"Name": {"Ref": "P"}}, "Condition": "C"}
    assert found["B"] == {"Type": "Z"}


def test_an_include_that_includes_itself_ends():
    text = b"Fn::Transform: {Name: AWS::Include, Parameters: {Location: a}}"
    with pytest.raises(TemplateFault, match="more than"):
        include(read(b"Resources: {" + text + b"}"), lambda location, line: text, scope())


RULES = """
Region:
  RuleCondition: !Equals [!Ref P, {}]
  Assertions: [{{Assert: {{'Fn::Contains': [[a, b], !Ref Q]}}, AssertDescription: wrong one}}]
"""


@pytest.mark.parametrize(("p", "good"), [("value", False), ("other", True)])
def test_rules(p: str, good: bool):
    there = scope()
    there.parameters = {"P": "value", "Q": "c"}
    rules = read(RULES.format(p))
    if good:
        check_rules(rules, there)
    else:
        with pytest.raises(TemplateFault, match="wrong one"):
            check_rules(rules, there)
