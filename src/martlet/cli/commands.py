"""What each command does."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from martlet.cli.client import Client, Endpoint, segment
from martlet.cli.failure import DEPLOY_FAILED, REFUSED, START_FAILED, USAGE, Failure, printable
from martlet.cli.output import age_ms, nested, table

__all__ = ["run"]

Arguments = argparse.Namespace


def run(arguments: Arguments) -> int:
    """Run the command that was parsed; returns its exit code. Raises `Failure`."""
    return _COMMANDS[arguments.command](arguments)


# --- where the platform is


def _data(arguments: Arguments, path: Path | None = None) -> Path:
    """`--data`, else MARTLET_DATA, else the .martlet of PATH's folder if it is there, of the working folder or of the
    nearest folder above that has one."""
    from martlet.config import environment

    given = arguments.data or environment().get("MARTLET_DATA")
    if given:
        return Path(given).absolute()
    here = Path.cwd()
    candidates = [path if path.is_dir() else path.parent] if path is not None else []
    for folder in (*candidates, here, *here.parents):
        if (folder / ".martlet").is_dir():
            return folder / ".martlet"
    return here / ".martlet"


def _client(arguments: Arguments, path: Path | None = None) -> Client:
    return Client(Endpoint(_data(arguments, path)))


def _since_ms(arguments: Arguments) -> int | None:
    if arguments.since is None:
        return None
    from martlet.clock import Clock

    try:
        return max(Clock().now_ms() - age_ms(arguments.since), 0)
    except ValueError as error:
        raise Failure(USAGE, f"--since: {error}") from error


def _show_json(value: object) -> None:
    print(_json_text(value, indent=2))


def _json_text(value: object, indent: int | None = None) -> str:
    """JSON for a terminal or a pipe; what would steer a terminal stays escaped (RFC 8259 lets DEL and C1 stand as they are)."""
    text = json.dumps(value, indent=indent, ensure_ascii=not _utf8())
    return text.translate({code: f"\\u{code:04x}" for code in range(127, 160)})


def _utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


# --- running


def _up(arguments: Arguments) -> int:
    from martlet import config
    from martlet.errors import MartletError

    path = Path(arguments.path).absolute() if arguments.path else None
    if path is not None and not path.exists():
        raise Failure(USAGE, f"there is no folder or file {arguments.path}")
    data = arguments.data or config.environment().get("MARTLET_DATA")
    if data is None and path is not None:
        data = str((path if path.is_dir() else path.parent) / ".martlet")
    try:
        settings = config.load(
            {
                "data": data or str(_data(arguments)),
                "port": arguments.port,
                "api_port": arguments.api_port,
                "sandbox": arguments.sandbox,
                "store": arguments.store,
                "objects": arguments.objects,
            }
        )
        more: dict[str, Any] = {}
        if arguments.param or arguments.lenient:
            more = {"parameters": _parameters(arguments), "lenient": arguments.lenient}
        ended = importlib.import_module("martlet.up").run(settings, path, watching=not arguments.no_watch, **more)
    except MartletError as error:
        code = DEPLOY_FAILED if error.code == "deploy_failed" else USAGE if error.code == "invalid_input" else START_FAILED
        raise Failure(code, error.message, error.remedy, str(error.details.get("stack") or "")) from error
    return ended if isinstance(ended, int) else 0


def _deploy(arguments: Arguments) -> int:
    from martlet.apps.archive import pack
    from martlet.apps.package import app_name, check_app_name, scan
    from martlet.apps.stacks.finding import template_of
    from martlet.errors import MartletError

    path = Path(arguments.path)
    client = _client(arguments, path.absolute())
    try:
        template = template_of(path.absolute())
        if template is not None:
            return _deploy_template(arguments, template, client)
        if arguments.param or arguments.lenient:
            raise Failure(USAGE, f"{path} is no template: --param and --lenient are for templates")
        name = check_app_name(arguments.app) if arguments.app else app_name(path)
        package = scan(path)
        body = pack(package)
    except MartletError as error:
        code = USAGE if error.code == "invalid_input" else DEPLOY_FAILED
        raise Failure(code, error.message, error.remedy) from error
    query: dict[str, object] = {"dry_run": True} if arguments.dry_run else {}
    where = f"/v1/apps/{segment(name)}/deployments"
    lines = client.lines("POST", where, query, body, "application/x-tar", refused=DEPLOY_FAILED)
    result = _deployment_of(lines, "see which version serves: martlet apps")
    if arguments.json:
        _show_json(result)
    else:
        print(_deployment_text(result))
        if result["routes"] and not result["dry_run"]:
            print(f"answers at http://{name}.localhost:{client.endpoint.port}/")
    return 0


def _deploy_template(arguments: Arguments, template: Path, client: Client) -> int:
    from martlet.apps.package import check_app_name
    from martlet.apps.stacks.finding import stack_name

    name = check_app_name(arguments.app) if arguments.app else stack_name(template)
    body = json.dumps({"path": str(template), "parameters": _parameters(arguments), "lenient": arguments.lenient}).encode()
    query: dict[str, object] = {"dry_run": True} if arguments.dry_run else {}
    where = f"/v1/stacks/{segment(name)}/deployments"
    lines = client.lines("POST", where, query, body, refused=DEPLOY_FAILED)
    result = _deployment_of(lines, "nothing was changed: deploy again", "it goes on, backwards, at its next start")
    if arguments.json:
        _show_json(result)
    else:
        print(_stack_text(result))
    return 0


def _deployment_of(lines: Iterator[Any], remedy: str, begun: str = "") -> dict[str, Any]:
    """What a deployment's stream of events ends in; its progress goes to standard error. `remedy`: for one that breaks off;
    `begun`: for one that had begun to change something."""
    result: dict[str, Any] | None = None
    for event in lines:
        if event.get("type") == "progress":
            print(printable(str(event.get("text", ""))), file=sys.stderr)
        elif event.get("type") == "begun":
            remedy = begun
        elif event.get("type") == "result":
            result = event["deployment"]
    if result is None:
        raise Failure(REFUSED, "the platform stopped before the deployment ended", remedy)
    return result


def _parameters(arguments: Arguments) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for given in arguments.param:
        key, equals, value = given.partition("=")
        if not equals or not key:
            raise Failure(USAGE, f"--param {given}: write it as NAME=VALUE")
        parameters[key] = value
    return parameters


def _stack_text(result: dict[str, Any]) -> str:
    changes = [f"  {change}" for change in result["changes"]]
    if result["dry_run"]:
        plural = "s" * (result["resources"] != 1)
        head = f"{result['app']}: dry run, nothing was changed; it would become {result['resources']} resource{plural}"
        changes = changes or ["  nothing would change"]
    elif not changes:
        head = f"{result['app']} revision {result['revision']}: nothing changed"
    else:
        head = f"{result['app']} revision {result['revision']}: {result['status']}, {result['duration_ms']} ms"
    warnings = [f"  left out: {warning}" for warning in result["warnings"]]
    if warnings:
        head += f"; {len(warnings)} not honoured (--lenient)"
    outputs = table(("OUTPUT", "VALUE"), sorted(result["outputs"].items()), empty="") if result["outputs"] else ""
    return printable("\n".join(line for line in (head, *changes, *warnings, outputs) if line))


def _count(items: list[Any], noun: str) -> str:
    return f"{len(items)} {noun}{'s' * (len(items) != 1)}"


def _deployment_text(result: dict[str, Any]) -> str:
    steps = [f"  {step}" for step in result["steps"]] or [
        "  nothing would change" if result["dry_run"] else "  nothing changed"
    ]
    counts = f"{_count(result['functions'], 'function')}, {_count(result['routes'], 'route')}"
    if result["dry_run"]:
        head = f"{result['app']}: dry run, nothing was changed; it would become {counts}"
    else:
        head = f"{result['app']} revision {result['revision']}: {counts}, {result['duration_ms']} ms"
    return printable("\n".join([head, *steps]))


# --- showing


def _env(arguments: Arguments) -> int:
    import shlex

    endpoint = Endpoint(_data(arguments))
    variables = {
        "AWS_ENDPOINT_URL": endpoint.api,
        "AWS_ACCESS_KEY_ID": endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_access_key,
        "AWS_REGION": endpoint.region,
        "AWS_DEFAULT_REGION": endpoint.region,
    }
    if arguments.json:
        _show_json(variables)
    else:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
    return 0


def _apps(arguments: Arguments) -> int:
    found = _client(arguments).call("GET", "/v1/apps")
    if arguments.json:
        _show_json(found)
        return 0
    rows = [
        (
            app["name"],
            app["revision"],
            len(app["functions"]),
            len(app["routes"]),
            len(app["schedules"]),
            _time(app["updated_at_ms"]),
        )
        for app in found["apps"]
    ]
    headings = ("APP", "REVISION", "FUNCTIONS", "ROUTES", "SCHEDULES", "DEPLOYED")
    print(table(headings, rows, empty="no apps; deploy one: martlet deploy PATH"))
    return 0


def _functions(arguments: Arguments) -> int:
    query: dict[str, object] = {"app": arguments.app, **({"versions": True} if arguments.versions else {})}
    found = _client(arguments).call("GET", "/v1/functions", query)
    if arguments.json:
        _show_json(found)
        return 0
    rows = []
    for function in found["functions"]:
        config = function["config"]
        rows.append(
            (
                function["name"] if function["qualifier"] == "$LATEST" else f"{function['name']}:{function['qualifier']}",
                function["app"] or "-",
                function["runtime"],
                function["version"],
                config["memory_mb"],
                config["timeout_seconds"],
                config["concurrency"],
                config["handler"],
                _time(function["created_at_ms"]),
            )
        )
    headings = ("FUNCTION", "APP", "RUNTIME", "VERSION", "MEMORY_MB", "TIMEOUT_S", "CONCURRENCY", "HANDLER", "PUBLISHED")
    print(table(headings, rows, empty="no functions"))
    return 0


def _usage(arguments: Arguments) -> int:
    found = _client(arguments).call("GET", "/v1/usage", {"since_ms": _since_ms(arguments)})
    if arguments.json:
        _show_json(found)
        return 0
    rows = [
        (
            row["function"],
            row["version"],
            _time(row["hour_ms"])[:16],
            row["invocations"],
            row["errors"],
            row["throttled"],
            row["cold_starts"],
            row["duration_ms"],
            row["cpu_ms"],
            row["gb_ms"] / 1000,
            row["peak_memory_mb"],
        )
        for row in found["functions"]
    ]
    headings = [
        "FUNCTION",
        "VERSION",
        "HOUR_UTC",
        "CALLS",
        "ERRORS",
        "THROTTLED",
        "COLD",
        "DURATION_MS",
        "CPU_MS",
        "GB_S",
        "PEAK_MB",
    ]
    print(table(headings, rows, empty="nothing used"))
    if found.get("documents"):
        _show_document_usage(found["documents"])
    if found.get("requests"):
        asked = [(row["app"] or "-", row["meter"], _time(row["hour_ms"])[:16], row["requests"]) for row in found["requests"]]
        print()
        print(table(["APP", "METER", "HOUR_UTC", "REQUESTS"], asked, empty=""))
    return 0


def _bill(arguments: Arguments) -> int:
    from martlet.cli import bill

    return bill.run(_client(arguments), arguments)


def _show_document_usage(used: list[dict[str, Any]]) -> None:
    names = ("requests", "read_operations", "write_operations", "compute_operations", "bytes_in", "bytes_out", "storage_bytes")
    rows = [(row["database"], _time(row["hour_ms"])[:16], *(row[name] for name in names)) for row in used]
    headings = ["DATABASE", "HOUR_UTC", "REQUESTS", "READS", "WRITES", "COMPUTE", "BYTES_IN", "BYTES_OUT", "STORED"]
    print()
    print(table(headings, rows, empty=""))


def _budget(arguments: Arguments) -> int:
    from martlet.cli import bill

    return bill.budget(_client(arguments), arguments)


def _secret(arguments: Arguments) -> int:
    from martlet.cli import secret

    return secret.run(_client(arguments), arguments)


def _audit(arguments: Arguments) -> int:
    from martlet.cli import trust

    return trust.audit(lambda: _client(arguments), arguments, _since_ms(arguments), _time)


def _policy(arguments: Arguments) -> int:
    from martlet.cli import trust

    return trust.policy(_client(arguments), arguments)


def _status(arguments: Arguments) -> int:
    found = _client(arguments).call("GET", "/v1/status")
    if arguments.json:
        _show_json(found)
    else:
        print("\n".join(nested(found)))
    return 0


def _version(arguments: Arguments) -> int:
    from martlet import __version__

    if arguments.json:
        _show_json({"version": __version__})
    else:
        print(f"martlet {__version__}")
    return 0


def _time(milliseconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


# --- functions


def _invoke(arguments: Arguments) -> int:
    payload = _event(arguments)
    if arguments.show:
        print(_json_text(json.loads(payload), indent=2))
        return 0
    query: dict[str, object] = {"log": True} if arguments.log else {}
    if arguments.debug:
        return _ended(arguments, _debugged(arguments, query, payload))
    if arguments.port is not None:
        raise Failure(USAGE, "--port is where a debugger connects", "say --debug too")
    result = _client(arguments).call("POST", f"/v1/functions/{segment(arguments.name)}/invocations", query, payload)
    return _ended(arguments, result)


def _debugged(arguments: Arguments, query: dict[str, object], payload: bytes) -> dict[str, Any]:
    """The result of an event that waited for a debugger. What to do is told meanwhile; an interrupt ends the event."""
    query["port"] = arguments.port
    for event in _client(arguments).lines("POST", f"/v1/functions/{segment(arguments.name)}/debug", query, payload):
        if event.get("type") == "progress":
            print(printable(str(event.get("text", ""))), file=sys.stderr, flush=True)
        elif event.get("type") == "result":
            result: dict[str, Any] = event["invocation"]
            return result
    raise Failure(REFUSED, "the platform stopped before the event ended")


def _ended(arguments: Arguments, result: dict[str, Any]) -> int:
    """Show how an invocation ended; a function error is a `Failure`."""
    if arguments.log:
        print(printable(result.get("log", "").replace("\r", "\n")).rstrip("\n"), file=sys.stderr)
    if arguments.json:
        _show_json(result)
    else:
        print(_json_text(result["payload"]))
    if result["error"]:
        raise Failure(
            REFUSED,
            f"the function failed: {result['error_type'] or result['error']}",
            "see its log: martlet logs " + str(result["function"]).partition(":")[0],
        )
    return 0


def _replay(arguments: Arguments) -> int:
    if arguments.list:
        return _failures(arguments)
    if arguments.what is None:
        raise Failure(USAGE, "name the request id of a failed event", "martlet replay --list shows what is recorded")
    query: dict[str, object] = {"log": True} if arguments.log else {}
    result = _client(arguments).call("POST", f"/v1/failures/{segment(arguments.what)}/replays", query, b"")
    return _ended(arguments, result)


def _failures(arguments: Arguments) -> int:
    found = _client(arguments).call("GET", "/v1/failures", {"function": arguments.what})
    if arguments.json:
        _show_json(found)
        return 0
    rows = [
        (
            row["request_id"],
            f"{row['function']}:{row['qualifier']}" if row["qualifier"] else row["function"],
            _time(row["at_ms"]),
            row["source"],
            row["error_type"],
            row["payload_bytes"],
        )
        for row in found["failures"]
    ]
    print(table(("REQUEST_ID", "FUNCTION", "FAILED", "SOURCE", "ERROR", "BYTES"), rows, empty="no failed events"))
    return 0


def _event(arguments: Arguments) -> bytes:
    """The event that the options describe, as JSON."""
    if arguments.event is None and not arguments.set:
        return _payload(arguments.payload or "{}")
    if arguments.event is not None and arguments.payload is not None:
        raise Failure(USAGE, "--event and --payload are two events", "give one of them")
    from martlet.cli import events

    found = events.event(arguments.event) if arguments.event else json.loads(_payload(arguments.payload or "{}") or b"{}")
    try:
        for text in arguments.set:
            events.assign(found, text)
    except ValueError as error:
        raise Failure(USAGE, f"--set: {error}", "`martlet invoke NAME --event KIND --show` prints the event") from error
    return json.dumps(found).encode()


def _payload(text: str) -> bytes:
    try:
        if text == "-":
            raw = sys.stdin.buffer.read()
        elif text.startswith("@"):
            raw = Path(text[1:]).read_bytes()
        else:
            raw = text.encode()
    except OSError as error:
        raise Failure(USAGE, f"--payload: cannot read {text[1:]}: {error.strerror}") from error
    try:
        json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise Failure(USAGE, f"--payload: not JSON: {error}") from error
    return raw


def _logs(arguments: Arguments) -> int:
    query: dict[str, object] = {"function": arguments.name, "since_ms": _since_ms(arguments)}
    if arguments.follow:
        query["follow"] = True
    try:
        for record in _client(arguments).lines("GET", "/v1/logs", query):
            if arguments.json:
                print(json.dumps(record), flush=True)
            else:
                print("\n".join(_log_line(line) for line in record["lines"]), flush=True)
    except KeyboardInterrupt:
        if not arguments.follow:
            raise
    return 0


def _log_line(line: str) -> str:
    """For people. Lambda has "\\r" between the lines of one event, such as a traceback's."""
    return printable(line.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n"))


def _destroy(arguments: Arguments) -> int:
    client = _client(arguments)
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise Failure(USAGE, "destroy asks before it removes an app, and there is no terminal to ask on", "say --yes")
        print(
            f"Remove app {arguments.app} with its functions, routes and schedules? Documents, queues and buckets that its\n"
            "code declares are kept. Of a template's stack, tables, queues and buckets go with their data, but for what\n"
            "says DeletionPolicy: Retain. Type its name: ",
            end="",
            file=sys.stderr,
            flush=True,
        )
        if sys.stdin.readline().strip() != arguments.app:
            raise Failure(REFUSED, "nothing was removed")
    client.call("DELETE", f"/v1/apps/{segment(arguments.app)}")
    print(f"removed {arguments.app}")
    return 0


def _runtimes(arguments: Arguments) -> int:
    from martlet.config import environment
    from martlet.functions.runtimes import Runtimes, RuntimeUnavailable, available
    from martlet.functions.runtimes.install import install

    if arguments.action == "install":
        if not arguments.runtime:
            raise Failure(USAGE, "name the runtime to install", "martlet runtimes install nodejs22.x")
        folder = (Path(arguments.data) if arguments.data else Path.home() / ".martlet") / "runtimes"
        try:
            program = install(arguments.runtime, folder)
        except RuntimeUnavailable as error:
            raise Failure(REFUSED, error.message, error.remedy) from error
        print(f"{arguments.runtime}  {program}")
        return 0
    found = available(Runtimes(_data(arguments), region="", node=environment().get("MARTLET_NODE", "")).programs)
    if arguments.json:
        _show_json(found)
    else:
        print(
            table(
                ("runtime", "runs with"),
                [(row["runtime"], row["program"] or f"not here: {row['install']}") for row in found],
                empty="",
            )
        )
    return 0


def _documents(arguments: Arguments) -> int:
    from martlet.cli.documents import documents

    return documents(arguments, _client(arguments), _show_json)


def _store(arguments: Arguments) -> int:
    import msgspec

    from martlet.errors import MartletError
    from martlet.store.places import copy_store

    shown = [""]

    def progress(phase: str, done: int, size: int) -> None:
        text = f"{phase}: {done:,} ({size / 1e6:,.1f} MB)"
        if sys.stderr.isatty() and text != shown[0]:
            print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)
        elif not sys.stderr.isatty() and phase != shown[0].partition(":")[0]:
            print(f"{phase} ...", file=sys.stderr, flush=True)
        shown[0] = text

    try:
        done = msgspec.to_builtins(copy_store(arguments.source, arguments.target, progress))
    except MartletError as error:
        raise Failure(USAGE if error.code == "invalid_input" else REFUSED, error.message, error.remedy) from error
    finally:
        if sys.stderr.isatty() and shown[0]:
            print(file=sys.stderr)
    if arguments.json:
        _show_json(done)
    else:
        print(f"{done['rows']:,} rows and {done['entries']:,} log entries, {done['bytes'] / 1e6:,.1f} MB")
        print(f"both ends have SHA-256 {done['checksum']}")
        print(f"written now: {done['rows_written']:,} rows, {done['entries_written']:,} entries; the others were there already")
    return 0


_COMMANDS: dict[str, Callable[[Arguments], int]] = {
    "up": _up,
    "env": _env,
    "deploy": _deploy,
    "apps": _apps,
    "functions": _functions,
    "invoke": _invoke,
    "replay": _replay,
    "logs": _logs,
    "usage": _usage,
    "bill": _bill,
    "documents": _documents,
    "destroy": _destroy,
    "budget": _budget,
    "secret": _secret,
    "audit": _audit,
    "policy": _policy,
    "runtimes": _runtimes,
    "status": _status,
    "store": _store,
    "version": _version,
}
