"""Tables against a plain model: random writes, queries in pages, scans in segments, indexes built while there are writes,
expiry; after each step everything that the tables hold is what the model says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from martlet.clock import ManualClock
from martlet.documents.dynamodb import DynamoDb, DynamoDbStreams, Tables
from martlet.documents.dynamodb.tables import unpack, unpack_stats
from martlet.errors import ServiceError
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine

HASHES = st.sampled_from(["a", "b", "a\x00", "x" * 200, "é"])
NUMBERS = st.sampled_from(
    [
        "0",
        "1",
        "-1",
        "10",
        "2",
        "-2.5",
        "100",
        "1E-130",
        "9.9E+125",
        "-9.9E+125",
        "0.1",
        "12345678901234567890123456789012345678",
    ]
)
TEXTS = st.sampled_from(["", "a", "a\x00", "a\x00\x00", "a\x01", "ab", "b", "é", "\U0001f600", "\uffff"])
KEYS = st.tuples(HASHES, NUMBERS)
SOME = st.dictionaries(
    st.sampled_from(["g", "h", "v", "w", "ttl"]),
    st.one_of(
        TEXTS.map(lambda text: {"S": text}),
        NUMBERS.map(lambda text: {"N": text}),
        st.just({"B": b"\x00"}),
        st.just({"L": [{"M": {"x": {"BOOL": True}}}]}),
    ),
    max_size=4,
)
NOW = 1_700_000_000


class Caller(msgspec.Struct):
    principal: str = "root"
    endpoint: str = ""


def order(value: dict[str, Any]) -> Any:
    """What a key sorts by."""
    ((kind, content),) = value.items()
    return Decimal(content) if kind == "N" else content.encode() if kind == "S" else content


def plain(number: str) -> str:
    return f"{Decimal(number):f}"


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock(NOW * 1000)
        self.model: dict[tuple[str, str], dict[str, Any]] = {}
        self.has_late = self.late_ready = False
        self.changes: list[tuple[str, dict[str, Any]]] = []

        async def start() -> Tables:
            return Tables(Store(MemoryEngine(), clock=self.clock), self.clock)

        self.tables = self.loop.run_until_complete(start())
        self.service = DynamoDb(self.tables, lambda *asked: None)
        self.streams = DynamoDbStreams(self.tables)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        return self.run(getattr(self.service, operation)(Caller(), {"TableName": "things", **request})) or {}

    def teardown(self) -> None:
        self.run(self.tables.store.close())
        self.loop.close()

    @initialize()
    def create(self) -> None:
        def keys(*pairs: str) -> list[dict[str, str]]:
            return [{"AttributeName": n, "KeyType": k} for n, k in zip(pairs, ("HASH", "RANGE"), strict=False)]

        self.arn = self.call(
            "create_table",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=keys("p", "s"),
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": kind}
                for name, kind in (("p", "S"), ("s", "N"), ("g", "S"), ("h", "N"))
            ],
            GlobalSecondaryIndexes=[
                {"IndexName": "by_g", "KeySchema": keys("g", "s"), "Projection": {"ProjectionType": "ALL"}},
                {"IndexName": "by_h", "KeySchema": keys("h", "g"), "Projection": {"ProjectionType": "KEYS_ONLY"}},
            ],
            LocalSecondaryIndexes=[
                {
                    "IndexName": "local",
                    "KeySchema": keys("p", "g"),
                    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["v"]},
                }
            ],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )["TableDescription"]["LatestStreamArn"]
        self.call("update_time_to_live", TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True})

    # what may be, and what is then

    def fits(self, item: dict[str, Any]) -> bool:
        for name, kind in (("g", "S"), ("h", "N")):
            if name in item and item[name].get(kind, "") == "":
                return False
        return not (self.has_late and "w" in item and item["w"].get("S", "") == "")

    def note(self, key: tuple[str, str], after: dict[str, Any] | None) -> None:
        before = self.model.get(key)
        if before != after:
            event = "INSERT" if before is None else "REMOVE" if after is None else "MODIFY"
            self.changes.append((event, {"old": before, "new": after}))
        if after is None:
            self.model.pop(key, None)
        else:
            self.model[key] = after

    def item(self, key: tuple[str, str], some: dict[str, Any]) -> dict[str, Any]:
        item = {"p": {"S": key[0]}, "s": {"N": plain(key[1])}}
        return {**item, **{name: {"N": plain(one["N"])} if "N" in one else one for name, one in some.items()}}

    def key_of(self, key: tuple[str, str]) -> dict[str, Any]:
        return {"p": {"S": key[0]}, "s": {"N": key[1]}}

    # writes

    @rule(key=KEYS, some=SOME, only_new=st.booleans())
    def put(self, key: tuple[str, str], some: dict[str, Any], only_new: bool) -> None:
        item = self.item(key, some)
        place = (key[0], plain(key[1]))
        condition = {"ConditionExpression": "attribute_not_exists(p)"} if only_new else {}
        try:
            self.call("put_item", Item={**some, **self.key_of(key)}, **condition)
        except ServiceError as error:
            refused = error.name == "ConditionalCheckFailedException"
            assert not self.fits(item) if not refused else only_new and place in self.model
            return
        assert self.fits(item)
        assert not (only_new and place in self.model)
        self.note(place, item)

    @rule(key=KEYS, some=SOME, gone=st.sampled_from(["g", "h", "v"]))
    def update(self, key: tuple[str, str], some: dict[str, Any], gone: str) -> None:
        some = {name: one for name, one in some.items() if name != gone}
        place = (key[0], plain(key[1]))
        before = self.model.get(place)
        after = {**(before or self.item(key, {})), **self.item(key, some)}
        after.pop(gone, None)
        request: dict[str, Any] = {"UpdateExpression": f"REMOVE {gone}"}
        if some:
            request["UpdateExpression"] = f"SET {', '.join(f'#{name} = :{name}' for name in some)} REMOVE {gone}"
            request["ExpressionAttributeNames"] = {f"#{name}": name for name in some}
            request["ExpressionAttributeValues"] = {f":{name}": one for name, one in some.items()}
        try:
            answer = self.call("update_item", Key=self.key_of(key), ReturnValues="ALL_NEW", **request)
        except ServiceError:
            assert not self.fits(after)
            return
        if before is None and not some:
            assert "Attributes" not in answer
            return
        assert answer["Attributes"] == after
        self.note(place, after)

    @rule(key=KEYS)
    def delete(self, key: tuple[str, str]) -> None:
        place = (key[0], plain(key[1]))
        answer = self.call("delete_item", Key=self.key_of(key), ReturnValues="ALL_OLD")
        assert answer.get("Attributes") == self.model.get(place)
        self.note(place, None)

    @rule(first=KEYS, second=KEYS, some=SOME, holds=st.booleans())
    def transact(self, first: tuple[str, str], second: tuple[str, str], some: dict[str, Any], holds: bool) -> None:
        one, other = (first[0], plain(first[1])), (second[0], plain(second[1]))
        item = self.item(first, some)
        actions = [
            {"Put": {"TableName": "things", "Item": {**some, **self.key_of(first)}}},
            {
                "Delete": {
                    "TableName": "things",
                    "Key": self.key_of(second),
                    "ConditionExpression": "attribute_exists(p)" if holds else "attribute_not_exists(p)",
                }
            },
        ]
        done = one != other and self.fits(item) and holds == (other in self.model)
        try:
            self.call("transact_write_items", TransactItems=actions)
        except ServiceError:
            assert not done
            return
        assert done
        self.note(one, item)
        self.note(other, None)

    # time, and indexes that come later

    @rule()
    def pass_time(self) -> None:
        self.clock.advance(10)

    @rule(key=KEYS, seconds=st.integers(1, 30))
    def put_with_time(self, key: tuple[str, str], seconds: int) -> None:
        self.put(key, {"ttl": {"N": str(self.clock.now_ms() // 1000 + seconds)}}, False)

    @rule()
    def work_in_the_background(self) -> None:
        now = self.clock.now_ms() // 1000
        self.run(self.tables.housekeeping.run_due())
        for place, item in list(self.model.items()):
            text = item.get("ttl", {}).get("N")
            if text is not None and 0 < Decimal(text) <= now and int(Decimal(text)) > now - 5 * 366 * 86_400:
                self.note(place, None)
        self.late_ready = self.has_late

    @precondition(lambda self: not self.has_late)
    @rule()
    def add_an_index(self) -> None:
        index = {
            "IndexName": "late",
            "KeySchema": [{"AttributeName": "w", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
        }
        self.call(
            "update_table",
            AttributeDefinitions=[{"AttributeName": "w", "AttributeType": "S"}],
            GlobalSecondaryIndexUpdates=[{"Create": index}],
        )
        self.has_late = True

    @precondition(lambda self: self.late_ready)
    @rule()
    def remove_the_index(self) -> None:
        self.call("update_table", GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "late"}}])
        self.has_late = self.late_ready = False

    # reads

    @rule(
        hashed=HASHES,
        low=NUMBERS,
        high=NUMBERS,
        operator=st.sampled_from(["", "=", "<", "<=", ">", ">=", "BETWEEN"]),
        reverse=st.booleans(),
        limit=st.integers(1, 4),
    )
    def query(self, hashed: str, low: str, high: str, operator: str, reverse: bool, limit: int) -> None:
        if operator == "BETWEEN" and Decimal(low) > Decimal(high):
            low, high = high, low
        text, values = "p = :p", {":p": {"S": hashed}}
        if operator:
            values[":low"] = {"N": low}
            text += f" AND s {operator} :low"
            if operator == "BETWEEN":
                values[":high"] = {"N": high}
                text += " AND :high"
        one, two = Decimal(low), Decimal(high)
        tests: dict[str, Callable[[Decimal], bool]] = {
            "": lambda s: True,
            "=": lambda s: s == one,
            "<": lambda s: s < one,
            "<=": lambda s: s <= one,
            ">": lambda s: s > one,
            ">=": lambda s: s >= one,
            "BETWEEN": lambda s: one <= s <= two,
        }
        wanted = [item for (p, s), item in self.model.items() if p == hashed and tests[operator](Decimal(s))]
        wanted.sort(key=lambda item: order(item["s"]), reverse=reverse)
        assert (
            self.pages(limit, KeyConditionExpression=text, ExpressionAttributeValues=values, ScanIndexForward=not reverse)
            == wanted
        )

    @rule(value=TEXTS.filter(bool), prefix=TEXTS.filter(bool), reverse=st.booleans(), limit=st.integers(1, 4))
    def query_indexes(self, value: str, prefix: str, reverse: bool, limit: int) -> None:
        request = {"ScanIndexForward": not reverse, "ExpressionAttributeValues": {":v": {"S": value}}}
        wanted = [item for item in self.model.values() if item.get("g") == {"S": value}]
        found = self.pages(limit, IndexName="by_g", KeyConditionExpression="g = :v", **request)
        assert [order(item["s"]) for item in found] == sorted((order(item["s"]) for item in wanted), reverse=reverse)
        assert sorted(map(plainly, found)) == sorted(map(plainly, wanted))
        for p in {p for p, _ in self.model}:
            inside = [i for (q, _), i in self.model.items() if q == p and i.get("g", {}).get("S", "").startswith(prefix)]
            inside = [item for item in inside if "g" in item]
            request["ExpressionAttributeValues"] = {":v": {"S": p}, ":g": {"S": prefix}}
            found = self.pages(limit, IndexName="local", KeyConditionExpression="p = :v AND begins_with(g, :g)", **request)
            assert [order(item["g"]) for item in found] == sorted((order(item["g"]) for item in inside), reverse=reverse)
            shown = [{name: item[name] for name in ("p", "s", "g", "v") if name in item} for item in inside]
            assert sorted(map(plainly, found)) == sorted(map(plainly, shown))

    @rule(total=st.integers(1, 7), limit=st.integers(1, 5))
    def scan(self, total: int, limit: int) -> None:
        found: list[dict[str, Any]] = []
        for segment in range(total):
            found += self.pages(limit, "scan", Segment=segment, TotalSegments=total)
        assert found == self.pages(1000, "scan")
        assert sorted(map(plainly, found)) == sorted(map(plainly, self.model.values()))

    def pages(self, limit: int, operation: str = "query", **request: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        start: dict[str, Any] = {}
        while True:
            page = self.call(operation, Limit=limit, **start, **request)
            found += page["Items"]
            assert page["ScannedCount"] <= limit
            if "LastEvaluatedKey" not in page:
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    # what always holds

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        table = self.tables.store.read(lambda reader: self.tables.catalog.table(reader, "things"))
        if table is None:
            return
        rows = self.tables.store.read(lambda reader: reader.scan(table.prefix, table.prefix + b"\xff" * 8, limit=1000))
        held = {(item["p"]["S"], item["s"]["N"]): item for item, _ in (unpack(raw) for _, raw in rows)}
        assert held == self.model
        sizes = sum(unpack(raw)[1] for _, raw in rows)
        assert unpack_stats(self.tables.store.read(lambda reader: reader.get(table.stats_key))) == (len(rows), sizes)
        for index in table.indexes:
            low, stats_key = index.prefix, index.stats_key
            entries = dict(self.tables.store.read(lambda reader, low=low: reader.scan(low, low + b"\xff" * 8, limit=1000)))
            wanted = {index.key(item, table.own(item)): index.project(item) for item in held.values()}
            wanted.pop(None, None)
            shown = {key: unpack(raw)[0] for key, raw in entries.items()}
            if index.active:
                assert shown == wanted
            else:
                assert shown.items() <= wanted.items()
            count = unpack_stats(self.tables.store.read(lambda reader, key=stats_key: reader.get(key)))
            assert count == (len(entries), sum(unpack(raw)[1] for raw in entries.values()))

    @invariant()
    def the_stream_has_every_change_once_and_in_order(self) -> None:
        if not hasattr(self, "arn"):
            return
        found: list[dict[str, Any]] = []
        position: int | None = 0
        while True:
            records, position = self.tables.streams.records(self.arn, position or 0, 7)
            if not records:
                break
            found += records
        told = [(one["eventName"], one["dynamodb"].get("OldImage"), one["dynamodb"].get("NewImage")) for one in found]
        expected = [(event, images["old"], images["new"]) for event, images in self.changes]
        assert sorted(map(plainly, told)) == sorted(map(plainly, expected))
        assert len({one["dynamodb"]["SequenceNumber"] for one in found}) == len(found)


def plainly(value: Any) -> str:
    """A text that equal values share, whatever the order of their members."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {plainly(one)}" for name, one in sorted(value.items())) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(plainly, value))}]"
    return repr(value)


TestModel = Machine.TestCase
TestModel.settings = settings(
    max_examples=int(os.environ.get("MARTLET_TEST_EXAMPLES", "60")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
