"""The command line's shape. Imports nothing but argparse: `martlet --help` and wrong usage must answer at once."""

from __future__ import annotations

import argparse

__all__ = ["parser"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

_EPILOG = """\
exit codes: 0 done, 1 the platform or the function said no, 2 wrong usage, 3 the platform is not running,
4 the deployment failed (what was deployed before still serves), 5 the platform could not start, 130 interrupted

example:
  martlet up examples/hello        run the platform and the app in examples/hello; redeploys on save
"""


def parser() -> argparse.ArgumentParser:
    """The parser; the namespace it gives has `command`."""
    root = argparse.ArgumentParser(
        prog="martlet",
        description="The serverless cloud you own: isolated functions over HTTP, from one command.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    _up(commands)
    _deploy(commands)
    _listings(commands)
    _invoke(commands)
    _replay(commands)
    _logs(commands)
    _documents(commands)
    _destroy(commands)
    _budget(commands)
    _secret(commands)
    _audit(commands)
    _policy(commands)
    _runtimes(commands)
    _store(commands)
    return root


def _command(commands: Commands, name: str, summary: str, example: str, *, json: bool = False) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("--data", metavar="DIR", help="the platform's data folder (default: the project's .martlet)")
    if json:
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return command


def _up(commands: Commands) -> None:
    up = _command(commands, "up", "run the platform, and an app with it", "martlet up . --port 8700")
    up.add_argument(
        "path", nargs="?", metavar="PATH", help="an app's folder or .py file, or a SAM template, to deploy and watch"
    )
    up.add_argument("--port", type=_port, help="port of the apps (default 8700; 0: any free one)")
    up.add_argument("--api-port", type=_port, help="port of the platform's API (default: port + 1)")
    _template_options(up)
    up.add_argument(
        "--store",
        metavar="URL",
        help="postgresql://user@host/database: keep everything in this database (default: a file in the data folder)",
    )
    up.add_argument(
        "--objects",
        metavar="PLACE",
        help="a folder, or s3://bucket/prefix, gs://, az://: keep the bytes of objects there (default: in the data folder)",
    )
    up.add_argument("--no-watch", action="store_true", help="do not redeploy when files are saved")
    up.add_argument(
        "--sandbox",
        choices=("isolated", "process"),
        help="isolated (default) or process: no isolation, for your own code only",
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _deploy(commands: Commands) -> None:
    deploy = _command(commands, "deploy", "make an app serve what a folder holds", "martlet deploy . --dry-run", json=True)
    deploy.add_argument("path", metavar="PATH", help="the app's folder or .py file, or a SAM or CloudFormation template")
    deploy.add_argument("--app", metavar="NAME", help="the app's name (default: [tool.martlet] name, else the folder's)")
    deploy.add_argument("--dry-run", action="store_true", help="only show what would be done")
    _template_options(deploy)


def _template_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--param", action="append", default=[], metavar="K=V", help="a template's parameter; may be repeated")
    command.add_argument(
        "--lenient",
        action="store_true",
        help="leave out what a template has and Martlet does not, and say so, instead of failing",
    )


def _listings(commands: Commands) -> None:
    _command(commands, "env", "print the environment that points AWS clients here", 'eval "$(martlet env)"', json=True)
    _command(commands, "apps", "list apps", "martlet apps", json=True)
    functions = _command(commands, "functions", "list functions", "martlet functions --app shop", json=True)
    functions.add_argument("--app", metavar="NAME", help="only this app's or stack's")
    functions.add_argument("--versions", action="store_true", help="published versions too")
    usage = _command(commands, "usage", "show what each function used", "martlet usage --since 24h", json=True)
    usage.add_argument("--since", metavar="AGE", help="only the last 30s, 5m, 24h or 7d (default: all)")
    summary = "show what a month costs so far, and what it comes to"
    bill = _command(commands, "bill", summary, "martlet bill --prices list", json=True)
    bill.add_argument("--month", metavar="YYYY-MM", help="UTC (default: the present one)")
    bill.add_argument("--prices", choices=("own", "list"), help="price book (default: MARTLET_PRICES, else own)")
    bill.add_argument("--csv", action="store_true", help="every line as CSV")
    bill.add_argument("--page", metavar="FILE", help="write an invoice to print, as HTML")
    _command(commands, "status", "show what the platform is doing", "martlet status", json=True)
    _command(commands, "version", "print Martlet's version", "martlet version", json=True)


_EVENTS = (  # those of cli/events.py, which is not loaded for a help text
    "apigw", "cognito", "dynamodb", "eventbridge", "httpapi", "kinesis", "logs", "s3", "s3-delete", "schedule", "scheduler",
    "sns", "sqs", "url",
)  # fmt: skip


def _invoke(commands: Commands) -> None:
    example = 'martlet invoke hello-greet --payload \'{"name": "Ada"}\''
    invoke = _command(commands, "invoke", "run a function and print its answer", example, json=True)
    invoke.add_argument("name", metavar="NAME", help="the function: APP-FUNCTION, or NAME:VERSION or NAME:ALIAS")
    invoke.add_argument(
        "--payload", metavar="JSON|@FILE|-", help="the event (default {}); @FILE reads a file, - standard input"
    )
    invoke.add_argument(
        "--event",
        metavar="KIND",
        choices=_EVENTS,
        help="send what this source would send: " + ", ".join(_EVENTS),
    )
    invoke.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help="change the event first, e.g. Records.0.body.order=7 (again for more)",
    )
    invoke.add_argument("--show", action="store_true", help="print the event and run nothing")
    invoke.add_argument("--debug", action="store_true", help="wait for a debugger first; for Python and Node.js")
    invoke.add_argument("--port", type=_port, help="with --debug: where the debugger connects (default: any free port)")
    invoke.add_argument("--log", action="store_true", help="also print the end of its log, to standard error")


def _replay(commands: Commands) -> None:
    example = "martlet replay --list hello-greet"
    replay = _command(commands, "replay", "run a recorded failed event again, or list what is recorded", example, json=True)
    replay.add_argument(
        "what",
        nargs="?",
        metavar="REQUEST_ID|FUNCTION",
        help="the request id of the failed event; with --list the function (default: the newest of every function)",
    )
    replay.add_argument("--list", action="store_true", help="list the failed events that are kept")
    replay.add_argument("--log", action="store_true", help="also print the end of the log, to standard error")


def _logs(commands: Commands) -> None:
    logs = _command(commands, "logs", "print logs", "martlet logs hello-greet -f --since 5m", json=True)
    logs.add_argument("name", nargs="?", metavar="NAME", help="only this function's (default: all)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    logs.add_argument("--since", metavar="AGE", help="only the last 30s, 5m, 24h or 7d")


def _documents(commands: Commands) -> None:
    summary = "list, import, export or delete collections of documents"
    example = "martlet documents import shop orders orders.ndjson --dry-run"
    command = _command(commands, "documents", summary, example, json=True)
    command.add_argument("action", choices=("list", "import", "export", "delete"), help="what to do")
    command.add_argument("app", metavar="APP", help="the app, or a database inside it: APP/CHILD")
    command.add_argument("collection", nargs="?", metavar="COLLECTION", help="the collection (not for list)")
    command.add_argument("file", nargs="?", metavar="FILE", help="from or to this file (default: standard input or output)")
    command.add_argument("--format", choices=("ndjson", "csv"), help="of an import (default: by the file's name)")
    command.add_argument("--mode", choices=("upsert", "insert"), default="upsert", help="insert: ids must be new")
    command.add_argument("--id-field", metavar="NAME", help="lines are bare documents, and this field is the id")
    command.add_argument("--dry-run", action="store_true", help="check every line and write nothing")
    command.add_argument("--as-of", metavar="STAMP", help="export the state at this time, in microseconds")
    command.add_argument("--yes", action="store_true", help="delete without asking")


def _destroy(commands: Commands) -> None:
    destroy = _command(
        commands,
        "destroy",
        "remove an app; what its code keeps data in stays, of a template all goes but what says DeletionPolicy: Retain",
        "martlet destroy hello --yes",
    )
    destroy.add_argument("app", metavar="APP", help="the app's name")
    destroy.add_argument("--yes", action="store_true", help="do not ask")


def _budget(commands: Commands) -> None:
    example = "martlet budget set shop --money 20 --period month --tell shop-alarm"
    summary = "set, list or remove what an app may use in an hour, a day or a month"
    budget = _command(commands, "budget", summary, example, json=True)
    budget.add_argument("action", choices=("set", "list", "delete"), help="what to do")
    budget.add_argument("app", nargs="?", metavar="APP", help="the app (not for list)")
    budget.add_argument("--period", choices=("hour", "day", "month"), default="month", help="UTC (default month)")
    budget.add_argument("--invocations", type=int, metavar="N", help="runs of its functions")
    budget.add_argument("--requests", type=int, metavar="N", help="requests that the gateway answers")
    budget.add_argument("--gb-seconds", metavar="N", help="memory while its functions run")
    budget.add_argument("--money", metavar="AMOUNT", help="by the platform's price book")
    alert = "tell at this share (again for more; default 80, 100)"
    budget.add_argument("--alert", type=int, action="append", metavar="PERCENT", help=alert)
    budget.add_argument("--tell", metavar="FUNCTION", default="", help="the function that is told")


def _secret(commands: Commands) -> None:
    example = "martlet secret set shop/stripe @key.txt"
    summary = "set, list or delete what functions must know and others must not"
    secret = _command(commands, "secret", summary, example, json=True)
    secret.add_argument("action", choices=("set", "list", "get", "delete"), help="set: a new version; get: print the value")
    secret.add_argument("name", nargs="?", metavar="NAME", help="APP/NAME for an app's Secret(NAME)")
    secret.add_argument(
        "value", nargs="?", metavar="@FILE|-", help="set: from a file or standard input (default: ask, without echo)"
    )
    secret.add_argument("--yes", action="store_true", help="delete without asking; it is gone at once")


def _audit(commands: Commands) -> None:
    example = "martlet audit list --since 24h --outcome denied"
    audit = _command(commands, "audit", "list, export or verify the log of management calls and denials", example, json=True)
    audit.add_argument(
        "action", nargs="?", choices=("list", "export", "verify"), default="list", help="list (default), export or verify"
    )
    audit.add_argument("file", nargs="?", metavar="FILE", help="export to, or verify, this file (default: the platform's log)")
    audit.add_argument("--since", metavar="AGE", help="only the last 30s, 5m, 24h or 7d")
    audit.add_argument("--principal", metavar="TEXT", default="", help="only of principals whose name holds this")
    audit.add_argument("--call", metavar="TEXT", default="", help="only calls whose action holds this, e.g. iam: or Delete")
    audit.add_argument("--outcome", choices=("done", "failed", "denied"), default="", help="only these")
    audit.add_argument("--limit", type=int, default=100, metavar="N", help="the newest N, 1,000 at most (default 100)")


def _policy(commands: Commands) -> None:
    example = 'martlet policy explain "function shop-place" documents:Put shop/orders'
    policy = _command(
        commands,
        "policy",
        "explain why somebody may do something or not, or suggest the least that does for what it did",
        example,
        json=True,
    )
    policy.add_argument("action", choices=("explain", "suggest", "reset"), help="reset: forget what it did so far")
    policy.add_argument(
        "principal",
        nargs="?",
        metavar="PRINCIPAL",
        help='"function NAME", "role NAME", "user NAME" or root (suggest: default all)',
    )
    policy.add_argument("call", nargs="?", metavar="ACTION", help="explain: what it wants to do, e.g. sqs:SendMessage")
    policy.add_argument("resource", nargs="?", metavar="RESOURCE", help="explain: to what, e.g. its ARN")


def _runtimes(commands: Commands) -> None:
    example = "martlet runtimes install nodejs22.x"
    runtimes = _command(commands, "runtimes", "list the runtimes of this host, or install one", example, json=True)
    runtimes.add_argument("action", nargs="?", choices=("list", "install"), default="list", help="list (default) or install")
    runtimes.add_argument("runtime", nargs="?", metavar="RUNTIME", help="what to install, e.g. nodejs22.x or python3.13")


def _store(commands: Commands) -> None:
    example = "martlet store copy .martlet postgresql://martlet@db.example/martlet"
    store = _command(commands, "store", "copy a store, between a data folder and a database", example, json=True)
    store.add_argument(
        "action", choices=("copy",), help="copy: make TO hold what FROM holds now; run it again after an interruption"
    )
    store.add_argument(
        "source", metavar="FROM", help="a data folder whose platform is stopped, or postgresql://user@host/database"
    )
    store.add_argument("target", metavar="TO", help="an empty folder or database, or one into which a copy did not end")
