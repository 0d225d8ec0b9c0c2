"""What an app's code declares is untrusted: every rule has a declaration that breaks it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.apps.fakes import FakeSchedules

from martlet.apps.graph import check
from martlet.errors import DeployFailed, LimitExceeded, MartletError
from martlet.limits import LIMITS, Limit
from martlet.types import AppGraph


def function(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"name": name, "handler": "app:f", **fields}


def route(path: str = "/", **fields: Any) -> dict[str, Any]:
    return {"method": "GET", "path": path, "function": "f", **fields}


def checked(emitted: object, app: str = "shop") -> AppGraph:
    return check(app, emitted, FakeSchedules().check)


def with_function(**fields: Any) -> dict[str, Any]:
    return {"functions": [function(**fields)]}


def with_route(*routes: dict[str, Any]) -> dict[str, Any]:
    return {"functions": [function()], "routes": list(routes)}


def with_schedule(**fields: Any) -> dict[str, Any]:
    schedule = {"name": "s", "expression": "rate(1 minute)", "function": "f", **fields}
    return {"functions": [function()], "schedules": [schedule]}


def with_changes(**fields: Any) -> dict[str, Any]:
    change = {"collection": "orders", "function": "f", **fields}
    return {"functions": [function()], "changes": [change], "queues": [{"name": "lost"}]}


def test_a_full_graph() -> None:
    graph = checked(
        {
            "functions": [
                function(
                    "f",
                    memory_mb=128,
                    timeout_seconds=900,
                    concurrency=10,
                    reserved=20,
                    provisioned=2,
                    egress=["*.example.com"],
                ),
                function(
                    "g", handler="pkg.module.handler", uses=["f"], documents=["carts"], environment={"KEY": "v"}, egress="all"
                ),
            ],
            "routes": [
                route("/"),
                route("/a/{id}", cors={"origins": ["https://example.com"], "credentials": True}),
                route("/a/{p+}", method="ANY", throttle={"rate": 0.5, "burst": 1, "per": "client"}),
                route("$default", payload_format="1.0"),
            ],
            "schedules": [
                {
                    "name": "s",
                    "expression": "cron(0 12 * * ? *)",
                    "function": "g",
                    "timezone": "Europe/Berlin",
                    "input": {"a": 1},
                }
            ],
        }
    )
    assert len(graph.functions) == 2
    assert len(graph.routes) == 4


BROKEN: dict[str, tuple[object, str]] = {
    "not an object": ([], "Expected `object`"),
    "nothing": ({}, "declares no function"),
    "unknown resource": ({"functions": [function()], "streams": []}, "streams"),
    "unknown field": (with_function(memory=1), "memory"),
    "wrong type": (with_function(memory_mb="128"), "memory_mb"),
    "bool for int": (with_function(memory_mb=True), "memory_mb"),
    "no handler": ({"functions": [{"name": "f"}]}, "handler"),
    "bad name": (with_function(name="a b"), "a name has letters"),
    "empty name": (with_function(name=""), "a name has letters"),
    "name with newline": (with_function(name="a\n"), "a name has letters"),
    "name twice": ({"functions": [function(), function()]}, "function f twice"),
    "bad handler": (with_function(handler="app"), "handler 'app'"),
    "handler with space": (with_function(handler="app:f g"), "handler"),
    "memory": (with_function(memory_mb=1), "memory_mb is 1, the least is 64"),
    "timeout zero": (with_function(timeout_seconds=0), "more than 0"),
    "timeout nan": (with_function(timeout_seconds=float("nan")), "timeout_seconds is nan"),
    "timeout inf": (with_function(timeout_seconds=float("inf")), "timeout_seconds is inf"),
    "tmp": (with_function(tmp_mb=0), "tmp_mb is 0"),
    "concurrency": (with_function(concurrency=0), "concurrency is 0"),
    "reserved": (with_function(reserved=-1), "reserved is -1"),
    "provisioned": (with_function(provisioned=-1), "provisioned is -1"),
    "provisioned over reserved": (with_function(provisioned=2, concurrency=5, reserved=9), "more than reserved 9"),
    "variable name": (with_function(environment={"A-B": ""}), "environment variable 'A-B'"),
    "variable reserved": (with_function(environment={"AWS_REGION": "x"}), "AWS_REGION is set by the platform"),
    "variable lambda": (with_function(environment={"AWS_LAMBDA_X": "x"}), "AWS_LAMBDA_X is set by the platform"),
    "variable nul": (with_function(environment={"A": "\0"}), "NUL"),
    "egress word": (with_function(egress="some"), "egress"),
    "egress host": (with_function(egress=["http://x"]), "not a host name"),
    "egress star": (with_function(egress=["*"]), "not a host name"),
    "uses": (with_function(uses=["other"]), "uses 'other'"),
    "documents": (with_function(documents=["a/b"]), "documents 'a/b'"),
    "documents star": (with_function(documents=["*"]), "collection's name"),
    "description": (with_function(description="x" * 257), "description has 257"),
    "route function": (with_route(route(function="g")), "leads to 'g'"),
    "route method": (with_route(route(method="get")), "method must be one of"),
    "route path": (with_route(route("a")), 'starts with "/"'),
    "route query": (with_route(route("/a?b")), 'starts with "/"'),
    "route control": (with_route(route("/a\r\nX: 1")), 'starts with "/"'),
    "route brace": (with_route(route("/{a}b")), "segment '{a}b'"),
    "route greedy inside": (with_route(route("/{a+}/b")), "must be the last"),
    "route parameter twice": (with_route(route("/{a}/{a}")), "named twice"),
    "route twice": (with_route(route("/{a}"), route("/{b}")), "twice"),
    "route payload": (with_route(route(payload_format="3.0")), "payload_format"),
    "throttle rate": (with_route(route(throttle={"rate": 0, "burst": 1})), "throttle rate is 0"),
    "throttle nan": (with_route(route(throttle={"rate": float("nan"), "burst": 1})), "throttle rate is nan"),
    "throttle burst": (with_route(route(throttle={"rate": 1, "burst": 0})), "throttle burst is 0"),
    "cors credentials": (with_route(route(cors={"origins": ["*"], "credentials": True})), 'may not go with "\\*"'),
    "cors origin": (with_route(route(cors={"origins": ["example.com"]})), "origin 'example.com'"),
    "cors origin path": (with_route(route(cors={"origins": ["https://a/b"]})), "origin"),
    "cors header": (with_route(route(cors={"headers": ["a b"]})), "'a b' is not"),
    "cors age": (with_route(route(cors={"max_age_seconds": -1})), "max_age_seconds is -1"),
    "changes function": (with_changes(function="g"), "leads? to 'g'"),
    "changes collection": (with_changes(collection="a/b"), "collection's name"),
    "changes consumers": (with_changes(concurrency=101), "consumers is 101, allowed is 1 to 100"),
    "changes none": (with_changes(concurrency=0), "consumers is 0"),
    "changes start": (with_changes(start="tomorrow"), "start"),
    "changes lost": (with_changes(on_failure="queue:other"), "on_failure 'queue:other'"),
    "changes lost kind": (with_changes(on_failure="topic:lost"), "on_failure 'topic:lost'"),
    "changes twice": ({**with_changes(), "changes": with_changes()["changes"] * 2}, "twice"),
    "collection twice": ({"functions": [function()], "collections": [{"name": "a"}] * 2}, "collection a twice"),
    "collection name": ({"functions": [function()], "collections": [{"name": "a/b"}]}, "collection's name"),
    "schedule name": (with_schedule(name="a/b"), "schedule 'a/b'"),
    "schedule function": (with_schedule(function="g"), "leads to 'g'"),
    "schedule expression": (with_schedule(expression="every day"), "schedule 's': 'every day' is neither"),
    "schedule zone": (with_schedule(timezone="Mars/Olympus"), "Mars/Olympus"),
    "schedule input": (with_schedule(input={1, 2}.__iter__()), "schedule|input|unsupported|iterator"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken(case: str) -> None:
    emitted, reason = BROKEN[case]
    with pytest.raises(DeployFailed, match=reason):
        checked(emitted)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"memory_mb": 10_241}, "function_memory_mb_max"),
        ({"timeout_seconds": 900.5}, "function_timeout_seconds_max"),
        ({"tmp_mb": 10_241}, "function_tmp_mb_max"),
        ({"concurrency": 1_001}, "function_concurrency_max"),
        ({"provisioned": 1_001}, "instances"),
        ({"environment": {"A": "é" * 2_048}}, "function_environment_bytes"),
        ({"name": "f" * 60}, "function_name_characters"),
    ],
)
def test_limits(fields: dict[str, Any], limit: str) -> None:
    with pytest.raises(LimitExceeded) as caught:
        checked(with_function(**fields))
    assert caught.value.details["limit"] == limit


@pytest.mark.parametrize("kind", ["functions", "routes", "schedules"])
def test_number_of_resources(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, f"app_{kind}", Limit(f"app_{kind}", 1, kind, "test"))
    emitted: dict[str, Any] = {
        "functions": [function(), function("g")][: 2 if kind == "functions" else 1],
        "routes": [route("/a"), route("/b")],
        "schedules": [{"name": n, "expression": "rate(1 minute)", "function": "f"} for n in "ab"],
    }
    if kind != "routes":
        emitted["routes"] = []
    if kind != "schedules":
        emitted["schedules"] = []
    with pytest.raises(LimitExceeded, match=f"app_{kind} is 1"):
        checked(emitted)


def test_deep_nesting_does_not_crash() -> None:
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(MartletError):
        checked(with_schedule(input=deep))
    while deep:  # a deep list must be taken apart by hand, or freeing it recurses
        deep = deep[0]


def proxy(to: str = "http://example.com:9000/base", **fields: Any) -> dict[str, Any]:
    return {"method": "ANY", "path": "$default", "upstream": {"to": to, **fields}}


def test_an_app_may_be_nothing_but_a_proxy() -> None:
    assert checked({"routes": [proxy()]}).routes[0].leads_to == "http://example.com:9000/base"


@pytest.mark.parametrize(
    ("to", "port"),
    [("http://127.0.0.1:9000", 9000), ("http://localhost", 80), ("https://[::1]/", 443), ("http://169.254.169.254", 80)],
)
def test_an_upstream_on_this_host_needs_its_owner(to: str, port: int) -> None:
    with pytest.raises(DeployFailed, match="may not be called: it is ") as caught:
        checked({"routes": [proxy(to)]})
    assert f":{port} if apps may call it" in caught.value.remedy
    host = caught.value.remedy.partition("=")[2].partition(f":{port} ")[0]
    for allowed in (f"{host}:{port}", host, "*"):
        assert check("shop", {"routes": [proxy(to)]}, FakeSchedules().check, (allowed,)).routes
    for other in (f"{host}:1", "example.com"):
        with pytest.raises(DeployFailed):
            check("shop", {"routes": [proxy(to)]}, FakeSchedules().check, (other,))


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (proxy("ftp://a"), "is not http"),
        (proxy("http://"), "is not http"),
        (proxy("http://a:99999"), "is not a URL"),
        (proxy("http://a:0"), "is not http"),
        (proxy("http://u@a"), "is not http"),
        (proxy("http://a/?q"), "is not http"),
        (proxy("http://a/{x}"), "is not http"),
        (proxy("http://a\r\nX: 1"), "is not a URL"),
        (proxy(strip="a"), 'starts with "/"'),
        (proxy(timeout_seconds=0), "timeout is 0"),
        (proxy(timeout_seconds=1e9), "timeout is 1e"),
        ({**proxy(), "function": "f"}, "leads to a function and to another server"),
        (route(share=-1), "share is -1"),
        (route(share=100.5), "share is 100.5"),
        (route(by="you"), "by is 'you'"),
        (route(when=[["a b", "1"]]), "is no header"),
        (route(when=[["a", "1\r\n"]]), "is no header"),
    ],
)
def test_proxies_and_conditions_that_are_refused(route: dict[str, Any], message: str) -> None:
    with pytest.raises(DeployFailed, match=message):
        checked(with_route(route))


def test_conditions_make_routes_differ() -> None:
    checked(with_route(route(), route(share=5), route(share=5, by="request"), route(when=[["a", "1"]])))
    with pytest.raises(DeployFailed, match="twice"):
        checked(with_route(route(share=5), route(share=5)))
