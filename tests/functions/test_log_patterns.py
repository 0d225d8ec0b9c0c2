"""Filter patterns of CloudWatch Logs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.errors import MartletError, ServiceError, Unsupported
from martlet.functions.log_patterns import compile_pattern

LINE = (
    '{"level":"ERROR","code":503,"user":{"name":"ann","tags":["a","b"]},"ok":true,"none":null,"a.b":1,"list":[{"x":1},{"x":2}]}'
)


@pytest.mark.parametrize(
    ("pattern", "message", "matches"),
    [
        ("", "anything", True),
        ("   ", "anything", True),
        ("ERROR", "an ERROR here", True),
        ("ERROR", "an error here", False),
        ("ERROR timeout", "timeout after ERROR", True),
        ("ERROR timeout", "ERROR", False),
        ('"two words"', "some two words", True),
        ('"two words"', "two other words", False),
        ('"say \\"hi\\""', 'they say "hi"', True),
        ("ERROR -retry", "ERROR", True),
        ("ERROR -retry", "ERROR and retry", False),
        ('-"not this"', "but not this", False),
        ("?ERROR ?WARN", "WARN", True),
        ("?ERROR ?WARN", "INFO", False),
        ("?ERROR ?WARN ARGS", "WARN ARGS", False),  # "?" does not count beside other terms
        ("?ERROR ?WARN ARGS", "ERROR WARN ARGS", True),
        ("é雪", "mit é雪 darin", True),
    ],
)
def test_terms(pattern: str, message: str, matches: bool) -> None:
    assert compile_pattern(pattern)(message) is matches


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        ('$.level = "ERROR"', True),
        ("$.level = ERROR", True),
        ('$.level = "E*R"', True),
        ('$.level = "*RR*"', True),
        ('$.level = "R*"', False),
        ('$.level != "INFO"', True),
        ("$.code = 503", True),
        ('$.code = "503"', False),
        ("$.code >= 500 && $.code < 600", True),
        ("$.code > 503 || $.ok IS TRUE", True),
        ("($.code > 503 || $.ok IS TRUE) && $.level = INFO", False),
        ("$.code = 5*", False),
        ("$.user.name = ann", True),
        ('$.user.tags[1] = "b"', True),
        ('$.user.tags[7] = "b"', False),
        ('$.user.tags[*] = "b"', True),
        ("$.list[*].x = 2", True),
        ('$["a.b"] = 1', True),
        ("$.none IS NULL", True),
        ("$.level IS NULL", False),
        ("$.missing NOT EXISTS", True),
        ("$.none NOT EXISTS", False),
        ("$.ok IS FALSE", False),
        ("$.missing = x", False),
        ("$.missing != x", False),
    ],
)
def test_conditions_on_json(condition: str, matches: bool) -> None:
    assert compile_pattern(f"{{ {condition} }}")(LINE) is matches


def test_what_is_no_json_matches_no_condition() -> None:
    matches = compile_pattern("{ $.a NOT EXISTS }")
    assert [matches(text) for text in ("{}", "{", "plain", "[1]", "")] == [True, False, False, False, False]


@pytest.mark.parametrize(
    "pattern",
    [
        "{",
        "{}",
        "{ }",
        "{ $ = 1 }",
        "{ a = 1 }",
        "{ $.a }",
        "{ $.a = }",
        "{ $.a > x }",
        "{ $.a = 1 && }",
        "{ ($.a = 1 }",
        "{ $.a IS 5 }",
        "{ $.a = 1 $.b = 2 }",
        '"open',
        "{ $.a ~ 1 }",
        "{ " + "(" * 100 + "$.a = 1" + ")" * 100 + " }",
    ],
)
def test_malformed_patterns(pattern: str) -> None:
    with pytest.raises(ServiceError) as caught:
        compile_pattern(pattern)
    assert caught.value.name == "InvalidParameterException"


@pytest.mark.parametrize("pattern", ["[ip, user, status=5*]", "%^ERROR%", "a %b%"])
def test_other_kinds_are_refused_by_name(pattern: str) -> None:
    with pytest.raises(Unsupported, match="not supported"):
        compile_pattern(pattern)


@settings(max_examples=200, deadline=None)
@given(pattern=st.text('{}[]$.=!<>&|()"\\ -?%*aA1', max_size=40), message=st.text('{}[]":, a1', max_size=30))
def test_any_pattern_is_taken_or_refused(pattern: str, message: str) -> None:
    try:
        assert compile_pattern(pattern)(message) in (True, False)
    except MartletError:
        pass  # refused in order


def test_stars_take_linear_time() -> None:
    pattern = '{ $.a = "' + "*a" * 200 + '*b" }'
    assert not compile_pattern(pattern)('{"a":"' + "a" * 200_000 + '"}')
