"""`martlet secret`: values go in from a file, standard input or a prompt without echo, never from the command line, which
others on the machine can read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Protocol

from martlet.cli.failure import REFUSED, USAGE, Failure
from martlet.cli.output import table

__all__ = ["run"]

_PAGE = 100


class _Client(Protocol):
    def operation(self, target: str, request: dict[str, Any]) -> Any: ...


def run(client: _Client, arguments: Any) -> int:
    if arguments.action == "list":
        return _list(client, arguments)
    if not arguments.name:
        raise Failure(USAGE, f"{arguments.action} takes the secret's NAME", "martlet secret list")
    return {"set": _set, "get": _get, "delete": _delete}[arguments.action](client, arguments)


def _every(client: _Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    request: dict[str, Any] = {"MaxResults": _PAGE}
    while True:
        page = client.operation("secretsmanager.ListSecrets", request)
        found += page.get("SecretList", ())
        if not page.get("NextToken"):
            return found
        request["NextToken"] = page["NextToken"]


def _list(client: _Client, arguments: Any) -> int:
    found = _every(client)
    if arguments.json:
        print(json.dumps({"secrets": [one["Name"] for one in found]}, indent=2))
        return 0
    rows = [(one["Name"], len(one.get("SecretVersionsToStages") or {}), one.get("Description", "")) for one in found]
    print(table(["NAME", "VERSIONS", "DESCRIPTION"], rows, empty="no secrets"))
    return 0


def _value(given: str | None) -> str:
    if given is None:
        if not sys.stdin.isatty():
            raise Failure(USAGE, "no value was given", "martlet secret set NAME @FILE, or - for standard input")
        import getpass

        return getpass.getpass("value: ")
    if given == "-":
        return sys.stdin.read().removesuffix("\n")
    if not given.startswith("@"):
        cause = "a value on the command line can be read by others on this machine"
        raise Failure(USAGE, cause, "give @FILE, - for standard input, or nothing to be asked")
    try:
        return Path(given[1:]).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(USAGE, f"cannot read {given[1:]}: {error}") from None


def _set(client: _Client, arguments: Any) -> int:
    value = _value(arguments.value)
    if not value:
        raise Failure(USAGE, "the value is empty")
    if any(one["Name"] == arguments.name for one in _every(client)):
        done = client.operation("secretsmanager.PutSecretValue", {"SecretId": arguments.name, "SecretString": value})
    else:
        done = client.operation("secretsmanager.CreateSecret", {"Name": arguments.name, "SecretString": value})
    if arguments.json:
        print(json.dumps({"name": done["Name"], "version": done["VersionId"]}, indent=2))
    else:
        print(f"set {done['Name']}, version {done['VersionId']}")
    return 0


def _get(client: _Client, arguments: Any) -> int:
    print(client.operation("secretsmanager.GetSecretValue", {"SecretId": arguments.name}).get("SecretString", ""))
    return 0


def _delete(client: _Client, arguments: Any) -> int:
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise Failure(USAGE, f"delete {arguments.name}?", "say --yes")
        if input(f"delete {arguments.name}, with every version? [y/N] ").strip().lower() not in ("y", "yes"):
            raise Failure(REFUSED, "nothing was deleted")
    client.operation("secretsmanager.DeleteSecret", {"SecretId": arguments.name, "ForceDeleteWithoutRecovery": True})
    print(f"deleted {arguments.name}")
    return 0
