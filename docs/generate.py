"""Writes the pages of docs/reference that are made from the code: `make fmt` runs it, tests/test_docs.py checks freshness."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from martlet import config, errors, limits, services
from martlet.apps.stacks.assembly import catalogue
from martlet.apps.stacks.kinds import Property
from martlet.cli import arguments
from martlet.functions.runtimes import RUNTIMES
from martlet.protocols import codec

REFERENCE = Path(__file__).resolve().parent / "reference"
MADE = "<!-- Made from {source} by docs/generate.py (`make fmt`); edit that instead. -->"


def pages() -> dict[str, str]:
    """File name below docs/reference → its text."""
    return {
        "limits.md": limits_page(),
        "errors.md": errors_page(),
        "settings.md": settings_page(),
        "cli.md": cli_page(),
        "templates.md": templates_page(),
        "runtimes.md": runtimes_page(),
        "aws.md": aws_page(),
    }


def limits_page() -> str:
    rows = ((f"`{limit.name}`", f"{limit.default:,}", limit.unit, limit.source) for limit in limits.LIMITS.values())
    return _page(
        "Limits",
        "src/martlet/limits.py",
        "Every limit is enforced. What goes over one is refused with an error that names the limit, its value and what was\n"
        "asked.",
        _table(("limit", "default", "unit", "where the number comes from"), rows),
    )


def errors_page() -> str:
    def rows(kind: type[errors.MartletError], depth: int) -> Iterable[tuple[str, ...]]:
        meaning = " ".join((kind.__doc__ or "").split())
        yield "&nbsp;&nbsp;" * depth + f"`{kind.__name__}`", str(kind.http_status), f"`{kind.code}`", meaning
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                yield from rows(child, depth + 1)

    return _page(
        "Errors",
        "src/martlet/errors.py",
        "The platform's API answers errors as RFC 9457 problem objects: `type` is `urn:martlet:error:<code>`, `detail`\n"
        "one sentence that names the cause, `remedy` what to do about it, where that is known. Protocols of other\n"
        "clouds carry the same error in their own shape. `Throttled` and `Overloaded` say when to come back (`Retry-After`).",
        _table(("error", "HTTP", "code", "meaning"), rows(errors.MartletError, 0)),
    )


def settings_page() -> str:
    source = (Path(config.__file__)).read_text()
    rows = []
    for field in msgspec.structs.fields(config.Settings):
        said = re.search(rf"^    {field.name}: .*?#\s*(.+)$", source, re.MULTILINE)
        kind = getattr(field.type, "__name__", str(field.type))
        meaning = _cell(said[1]) if said else ""
        rows.append((f"`{field.name}`", f"`MARTLET_{field.name.upper()}`", kind, f"`{field.default!r}`", meaning))
    return _page(
        "Settings",
        "src/martlet/config.py",
        "Three sources, the later wins: the default, the environment variable, the command line. A value that does not fit is\n"
        "refused at start, by name.",
        _table(("setting", "environment variable", "type", "default", "meaning"), rows),
    )


def cli_page() -> str:
    parser = arguments.parser()
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    commands = [(name, command) for group in groups for name, command in group.choices.items()]
    return _page(
        "Command line",
        "src/martlet/cli/arguments.py",
        f"```text\n{(parser.epilog or '').strip()}\n```",
        "\n\n".join(_command(name, command) for name, command in commands),
    )


def templates_page() -> str:
    found = catalogue()
    parts = [
        _table(
            ("resource type", "", "attributes of Fn::GetAtt"),
            (
                (f"[`{name}`](#{re.sub('[^a-z0-9]', '', name.lower())})", kind.state, ", ".join(kind.attributes) or "-")
                for name, kind in sorted(found.items())
            ),
        )
    ]
    for name, kind in sorted(found.items()):
        note = f"\n\n{kind.note[0].upper()}{kind.note[1:]}." if kind.note else ""
        rows = list(_properties(kind.properties, ""))
        parts.append(f"## {name}{note}\n\n{_table(('property', '', 'update', 'note'), rows) if rows else ''}".rstrip())
    return _page(
        "Templates",
        "src/martlet/apps/stacks/providers/",
        "SAM and CloudFormation templates are deployed as they are: `martlet deploy template.yaml --param NAME=VALUE`.\n"
        "*Honoured* has its effect. *Taken* is remembered without one, because it has no meaning here that a program could\n"
        "see. *Refused*, and whatever is not named here, fails the deploy by name with the template's line, before anything\n"
        "is made; `--lenient` leaves it out and says so. SAM's own types become these. What an API may hold is said\n"
        "in [gateway](gateway.md).",
        "\n\n".join(parts),
    )


_KINDS = {
    "python": "a fork of a process that has imported its packages ahead",
    "node": "a process started ahead takes the handler; its own bootstrap",
    "provided": "the function's own `bootstrap`, through the Runtime API",
    "absent": "not brought: package it with its runtime interface client and a `bootstrap`, as `provided.al2023`",
}


def runtimes_page() -> str:
    rows = [
        (f"`{name}`", known.version or "-", _KINDS[known.kind] if known.version != "3.8" else "refused: too old to be run here")
        for name, known in RUNTIMES.items()
        if name
    ]
    return _page(
        "Runtimes",
        "src/martlet/functions/runtimes/catalogue.py",
        "Functions of apps (decorators) run on the Python that runs Martlet, or the one that `MARTLET_PYTHON` names.\n"
        "Functions of templates and of the Lambda API name one of these. `martlet runtimes` says which of them this host can\n"
        "run, and `martlet runtimes install NAME` gets one. How to bring your own: [runtimes](../how-to/runtimes.md).",
        _table(("runtime", "version", "how it runs"), rows),
    )


def aws_page() -> str:
    parts = []
    for name, known in sorted(services.SERVICES.items()):
        service = _loaded(known) if isinstance(known, str) else known
        model = codec.load(name)
        assert model is not None
        kinds = getattr(service, "parts", (service,))
        found = [one.name for one in model.operations.values() if any(hasattr(kind, one.method_name) for kind in kinds)]
        parts.append(f"## {name}\n\n{len(found)} operations: {', '.join(f'`{one}`' for one in sorted(found))}.")
    return _page(
        "AWS operations",
        "the services in src/martlet/services.py",
        "What answers on the API port to AWS's own clients. The service is the one in the request's signature. An operation\n"
        "that is not served, and every service that is not listed, is answered with status 501 and an error that names it, in\n"
        "the service's own form. Requests are checked by the service's own model before they are served. Which types and\n"
        "properties of templates are honoured: [templates](templates.md).",
        "\n\n".join(parts),
    )


def _properties(properties: Mapping[str, Property], path: str) -> Iterator[tuple[str, ...]]:
    for name, rule in sorted(properties.items()):
        update = "replacement" if rule.replace else "in place" if rule.state == "honoured" else ""
        required = "required" if rule.required else ""
        yield (f"`{path}{name}`", rule.state, update, _cell("; ".join(one for one in (required, rule.why) if one)))
        inner = rule.item if rule.type == "list" and rule.item else rule
        if inner.members:
            yield from _properties(inner.members, f"{path}{name}{'[]' if inner is not rule else ''}.")


def _command(name: str, command: argparse.ArgumentParser) -> str:
    rows = [
        (f"`{', '.join(action.option_strings) or action.metavar or action.dest}{_value(action)}`", _cell(action.help or ""))
        for action in command._actions
        if action.dest != "help"
    ]
    return "\n\n".join(
        (
            f"## martlet {name}",
            command.description or "",
            _table(("argument", "meaning"), rows),
            f"```text\n{(command.epilog or '').strip()}\n```",
        )
    )


def _value(action: argparse.Action) -> str:
    """What an option takes, as its help shows it."""
    if not action.option_strings or action.nargs == 0:
        return ""
    return f" {action.metavar or '|'.join(map(str, action.choices or ())) or action.dest.upper()}".replace("|", r"\|")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _loaded(name: str) -> type:
    """What an import string names."""
    module, _, attribute = name.partition(":")
    found: type = getattr(importlib.import_module(module), attribute)
    return found


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _page(title: str, source: str, opening: str, body: str) -> str:
    return f"# {title}\n\n{MADE.format(source=source)}\n\n{opening}\n\n{body}\n"


def main() -> int:
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
