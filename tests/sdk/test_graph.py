"""From decorators to the resource graph; and every way to declare an app wrongly."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import msgspec
import pytest

from martlet import DeclarationError
from martlet.limits import LIMITS
from martlet.sdk import graph
from martlet.types import AppGraph


@pytest.fixture
def load() -> Iterator[Any]:
    names: list[str] = []

    def make(source: str, name: str = "app") -> ModuleType:
        module = ModuleType(name)
        module.__file__ = f"/code/{name}.py"
        sys.modules[name] = module
        names.append(name)
        source = "from martlet import *\nfrom martlet import App\n" + textwrap.dedent(source)
        exec(compile(source, f"/code/{name}.py", "exec", dont_inherit=True), module.__dict__)
        return module

    yield make
    for name in names:
        sys.modules.pop(name, None)


def emit(module: ModuleType, app: str = "folder") -> dict[str, Any]:
    """The graph, proven to be JSON and to match the platform's types."""
    found = graph.emit(module, app)
    assert set(found) - {"queues", "consumers", "collections", "changes"} == {"app", "functions", "routes", "schedules"}
    text = json.dumps(found)
    msgspec.json.decode(
        json.dumps({key: value for key, value in json.loads(text).items() if key != "app"}), type=AppGraph, strict=True
    )
    return found


EVERYTHING = '''
app = App("shop")
stock = Collection("stock")

@app.function(memory=64, timeout=2.5, tmp=16, concurrency=4, reserved=8, provisioned=1, env={"A": "b"},
              egress=["api.example.com", "*.example.org"], uses=[stock])
def charge(event, context):
    """Charge a card.

    More."""

@app.post("/orders", uses=[charge, "report", stock, stock], egress="all",
          throttle={"rate": 5, "burst": 10, "per": "client"},
          cors={"origins": ["https://a.example"], "methods": ["POST"], "credentials": True, "max_age_seconds": 5})
def order(body: dict): ...

@app.get("/old/{id}", payload="1.0", name="legacy", description="old", cors="*", throttle={"rate": 0.5})
def old_one(id): ...

@app.schedule("at(2030-01-31T23:59:00)", schedule_name="once")
@app.schedule("rate(5 minutes)")
@app.schedule("cron(0 8 ? * MON-FRI *)", timezone="Europe/Zurich", input={"a": 1}, memory=128)
def report(event, context): ...
'''

ITS_GRAPH = {
    "app": "shop",
    "functions": [
        {
            "name": "charge",
            "handler": "app:charge",
            "memory_mb": 64,
            "timeout_seconds": 2.5,
            "tmp_mb": 16,
            "concurrency": 4,
            "reserved": 8,
            "provisioned": 1,
            "environment": {"A": "b"},
            "egress": ["api.example.com", "*.example.org"],
            "description": "Charge a card.",
            "documents": ["stock"],
        },
        {
            "name": "order",
            "handler": "app:order",
            "egress": "all",
            "uses": ["charge", "report"],
            "documents": ["stock"],
        },
        {"name": "legacy", "handler": "app:old_one", "description": "old"},
        {"name": "report", "handler": "app:report", "memory_mb": 128},
    ],
    "routes": [
        {
            "method": "POST",
            "path": "/orders",
            "function": "order",
            "cors": {
                "origins": ["https://a.example"],
                "methods": ["POST"],
                "credentials": True,
                "max_age_seconds": 5,
            },
            "throttle": {"rate": 5, "burst": 10, "per": "client"},
        },
        {
            "method": "GET",
            "path": "/old/{id}",
            "function": "legacy",
            "payload_format": "1.0",
            "cors": {"origins": ["*"], "methods": ["GET"], "headers": ["*"]},
            "throttle": {"rate": 0.5, "burst": 1, "per": "route"},
        },
    ],
    "schedules": [
        {
            "name": "report",
            "expression": "cron(0 8 ? * MON-FRI *)",
            "function": "report",
            "timezone": "Europe/Zurich",
            "input": {"a": 1},
        },
        {
            "name": "report-2",
            "expression": "rate(5 minutes)",
            "function": "report",
            "timezone": "UTC",
            "input": None,
        },
        {
            "name": "once",
            "expression": "at(2030-01-31T23:59:00)",
            "function": "report",
            "timezone": "UTC",
            "input": None,
        },
    ],
}


