"""The tutorial's apps are real: each of its modules declares a graph and answers as the text says."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from martlet import AccessDenied
from martlet.sdk.graph import emit

from .events import v2
from .platform import Platform

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```python.*\n((?:.*\n)*?)```$", TEXT, re.MULTILINE)


@pytest.fixture
def modules() -> Iterator[list[ModuleType]]:
    found = []
    for number, code in enumerate(block for block in BLOCKS if "App(" in block):
        module = ModuleType(f"tutorial_{number}")
        sys.modules[module.__name__] = module
        exec(compile(code, "tutorial.py", "exec", dont_inherit=True), module.__dict__)
        found.append(module)
    yield found
    for module in found:
        del sys.modules[module.__name__]


def answer(function: Any, event: dict[str, Any]) -> tuple[int, Any]:
    found = function.__martlet_entry__()(event, None)
    return found["statusCode"], json.loads(found["body"])


def test_every_step_is_an_app(modules: list[ModuleType]) -> None:
    graphs = [emit(module, "x") for module in modules]
    assert [graph["app"] for graph in graphs] == ["notes"] * 4
    assert graphs[3]["schedules"][0]["timezone"] == "Europe/Zurich"


def test_the_steps_do_what_the_text_says(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hello, bodies, data, calls = modules
    path = {"name": "ada"}
    assert answer(hello.hello, v2(parameters=path, query="loud=true")) == (200, {"message": "HELLO, ADA"})
    status, problem = answer(hello.hello, v2(parameters=path, query="loud=perhaps"))
    assert (status, problem["errors"][0]["field"]) == (422, "loud")
    assert answer(bodies.add, v2("POST", body='{"title": "a"}')) == (201, {"title": "a", "tags": []})
    assert answer(bodies.add, v2("POST", body='{"title": ""}'))[1]["detail"] == "a note needs a title"
    with Platform(calls.app) as platform:
        monkeypatch.setenv("MARTLET_API", platform.address)
        monkeypatch.setenv("MARTLET_APP", "notes")
        id = answer(data.add, v2("POST", body='{"text": "two words"}'))[1]["id"]
        assert [answer(data.read, v2(parameters={"id": id}))[1]["reads"] for _ in range(2)] == [1, 2]
        assert answer(data.read, v2(parameters={"id": "x"}))[0] == 404
        calls.morning_report.__martlet_entry__()({}, None)
        assert platform.documents["reports"][id][1] == {"words": 2}
    assert calls.count_words({"text": "two words"}, None) == {"words": 2}
    assert AccessDenied.status == 403


def test_the_reference_names_everything_that_martlet_offers() -> None:
    import martlet

    text = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "sdk.md").read_text()
    assert not [name for name in martlet.__all__ if not name.startswith("__") and name not in text]
