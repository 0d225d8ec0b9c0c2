"""Which environment a zygote's imports must find; what is kept of a code folder."""

from __future__ import annotations

from pathlib import Path

from martlet.functions.runtimes.ahead import Ahead, Known

_BASE = {"PATH": "/bin", "AWS_LAMBDA_FUNCTION_NAME": "ahead", "TZ": ":UTC"}


def _ahead(*looked_at: str) -> Ahead:
    return Ahead("3.11", "l" * 64, ("x",), looked_at, _BASE)


def _of(name: str, **more: str) -> dict[str, str]:
    return {**_BASE, "AWS_LAMBDA_FUNCTION_NAME": name, "AWS_ACCESS_KEY_ID": "k", "AWS_LAMBDA_LOG_STREAM_NAME": "s", **more}


def test_functions_share_a_zygote_as_long_as_its_imports_cannot_tell_them_apart() -> None:
    assert _ahead("PATH", "MODE").environment_for(_of("a")) == _ahead().environment_for(_of("b", OTHER="1")) == _BASE


def test_a_variable_that_an_import_looked_at_makes_a_zygote_of_its_own() -> None:
    found = _ahead("MODE").environment_for(_of("a", MODE="fast"))
    assert found["MODE"] == "fast"
    assert found["AWS_LAMBDA_FUNCTION_NAME"] == "a"
    assert "AWS_ACCESS_KEY_ID" not in found, "those are each instance's own"
    assert "AWS_LAMBDA_LOG_STREAM_NAME" not in found, "those are each instance's own"
    assert _ahead("AWS_LAMBDA_FUNCTION_NAME").environment_for(_of("a")) != _BASE
    assert _ahead("TZ").environment_for({"PATH": "/bin"}) == {"PATH": "/bin"}, "one that is missing is another one, too"


def test_who_looked_at_everything_and_who_looks_unseen_are_not_trusted() -> None:
    assert _ahead("*").environment_for(_of("a")) != _BASE
    assert _ahead().environment_for(_of("a", OPENBLAS_NUM_THREADS="4"))["OPENBLAS_NUM_THREADS"] == "4"


def test_what_is_known_of_code_outlives_the_platform_and_goes_with_the_code(tmp_path: Path) -> None:
    code, other = "a" * 64, "b" * 64
    known = Known(tmp_path)
    assert known.get(code) is None
    known.put(code, _ahead("MODE"))
    known.put(other, Ahead("3.11", "", ()))
    again = Known(tmp_path)
    assert again.get(code) == _ahead("MODE")
    assert again.layers({code, other}) == {"l" * 64}
    again.collect({other})
    assert again.get(code) is None
    assert Known(tmp_path).get(code) is None
    assert Known(tmp_path).get(other) is not None
    (tmp_path / "ahead" / f"{other}.json").write_text("{")
    assert Known(tmp_path).get(other) is None, "a damaged record costs time and nothing else"