def test_everything_that_can_be_said(load: Any) -> None:
    assert emit(load(EVERYTHING)) == ITS_GRAPH


def test_every_method_and_every_handler_can_be_found(load: Any) -> None:
    module = load("""
        app = App()
        @app.get("/")
        @app.put("/")
        def a(): ...
        @app.route(["patch", "DELETE"], "/")
        def b(): ...
        @app.head("/")
        def c(): ...
        @app.options("/")
        def d(): ...
        @app.route("ANY", "/any/{rest+}")
        def e(rest: str): ...
        @app.route("any", "$default")
        def f(event, context): ...
        async def asgi(scope, receive, send): ...
        app.mount("/api/v1", asgi)
        def wsgi(environ, start_response): ...
        root = app.mount("/", wsgi)
        def make(n):
            @app.function(name=f"made-{n}")
            def inner(event, context): ...
        make(1), make(2)
    """)
    found = emit(module)
    assert found["app"] == "folder"
    assert [(route["method"], route["path"], route["function"]) for route in found["routes"]] == [
        ("GET", "/", "a"),
        ("PUT", "/", "a"),
        ("PATCH", "/", "b"),
        ("DELETE", "/", "b"),
        ("HEAD", "/", "c"),
        ("OPTIONS", "/", "d"),
        ("ANY", "/any/{rest+}", "e"),
        ("ANY", "$default", "f"),
        ("ANY", "/api/v1", "api-v1"),
        ("ANY", "/api/v1/", "api-v1"),
        ("ANY", "/api/v1/{proxy+}", "api-v1"),
        ("ANY", "/", "web"),
        ("ANY", "/{proxy+}", "web"),
    ]
    handlers = {function["name"]: function["handler"] for function in found["functions"]}
    assert handlers["api-v1"] == "app:app.functions.api-v1"
    assert handlers["web"] == "app:root"
    assert handlers["made-2"] == "app:app.functions.made-2"
    for name, handler in handlers.items():
        value: Any = sys.modules[handler.partition(":")[0]]
        for attribute in handler.partition(":")[2].split("."):
            value = getattr(value, attribute)
        assert value.name == name
        assert callable(value.__martlet_entry__())


def test_handlers_in_other_modules_load_without_the_entry_module(load: Any) -> None:
    load("app = App('shop')", name="core")
    load(
        """
        from core import app
        @app.get("/")
        def index(): ...
        """,
        name="pages",
    )
    assert emit(load("from core import app\nimport pages\n"))["functions"][0]["handler"] == "pages:index"


def test_a_plain_lambda_module(load: Any) -> None:
    expected = {
        "app": "folder",
        "functions": [{"name": "handler", "handler": "app:lambda_handler"}],
        "routes": [{"method": "ANY", "path": "$default", "function": "handler"}],
        "schedules": [],
    }
    assert emit(load("def lambda_handler(event, context): ...")) == expected
    expected["functions"] = [{"name": "handler", "handler": "app:handler"}]
    assert emit(load("def handler(event, context): ...")) == expected


def test_no_app_says_what_to_write(load: Any) -> None:
    with pytest.raises(DeclarationError, match=r'(?s)no App found in module app\. Write:.*@app.get\("/"\)'):
        graph.emit(load("x = 1"), "folder")


