"""What a code folder is said to import, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from martlet.apps.stacks.imports import imported_packages


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    return _write(tmp_path / "site", web__app_py="", web__answers_py="", single_py="")


def test_imports_that_run_with_the_module_and_lead_to_packages(tmp_path: Path, packages: Path) -> None:
    text = (
        "import json, web.app as w\nfrom web import answers, Thing\nfrom web.answers import *\nfrom . import near\n"
        "try:\n    import single\nexcept ImportError:\n    import web.fallback\n"
        "if TYPE_CHECKING:\n    import web.types\ndef late():\n    import web.late\n"
    )
    source = _write(tmp_path / "code", app_py=text, near_py="import boto3", broken_py="import (", tests__t_py="import web.t")
    assert imported_packages(source, packages) == ("boto3", "single", "web:Thing,answers", "web.answers", "web.app")
    assert imported_packages(source, None) == ("boto3",)


@pytest.mark.parametrize("name", ["web_py", "single__x_py", "email_py", "botocore__x_py"])
def test_code_that_hides_a_package_gets_nothing_imported_ahead(tmp_path: Path, packages: Path, name: str) -> None:
    source = _write(tmp_path / "code", app_py="import web", **{name: ""})
    assert imported_packages(source, packages) == ()
