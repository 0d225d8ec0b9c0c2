"""The house's rules that no linter knows, checked on the source itself. Each rule is also shown to catch a planted fault."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "martlet"
FOLDERS = ("src", "tests", "bench", "examples", "docs")
NOT_OURS = {"__pycache__", "node_modules", ".peers", ".venv", ".martlet"}

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 60
# Functions that are longer, at exactly the length they have today: the table may only shrink. "path::name": lines.
LONG_FUNCTIONS: dict[str, int] = {}

JUNK_DRAWERS = {"util", "utils", "common", "base", "manager", "managers", "helper", "helpers", "misc", "stuff", "shared"}
JUNK_NAMES = re.compile(r"(Manager|Helper|Util|Utils)$|^(handle|process|do)_(data|stuff|it|things?)$")
LATER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b(?!.*#\d+)")
SKIPS = {"skip", "skipif", "xfail", "importorskip"}

# Where a blocking sleep is right, and why. A path below src/martlet, or the beginning of one.
SLEEPERS = {
    "cli/": "a plain synchronous client: it waits for a platform that is starting",
    "functions/sandboxes/": "the supervisor and its ticker are single-threaded and have no event loop",
    "sdk/": "runs in the user's process: a retry that backs off holds up its caller only",
}

# Code that is shipped into a sandbox: the standard library and these packages of ours, nothing else. Within functions also
# what the user's own types are made of, because then the user has brought it.
STANDS_ALONE = {"sdk": ("martlet.sdk",), "functions/sandboxes/inside": ("martlet.sdk", "martlet.functions.sandboxes.inside")}
BROUGHT_BY_USERS = {"msgspec", "pydantic"}

Rule = Callable[[str], Iterator[str]]


def sources(*folders: str) -> list[Path]:
    """Every Python file of ours below `folders`."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if not NOT_OURS & set(path.relative_to(ROOT).parts))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def rooms() -> list[Path]:
    return sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


# The rules on one file's text: each yields "line: what is wrong".


def long_functions(text: str) -> Iterator[str]:
    for name, lines in function_lengths(text):
        if lines > FUNCTION_LINES_MAX:
            yield f"{name}: {lines} lines; at most {FUNCTION_LINES_MAX}"


def function_lengths(text: str) -> Iterator[tuple[str, int]]:
    """(qualified name, lines) of every function, decorators left out."""

    def visit(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + child.name, (child.end_lineno or child.lineno) - child.lineno + 1
            inner = (
                f"{prefix}{child.name}." if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else prefix
            )
            yield from visit(child, inner)

    return visit(ast.parse(text), "")


def swallowed_errors(text: str) -> Iterator[str]:
    """`except Exception: pass` in its disguises. Catching everything is allowed only to do something about it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and all(map(_does_nothing, node.body)):
            yield f"{node.lineno}: catches everything and does nothing about it"
        if isinstance(node, ast.Call) and _called(node) == "suppress" and any(map(_catches_all, node.args)):
            yield f"{node.lineno}: suppresses everything"


def _catches_all(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(map(_catches_all, kind.elts))
    return kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"})


def _does_nothing(statement: ast.stmt) -> bool:
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass | ast.Continue)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""


def skipped_tests(text: str) -> Iterator[str]:
    """A test that needs something starts it or installs it; it does not step aside."""
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in SKIPS
            and ast.unparse(node.value) in {"pytest", "pytest.mark", "unittest"}
        ):
            yield f"{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and node.module == "pytest":
            yield from (f"{node.lineno}: imports {alias.name}" for alias in node.names if alias.name in SKIPS)


def sleeps(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep", "clock.sleep"}:
            yield f"{node.lineno}: blocking sleep; wait for the thing itself"


def postponed(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if LATER.search(line):
            yield f"{number}: postponed work without an issue number (#123)"


def junk_names(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and JUNK_NAMES.search(node.name):
            yield f"{node.lineno}: {node.name} says nothing"


def foreign_imports(text: str, allowed: tuple[str, ...]) -> Iterator[str]:
    """Imports that are neither the standard library's nor `allowed` (a package allows what is below it)."""
    tree = ast.parse(text)
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    late = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            ours = any(name == package or name.startswith(package + ".") for package in allowed)
            brought = id(node) in late and name.split(".")[0] in BROUGHT_BY_USERS
            if not ours and not brought and name.split(".")[0] not in sys.stdlib_module_names:
                yield f"{node.lineno}: imports {name}"


def complaints(rule: Rule, paths: list[Path]) -> list[str]:
    return [f"{name_of(path)}:{found}" for path in paths for found in rule(path.read_text())]


PLANTED: list[tuple[Rule, str]] = [
    (long_functions, "class C:\n def f(self):\n" + "  x = 1\n" * FUNCTION_LINES_MAX),
    (long_functions, "async def f():\n" + " x = 1\n" * FUNCTION_LINES_MAX),
    (swallowed_errors, "try:\n f()\nexcept Exception:\n pass"),
    (swallowed_errors, "try:\n f()\nexcept:\n ..."),
    (swallowed_errors, "for x in y:\n try:\n  f()\n except (OSError, Exception):\n  continue"),
    (swallowed_errors, "with contextlib.suppress(Exception):\n f()"),
    (skipped_tests, "@pytest.mark.skip" + "if(True, reason='')\ndef test(): ..."),
    (skipped_tests, "def test():\n pytest." + "skip('no network')"),
    (skipped_tests, "np = pytest." + "importorskip('numpy')"),
    (skipped_tests, "from pytest import " + "xfail"),
    (sleeps, "import time\nwhile not done():\n time.sleep(0.1)"),
    (postponed, "# TO" + "DO make it work"),
    (junk_names, "class SessionManager: ..."),
    (junk_names, "def handle_data(x): ..."),
    (lambda text: foreign_imports(text, ("martlet.sdk",)), "import json\nfrom martlet.errors import NotFound"),
    (lambda text: foreign_imports(text, ("martlet.sdk",)), "def f():\n import orjson"),
    (lambda text: foreign_imports(text, ("martlet.sdk",)), "import martlet.sdkx"),
    (lambda text: foreign_imports(text, ("martlet.sdk",)), "import msgspec"),
]


@pytest.mark.parametrize(("rule", "text"), PLANTED, ids=[str(number) for number in range(len(PLANTED))])
def test_each_rule_catches_its_planted_fault(rule: Rule, text: str) -> None:
    assert list(rule(text))


def test_the_rules_leave_good_code_alone() -> None:
    text = "import json\nfrom martlet.sdk.app import App\ntry:\n f()\nexcept OSError:\n pass  # gone already\n"
    rules: tuple[Rule, ...] = (long_functions, swallowed_errors, skipped_tests, sleeps, postponed, junk_names)
    assert not [found for rule in rules for found in rule(text + "asyncio.sleep(1)  # TO" + "DO #12 speak HTTP/2")]
    assert not list(foreign_imports(text, ("martlet.sdk",)))


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in sources(*FOLDERS)}
    assert not {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX}