# fmt: off
WRONG: list[tuple[str, str]] = [
    ("other = App('b')", "module app has two Apps, app and other"),
    ("", r'app declares nothing: write @app.get\("/"\)'),
    (
        "@app.get('/a/{id}')\ndef a(id): ...\n@app.get('/a/{key}')\ndef b(key): ...",
        r"^app.py:6: b: GET /a/\{key\} is answered already by a \(app.py:4: /a/\{id\}\)$",
    ),
    ("@app.get('/a/{id}')\ndef a(): ...", r"^app.py:4: a: the path /a/\{id\} has \{id\} but there is no parameter id"),
    ("@app.get('/')\n@app.get('/{id}')\ndef a(id: int): ...", "parameter id is not in the path /: give it a default"),
    ("@app.get('/')\ndef a(*args): ...", r"a: it takes \*args; name each parameter"),
    ("@app.get('/')\ndef a(**rest): ...", r"a: it takes \*\*rest; name each"),
    ("@app.get('/')\ndef a(x: int, /): ...", "positional-only"),
    ("@app.get('/')\ndef a(x): ...", "parameter x: say its type, e.g. x: str"),
    ("@app.get('/')\ndef a(x: complex): ...", "parameter x: complex is no type that a request carries"),
    ("@app.get('/')\ndef a(x: Missing): ...", "name 'Missing' is not defined"),
    ("@app.get('/')\ndef a(x: 'Missing'): ...", "parameter x: cannot resolve the annotation 'Missing'"),
    ("@app.get('/{x}')\ndef a(x: dict): ...", "parameter x: dict cannot be read from text"),
    ("@app.get('/')\ndef a(x: dict): ...", "parameter x is read from the body, but GET has none"),
    ("@app.post('/')\ndef a(x: dict, y: dict): ...", "parameters x and y are both read from the body"),
    ("@app.get('a')\ndef a(): ...", "the path 'a' must start with /"),
    ("@app.get('/a//b')\ndef a(): ...", "'' is no segment"),
    ("@app.get('/{a}x')\ndef a(a): ...", r"'\{a\}x' is no segment"),
    ("@app.get('/a%20b')\ndef a(): ...", "'a%20b' is no segment"),
    ("@app.get('/{a+}/b')\ndef a(a): ...", r"\{a\+\} takes all the rest, so it must come last"),
    ("@app.get('/', cors={'origins': 7})\ndef a(): ...", "cors: origins=7 is of the wrong type"),
    ("@app.get('/{a}/{a}')\ndef a(a): ...", "has a name twice"),
    ("app.proxy('/', to='localhost:9000')", r"^app.py:4: proxy: to='localhost:9000': it is http://host"),
    ("app.proxy('/', to='http://a/?x')", "to="),
    ("app.proxy('/', to='http://u:p@a')", "to="),
    ("app.proxy('/', to='http://a', timeout=0)", "timeout=0: it is a number of seconds"),
    ("app.proxy('/', to='http://a', host='mine')", "host='mine'"),
    ("app.proxy('/a/{x+}', to='http://a', strip='/b')", r"strip='/b': the path /a/\{x\+\} does not begin with it"),
    ("app.proxy('/', to='http://a', memory=1)", "unknown option memory; known are methods, strip, host, timeout, cors"),
    ("app.proxy('/', to='http://a')\n@app.route('ANY', '/')\ndef a(): ...", "ANY / is answered already by a proxy"),
    ("@app.get('/', share=5)\n@app.get('/', share=5)\ndef a(): ...", "GET / is answered already by a"),
    ("@app.get('/', share=101)\ndef a(): ...", "share=101: it is a percentage"),
    ("@app.get('/', share=True)\ndef a(): ...", "share=True"),
    ("@app.get('/', share=float('nan'))\ndef a(): ...", "share=nan"),
    ("@app.get('/', share=5, by='cookie')\ndef a(): ...", "by='cookie': it is"),
    ("@app.get('/', when={})\ndef a(): ...", "when={}"),
    ("@app.get('/', when={'x': 1})\ndef a(): ...", "when="),
    ("@app.get('/', when='x')\ndef a(): ...", "when='x'"),
    ("@app.get('/a b')\ndef a(): ...", "'a b' is no segment"),
    ("@app.route('BREW', '/')\ndef a(): ...", "BREW is no method that routes know"),
    ("@app.get('/', payload='3')\ndef a(): ...", "payload='3'"),
    ("@app.get('/', memory='big')\ndef a(): ...", "memory='big': it is a whole number"),
    ("@app.get('/', memory=True)\ndef a(): ...", "memory=True: it is a whole number"),
    ("@app.get('/', memory=1.5)\ndef a(): ...", "memory=1.5: it is a whole number"),
    ("@app.get('/', timeout=0)\ndef a(): ...", "timeout=0: it is at least"),
    ("@app.get('/', timeout=float('nan'))\ndef a(): ...", "timeout=nan: it is at least"),
    ("@app.get('/', concurrency=0)\ndef a(): ...", "concurrency=0: it is at least 1"),
    ("@app.get('/', reserved=-1)\ndef a(): ...", "reserved=-1: it is at least 0"),
    ("@app.get('/', env={'A': 1})\ndef a(): ...", "env: 'A' is 1; names and values are strings"),
    ("@app.get('/', env={'A=B': ''})\ndef a(): ...", "no name of an environment variable"),
    ("@app.get('/', env={'MARTLET_API': ''})\ndef a(): ...", "MARTLET_API belongs to the platform"),
    ("@app.get('/', env=3)\ndef a(): ...", "env=3: it is a dict of strings"),
    ("@app.get('/', egress='example.com')\ndef a(): ...", "egress='example.com'"),
    ("@app.get('/', egress=['http://x'])\ndef a(): ...", "egress="),
    ("@app.get('/', uses=['nobody'])\ndef a(): ...", "uses 'nobody', which is no function of this app"),
    ("@app.get('/', uses=[print])\ndef a(): ...", "uses <built-in function print>"),
    ("@app.get('/', uses=[Secret('a/b')])\ndef a(): ...", "secret 'a/b'"),
    ("@app.get('/', uses=[Collection('a/b')])\ndef a(): ...", "collection 'a/b'"),
    ("@app.get('/', cors={'origin': []})\ndef a(): ...", "cors: unknown 'origin'"),
    ("@app.get('/', cors={'credentials': 'yes'})\ndef a(): ...", "cors: credentials='yes' is of the wrong type"),
    ("@app.get('/', cors=7)\ndef a(): ...", "cors=7"),
    ("@app.get('/', throttle={'rate': float('inf')})\ndef a(): ...", "throttle="),
    ("@app.get('/', throttle=5)\ndef a(): ...", "throttle=5"),
    ("@app.get('/', throttle={'rate': 5, 'burst': 0})\ndef a(): ...", "throttle="),
    ("@app.get('/', throttle={'rate': 5, 'limit': 0})\ndef a(): ...", "throttle="),
    ("@app.function()\ndef a(x, y, z): ...", r"it needs \(x, y, z\); a function takes \(event, context\)"),
    ("@app.function()\ndef a(*, x): ...", "parameter x is keyword-only"),
    ("@app.function()\ndef a(x: str, y: int): ...", r"it takes \(x, y\); the second parameter is Lambda's context"),
    ("@app.function()\ndef a(event, context): yield 1", "only an HTTP handler can stream"),
    ("app.function()(print)", "a handler is a function made with def"),
    ("app.get('/', name='x y')(lambda: 1)", "say name="),
    ("app.get('/')(lambda: 1)", "say name="),
    ("@app.get('/', name='n' * 63)\ndef a(): ...", "has 65 characters, limit function_name_characters is 64"),
    ("app.mount('/x', object())", "cannot tell whether builtins.object is an ASGI 3 or a WSGI app"),
    ("app.mount('/x', lambda scope: 1)", "cannot tell"),
    ("app.mount('/x', print, interface='cgi')", 'interface must be "asgi" or "wsgi"'),
    ("@app.schedule('rate(5 minutes)')\n@app.get('/')\ndef a(x: int = 1): ...", "put the schedule on a function of its own"),
    ("@app.schedule('every day')\ndef a(): ...", r'write "rate\(5 minutes\)", "cron'),
    ("@app.schedule('at(2030-01-31)')\ndef a(): ...", r'or "at\(2030-01-31T23:59:00\)"'),
    ("@app.schedule('rate(1 minutes)')\ndef a(): ...", r"write rate\(1 minute\)"),
    ("@app.schedule('rate(2 hour)')\ndef a(): ...", r"write rate\(2 hours\)"),
    ("@app.schedule('rate(0 hours)')\ndef a(): ...", "at least 1"),
    ("@app.schedule('cron(0 8 * * *)')\ndef a(): ...", "cron has six fields .* got 5"),
    ("@app.schedule('cron(0 8 * * * *)')\ndef a(): ...", "exactly one of day-of-month and day-of-week must be ?"),
    ("@app.schedule('rate(1 day)', timezone='no zone')\ndef a(): ...", "timezone='no zone'"),
    ("@app.schedule('rate(1 day)', input=object())\ndef a(): ...", "input is not JSON"),
    ("two = app.schedule('rate(1 day)', schedule_name='x')\n@two\n@two\ndef a(): ...", "two schedules x"),
    ("@app.get('/')\ndef a(): ...\n@app.post('/')\ndef a(): ...", "the function a is declared at app.py:4 already"),
    ("@app.get('/', memory=1)\n@app.post('/', memory=2)\ndef a(): ...", "a: memory is given by two decorators"),
    ("@app.get('/', ram=1)\ndef a(): ...", "unknown option ram; known are name, uses, memory"),
    ("@app.function(cors='*')\ndef a(): ...", "unknown option cors"),
]
# fmt: on


