"""Routes: precedence, parameters, hosts, conflicts; and the trie against a slow reading of the same rules."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.errors import InvalidInput
from martlet.gateway.router import Match, MethodNotAllowed, RouteTable
from martlet.types import Route


def table(*routes: str, app: str = "shop") -> RouteTable:
    """A table from "GET /path" texts; the function is named like the text."""
    pairs = [text.split(" ", 1) if " " in text else ["ANY", text] for text in routes]
    return RouteTable(
        [(app, Route(method=method, path=path, function=f"{method} {path}"), f"{method} {path}") for method, path in pairs]
    )


def found(routes: RouteTable, method: str, path: str, host: bytes | None = None) -> str | None:
    match = routes.match(host, method, path.encode())
    if isinstance(match, MethodNotAllowed):
        return "405 " + ",".join(match.allow)
    return match.function if match is not None else None


# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html, its own example, and more
AWS = table("GET /pets/dog/1", "GET /pets/dog/{id}", "GET /pets/{proxy+}", "ANY /{proxy+}", "$default")


@pytest.mark.parametrize(
    ("method", "path", "function"),
    [
        ("GET", "/pets/dog/1", "GET /pets/dog/1"),
        ("GET", "/pets/dog/2", "GET /pets/dog/{id}"),
        ("GET", "/pets/cat/1", "GET /pets/{proxy+}"),
        ("POST", "/test/5", "ANY /{proxy+}"),
        ("POST", "/pets/dog/1", "ANY /{proxy+}"),
        ("GET", "/", "ANY $default"),
        ("GET", "/pets/", "ANY /{proxy+}"),
    ],
)
def test_the_most_specific_route_wins(method: str, path: str, function: str) -> None:
    assert found(AWS, method, path) == function


def test_for_one_path_an_exact_method_wins_over_any() -> None:
    routes = table("ANY /a", "GET /a", "ANY /{x}")
    assert found(routes, "GET", "/a") == "GET /a"
    assert found(routes, "POST", "/a") == "ANY /a"


def test_a_path_wins_over_a_method() -> None:
    routes = table("ANY /a", "GET /{x}")
    assert found(routes, "GET", "/a") == "ANY /a"


def test_a_literal_dead_end_is_left_again() -> None:
    routes = table("GET /a/b/c", "GET /{x}/b/d", "GET /a/{y+}")
    assert found(routes, "GET", "/a/b/d") == "GET /{x}/b/d"
    assert found(routes, "GET", "/a/b/e") == "GET /a/{y+}"


def test_the_deepest_greedy_route_wins() -> None:
    routes = table("GET /{p+}", "GET /a/{p+}", "GET /{x}/b/{p+}")
    assert found(routes, "GET", "/a/b/c") == "GET /{x}/b/{p+}"
    assert found(routes, "GET", "/a/c") == "GET /a/{p+}"


@pytest.mark.parametrize("path", ["/files", "/files/", "/"])
def test_a_greedy_parameter_takes_at_least_something(path: str) -> None:
    assert found(table("GET /files/{p+}"), "GET", path) is None


@pytest.mark.parametrize(
    ("path", "function"), [("/a", "GET /a"), ("/a/", None), ("//a", None), ("/A", None), ("", None), ("*", None)]
)
def test_paths_are_compared_exactly(path: str, function: str | None) -> None:
    assert found(table("GET /a"), "GET", path) == function


def test_a_parameter_is_not_empty() -> None:
    assert found(table("GET /a/{x}/b"), "GET", "/a//b") is None


def test_405_lists_every_method_that_would_do() -> None:
    routes = table("GET /a", "PUT /a", "DELETE /{x}", "POST /b")
    assert found(routes, "PATCH", "/a") == "405 DELETE,GET,PUT"
    assert found(routes, "PATCH", "/b") == "405 DELETE,POST"
    assert found(routes, "PATCH", "/a/b") is None


def test_parameters_are_decoded_and_a_slash_in_them_does_not_separate() -> None:
    routes = table("GET /o/{id}/{rest+}")
    match = routes.match(None, "GET", b"/o/a%2Fb%20%C3%A9%ff%zz/x%2Fy/z%3F")
    assert isinstance(match, Match)
    assert match.path_params == {"id": "a/b é\ufffd%zz", "rest": "x/y/z?"}


def test_a_literal_segment_fits_its_escaped_form() -> None:
    routes = table("GET /café/a")
    assert found(routes, "GET", "/caf%C3%A9/%61") == "GET /café/a"
    assert found(table("GET /a/b"), "GET", "/a%2Fb") is None


@pytest.mark.parametrize(
    ("host", "app"),
    [
        (b"one.localhost", "one"),
        (b"two.localhost:8700", "two"),
        (b"TWO.LocalHost.:1", "two"),
        (b"one.fn.example.com", "one"),
        (b"three.localhost", None),
        (b"x.one.localhost", None),
        (b".localhost", None),
        (b"localhost", "two"),
        (b"127.0.0.1:8700", "two"),
        (b"[::1]:8700", "two"),
        (b"onelocalhost", "two"),
        (b"", "two"),
        (None, "two"),
    ],
)
def test_the_host_names_the_app(host: bytes | None, app: str | None) -> None:
    routes = RouteTable(
        [(name, Route(method="GET", path="/", function="f"), f"{name}-f") for name in ("one", "two")],
        domains=("localhost", "fn.example.com"),
    )
    assert routes.match(None, "GET", b"/") is None  # two apps and no default: nobody is meant
    routes.set_default("two")
    for _ in range(2):  # the second time from memory
        match = routes.match(host, "GET", b"/")
        assert (match.app if isinstance(match, Match) else None) == app


def test_the_only_app_needs_no_default() -> None:
    assert found(table("GET /"), "GET", "/", b"anything.example") == "GET /"


def test_hosts_that_clients_invent_do_not_pile_up() -> None:
    routes = table("GET /")
    for number in range(5000):
        routes.match(b"h%d.example" % number, "GET", b"/")
    assert len(routes._hosts) <= 1024


@pytest.mark.parametrize(
    "pair",
    [
        ("GET /a", "GET /a"),
        ("GET /a/{x}", "GET /a/{y}"),
        ("GET /a/{x+}", "GET /a/{y+}"),
        ("ANY /a/{x}/b", "ANY /a/{longer}/b"),
        ("$default", "GET $default"),
    ],
)
def test_routes_that_conflict_are_refused_by_name(pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        table(*pair)
    for text in pair:
        assert text.rpartition(" ")[2] in str(caught.value)


def test_routes_that_only_overlap_are_welcome() -> None:
    table("GET /a", "PUT /a", "ANY /a", "GET /{x}", "GET /{x+}", "ANY /{x+}", "GET /a/{x}", "$default")


@pytest.mark.parametrize(
    "text",
    [
        "GET a",
        "GET ",
        "GET /a b",
        "GET /a?b",
        "GET /a#b",
        "GET /a%20b",
        "GET /{x}{y}",
        "GET /a{x}",
        "GET /{x",
        "GET /x}",
        "GET /{}",
        "GET /{x+}/a",
        "GET /{x}/{x}",
        "GET /{a b}",
        "get /a",
        "G=T /a",
        " /a",
    ],
)
def test_malformed_routes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        table(text)


SEGMENT = st.sampled_from(["a", "b", "{x}", "c d", "é"])
ROUTE = st.tuples(st.sampled_from(["GET", "POST", "ANY"]), st.lists(SEGMENT, min_size=1, max_size=3), st.booleans())
PATH = st.lists(st.sampled_from(["a", "b", "z", "", "c d", "é", "a/b"]), min_size=1, max_size=4)


@given(st.lists(ROUTE, max_size=7), st.sampled_from(["GET", "POST", "PUT"]), PATH)
def test_the_trie_agrees_with_a_slow_reading_of_the_rules(
    raw: list[tuple[str, list[str], bool]], method: str, segments: list[str]
) -> None:
    routes: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for verb, parts, greedy in raw:
        numbered = [f"{{p{index}}}" if part == "{x}" else part for index, part in enumerate(parts)] + (
            ["{rest+}"] if greedy else []
        )
        path = "/" + "/".join(numbered)
        if " " not in path:
            routes[verb, path] = (path, numbered)
    fast = RouteTable([("a", Route(method=verb, path=path, function="f"), f"{verb} {path}") for verb, path in routes])
    target = "/" + "/".join(quote(segment, safe="") for segment in segments)
    assert found(fast, method, target) == slow(routes, method, target)


def slow(routes: dict[tuple[str, str], tuple[str, list[str]]], method: str, target: str) -> str | None:
    """Sort all routes that fit the path by the rules, and take the first that allows the method."""
    asked = [unquote_to_bytes(part).decode() for part in target.split("/")[1:]]
    fits: list[tuple[tuple[object, ...], str, str]] = []
    for (verb, path), (_, parts) in routes.items():
        greedy = parts[-1] == "{rest+}"
        fixed = parts[:-1] if greedy else parts
        if len(asked) < len(fixed) or (not greedy and len(asked) != len(fixed)):
            continue
        if greedy and (len(asked) == len(fixed) or asked[len(fixed) :] == [""]):
            continue
        if all(part == have or (part.startswith("{") and have) for part, have in zip(fixed, asked, strict=False)):
            kinds = [part.startswith("{") for part in fixed]
            fits.append(((greedy, -len(fixed) if greedy else 0, kinds, verb == "ANY"), verb, path))
    for _, verb, path in sorted(fits):
        if verb in (method, "ANY"):
            return f"{verb} {path}"
    return "405 " + ",".join(sorted({verb for _, verb, _ in fits})) if fits else None