def test_functions_are_short_and_the_exceptions_only_shrink() -> None:
    measured = {
        f"{name_of(path)}::{name}": lines for path in sources(*FOLDERS) for name, lines in function_lengths(path.read_text())
    }
    too_long = {name: lines for name, lines in measured.items() if lines > FUNCTION_LINES_MAX}
    assert too_long == LONG_FUNCTIONS, "shorten the function; or, if it became shorter, shrink the table with it"


def test_every_room_opens_with_its_charter() -> None:
    missing = []
    for room in rooms():
        charter = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
        absent = [word for word in ("owns", "offers", "never") if word not in charter.lower()]
        if absent or len(charter.splitlines()) < 3:
            missing.append(f"{room.name}: says not what it {' / '.join(absent) or 'does: fewer than three lines'}")
    assert not missing


def test_there_are_no_junk_drawers() -> None:
    names = {name_of(path): set(path.relative_to(PACKAGE).with_suffix("").parts) for path in sources("src")}
    assert not [name for name, parts in names.items() if parts & JUNK_DRAWERS]
    assert not complaints(junk_names, sources("src"))


def test_nothing_is_postponed_without_an_issue() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    assert not complaints(postponed, [*sources(*FOLDERS), *pages])


def test_no_error_is_swallowed() -> None:
    assert not complaints(swallowed_errors, sources(*FOLDERS))


def test_no_test_steps_aside() -> None:
    assert not complaints(skipped_tests, sources("tests"))


def test_nothing_polls_by_sleeping() -> None:
    allowed = tuple(f"src/martlet/{place}" for place in SLEEPERS)
    assert not complaints(sleeps, [path for path in sources("src") if not name_of(path).startswith(allowed)])


@pytest.mark.parametrize("place", STANDS_ALONE)
def test_what_is_shipped_into_a_sandbox_needs_only_the_standard_library(place: str) -> None:
    shipped = [path for path in sources("src") if name_of(path).startswith(f"src/martlet/{place}/")]
    assert shipped, f"{place} has moved: say so in STANDS_ALONE"
    assert not complaints(lambda text: foreign_imports(text, STANDS_ALONE[place]), shipped)


def test_the_version_is_the_same_everywhere() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    package = re.search(r'^__version__ = "(.+)"$', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert package, "src/martlet/__init__.py says no version"
    assert package[1] == declared
    assert newest, "CHANGELOG.md has no section"
    assert newest[1].strip("[]") in {"Unreleased", declared}


def test_limit_names_are_given_once() -> None:
    import ast

    tree = ast.parse((ROOT / "src/martlet/limits.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Limit"]
    names = [ast.literal_eval(call.args[0]) for call in calls if call.args]
    assert sorted(names) == sorted(set(names))
