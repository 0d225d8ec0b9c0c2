"""From a loaded module to the resource graph that deploy reads: everything that can be wrong is found here, all at once.

Runs where the user's code may run, at deploy only; so it may import what it likes of the standard library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from martlet.sdk.app import App
from martlet.sdk.bucket import Bucket, Subscription
from martlet.sdk.bus import Bus, Topic
from martlet.sdk.documents import Changed, Collection
from martlet.sdk.errors import DeclarationError
from martlet.sdk.function import Function, Route, Schedule, interface_of
from martlet.sdk.queue import Consumer, Queue
from martlet.sdk.right import parted
from martlet.sdk.secret import Secret
from martlet.sdk.signature import event_handler, http_handler, names_of_path, takes_user
from martlet.sdk.users import Users

__all__ = ["FUNCTION_NAME_CHARACTERS", "emit"]

FUNCTION_NAME_CHARACTERS = 64  # limit function_name_characters, of the full name "<app>-<function>"

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "ANY")
_APP_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_BUCKET = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SEGMENT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)(\+?)\}")
_LITERAL = re.compile(r"[^\s/{}?#%]+")  # decoded text, as the gateway compares it
_RATE = re.compile(r"rate\((\d+) (minute|minutes|hour|hours|day|days)\)")
_AT = re.compile(r"at\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\)")
_CRON = re.compile(r"cron\(([^()]*)\)")
_HOST = re.compile(r"(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")
_BY = re.compile(r"address|request|(?:header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CORS: dict[str, type] = {
    "origins": list,
    "methods": list,
    "headers": list,
    "expose": list,
    "credentials": bool,
    "max_age_seconds": int,
}
_NUMBERS = {  # option → field of FunctionConfig, least value; the greatest are limits of the platform
    "memory": ("memory_mb", 1),
    "timeout": ("timeout_seconds", 0.001),
    "tmp": ("tmp_mb", 0),
    "concurrency": ("concurrency", 1),
    "reserved": ("reserved", 0),
    "provisioned": ("provisioned", 0),
}
_WHAT_TO_WRITE = """no App found in module {name}. Write:

    from martlet import App

    app = App()

    @app.get("/")
    def index() -> dict:
        return {{"hello": "world"}}

