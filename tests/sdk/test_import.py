"""`import martlet` is on the path of every cold start: it offers exactly its names and loads nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import martlet

_SOURCE = str(Path(martlet.__file__).parents[1])


def _fresh(code: str) -> object:
    script = f"import sys; sys.path.insert(0, {_SOURCE!r}); import json\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True, timeout=30)
    return json.loads(done.stdout)


def test_names_are_exactly_the_list() -> None:
    names = _fresh("import martlet; print(json.dumps([n for n in dir(martlet) if not n.startswith('_')]))")
    assert sorted(["sdk", *martlet.__all__]) == sorted([*names, "__version__"])  # type: ignore[misc]


def test_every_name_lives_in_the_sdk() -> None:
    homes = {name: getattr(martlet, name).__module__ for name in martlet.__all__ if name != "__version__"}
    assert all(home.startswith("martlet.sdk.") for home in homes.values()), homes


def test_import_loads_no_other_module() -> None:
    # `json` itself is loaded by the probe; nothing that it or the interpreter had not loaded may come with martlet.
    extra = _fresh("before = set(sys.modules); import martlet; print(json.dumps(sorted(set(sys.modules) - before)))")
    assert [name for name in extra if not name.startswith("martlet")] in ([], ["__future__"])  # type: ignore[attr-defined]
    heavy = {"client", "convert", "signature", "encode", "entry", "asgi", "wsgi", "graph"}
    assert not heavy & {str(name).rpartition(".")[2] for name in extra}  # type: ignore[attr-defined]


def test_a_plain_handler_needs_no_heavy_module() -> None:
    code = """
import martlet
app = martlet.App()
@app.get("/orders/{id}")
def order(id: int, verbose: bool = False) -> dict:
    return {"id": id, "verbose": verbose}
entry = order.__martlet_entry__()
event = {"version": "2.0", "rawPath": "/orders/7", "rawQueryString": "verbose=true", "pathParameters": {"id": "7"},
         "headers": {}, "requestContext": {"http": {"method": "GET"}}}
answer = entry(event, None)
print(json.dumps([answer, sorted(sys.modules)]))
"""
    answer, modules = _fresh(code)  # type: ignore[misc]
    assert json.loads(answer["body"]) == {"id": 7, "verbose": True}
    heavy = {"asyncio", "ssl", "http.client", "email", "inspect", "typing", "dataclasses", "socket", "urllib.parse", "pydantic"}
    assert not heavy & set(modules)


def test_the_sdk_imports_no_other_room_and_nothing_foreign() -> None:
    for path in (Path(_SOURCE) / "martlet" / "sdk").glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            else:
                continue
            for name in names:
                root = name.partition(".")[0]
                if root == "martlet":
                    assert name.startswith("martlet.sdk"), f"{path.name} imports {name}"
                else:
                    assert root in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_constraints_without_their_library_are_an_error_by_name() -> None:
    code = """
import typing, martlet
from martlet.sdk import graph
class Gt: ...
Gt.__module__ = "annotated_types"
app = martlet.App("a")
@app.get("/")
def a(n: typing.Annotated[int, Gt()]): ...
try:
    graph.emit(sys.modules["__main__"], "a")
except martlet.DeclarationError as error:
    print(json.dumps(str(error)))
"""
    assert "that pydantic checks: import pydantic in your module" in str(_fresh(code))