@pytest.mark.parametrize(("source", "message"), WRONG, ids=[source[:60] for source, _ in WRONG])
def test_mistakes_are_told_by_place_and_remedy(load: Any, source: str, message: str) -> None:
    with pytest.raises((DeclarationError, NameError), match=message):
        graph.emit(load("app = App('a')\n" + source), "folder")


@pytest.mark.parametrize("name", ["Shop", "a_b", "-a", "a-", "1a", "a.b", "ä", ""])
def test_app_names(load: Any, name: str) -> None:
    with pytest.raises(DeclarationError, match="the app's name"):
        graph.emit(load(f"app = App({name!r} or None)\n@app.get('/')\ndef a(): ...\n"), "Bad Folder")


def test_all_mistakes_come_together(load: Any) -> None:
    with pytest.raises(DeclarationError) as caught:
        graph.emit(load("app = App('a')\n@app.get('x', memory='y')\ndef a(z: complex): ...\n"), "folder")
    assert len(str(caught.value).splitlines()) == 3


def test_the_name_limit_is_the_platforms() -> None:
    assert LIMITS["function_name_characters"].default == graph.FUNCTION_NAME_CHARACTERS


COLLECTIONS = """
from decimal import Decimal
app = App("shop")
lost = Queue("lost")
teams = Collection("teams", unique="name", ttl="until", history=0, changes="keys")
people = Collection(
    "people",
    indexes={"one": "n", "two": ["-n", "tags[]"], "three": Index("a", sparse=True, values=["b"])},
    unique=["address.email"],
    schema={
        "n": "int?",
        "m": DocumentField("int", required=True, check="m > 0"),
        "d": DocumentField("text?", default=None),
        "c": DocumentField(computed="m * 2"),
        "team": Reference(teams),
        "others": Reference("teams", many=True, required=True, on_delete="keep"),
    },
    checks={"small": "m < 9"},
    additional=False,
)
bare = Collection("bare")

@app.function(uses=[people, bare])
def f(event, context): ...

@app.on(people.changed, batch=5, consumers=2, retries=-1, bisect=True, start="oldest", on_failure=lost)
def g(event, context): ...

@app.on(bare.changed, on_failure=f, filter={"operation": ["put"]}, max_age=60, partial=True)
def h(event, context): ...
"""


