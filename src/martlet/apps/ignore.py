"""Which files of a folder belong to an app: a documented subset of gitignore(5), from `.gitignore` and `.martletignore`.

Supported: comments, blank lines, `!` (take back in), a trailing `/` (folders only), a leading or inner `/` (relative to the
file's own folder), `*`, `?`, `[abc]`, `[!abc]`, `\\` (literal next character), `**/`, `/**/` and `/**`. The last rule that
matches decides; deeper files decide over shallower ones; in one folder `.martletignore` decides over `.gitignore`. As in
git, nothing inside an excluded folder can be taken back in. Not supported: global excludes, `.git/info/exclude`.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from martlet.errors import DeployFailed

__all__ = ["ALWAYS_SKIPPED", "IGNORE_FILES", "Rule", "always_skipped", "is_ignored", "parse", "rules_of"]

IGNORE_FILES = (".gitignore", ".martletignore")
ALWAYS_SKIPPED = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__", ".martlet"})
_MAX_BYTES = 262_144


class Rule(msgspec.Struct, frozen=True):
    """One line of an ignore file. `base` is its folder, "" or "a/b/"; `pattern` matches a path relative to that."""

    base: str
    pattern: re.Pattern[str]
    negated: bool
    folders_only: bool


def always_skipped(name: str) -> bool:
    """True for names that never belong to an app, whatever an ignore file says."""
    return name in ALWAYS_SKIPPED or name.endswith(".pyc")


def is_ignored(path: str, is_folder: bool, rules: tuple[Rule, ...]) -> bool:
    """Whether `path`, relative to the app's folder with "/" between, is left out by `rules` (in order of reading)."""
    for rule in reversed(rules):
        if rule.folders_only and not is_folder:
            continue
        if path.startswith(rule.base) and rule.pattern.fullmatch(path[len(rule.base) :]):
            return not rule.negated
    return False


def rules_of(folder: Path, base: str) -> tuple[Rule, ...]:
    """The rules that the ignore files of one folder add. `base` is the folder's path in the app, "" or "a/b/"."""
    rules: list[Rule] = []
    for name in IGNORE_FILES:
        file = folder / name
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise DeployFailed(f"{base}{name} is larger than {_MAX_BYTES} bytes", remedy="shorten the ignore file")
        rules.extend(parse(raw.decode("utf-8", "replace"), base))
    return tuple(rules)


def parse(text: str, base: str = "") -> list[Rule]:
    """The rules of one ignore file's text."""
    rules = []
    for line in text.splitlines():
        rule = _parse_line(line, base)
        if rule is not None:
            rules.append(rule)
    return rules


def _parse_line(line: str, base: str) -> Rule | None:
    line = re.sub(r"(?<!\\)[ \t]+$", "", line)
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    if negated:
        line = line[1:]
    folders_only = line.endswith("/")
    line = line.rstrip("/") if folders_only else line
    if not line:
        return None
    anchored = "/" in line
    body = _translate(line.lstrip("/"))
    return Rule(base, re.compile(body if anchored else f"(?:.*/)?{body}", re.DOTALL), negated, folders_only)


def _translate(pattern: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            out.append("(?:.*/)?")
            at += 3
        elif pattern[at:] == "**" and at > 0 and pattern[at - 1] == "/":
            out.append(".+")
            at += 2
        else:
            piece, at = _translate_one(pattern, at)
            out.append(piece)
    return "".join(out)


def _translate_one(pattern: str, at: int) -> tuple[str, int]:
    character = pattern[at]
    if character == "*":
        while at < len(pattern) and pattern[at] == "*":
            at += 1
        return "[^/]*", at
    if character == "?":
        return "[^/]", at + 1
    if character == "[":
        end = pattern.find("]", at + 2 + (pattern[at + 1 : at + 2] in ("!", "^")))
        if end < 0:
            return "(?!)", len(pattern)  # never closed: git matches nothing with it
        return _character_class(pattern[at + 1 : end]), end + 1
    if character == "\\" and at + 1 < len(pattern):
        return re.escape(pattern[at + 1]), at + 2
    return re.escape(character), at + 1


def _character_class(inside: str) -> str:
    negated = inside[0] in "!^"
    members = inside[1:] if negated else inside
    escaped = members.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("&", "\\&").replace("~", "\\~")
    escaped = escaped.replace("|", "\\|").replace("^", "\\^")
    try:
        re.compile(f"[{escaped}]")
    except re.error:  # e.g. a range that runs backwards: git matches nothing with it
        return "(?!)"
    return f"(?!/)[{'^' if negated else ''}{escaped}]"
