"""An app declared by Python decorators: `app = App(...)` in a module that a sandbox runs once to see what it declares."""

from __future__ import annotations

import re
from pathlib import Path

from martlet.apps.package import ENTRY_MODULES, martlet_settings
from martlet.apps.ports import Build, Functions
from martlet.errors import DeployFailed

__all__ = ["Decorators"]

_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class Decorators:
    """The source for Python modules."""

    def entry_module(self, folder: Path, names: frozenset[str]) -> str | None:
        """`[tool.martlet] module`, else app.py, main.py or function.py, else the only file if it is Python."""
        given = martlet_settings(folder).get("module")
        if given is not None:
            return _configured(str(given), names)
        for candidate in ENTRY_MODULES:
            if f"{candidate}.py" in names:
                return candidate
        if len(names) == 1:
            (name,) = names
            stem = name.removesuffix(".py")
            if name.endswith(".py") and _MODULE.fullmatch(stem) and "." not in stem:
                return stem
            if name.endswith(".py"):
                raise DeployFailed(f"{name} cannot be imported: {stem!r} is not a module's name", remedy="rename the file")
        return None

    async def read(self, functions: Functions, *, app: str, code: str, layer: str, entry: str) -> Build:
        return await functions.build(app=app, code=code, layer=layer, module=entry)


def _configured(module: str, names: frozenset[str]) -> str:
    if not _MODULE.fullmatch(module):
        raise DeployFailed(
            f"pyproject.toml: [tool.martlet] module {module!r} is not a module's name", remedy='write it as "package.module"'
        )
    path = module.replace(".", "/")
    if f"{path}.py" not in names and f"{path}/__init__.py" not in names:
        raise DeployFailed(
            f"pyproject.toml: [tool.martlet] module {module!r} is not in the app's folder",
            remedy=f"fix the setting, or add {path}.py or {path}/__init__.py",
        )
    return module
