"""`martlet audit` and `martlet policy`: what was done, by whom, and what lets them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from martlet.cli.failure import REFUSED, USAGE, Failure
from martlet.cli.output import table

__all__ = ["audit", "policy"]

_PAGE = 1_000


class _Client(Protocol):
    def call(self, method: str, path: str, query: dict[str, Any] | None = None) -> Any: ...


def audit(client: Any, arguments: Any, since_ms: int | None, time: Any) -> int:
    """`client` is made when it is called: a file is verified without a platform."""
    if arguments.action == "verify":
        return _verify(client, arguments)
    if arguments.action == "export":
        return _export(client(), arguments)
    query = {
        "principal": arguments.principal or None,
        "action": arguments.call or None,
        "outcome": arguments.outcome or None,
        "limit": arguments.limit,
        "since_ms": since_ms,
    }
    found = client().call("GET", "/v1/audit", query)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    rows = [
        (
            entry["number"],
            time(entry["until_ms"]),
            entry["principal"] or entry["kind"],
            entry["action"],
            entry["resource"],
            entry["outcome"] + (f" {entry['error']}" if entry["error"] else ""),
            entry["count"],
            entry["source_ip"],
        )
        for entry in found["entries"]
    ]
    print(
        table(["NUMBER", "TIME_UTC", "PRINCIPAL", "CALL", "RESOURCE", "OUTCOME", "COUNT", "FROM"], rows, empty="nothing noted")
    )
    return 0


def _verify(client: Any, arguments: Any) -> int:
    if arguments.file:
        from martlet.auth.audit import check_chain  # deferred: nothing else here needs it
        from martlet.errors import MartletError

        try:
            with Path(arguments.file).open("rb") as file:
                verdict = check_chain(file)
        except OSError as error:
            raise Failure(USAGE, f"{arguments.file}: {error.strerror}") from None
        except MartletError as error:
            raise Failure(REFUSED, f"{arguments.file}: {error.message}") from None
        found: dict[str, Any] = {name: getattr(verdict, name) for name in verdict.__struct_fields__}
    else:
        found = client().call("GET", "/v1/audit/verify")
    if arguments.json:
        print(json.dumps(found, indent=2))
    elif found["why"]:
        print(f"broken: {found['why']}", file=sys.stderr)
    else:
        whole = f"{found['entries']} entries hold together, {found['first']} to {found['last']}"
        print(f"{whole}; the newest digest is {found['digest']}")
    return 1 if found["why"] else 0


def _export(client: _Client, arguments: Any) -> int:
    lines = (json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n" for entry in _entries(client))
    if arguments.file in (None, "-"):
        count = sum(sys.stdout.write(line) > 0 for line in lines)
    else:
        count = _replace(Path(arguments.file), lines)
    print(f"{count} entries exported", file=sys.stderr)
    return 0


def _replace(file: Path, lines: Iterator[str]) -> int:
    """Write a new file in the place of one that may be there: an export that breaks off leaves the earlier one."""
    draft = file.with_name(f".{file.name}.draft")
    try:
        with draft.open("w", encoding="utf-8") as out:
            count = sum(out.write(line) > 0 for line in lines)
        draft.replace(file)
    except OSError as error:
        raise Failure(USAGE, f"cannot write {file}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
    return count


def _entries(client: _Client) -> Iterator[dict[str, Any]]:
    after = 0
    while page := client.call("GET", "/v1/audit", {"after": after, "limit": _PAGE})["entries"]:
        yield from page
        after = page[-1]["number"]


def policy(client: _Client, arguments: Any) -> int:
    if arguments.action == "explain":
        return _explain(client, arguments)
    if arguments.action == "reset":
        if not arguments.principal:
            raise Failure(USAGE, "whose accesses are to be forgotten?", 'martlet policy reset "function NAME"')
        client.call("DELETE", "/v1/policy/accesses", {"principal": arguments.principal})
        return 0
    names = [arguments.principal] if arguments.principal else client.call("GET", "/v1/policy/principals")["principals"]
    found = []
    for name in names:
        if not arguments.principal and name.partition(" ")[0] in ("root", "anonymous", "service"):
            continue
        found.append(client.call("GET", "/v1/policy/suggest", {"principal": name}))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print("nobody asked for anything yet")
    for one in found:
        _show(one)
    return 0


def _explain(client: _Client, arguments: Any) -> int:
    if not (arguments.principal and arguments.call and arguments.resource):
        usage = 'martlet policy explain "function shop-place" documents:Put shop/orders'
        raise Failure(USAGE, "explain takes PRINCIPAL ACTION RESOURCE", usage)
    query = {"principal": arguments.principal, "action": arguments.call, "resource": arguments.resource}
    found = client.call("GET", "/v1/policy/explain", query)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    may = "may" if found["allowed"] else "may not"
    print(f"{found['principal']} {may} {found['action']} on {found['resource']}: {found['decided_by']}")
    if found["missing"]:
        print(f"missing statement: {json.dumps(found['missing'])}")
    if found["declare"]:
        print(f"or, in its app: uses=[{found['declare']}]")
    return 0


def _show(one: dict[str, Any]) -> None:
    print(one["principal"])
    if one["uses"]:
        print(f"  uses=[{', '.join(one['uses'])}]")
    for statement in one["policy"]["Statement"]:
        print(f"  {json.dumps(statement)}")
    for access in one["denied"]:
        print(f"  denied {access['denied']} times: {access['action']} on {access['resource']}")
    if one["unused"]:
        print(f"  declared and never used: {', '.join(one['unused'])}")
