"""`martlet documents`: collections of an app listed, exported, imported, removed.

Files go in pieces of some megabytes, cut between lines, so that a file of any size takes the memory of one piece."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Final

from martlet.cli.client import Client, segment
from martlet.cli.failure import REFUSED, USAGE, Failure, printable
from martlet.cli.output import table

__all__ = ["documents"]

_PIECE_BYTES: Final = 4 << 20
_READ_BYTES: Final = 1 << 20
_ERRORS_SHOWN: Final = 20


def documents(arguments: argparse.Namespace, client: Client, show_json: Callable[[Any], None]) -> int:
    """Do what `arguments.action` says; returns the exit code. Raises `Failure`."""
    if arguments.action == "list":
        return _list(arguments, client, show_json)
    if not arguments.collection:
        raise Failure(USAGE, "name the collection", f"martlet documents {arguments.action} {arguments.app} orders")
    if arguments.action == "export":
        return _export(arguments, client)
    if arguments.action == "import":
        return _import(arguments, client, show_json)
    return _delete(arguments, client)


def _list(arguments: argparse.Namespace, client: Client, show_json: Callable[[Any], None]) -> int:
    found = client.call("GET", "/v1/collections", {"app": arguments.app})
    if arguments.json:
        show_json(found)
        return 0
    rows = []
    for item in found["items"]:
        states = [
            f"{index['name']} ({index['done']} of {index['documents']})"
            if index["status"] == "building"
            else index["name"] + (" (failed)" if index["status"] == "failed" else "")
            for index in item["indexes"]
        ]
        rows.append((item["name"], item["documents"], item["bytes"], ", ".join(states) or "-"))
    print(table(("COLLECTION", "DOCUMENTS", "BYTES", "INDEXES"), rows, empty=f"no collections in {arguments.app}"))
    return 0


def _export(arguments: argparse.Namespace, client: Client) -> int:
    """One state of the collection, line by line. A file appears only when it is whole."""
    path = f"/v1/collections/{segment(arguments.collection)}/export"
    pieces = client.pieces("GET", path, {"app": arguments.app, "as_of": arguments.as_of})
    if arguments.file in (None, "-"):
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return 0
    target = Path(arguments.file)
    partial = target.with_name(target.name + ".partial")
    lines = 0
    try:
        with partial.open("wb") as out:
            for piece in pieces:
                lines += piece.count(b"\n")
                out.write(piece)
        partial.rename(target)
    except OSError as error:
        raise Failure(REFUSED, f"{target}: {error.strerror}", "give another file") from error
    finally:
        partial.unlink(missing_ok=True)
    print(f"{lines} documents of {arguments.app}/{arguments.collection} in {target}", file=sys.stderr)
    return 0


def _import(arguments: argparse.Namespace, client: Client, show_json: Callable[[Any], None]) -> int:
    name = arguments.file or "-"
    kind = arguments.format or ("csv" if name.lower().endswith(".csv") else "ndjson")
    query = {
        "app": arguments.app,
        "mode": arguments.mode,
        "dry_run": arguments.dry_run,
        "id_field": arguments.id_field or ("id" if kind == "csv" else None),
    }
    path = f"/v1/collections/{segment(arguments.collection)}/import"
    media = "text/csv" if kind == "csv" else "application/x-ndjson"
    total: dict[str, Any] = {"lines": 0, "written": 0, "failed": 0, "dry_run": arguments.dry_run, "errors": []}
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as source:
            for body, offset in _pieces(source, kind == "csv"):
                report = client.call("POST", path, query, body, media)
                _add(total, report, offset)
                if sys.stderr.isatty():
                    print(f"\r{total['lines']} lines, {total['failed']} failed", end="", file=sys.stderr, flush=True)
    except OSError as error:
        raise Failure(
            USAGE, f"{name}: {error.strerror or error}", "give a file that can be read, or - for standard input"
        ) from error
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if arguments.json:
        show_json(total)
    else:
        _report(total)
    return 1 if total["failed"] else 0


def _add(total: dict[str, Any], report: dict[str, Any], offset: int) -> None:
    """`offset`: lines before the piece."""
    total["lines"] = offset + report["lines"]
    total["written"] += report["written"]
    total["failed"] += report["failed"]
    left = max(1_000 - len(total["errors"]), 0)
    total["errors"] += [{**error, "line": error["line"] + offset} for error in report["errors"][:left]]


def _report(total: dict[str, Any]) -> None:
    done = "would be written" if total["dry_run"] else "written"
    print(f"{total['lines']} lines: {total['written']} {done}, {total['failed']} failed")
    for error in total["errors"][:_ERRORS_SHOWN]:
        print(printable(f"  line {error['line']}: {error['code']}: {error['error']}"))
    if total["failed"] > _ERRORS_SHOWN:
        print("  ... all that are known with --json")


def _pieces(source: BinaryIO, csv: bool) -> Iterator[tuple[bytes, int]]:
    """(some whole lines, number of lines before them). Of CSV each piece begins with the first line again."""
    head = b""
    waiting: list[bytes] = []
    size = before = 0
    for part in _whole_lines(source):
        if csv and not head:
            head, _, part = part.partition(b"\n")
            head += b"\n"
            if not part:
                yield head, 0
                continue
        waiting.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            yield head + b"".join(waiting), before
            before += sum(part.count(b"\n") for part in waiting)
            waiting, size = [], 0
    if waiting:
        yield head + b"".join(waiting), before


def _whole_lines(source: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while part := source.read(_READ_BYTES):
        whole, newline, rest_of = (rest + part).rpartition(b"\n")
        rest = rest_of
        if newline:
            yield whole + newline
        elif len(rest) > 2 * _PIECE_BYTES:
            raise Failure(USAGE, "a line is longer than any document may be", "one JSON document (or CSV row) a line")
    if rest:
        yield rest


def _delete(arguments: argparse.Namespace, client: Client) -> int:
    if not arguments.yes:
        told = f"Remove collection {arguments.collection} of {arguments.app} with all its documents? Type its name: "
        print(told, end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip() != arguments.collection:
            raise Failure(REFUSED, "nothing was removed", "type the collection's name, or give --yes")
    client.call("DELETE", f"/v1/collections/{segment(arguments.collection)}", {"app": arguments.app})
    print(f"removed {arguments.app}/{arguments.collection}")
    return 0
