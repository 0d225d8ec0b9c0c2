"""What may be asked for as a dependency, and in which spelling it is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from martlet.apps.requirements import check_line, read
from martlet.errors import DeployFailed, Unsupported


@pytest.mark.parametrize(
    ("line", "normal"),
    [
        ("requests", "requests"),
        ("Flask_SQLAlchemy == 3.0", "flask-sqlalchemy==3.0"),
        ("a[Z,b] >= 1, <2", "a[b,z]>=1,<2"),
        ("a>=1 ; python_version  < '3.12'", "a>=1 ; python_version < '3.12'"),
        ("a @ https://example.com/a-1-py3-none-any.whl", "a @ https://example.com/a-1-py3-none-any.whl"),
        ("a==1 --hash=sha256:bb --hash=sha256:aa", "a==1 --hash=sha256:aa --hash=sha256:bb"),
    ],
)
def test_normal_form(line: str, normal: str) -> None:
    assert check_line(line, "here", False) == normal
    assert check_line(normal, "here", False) == normal


@pytest.mark.parametrize(
    "line",
    [
        "-e .", "--editable=.", "--index-url http://x", "--extra-index-url=http://x", "-c constraints.txt", "--find-links /tmp",
        "--pre",
        "./local", "../up", "/abs/path", "file:///etc/passwd", "a @ file:///etc/passwd",
        "git+https://example.com/a",
        "https://x/a.whl", "a @ git+https://example.com/a", "a @ https://example.com/a.tar.gz",
        "a @ ./a.whl", "a b", "$(id)", "",
    ],
)  # fmt: skip
def test_refused_by_place(line: str) -> None:
    with pytest.raises(Unsupported, match=r"^here: "):
        check_line(line, "here", False)


def test_source_builds_are_opted_into() -> None:
    assert check_line("a @ git+https://example.com/a", "here", True) == "a @ git+https://example.com/a"
    for line in ("a @ file:///etc/passwd", "-e ."):
        with pytest.raises(Unsupported):
            check_line(line, "here", True)


def test_requirements_txt(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# comment\nB>=1  # why\n\na==1 \\\n  --hash=sha256:00\n-r more/base.txt\nb >= 1\n", encoding="utf-8-sig"
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text("c\n-r other.txt\n")
    (tmp_path / "more" / "other.txt").write_text("d\n")
    assert read(tmp_path).lines == ("a==1 --hash=sha256:00", "b>=1", "c", "d")


def test_includes_are_bounded_and_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r requirements.txt\n")
    with pytest.raises(DeployFailed, match="include each other"):
        read(tmp_path)
    outside = tmp_path.parent / "outside.txt"
    outside.write_text("a\n")
    (tmp_path / "requirements.txt").write_text("-r ../outside.txt\n")
    with pytest.raises(DeployFailed, match=r"there is no \.\./outside\.txt"):
        read(tmp_path)


def test_line_numbers(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a\n\nb\\\n>=1\n-e .\n")
    with pytest.raises(Unsupported, match=r"requirements\.txt:5: the option -e"):
        read(tmp_path)


def test_pyproject(tmp_path: Path) -> None:
    assert not read(tmp_path)
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "x"\ndependencies = ["B", "a>1"]\n[tool.martlet]\nallow-source-builds = true\n')
    found = read(tmp_path)
    assert (found.lines, found.allow_source_builds, found.origin) == (("a>1", "b"), True, "pyproject.toml")
    (tmp_path / "uv.lock").write_text("version = 1\n")
    assert read(tmp_path).lock_folder == tmp_path
    (tmp_path / "requirements.txt").write_text("c\n")
    assert read(tmp_path).lines == ("c",)
    (tmp_path / "requirements.txt").unlink()
    (tmp_path / "uv.lock").unlink()
    project.write_text("[project]\ndependencies = [1]\n")
    with pytest.raises(DeployFailed, match="list of strings"):
        read(tmp_path)