or a plain Lambda handler: def lambda_handler(event, context)"""


def emit(module: ModuleType, default_app: str) -> dict[str, Any]:
    """The graph of `module`'s App: {"app", "functions", "routes", "schedules"}, JSON values with the fields of `martlet.types`.

    Fields that the app does not say are left out, so that their defaults live in one place. A module without an App but with
    `lambda_handler` or `handler` is one function with the route $default. Raises `DeclarationError`: one line a mistake.
    """
    apps = {id(value): name for name, value in vars(module).items() if isinstance(value, App)}
    if len(apps) > 1:
        raise DeclarationError(f"module {module.__name__} has two Apps, {' and '.join(apps.values())}: keep one")
    if not apps:
        return _plain_lambda(module, default_app)
    return _Emission(module, next(iter(apps.values())), default_app).graph()


def _plain_lambda(module: ModuleType, app: str) -> dict[str, Any]:
    for name in ("lambda_handler", "handler"):
        if callable(getattr(module, name, None)):
            _check_app_name(app)
            function = {"name": "handler", "handler": f"{module.__name__}:{name}"}
            route = {"method": "ANY", "path": "$default", "function": "handler"}
            return {"app": app, "functions": [function], "routes": [route], "schedules": []}
    raise DeclarationError(_WHAT_TO_WRITE.format(name=module.__name__))


def _check_app_name(name: str) -> None:
    if not isinstance(name, str) or not _APP_NAME.fullmatch(name):
        raise DeclarationError(
            f"the app's name {name!r} must be lower-case letters, digits and inner dashes, from a letter on: "
            'say it, e.g. App("shop")'
        )


class _Emission:
    """One walk over an App. Mistakes are collected, not raised, so that one deploy shows them all."""

    def __init__(self, module: ModuleType, attribute: str, default_app: str) -> None:
        self.module = module
        self.attribute = attribute
        self.app: App = getattr(module, attribute)
        self.app_name = self.app.name or default_app
        self.functions: list[Function] = list(vars(self.app.functions).values())
        self.problems: list[str] = []
        self.queues: dict[str, dict[str, Any]] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.buckets: dict[str, dict[str, Any]] = {}
        self.buses: dict[str, None] = {}
        self.topics: dict[str, None] = {}
        self.rules: dict[str, dict[str, str]] = {}
        self.users = {id(route.users): route for route in self.app.users}

    def graph(self) -> dict[str, Any]:
        """The whole graph. Raises `DeclarationError` with every mistake."""
        _check_app_name(self.app_name)
        if not self.functions and not self.app.proxies and not self.app.users:
            self.problems.append(f'{self.attribute} declares nothing: write @{self.attribute}.get("/") above a function')
        graph = {
            "app": self.app_name,
            "functions": [self._function(function) for function in self.functions],
            "routes": self._routes(),
            "schedules": self._schedules(),
        }
        consumers, changes = self._consumers()
        for known in vars(self.module).values():
            if isinstance(known, Collection):
                self._collection(None, known)
        if self.queues:
            graph |= {"queues": list(self.queues.values()), "consumers": consumers}
        if self.collections:
            declared = [{"name": name, "settings": settings} for name, settings in self.collections.items() if settings]
            graph |= {"collections": declared} if declared else {}
        if changes:
            graph["changes"] = changes
        subscriptions = self._subscriptions()
        if self.buckets:
            graph |= {"buckets": list(self.buckets.values()), "subscriptions": subscriptions}
        listeners = self._listeners()
        if self.buses or self.topics:
            graph |= {"buses": list(self.buses), "topics": list(self.topics), "listeners": listeners}
        if self.app.users:
            graph["users"] = self._all_users()
        if self.rules:
            graph["rules"] = list(self.rules.values())
        if self.problems:
            raise DeclarationError("\n".join(self.problems))
        return graph

    def _problem(self, function: Function | None, message: str, where: str = "") -> None:
        """`function` None: of a proxy route."""
        name = "proxy" if function is None else function.name or "handler"
        self.problems.append(f"{where or (function.where if function else '')}: {name}: {message}")

    # --- functions --------------------------------------------------------------------------------------------------------

    def _function(self, function: Function) -> dict[str, Any]:
        full_name = f"{self.app_name}-{function.name}"
        if not _NAME.fullmatch(function.name):
            self._problem(function, f"the name {function.name!r} may have letters, digits, - and _ only: say name=")
        elif len(full_name) > FUNCTION_NAME_CHARACTERS:
            self._problem(
                function,
                f"the full name {full_name} has {len(full_name)} characters, limit function_name_characters is "
                f"{FUNCTION_NAME_CHARACTERS}: say name=",
            )
        config: dict[str, Any] = {"name": function.name, "handler": self._handler(function)}
        config |= self._settings(function)
        config |= self._uses(function)
        self._check_signature(function)
        return config

    def _handler(self, function: Function) -> str:
        """ "module:attribute" that yields this Function: a name of this module, else of its own, else by the App."""
        for name, value in vars(self.module).items():
            if value is function:
                return f"{self.module.__name__}:{name}"
        home = sys.modules.get(function.__module__)
        if home is not None and vars(home).get(function.__name__) is function:
            return f"{home.__name__}:{function.__name__}"
        return f"{self.module.__name__}:{self.attribute}.functions.{function.name}"

    def _settings(self, function: Function) -> dict[str, Any]:
        said = function.settings
        found: dict[str, Any] = {}
        for option, (field, least) in _NUMBERS.items():
            value = said.get(option)
            if value is None:
                continue
            if type(value) is not int and not (option == "timeout" and type(value) is float):
                self._problem(function, f"{option}={value!r}: it is a whole number")
            elif not value >= least:
                self._problem(function, f"{option}={value!r}: it is at least {least}")
            found[field] = value
        if said.get("env") is not None:
            found["environment"] = self._environment(function, said["env"])
        if said.get("egress") is not None:
            found["egress"] = self._egress(function, said["egress"])
        description = said.get("description")
        if description is None and function.mount is None:
            description = (function.__doc__ or "").strip().partition("\n")[0][:256]
        if description:
            found["description"] = description
        return found

    def _environment(self, function: Function, env: Any) -> dict[str, str]:
        try:
            found = dict(env)
        except (TypeError, ValueError):
            self._problem(function, f"env={env!r}: it is a dict of strings")
            return {}
        for name, value in found.items():
            if not isinstance(name, str) or not isinstance(value, str):
                self._problem(function, f"env: {name!r} is {value!r}; names and values are strings")
            elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                self._problem(function, f"env: {name!r} is no name of an environment variable")
            elif name.startswith(("MARTLET_", "AWS_LAMBDA_")):
                self._problem(function, f"env: {name} belongs to the platform")
        return found

    def _egress(self, function: Function, egress: Any) -> Any:
        if egress in ("none", "all"):
            return egress
        hosts = None if isinstance(egress, str) else _texts(egress)
        if not hosts or not all(_HOST.fullmatch(host) for host in hosts):
            self._problem(
                function, f'egress={egress!r}: it is "none", "all" or host names, e.g. ["api.example.com", "*.example.org"]'
            )
        return hosts

    def _uses(self, function: Function) -> dict[str, Any]:
        names = {known.name for known in self.functions}
        takers: tuple[tuple[Any, str, Callable[[Function, Any], str]], ...] = (
            (Collection, "documents", self._collection),
            (Queue, "queues", self._queue),
            (Bucket, "buckets", self._bucket),
            (Secret, "secrets", self._secret),
            (Bus, "buses", self._source),
            (Topic, "topics", self._source),
            (Users, "users", self._mounted),
        )
        found: dict[str, dict[str, None]] = {}
        for use in function.uses:
            used, right = parted(use)
            taker = next(((field, take) for kind, field, take in takers if isinstance(used, kind)), None)
            if taker is not None:
                found.setdefault(taker[0], {})[taker[1](function, used) + right] = None
            elif isinstance(used, Function) and used.app is self.app:
                found.setdefault("uses", {})[used.name] = None
            elif isinstance(used, str) and used in names:
                found.setdefault("uses", {})[used] = None
            else:
                kinds = "no Collection, no Queue, no Bucket, no Bus, no Topic, no Users and no Secret"
                self._problem(function, f"uses {used!r}, which is no function of this app, {kinds}")
        return {field: list(uses) for field, uses in found.items()}

    # --- secrets ----------------------------------------------------------------------------------------------------------

    def _secret(self, function: Function, secret: Secret) -> str:
        if not isinstance(secret.name, str) or not _NAME.fullmatch(secret.name) or len(secret.name) > 200:
            self._problem(function, f"secret {secret.name!r}: a name has letters, digits, - and _, 200 at most")
        return str(secret.name)

    # --- end users

    def _mounted(self, function: Function | None, users: Users) -> str:
        """Its name in the graph."""
        if id(users) not in self.users:
            self._problem(function, f'{users!r} is not mounted: {self.attribute}.mount_users("/auth", …)')
        return str(users.name)

    def _all_users(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for route in self.app.users:
            users, path = route.users, str(route.path).removesuffix("/{proxy+}")

            def wrong(message: str, where: str = route.where) -> None:
                self.problems.append(f"{where}: users: {message}")

            if not isinstance(users, Users):
                wrong(f"mount_users takes Users, got {users!r}")
                continue
            if not isinstance(users.name, str) or not _NAME.fullmatch(users.name) or len(users.name) > 64:
                wrong(f"{users.name!r}: a name is up to 64 letters, digits, - and _")
            if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
                wrong(f"the path {path!r} is no path of plain words, e.g. /auth")
            if users.sign_up not in ("open", "closed"):
                wrong(f'sign_up={users.sign_up!r}: it is "open" or "closed"')
            if not isinstance(users.issuer, str) or (
                users.issuer and not re.fullmatch(r"https?://[A-Za-z0-9.:-]+(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?", users.issuer)
            ):
                wrong(f"issuer={users.issuer!r}: it is the public URL of {path}, without a / at its end")
            if users.sender is not None and not (isinstance(users.sender, Function) and users.sender.app is self.app):
                wrong(f"sender={users.sender!r}: it is a function of this app")
            sender = users.sender.name if isinstance(users.sender, Function) else ""
            if users.name in found:
                wrong(f"{users.name} is mounted twice")
            found[users.name] = {
                "name": users.name, "path": path, "sender": sender, "sign_up": users.sign_up, "issuer": str(users.issuer),
            }  # fmt: skip
        return list(found.values())

    # --- queues -----------------------------------------------------------------------------------------------------------

    def _queue(self, function: Function, queue: Queue) -> str:
        """Take the queue into the graph; its name there."""
        full_name = f"{self.app_name}-{queue.name}"
        longest = 80 - len("-dead.fifo")
        if not isinstance(queue.name, str) or not _NAME.fullmatch(queue.name) or len(full_name) > longest:
            self._problem(
                function, f"queue {queue.name!r}: a name has letters, digits, - and _, with the app's up to {longest}"
            )
        config: dict[str, Any] = {"name": str(queue.name), "fifo": bool(queue.fifo)}
        for option, field, least in (
            ("visibility", "visibility_seconds", 0),
            ("retries", "retries", 1),
            ("retention", "retention_seconds", 60),
            ("delay", "delay_seconds", 0),
        ):
            value = getattr(queue, option)
            if value is not None and (type(value) is not int or value < least):
                self._problem(function, f"queue {queue.name}: {option}={value!r}: it is a whole number, at least {least}")
            config[field] = value
        before = self.queues.setdefault(config["name"], config)
        if before != config:
            self._problem(function, f"there are two queues {queue.name} that differ")
        return str(config["name"])

    def _consumers(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(of queues, of collections' changes)."""
        of_queues: list[dict[str, Any]] = []
        of_changes: list[dict[str, Any]] = []
        for function in self.functions:
            for consumer in function.consumers:
                if not isinstance(consumer.queue, (Queue, Changed)):
                    told = " (write .changed)" if isinstance(consumer.queue, Collection) else ""
                    takes = "it takes a Queue, a Bus, a Topic, a Collection's changes or a change of a Bucket"
                    self._problem(function, f"on({consumer.queue!r}): {takes}{told}", consumer.where)
                    continue
                if function.routes:
                    self._problem(function, "it answers HTTP; take messages with a function of its own", consumer.where)
                if isinstance(consumer.queue, Queue):
                    of_queues.append(self._consumer(function, consumer))
                else:
                    of_changes.append(self._follower(function, consumer))
        return of_queues, of_changes

    def _consumer(self, function: Function, consumer: Consumer) -> dict[str, Any]:
        plain: dict[str, Any] = {"start": "now", "retries": None, "max_age": None, "bisect": False, "on_failure": None}
        for option, value in consumer.of_stream.items():
            if value != plain[option]:
                self._problem(function, f"{option}= is for a collection's changes; a queue has its own", consumer.where)
        return {
            "queue": self._queue(function, consumer.queue),
            "function": function.name,
            "batch_size": consumer.batch if consumer.batch is not None else 10,
            "concurrency": consumer.concurrency or 0,
            **self._batches(function, consumer),
        }

    def _batches(self, function: Function, consumer: Consumer) -> dict[str, Any]:
        """What consumers of both kinds say."""
        import json

        batch = 1 if consumer.batch is None else consumer.batch
        for option, value, least in (("batch", batch, 1), ("window", consumer.window, 0)):
            if type(value) is not int or value < least:
                self._problem(function, f"{option}={value!r}: it is a whole number, at least {least}", consumer.where)
        patterns = []
        for pattern in consumer.filters:
            try:
                patterns.append(json.dumps(pattern, allow_nan=False))
            except (TypeError, ValueError) as error:
                self._problem(function, f"filter is not JSON: {error}", consumer.where)
        return {"window_seconds": consumer.window, "patterns": patterns, "report_failures": bool(consumer.partial)}

    # --- collections ------------------------------------------------------------------------------------------------------

    def _collection(self, function: Function | None, collection: Collection) -> str:
        """Take the collection into the graph; its name there."""
        name = collection.name

        def wrong(message: str) -> None:
            if function is not None:
                self._problem(function, message)
            else:
                self.problems.append(f"{self.module.__name__}: {message}")

        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 64:
            wrong(f"collection {name!r}: a name is up to 64 letters, digits, - and _")
            return str(name)
        try:
            settings = _plain(collection.settings())
        except (TypeError, ValueError, AttributeError) as error:
            wrong(f"collection {name}: {error}")
            return name
        if collection.rules is not None:
            self._rules(collection, wrong)
        before = self.collections.get(name) or settings
        if settings and before != settings:
            wrong(f"there are two collections {name} that differ")
        self.collections[name] = before
        return name

    def _rules(self, collection: Collection, wrong: Callable[[str], None]) -> None:
        said: Any = collection.rules
        sound = isinstance(said, dict) and said and set(said) <= {"read", "write"}
        if not sound or not all(isinstance(text, str) and text.strip() for text in said.values()):
            wrong(f'collection {collection.name}: rules={said!r}: it is {{"read": expression, "write": expression}}')
        elif len(self.app.users) != 1:
            wrong(
                f"collection {collection.name}: rules are for the app's end users: mount one Users, not {len(self.app.users)}"
            )
        elif self.rules.setdefault(collection.name, {"collection": collection.name, **said}) != {
            "collection": collection.name,
            **said,
        }:
            wrong(f"there are two collections {collection.name} whose rules differ")

    def _follower(self, function: Function, consumer: Consumer) -> dict[str, Any]:
        said = consumer.of_stream
        found: dict[str, Any] = {
            "collection": self._collection(function, consumer.queue.collection),
            "function": function.name,
            "batch_size": consumer.batch if consumer.batch is not None else 100,
            **self._batches(function, consumer),
            "start": said["start"],
            "bisect": bool(said["bisect"]),
        }
        for option, field, value, least in (
            ("consumers", "concurrency", consumer.concurrency, 1),
            ("retries", "retries", said["retries"], -1),
            ("max_age", "max_age_seconds", said["max_age"], 60),
        ):
            if value is None:
                continue
            if type(value) is not int or value < least:
                self._problem(function, f"{option}={value!r}: it is a whole number, at least {least}", consumer.where)
            found[field] = value
        if said["start"] not in ("now", "oldest"):
            self._problem(function, f'start={said["start"]!r}: it is "now" or "oldest"', consumer.where)
        lost = said["on_failure"]
        if isinstance(lost, Queue):
            found["on_failure"] = f"queue:{self._queue(function, lost)}{'.fifo' if lost.fifo else ''}"
        elif isinstance(lost, Function) and lost.app is self.app:
            found["on_failure"] = f"function:{lost.name}"
        elif lost is not None:
            self._problem(function, f"on_failure={lost!r}: it is a Queue, or a function of this app", consumer.where)
        return found

    # --- buckets

    def _bucket(self, function: Function, bucket: Bucket) -> str:
        """Take the bucket into the graph; its name there."""
        longest = 63 - len(self.app_name) - 1
        if not isinstance(bucket.name, str) or not _BUCKET.fullmatch(bucket.name) or len(bucket.name) > longest:
            text = f"bucket {bucket.name!r}: a name has lower-case letters, digits and inner dashes, {longest} at most"
            self._problem(function, text)
        config = {"name": str(bucket.name), "versioning": bool(bucket.versioning)}
        if self.buckets.setdefault(str(bucket.name), config) != config:
            self._problem(function, f"there are two buckets {bucket.name} that differ")
        return str(bucket.name)

    def _subscriptions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for function in self.functions:
            for one in function.subscriptions:
                if function.routes:
                    self._problem(function, "it answers HTTP; be told of changes by a function of its own", one.where)
                found.append(self._subscription(function, one))
        return found

    def _subscription(self, function: Function, one: Subscription) -> dict[str, Any]:
        texts: tuple[tuple[str, Any], ...] = (("prefix", one.prefix), ("suffix", one.suffix))
        for option, value in texts:
            if not isinstance(value, str):
                self._problem(function, f"{option}={value!r}: it is text", one.where)
        return {
            "bucket": self._bucket(function, one.events.bucket),
            "function": function.name,
            "events": [one.events.event],
            "prefix": str(one.prefix),
            "suffix": str(one.suffix),
        }

    # --- buses and topics -------------------------------------------------------------------------------------------------

    def _source(self, function: Function, source: Bus | Topic) -> str:
        """Take the bus or topic into the graph; its name there."""
        kind = "bus" if isinstance(source, Bus) else "topic"
        name = str(source.name)
        if not isinstance(source.name, str) or not _NAME.fullmatch(name) or len(name) > 150:
            self._problem(function, f"{kind} {source.name!r}: a name has letters, digits, - and _, 150 at most")
        if isinstance(source, Bus):
            self.buses[name] = None
            return name
        name = f"{name}.fifo" if source.fifo else name
        self.topics[name] = None
        return name

    def _listeners(self) -> list[dict[str, Any]]:
        import json

        found: list[dict[str, Any]] = []
        for function in self.functions:
            for one in function.listeners:
                kind = "bus" if isinstance(one.source, Bus) else "topic"
                if function.routes:
                    self._problem(function, "it answers HTTP; hear events with a function of its own", one.where)
                if kind == "bus" and not one.pattern:
                    self._problem(function, 'on(bus) needs a pattern, e.g. pattern={"source": ["shop"]}', one.where)
                if kind == "topic" and isinstance(one.source, Topic) and one.source.fifo:
                    self._problem(function, "a FIFO topic is heard by queues only: subscribe a Queue", one.where)
                if one.scope not in ("attributes", "body"):
                    self._problem(function, f'scope={one.scope!r}: it is "attributes" or "body"', one.where)
                said = one.pattern if kind == "bus" else one.filter
                try:
                    pattern = json.dumps(said, allow_nan=False) if said else ""
                except (TypeError, ValueError) as error:
                    self._problem(function, f"the pattern is not JSON: {error}", one.where)
                    continue
                source = self._source(function, one.source)
                heard = {"kind": kind, "source": source, "function": function.name, "pattern": pattern, "scope": one.scope}
                found.append(heard)
        return found

    def _check_signature(self, function: Function) -> None:
        try:
            if function.mount is not None:
                interface_of(function)
            elif function.routes and not function.is_raw():
                http_handler(function.target, list(dict.fromkeys((route.method, route.path) for route in function.routes)))
                if takes_user(function.target) and not all(route.user is not None for route in function.routes):
                    self._problem(function, "it takes a User, so each of its routes says user=")
                if function.schedules:
                    self._problem(
                        function, "it answers HTTP; put the schedule on a function of its own", function.schedules[0].where
                    )
            else:
                event_handler(function.target)
                if not function.routes and function.target.__code__.co_flags & (0x20 | 0x200):
                    self._problem(function, "it yields; only an HTTP handler can stream: return a list")
        except (DeclarationError, TypeError) as error:
            self._problem(function, str(error))

    # --- routes -----------------------------------------------------------------------------------------------------------

    def _routes(self) -> list[dict[str, Any]]:
        found = []
        seen: dict[tuple[Any, ...], str] = {}
        declared: list[tuple[Function | None, Route]] = [(None, route) for route in [*self.app.proxies, *self.app.users]]
        declared += [(function, route) for function in self.functions for route in function.routes]
        for function, route in declared:
            self._check_route(function, route)
            made = self._route(function, route)
            shape = re.sub(r"\{[^}]*?(\+?)\}", r"{\1}", str(route.path))
            condition = [made.get("when"), made.get("share"), made.get("by")]
            claim = (route.method, shape, repr(condition if condition[:2] != [None, None] else None))
            before = seen.get(claim)
            if before is not None:
                self._problem(function, f"{route.method} {route.path} is answered already by {before}", route.where)
            whose = function.name if function is not None else "users" if route.users is not None else "a proxy"
            seen.setdefault(claim, f"{whose} ({route.where}: {route.path})")
            found.append(made)
        return found

    def _check_route(self, function: Function | None, route: Route) -> None:
        def wrong(message: str) -> None:
            self._problem(function, message, route.where)

        path = route.path
        if route.method not in _METHODS:
            wrong(f"{route.method} is no method that routes know: {', '.join(_METHODS)}")
        if route.upstream is not None:
            self._check_upstream(route, route.upstream)
        if route.payload not in ("1.0", "2.0"):
            wrong(f'payload={route.payload!r}: it is "2.0" or "1.0"')
        if path == "$default":
            return
        if not isinstance(path, str) or not path.startswith("/"):
            wrong(f"the path {path!r} must start with / (or be $default)")
            return
        segments = path[1:].split("/")
        for position, segment in enumerate(segments):
            name = _SEGMENT.fullmatch(segment)
            if name and name[2] and position < len(segments) - 1:
                wrong(f"the path {path}: {segment} takes all the rest, so it must come last")
            if (
                name
                or (_LITERAL.fullmatch(segment) and segment.isprintable())
                or (not segment and position == len(segments) - 1)
            ):
                continue
            wrong(f"the path {path}: {segment!r} is no segment; write a word, {{name}}, or {{name+}} at the end")
        names = names_of_path(path)
        if len(set(names)) < len(names):
            wrong(f"the path {path} has a name twice")

    def _check_upstream(self, route: Route, upstream: dict[str, Any]) -> None:
        to, timeout, strip = upstream["to"], upstream["timeout"], upstream["strip"]
        if not isinstance(to, str) or not re.fullmatch(r"https?://[^\s/?#@{}\\]+(/[^\s?#{}\\]*)?", to, re.ASCII):
            self._problem(None, f"to={to!r}: it is http://host[:port][/path], or https", route.where)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            self._problem(None, f"timeout={timeout!r}: it is a number of seconds", route.where)
        if upstream["host"] not in ("upstream", "client"):
            self._problem(None, f'host={upstream["host"]!r}: it is "upstream" or "client"', route.where)
        literal = str(route.path).partition("{")[0]
        if not isinstance(strip, str) or (strip and not f"{literal}/".startswith(strip.rstrip("/") + "/")):
            self._problem(None, f"strip={strip!r}: the path {route.path} does not begin with it", route.where)

    def _condition(self, function: Function | None, route: Route) -> dict[str, Any]:
        """when, share and by, as far as they are said."""
        found: dict[str, Any] = {}
        if route.when is not None:
            pairs: list[Any] = list(getattr(route.when, "items", list)())
            sound = all(isinstance(name, str) and isinstance(value, str) and value.strip() for name, value in pairs)
            if not pairs or not sound:
                self._problem(function, f'when={route.when!r}: it is {{"header": "value", or "*" for any}}', route.where)
            else:
                found["when"] = sorted([name.lower(), value] for name, value in pairs)
        if isinstance(route.share, bool) or not isinstance(route.share, int | float) or not 0 <= route.share <= 100:
            self._problem(function, f"share={route.share!r}: it is a percentage, 0 to 100", route.where)
        elif route.share != 100:
            found["share"] = float(route.share)
        if not isinstance(route.by, str) or not _BY.fullmatch(route.by):
            kinds = '"address", "header:<name>", "cookie:<name>" or "request"'
            self._problem(function, f"by={route.by!r}: it is {kinds}", route.where)
        elif route.by != "address":
            found["by"] = route.by
        return found

    def _route(self, function: Function | None, route: Route) -> dict[str, Any]:
        found: dict[str, Any] = {"method": route.method, "path": route.path}
        if function is not None:
            found["function"] = function.name
        if route.upstream is not None:
            found["upstream"] = {
                "to": route.upstream["to"],
                "strip": route.upstream["strip"],
                "host": route.upstream["host"],
                "timeout_seconds": route.upstream["timeout"],
            }
        if route.users is not None:
            found["users"] = str(getattr(route.users, "name", ""))
        if route.user is not None:
            found["user"] = self._of_users(function, route)
        found |= self._condition(function, route)
        if route.payload != "2.0":
            found["payload_format"] = route.payload
        if route.cors is not None:
            found["cors"] = self._cors(function, route)
        if route.throttle is not None:
            found["throttle"] = self._throttle(function, route)
        return found

    def _of_users(self, function: Function | None, route: Route) -> str:
        if route.payload != "2.0":
            self._problem(function, "user= goes with payload 2.0 only", route.where)
        if not isinstance(route.user, Users):
            self._problem(function, f"user={route.user!r}: it is Users", route.where)
            return ""
        return self._mounted(function, route.user)

    def _cors(self, function: Function | None, route: Route) -> dict[str, Any]:
        said: Any = route.cors
        if not hasattr(said, "keys"):
            origins = _texts(said)
            if not origins:
                self._problem(function, f'cors={said!r}: it is "*", origins, or a dict of {", ".join(_CORS)}', route.where)
                return {}
            routes = [other for known in self.functions for other in known.routes] + self.app.proxies + self.app.users
            here = {other.method for other in routes if other.path == route.path}
            methods = [method for method in _METHODS[:-1] if method in here or "ANY" in here]
            return {"origins": origins, "methods": methods, "headers": ["*"]}
        found: dict[str, Any] = {}
        for name, value in said.items():
            kind = _CORS.get(name)
            if kind is None:
                self._problem(function, f"cors: unknown {name!r}; known are {', '.join(_CORS)}", route.where)
                continue
            found[name] = _texts(value) if kind is list else value
            if type(found[name]) is not kind:
                self._problem(function, f"cors: {name}={value!r} is of the wrong type", route.where)
        return found

    def _throttle(self, function: Function | None, route: Route) -> dict[str, Any]:
        said: Any = route.throttle
        known = isinstance(said, dict) and set(said) <= {"rate", "burst", "per"}
        rate = said.get("rate") if known else None
        burst = said.get("burst", max(1, round(rate))) if isinstance(rate, (int, float)) and 0 < rate < 1e9 else None
        per = said.get("per", "route") if known else None
        if isinstance(rate, bool) or type(burst) is not int or burst < 1 or per not in ("route", "client"):
            self._problem(
                function,
                f'throttle={said!r}: it is {{"rate": requests a second, "burst": at once, "per": "route" or "client"}}',
                route.where,
            )
            return {}
        return {"rate": rate, "burst": burst, "per": per}

    # --- schedules --------------------------------------------------------------------------------------------------------

    def _schedules(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for function in self.functions:
            for number, schedule in enumerate(function.schedules, start=1):
                name = schedule.name or (function.name if number == 1 else f"{function.name}-{number}")
                if not _NAME.fullmatch(name) or len(name) > 64:
                    self._problem(function, f"schedule name {name!r}: up to 64 letters, digits, - and _", schedule.where)
                if name in found:
                    self._problem(function, f"there are two schedules {name}: say schedule_name=", schedule.where)
                self._check_schedule(function, schedule)
                found[name] = {
                    "name": name,
                    "expression": schedule.expression,
                    "function": function.name,
                    "timezone": schedule.timezone,
                    "input": schedule.input,
                }
        return list(found.values())

    def _check_schedule(self, function: Function, schedule: Schedule) -> None:
        mistake = _expression_mistake(schedule.expression)
        if mistake:
            self._problem(function, f"schedule {schedule.expression!r}: {mistake}", schedule.where)
        if not isinstance(schedule.timezone, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+/-]*", schedule.timezone):
            self._problem(function, f'timezone={schedule.timezone!r}: it is an IANA name, e.g. "Europe/Zurich"', schedule.where)
        import json

        try:
            json.dumps(schedule.input, allow_nan=False)
        except (TypeError, ValueError) as error:
            self._problem(function, f"input is not JSON: {error}", schedule.where)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it. Raises `ValueError`, `TypeError`."""
    import json

    found: dict[str, Any] = json.loads(json.dumps(settings, allow_nan=False))
    return found


def _texts(value: Any) -> list[str] | None:
    """One string or several as a list; None for anything else."""
    if isinstance(value, str):
        return [value]
    try:
        found = list(value)
    except TypeError:
        return None
    return found if all(isinstance(item, str) for item in found) else None


def _expression_mistake(expression: Any) -> str:
    """What is wrong with a schedule's shape, or "". Whether its times exist is for the platform to say (triggers)."""
    text = expression if isinstance(expression, str) else ""
    rate = _RATE.fullmatch(text)
    if rate:
        number, unit = int(rate[1]), rate[2]
        if number == 0:
            return "the rate must be at least 1"
        if (number == 1) == unit.endswith("s"):
            return f"write rate({number} {unit.rstrip('s') if number == 1 else unit + 's'})"
        return ""
    cron = _CRON.fullmatch(text)
    if cron:
        fields = cron[1].split()
        if len(fields) != 6:
            return f"cron has six fields (minutes hours day-of-month month day-of-week year), got {len(fields)}"
        if (fields[2] == "?") == (fields[4] == "?"):
            return "exactly one of day-of-month and day-of-week must be ?"
        return ""
    if _AT.fullmatch(text):
        return ""
    return 'write "rate(5 minutes)", "cron(0 8 ? * MON-FRI *)" or "at(2030-01-31T23:59:00)"'
