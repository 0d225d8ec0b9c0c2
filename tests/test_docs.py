"""Documentation is tested: complete, fresh, linked, and its code runs."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import pytest

from martlet import config, errors, limits

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "bench" / "README.md", *sorted(DOCS.rglob("*.md"))]
SOURCES = {path: path.read_text() for path in sorted((ROOT / "src").rglob("*.py"))}

FENCE = re.compile(r"^```(?P<info>\S.*)\n(?P<code>(?:.*\n)*?)```$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    """One ```python block. `marks` is what follows the language: `run`, or the path of the file that it shows."""

    page: Path
    line: int
    marks: list[str]
    code: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            language, *marks = match["info"].split()
            if language == "python":
                found.append(Block(page, text.count("\n", 0, match.start()) + 1, marks, match["code"]))
    return found


def block_name(block: Block) -> str:
    return f"{block.page.relative_to(ROOT)}:{block.line}"


def documented(word: str) -> bool:
    """Whether a page of docs/ has `word` as a word of its own."""
    return any(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", page.read_text()) for page in PAGES if DOCS in page.parents)


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def every_error(kind: type[errors.MartletError] = errors.MartletError) -> Iterator[type[errors.MartletError]]:
    """The tree of errors.py. A protocol may give an error another cloud's shape; that is its own matter."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every_error(child)


def mentions() -> Iterator[str]:
    """Every string in the code (but limits.py) as a pattern. An f-string counts by how it begins: f"app_{kind}"."""
    for path, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)) if path.name != "limits.py" else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in limits.LIMITS:
                yield re.escape(node.value)
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                begin = str(node.values[0].value)
                if re.fullmatch(r"[a-z]+_[a-z_]*", begin):
                    yield re.escape(begin) + "[a-z]+"


def commands(parser: argparse.ArgumentParser, prefix: str = "martlet") -> Iterator[str]:
    """Every command of a parser as it is typed, nested ones included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield f"{prefix} {name}"
                yield from commands(child, f"{prefix} {name}")


def test_generated_pages_are_fresh() -> None:
    stale = [name for name, text in generator().pages().items() if (DOCS / "reference" / name).read_text() != text]
    assert not stale, "run `make fmt`"


def test_every_setting_is_documented_and_read() -> None:
    names = [field.name for field in msgspec.structs.fields(config.Settings)]
    assert not [name for name in names if not documented(f"MARTLET_{name.upper()}")]
    code = "\n".join(text for path, text in SOURCES.items() if path.name != "config.py")
    assert not [name for name in names if not re.search(rf"\.{name}\b", code)], "a setting that nothing reads is a lie"


def test_every_limit_is_documented_and_enforced() -> None:
    assert not [name for name in limits.LIMITS if not documented(name)]
    named = re.compile("|".join(mentions()))
    assert not [name for name in limits.LIMITS if not named.fullmatch(name)], "a limit that nothing enforces is a lie"


def test_every_limit_has_a_name_of_its_own() -> None:
    names = [limit.name for limit in limits._ALL]
    assert len(names) == len(set(names)), "the second of two limits would silently replace the first"


def test_every_error_is_documented_and_drawn() -> None:
    assert not [kind.code for kind in every_error() if not documented(kind.code)]
    assert not [kind.__name__ for kind in every_error() if kind.__name__ not in str(errors.__doc__)]


def test_every_command_is_documented() -> None:
    cli: Any = importlib.import_module("martlet.cli")
    found = list(commands(cli.parser()))
    assert found, "the command line has no commands"
    assert not [command for command in found if not documented(command)]


def test_every_trigger_kind_is_documented() -> None:
    kinds = [path.stem for path in (ROOT / "src/martlet/triggers/kinds").glob("*.py") if path.stem != "__init__"]
    assert kinds, "triggers/kinds has moved"
    assert not [kind for kind in kinds if not documented(kind)]


def test_there_is_code_in_the_documentation() -> None:
    assert any("run" in block.marks for block in blocks())


@pytest.mark.parametrize("block", blocks(), ids=block_name)
def test_code_in_documentation_is_true(block: Block) -> None:
    """It compiles; marked `run`, it runs; marked with a path, it is that file."""
    compiled = compile(block.code, block_name(block), "exec")
    for mark in block.marks:
        if mark == "run":
            exec(compiled, {"__name__": "__docs__"})
        else:
            assert (ROOT / mark).read_text() == block.code, f"differs from {mark}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_documentation_resolve(page: Path) -> None:
    broken = []
    for match in LINK.finditer(FENCE.sub("", page.read_text())):
        target, _, anchor = match["target"].partition("#")
        if ":" in target:
            continue  # another site's
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(match["target"])
    assert not broken


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them: lower case, punctuation dropped, blanks to hyphens."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reachable_from_the_index() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        targets = (match["target"].partition("#")[0] for match in LINK.finditer(page.read_text()))
        waiting += [(page.parent / target).resolve() for target in targets if target and ":" not in target]
    assert not [str(page.relative_to(ROOT)) for page in PAGES if page not in reached]
