"""Which template a path means, and what the stack of it is called. Imports little: the command line waits for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from martlet.apps.package import app_name, check_app_name
from martlet.errors import DeployFailed

__all__ = ["PACKED", "stack_name", "template_of"]

PACKED: Final = "cloudformation-template-update-stack.json"  # what the Serverless Framework writes
_TEMPLATES: Final = ("template.yaml", "template.yml", "template.json", "sam.json")  # the last is what Chalice packages write
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json", ".template"})
_IMPORTS: Final = re.compile(rb"^\s*(?:from|import)\s+martlet\b", re.MULTILINE)


def template_of(path: Path) -> Path | None:
    """The template that `path` means: itself, or the one in a folder that is no decorator app. Blocking.

    Raises `DeployFailed` for a folder of the CDK with several stacks."""
    if path.is_file():
        return path if path.suffix in _SUFFIXES else None
    if not path.is_dir():
        return None
    if (path / "manifest.json").is_file() and (path / "cdk.out").exists():
        return _cdk_template(path)
    if (path / PACKED).is_file():
        return path / PACKED
    found = next((path / name for name in _TEMPLATES if (path / name).is_file()), None)
    if found is None or _is_decorated(path):
        return None
    return found


def _cdk_template(folder: Path) -> Path:
    found = sorted(folder.glob("*.template.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DeployFailed(f"{folder} holds the templates {names}", remedy="name the one to deploy")
    return found[0]


def _is_decorated(folder: Path) -> bool:
    """SAM projects have an app.py too: what tells ours is that it imports martlet."""
    for name in ("app.py", "main.py", "function.py"):
        file = folder / name
        if file.is_file():
            with file.open("rb") as stream:
                return _IMPORTS.search(stream.read(262_144)) is not None
    pyproject = folder / "pyproject.toml"
    return pyproject.is_file() and b"[tool.martlet]" in pyproject.read_bytes()[:1_048_576]


def stack_name(template: Path) -> str:
    """The name of the stack where none is given: its folder's, or the file's where that says more."""
    stem = template.name.split(".")[0].lower()
    folder = template.absolute().parent
    if folder.name in ("build", ".aws-sam", "cdk.out", ".serverless", "out"):
        folder = folder.parent.parent if folder.parent.name == ".aws-sam" else folder.parent
    if stem in ("template", "sam", PACKED.split(".")[0]):
        return app_name(folder)
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:40].strip("-")
    return check_app_name(name)