def test_proxies_and_conditions(load: Any) -> None:
    text = """
from martlet import App
app = App("shop")
app.proxy("$default", to="http://old:9000")
app.proxy("/s/{x+}", to="https://new/v2", methods=["GET", "post"], strip="/s", host="client", timeout=2.5, share=5,
          by="request")
@app.get("/a", when={"X-Beta": "1", "X-A": "*"})
@app.get("/a", share=10, by="cookie:id")
@app.get("/a")
def a() -> str: ...
"""
    upstream = {"to": "https://new/v2", "strip": "/s", "host": "client", "timeout_seconds": 2.5}
    fifth = {"path": "/s/{x+}", "upstream": upstream, "share": 5.0, "by": "request"}
    a = {"method": "GET", "path": "/a", "function": "a"}
    assert emit(load(text), "x")["routes"] == [
        {
            "method": "ANY",
            "path": "$default",
            "upstream": {**upstream, "to": "http://old:9000", "strip": "", "host": "upstream", "timeout_seconds": 30},
        },
        {"method": "GET", **fifth},
        {"method": "POST", **fifth},
        {**a, "when": [["x-a", "*"], ["x-beta", "1"]]},
        {**a, "share": 10.0, "by": "cookie:id"},
        a,
    ]


def test_collections_and_their_changes(load: Any) -> None:
    found = emit(load(COLLECTIONS))
    teams, people = sorted(found["collections"], key=lambda one: one["name"], reverse=True)
    assert teams["settings"] == {
        "indexes": {"name": {"terms": [{"path": "name"}], "unique": True}},
        "history_seconds": 0,
        "ttl_field": "until",
        "changes": "keys",
    }
    assert people["settings"]["indexes"] == {
        "address_email": {"terms": [{"path": "address.email"}], "unique": True},
        "one": {"terms": [{"path": "n"}]},
        "two": {"terms": [{"path": "n", "descending": True}, {"path": "tags[]"}]},
        "three": {"terms": [{"path": "a"}], "sparse": True, "values": ["b"]},
    }
    assert people["settings"]["schema"] == {
        "fields": {
            "n": {"type": "int?"},
            "m": {"type": "int", "required": True},
            "d": {"type": "text?", "default": None},
            "c": {"type": "any", "computed": "m * 2"},
            "team": {"type": "ref?", "collection": "teams"},
            "others": {"type": "array<ref>", "collection": "teams", "required": True, "on_delete": "keep"},
        },
        "checks": [{"name": "small", "expression": "m < 9"}, {"name": "m", "expression": "m > 0"}],
        "additional": False,
    }
    first, second = found["changes"]
    assert (first["collection"], first["function"], first["batch_size"], first["concurrency"]) == ("people", "g", 5, 2)
    assert (first["retries"], first["bisect"], first["start"], first["on_failure"]) == (-1, True, "oldest", "queue:lost")
    assert (second["on_failure"], second["max_age_seconds"], second["report_failures"]) == ("function:f", 60, True)
    assert second["batch_size"] == 100


