"""What an app depends on, read from its own files and checked line by line before uv sees it.

Files, in this order: `requirements.txt` (with `-r other.txt` inside the app); `uv.lock` beside `pyproject.toml` (exported as it
is); `[project] dependencies` of `pyproject.toml`. Everything that would read the host's disk or run a package's code while
building (`-e`, paths, `file:`, version control) and every option is refused by name.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from martlet.apps.package import martlet_settings, project_settings
from martlet.errors import DeployFailed, Unsupported

__all__ = ["Requirements", "check_line", "normalise", "read", "split_hashes"]

_NAME = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[^\]]*\])?\s*(?P<rest>.*)", re.DOTALL)
_FILE_BYTES = 1_048_576
_INCLUDES = 8


class Requirements(msgspec.Struct, frozen=True):
    """`lines`: normalised, in order of name. `locked`: they come from uv.lock's folder, and `lines` is empty until exported."""

    lines: tuple[str, ...] = ()
    lock_folder: Path | None = None
    allow_source_builds: bool = False
    origin: str = ""

    def __bool__(self) -> bool:
        return bool(self.lines) or self.lock_folder is not None


def read(folder: Path) -> Requirements:
    """The requirements of the app in `folder`. Raises `DeployFailed`, `Unsupported`, naming file and line."""
    sources = bool(martlet_settings(folder).get("allow-source-builds", False))
    if (folder / "requirements.txt").is_file():
        lines = _requirements_txt(folder, "requirements.txt", sources, 0)
        return Requirements(_ordered(lines), None, sources, "requirements.txt")
    project = project_settings(folder).get("project", {})
    if not isinstance(project, dict):
        raise DeployFailed("pyproject.toml: project is not a table", remedy="write it as [project]")
    if (folder / "uv.lock").is_file() and (folder / "pyproject.toml").is_file():
        return Requirements((), folder, sources, "uv.lock")
    dependencies = project.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(line, str) for line in dependencies):
        raise DeployFailed("pyproject.toml: [project] dependencies is not a list of strings", remedy="fix the file")
    lines = [check_line(line, f"pyproject.toml: dependency {number}", sources) for number, line in enumerate(dependencies, 1)]
    return Requirements(_ordered(lines), None, sources, "pyproject.toml")


def _ordered(lines: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(lines)))


def _requirements_txt(folder: Path, name: str, sources: bool, depth: int) -> list[str]:
    if depth > _INCLUDES:
        raise DeployFailed(f"{name}: more than {_INCLUDES} files include each other", remedy="remove the circle of -r lines")
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
        raise DeployFailed(f"there is no {name} in the app's folder", remedy="fix the -r line")
    with file.open("rb") as stream:
        raw = stream.read(_FILE_BYTES + 1)
    if len(raw) > _FILE_BYTES:
        raise DeployFailed(f"{name} is larger than {_FILE_BYTES} bytes", remedy="shorten it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DeployFailed(f"{name} is not UTF-8: {error}", remedy="save it as UTF-8") from error
    lines: list[str] = []
    for number, line in _logical_lines(text):
        if match := re.match(r"(?:-r|--requirement)[\s=]*(\S+)$", line):
            base = name.rsplit("/", 1)[0] + "/" if "/" in name else ""
            lines += _requirements_txt(folder, base + match[1], sources, depth + 1)
        else:
            lines.append(check_line(line, f"{name}:{number}", sources))
    return lines


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """(number of the first line, text) without comments, blank lines and backslash continuations."""
    found: list[tuple[int, str]] = []
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first or number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        whole = re.sub(r"(^|\s)#.*$", "", pending + line).strip()
        if whole:
            found.append((first, whole))
        pending, first = "", 0
    if pending.strip():
        found.append((first, pending.strip()))
    return found


def split_hashes(line: str) -> tuple[str, list[str]]:
    """A line without its `--hash=` options, and those."""
    hashes = re.findall(r"--hash[= ](\S+)", line)
    return re.sub(r"\s*--hash[= ]\S+", "", line).strip(), hashes


def check_line(line: str, where: str, allow_source_builds: bool) -> str:
    """One requirement, normalised. Raises `Unsupported` for what is not a named package from an index or an https wheel."""
    bare, hashes = split_hashes(line.strip())
    if bare.startswith("-"):
        raise Unsupported(
            f"{where}: the option {bare.split()[0].split('=')[0]} is not supported",
            remedy="list packages by name; give the index to `martlet up` as UV_DEFAULT_INDEX or UV_INDEX",
        )
    match = _NAME.fullmatch(bare)
    rest = match["rest"].strip() if match else ""
    if match is None or (rest and rest[0] not in "=<>!~@;("):
        raise Unsupported(
            f"{where}: {bare!r} is not a package's name (paths and bare addresses are not supported)",
            remedy='write "name==version" or "name @ https://…/name.whl"',
        )
    if rest.startswith("@"):
        _check_address(rest[1:].strip(), where, bare, allow_source_builds)
    return " ".join([normalise(match["name"], match["extras"] or "", rest), *(f"--hash={value}" for value in sorted(hashes))])


def _check_address(address: str, where: str, bare: str, allow_source_builds: bool) -> None:
    target = address.split(";")[0].strip().split("#")[0]
    if target.startswith(("https://", "http://")) and target.endswith(".whl"):
        return
    if allow_source_builds and target.startswith(("https://", "http://", "git+https://", "git+ssh://")):
        return
    raise Unsupported(
        f"{where}: {bare!r} would have to be built on this machine",
        remedy="use a wheel, or set allow-source-builds = true under [tool.martlet] in pyproject.toml "
        "(runs the package's code on the host)",
    )


def normalise(name: str, extras: str, rest: str) -> str:
    """A requirement in one spelling: the name by PEP 503, extras sorted, no space in the version."""
    plain = re.sub(r"[-_.]+", "-", name).lower()
    wanted = sorted({re.sub(r"[-_.]+", "-", extra.strip()).lower() for extra in extras.strip("[]").split(",") if extra.strip()})
    version, semicolon, marker = rest.partition(";")
    version = version.strip() if version.lstrip().startswith("@") else "".join(version.split())
    if version.startswith("@"):
        version = f" @ {version[1:].strip()}"
    text = plain + (f"[{','.join(wanted)}]" if wanted else "") + version
    return f"{text} ; {' '.join(marker.split())}" if semicolon else text
