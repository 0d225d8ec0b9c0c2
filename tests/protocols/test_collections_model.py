"""The REST face of documents against a plain model: every request, its status, and what is there after it.

`MARTLET_TEST_EXAMPLES` is the number of examples (nightly: 2000)."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.documents.consistency import problems
from tests.protocols.fakes import BEARER, World

from martlet.auth import authorize
from martlet.clock import ManualClock
from martlet.documents import Documents
from martlet.protocols import app
from martlet.protocols.documents import CheckedDocuments
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine

EXAMPLES = int(os.environ.get("MARTLET_TEST_EXAMPLES", "25"))
IDS = st.sampled_from(["a", "b", "c/d", "é"])
VALUES = st.fixed_dictionaries(
    {"n": st.integers(-2, 2)}, optional={"u": st.integers(0, 2), "t": st.lists(st.sampled_from("xyz"), max_size=2)}
)
SETTINGS = {
    "indexes": {
        "n": {"terms": [{"path": "n"}, {"path": "u", "descending": True}]},
        "u": {"terms": [{"path": "u"}], "unique": True},
        "t": {"terms": [{"path": "t[]"}], "sparse": True},
    },
    "schema": {"checks": [{"name": "bounded", "expression": "n < 5"}]},
    "changes": "new_and_old",
}
MATCH = st.sampled_from(["none", "right", "wrong", "absent"])


class Model(RuleBasedStateMachine):
    """`docs`: what is there; `versions`: the last version of each id, deletes included; `feed`: (id, version, operation)."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.docs: dict[str, Any] = {}
        self.versions: dict[str, int] = {}
        self.feed: list[tuple[str, int, str]] = []
        self.past: list[tuple[int, dict[str, Any]]] = []

    def teardown(self) -> None:
        self.run(self.client.aclose())
        self.run(self.store.close())
        self.loop.close()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def ask(self, method: str, path: str, json: Any = None, **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        target = f"{path}{'&' if '?' in path else '?'}app=shop"
        answer: httpx.Response = self.run(self.client.request(method, target, json=json, headers=given))
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
        elif method != "PUT" or "collections" not in path:
            assert "martlet-usage" in answer.headers or "changes" in path
        return answer

    @initialize()
    def begin(self) -> None:
        async def make() -> None:
            self.clock = ManualClock()
            self.store = Store(MemoryEngine(), clock=self.clock)
            self.room = Documents(self.store, self.clock)
            world = World()
            world.auth.authorize = authorize  # type: ignore[method-assign]
            rooms = replace(world.rooms, collections=self.room, documents=CheckedDocuments(self.room))
            transport = httpx.ASGITransport(app(rooms))
            self.client = httpx.AsyncClient(transport=transport, base_url="http://t", headers=BEARER)

        self.run(make())
        assert self.ask("PUT", "/v1/collections/c", SETTINGS).status_code == 200

    # what a model knows

    def path(self, id: str) -> str:
        return "/v1/documents/c/" + "".join(f"%{byte:02X}" for byte in id.encode())

    def conditions(self, id: str, match: str) -> tuple[dict[str, str], bool]:
        """(headers, whether they hold)."""
        version = self.versions.get(id, 0) if id in self.docs else 0
        if match == "absent":
            return {"if_none_match": "*"}, not version
        if match == "right":
            return ({"if_match": f'"{version}"'}, True) if version else ({"if_match": "*"}, False)
        if match == "wrong":
            return {"if_match": f'"{version + 7}"'}, False
        return {}, True

    def refusal(self, id: str, value: Any) -> int:
        """The status with which a write of `value` is refused; 0: it is not."""
        if not value["n"] < 5:
            return 422
        if value.get("u") is not None and any(one.get("u") == value["u"] for key, one in self.docs.items() if key != id):
            return 409
        return 0

    def wrote(self, id: str, value: Any) -> int:
        self.versions[id] = self.versions.get(id, 0) + 1
        self.docs[id] = value
        self.feed.append((id, self.versions[id], "put"))
        return self.versions[id]

    def gone(self, id: str) -> None:
        del self.docs[id]
        self.feed.append((id, self.versions[id], "delete"))

    # requests

    @rule(id=IDS, value=VALUES, match=MATCH)
    def put(self, id: str, value: Any, match: str) -> None:
        headers, holds = self.conditions(id, match)
        answer = self.ask("PUT", self.path(id), value, **headers)
        if not holds:
            assert answer.status_code == 412
        elif wrong := self.refusal(id, value):
            assert answer.status_code in (wrong, 412)  # on PUT a taken unique term is a precondition that does not hold
        else:
            assert answer.headers["etag"] == f'"{self.wrote(id, value)}"'
            assert answer.status_code == (201 if self.versions[id] == 1 else 204)

    @rule(value=VALUES)
    def insert(self, value: Any) -> None:
        answer = self.ask("POST", "/v1/documents/c", value)
        wrong = self.refusal("", value)
        assert answer.status_code == (wrong or 201)
        if not wrong:
            assert answer.json()["version"] == self.wrote(answer.json()["id"], value)

    @rule(id=IDS, merge=st.dictionaries(st.sampled_from(["n", "u", "x"]), st.integers(0, 6), max_size=2))
    def patch(self, id: str, merge: dict[str, Any]) -> None:
        answer = self.ask("PATCH", self.path(id), merge)
        if id not in self.docs:
            assert answer.status_code == 404
            return
        value = self.docs[id] | merge
        wrong = self.refusal(id, value)
        assert answer.status_code == (wrong or 204)
        if not wrong:
            assert answer.headers["etag"] == f'"{self.wrote(id, value)}"'

    @rule(id=IDS, match=st.sampled_from(["none", "right", "wrong"]))
    def delete(self, id: str, match: str) -> None:
        headers, holds = self.conditions(id, match)
        answer = self.ask("DELETE", self.path(id), **headers)
        if id not in self.docs:
            assert answer.status_code in (404, 412)
        elif holds:
            assert answer.status_code == 204
            self.gone(id)
        else:
            assert answer.status_code == 412

    @rule(first=IDS, second=IDS, value=VALUES, amount=st.integers(-9, 9), stale=st.booleans())
    def transact(self, first: str, second: str, value: Any, amount: int, stale: bool) -> None:
        """A put, an increment under a condition, and a check: all of it or nothing."""
        before = (dict(self.docs), dict(self.versions), list(self.feed))
        operations: list[dict[str, Any]] = [
            {"op": "put", "collection": "c", "id": first, "value": value},
            {"op": "patch", "collection": "c", "id": second, "increment": {"n": amount}, "condition": "n >= -1"},
            {"op": "check", "collection": "c", "id": first, "version": 99 if stale else self.versions.get(first, 0) + 1},
        ]
        if first == second:
            operations[2]["version"] += 1
        answer = self.ask("POST", "/v1/transactions", {"operations": operations})
        ok = not self.refusal(first, value)
        if ok:
            self.wrote(first, value)
            there = self.docs.get(second)
            ok = there is not None and there["n"] >= -1 and not stale
            if ok and there is not None:
                changed = there | {"n": there["n"] + amount}
                ok = not self.refusal(second, changed)
                if ok:
                    self.wrote(second, changed)
        assert (answer.status_code == 200) == ok, answer.text
        if not ok:
            self.docs, self.versions, self.feed = before
            assert answer.json()["operation"] in (0, 1, 2)

    @rule(key=st.sampled_from(["k1", "k2"]), id=IDS, value=VALUES)
    def once(self, key: str, id: str, value: Any) -> None:
        """The same request with the same key twice happens once."""
        operations = {"operations": [{"op": "put", "collection": "c", "id": id, "value": value}]}
        full = f"{key}-{len(self.feed)}"
        first = self.ask("POST", "/v1/transactions", operations, idempotency_key=full)
        if not self.refusal(id, value):
            assert first.status_code == 200
            self.wrote(id, value)
            again = self.ask("POST", "/v1/transactions", operations, idempotency_key=full)
            assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")

    @rule()
    def remember(self) -> None:
        if stamp := self.room.now_stamp():
            self.past.append((stamp, dict(self.docs)))
            self.clock.advance(1)

    # reads

    @rule(id=IDS)
    def get(self, id: str) -> None:
        answer = self.ask("GET", self.path(id))
        if id not in self.docs:
            assert answer.status_code == 404
        else:
            assert (answer.json(), answer.headers["etag"]) == (self.docs[id], f'"{self.versions[id]}"')

    @rule(low=st.integers(-2, 2), limit=st.integers(1, 3), reverse=st.booleans())
    def query(self, low: int, limit: int, reverse: bool) -> None:
        wanted = {id for id, value in self.docs.items() if value["n"] >= low}
        assert self.pages({"index": "n", "low": {"value": low}, "limit": limit, "reverse": reverse}) == wanted

    @rule(tag=st.sampled_from("xyz"), limit=st.integers(1, 3))
    def query_by_tag(self, tag: str, limit: int) -> None:
        wanted = {id for id, value in self.docs.items() if tag in value.get("t", [])}
        assert self.pages({"index": "t", "equals": [tag], "limit": limit}) == wanted

    @rule(data=st.data())
    def query_the_past(self, data: st.DataObject) -> None:
        if self.past:
            stamp, docs = data.draw(st.sampled_from(self.past))
            assert self.pages({"as_of": stamp, "filter": "n >= $least", "parameters": {"least": 0}}) == {
                id for id, value in docs.items() if value["n"] >= 0
            }

    def pages(self, asked: dict[str, Any]) -> set[str]:
        """Ids of all pages; each document once, its value right for now where the query is about now."""
        ids: list[str] = []
        cursor = ""
        while cursor is not None:
            page = self.ask("POST", "/v1/collections/c/query", asked | {"cursor": cursor}).json()
            for item in page["items"]:
                assert "as_of" in asked or item["value"] == self.docs[item["id"]]
                ids.append(item["id"])
            cursor = page["cursor"]
        assert len(ids) == len(set(ids))
        return set(ids)

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        if not hasattr(self, "client"):
            return
        page = self.ask("GET", "/v1/documents/c?limit=1000").json()
        assert {item["id"]: item["value"] for item in page["items"]} == self.docs
        assert {item["id"]: item["version"] for item in page["items"]} == {id: self.versions[id] for id in self.docs}
        assert not self.store.read(problems)
        changes = self.ask("GET", "/v1/collections/c/changes?start=oldest&limit=1000").json()["items"]
        told = [(one["change"]["id"], one["change"]["version"], one["change"]["operation"]) for one in changes]
        assert told == self.feed


def test_rest_is_as_the_model_says() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Model,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=checks),
    )