def test_uses_can_be_narrowed(load: Any) -> None:
    text = """
from martlet import Bucket, Bus, Topic

app = App("shop")
orders, carts, mail = Collection("orders"), Collection("carts"), Queue("mail", fifo=True)
photos, files, bus, news = Bucket("photos"), Bucket("files"), Bus("bus"), Topic("news")

@app.function(uses=[orders.write, carts.read, carts, mail.send, photos.read, files.write, bus.publish, news.publish])
def f(event, context): ...

@app.function(uses=[f.invoke, Secret("stripe")])
def g(event, context): ...
"""
    first, second = graph.emit(load(text), "shop")["functions"]
    assert first["documents"] == ["orders:write", "carts:read", "carts"]
    assert first["buckets"] == ["photos:read", "files:write"]
    assert (first["queues"], first["buses"], first["topics"]) == (["mail"], ["bus"], ["news"])
    assert (second["uses"], second["secrets"]) == (["f"], ["stripe"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c = Collection('c', indexes={'a': 'a'}, unique=['a'])", "declared twice"),
        ("c = Collection('c', schema={'a': 7})", "it is a type"),
        ("c = Collection('c', schema={'a': DocumentField(default={1})})", "JSON serializable"),
        ("c = Collection('c', unique='a')\nd = Collection('c', unique='b')", "two collections c that differ"),
        ("@app.on(Collection('c'))\ndef g(event, context): ...", "write .changed"),
        ("@app.on(Queue('q'), prefix='in/')\ndef g(event, context): ...", "prefix= is not for a queue"),
        ("@app.on(Collection('c').changed, consumers=0)\ndef g(event, context): ...", "consumers=0"),
        ("@app.on(Collection('c').changed, start='soon')\ndef g(event, context): ...", "start='soon'"),
        ("@app.on(Collection('c').changed, max_age=1)\ndef g(event, context): ...", "max_age=1"),
        ("@app.on(Collection('c').changed, on_failure='x')\ndef g(event, context): ...", "on_failure='x'"),
        ("@app.on(Queue('q'), bisect=True)\ndef g(event, context): ...", "bisect= is for a collection's changes"),
        ("@app.on(Queue('q'), start='oldest')\ndef g(event, context): ...", "start= is for"),
    ],
)
def test_collections_declared_wrongly(load: Any, text: str, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        emit(load(f"app = App('shop')\n@app.function()\ndef f(event, context): ...\n{text}"))
