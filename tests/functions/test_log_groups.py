"""The service "logs": the logs of functions by groups, streams and events, and groups that others write to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from martlet.clock import ManualClock
from martlet.errors import MartletError, ServiceError
from martlet.functions import log_rows
from martlet.functions.log_groups import LogGroups
from martlet.functions.logs import LogRecord, LogStore
from martlet.limits import LIMITS, Limit
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine

GROUP = "/aws/lambda/shop-echo"
DAY = 24 * 3_600_000


@dataclass
class Caller:
    region: str = "us-east-1"
    account: str = "000000000000"
    request_id: str = "the-request"


ME = Caller()


class House:
    """A log store, a store and the service over them."""

    def __init__(self, logs: LogStore, store: Store, clock: ManualClock) -> None:
        self.logs, self.store, self.clock = logs, store, clock
        self.service = LogGroups(logs, store, clock)

    def run(self, number: int, *lines: str, stream: str = "2026/01/01/[$LATEST]aa", function: str = "shop-echo") -> None:
        """One invocation, a second after the one before."""
        self.clock.advance(1)
        text = "".join(f"{line}\n" for line in lines).encode()
        at_ms = self.clock.now_ms()
        self.logs.append(
            LogRecord(function, 1, f"request-{number}", at_ms, duration_us=500_000, memory_mb=128, lines=text, stream=stream)
        )

    async def call(self, operation: str, **request: Any) -> dict[str, Any]:
        return await getattr(self.service, operation)(ME, request) or {}

    async def messages(self, **request: Any) -> list[str]:
        found = await self.call("filter_log_events", logGroupName=GROUP, **request)
        return [event["message"].rstrip("\n").split(" Duration")[0] for event in found["events"]]

    async def refused(self, operation: str, **request: Any) -> str:
        with pytest.raises(MartletError) as caught:
            await self.call(operation, **request)
        error = caught.value
        return f"{error.name}: {error.message}" if isinstance(error, ServiceError) else type(error).__name__


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = ManualClock()
    logs, store = LogStore(tmp_path, clock), Store(MemoryEngine(), clock=clock)
    yield House(logs, store, clock)
    await logs.close()
    await store.close()


# --- the logs of functions


async def test_a_function_that_wrote_has_a_group_with_a_stream_for_each_instance(house: House) -> None:
    assert (await house.call("describe_log_groups"))["logGroups"] == []
    house.run(1, "hello")
    house.run(2, "again", stream="2026/01/01/[$LATEST]bb")
    house.logs.platform("_platform", "not a function")
    (group,) = (await house.call("describe_log_groups"))["logGroups"]
    assert group["logGroupName"] == GROUP
    assert group["arn"] == f"arn:aws:logs:us-east-1:000000000000:log-group:{GROUP}:*"
    assert group["storedBytes"] > 100
    streams = (await house.call("describe_log_streams", logGroupName=GROUP))["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["2026/01/01/[$LATEST]aa", "2026/01/01/[$LATEST]bb"]
    assert streams[0]["lastEventTimestamp"] - streams[0]["firstEventTimestamp"] == 500
    assert streams[0]["arn"].endswith(f"log-group:{GROUP}:log-stream:2026/01/01/[$LATEST]aa")
    newest = await house.call("describe_log_streams", logGroupName=GROUP, orderBy="LastEventTime", descending=True, limit=1)
    assert [stream["logStreamName"] for stream in newest["logStreams"]] == ["2026/01/01/[$LATEST]bb"]
    rest = await house.call(
        "describe_log_streams", logGroupName=GROUP, orderBy="LastEventTime", descending=True, nextToken=newest["nextToken"]
    )
    assert [stream["logStreamName"] for stream in rest["logStreams"]] == ["2026/01/01/[$LATEST]aa"]


async def test_events_are_the_lines_that_lambda_writes(house: House) -> None:
    house.run(1, "hello", "", "wörld")
    found = await house.call("filter_log_events", logGroupName=GROUP)
    start, hello, world, end, report = found["events"]
    assert start["message"].startswith("START RequestId: request-1 Version: ")
    assert (hello["message"], world["message"]) == ("hello\n", "wörld\n")
    assert end["message"] == "END RequestId: request-1\n"
    assert report["message"].startswith("REPORT RequestId: request-1\tDuration: 500.00 ms\t")
    assert report["timestamp"] - start["timestamp"] == 500
    assert len({event["eventId"] for event in found["events"]}) == 5
    assert start["logStreamName"] == "2026/01/01/[$LATEST]aa"
    assert found["nextToken"] is None
    assert found["searchedLogStreams"] == []


async def test_filters(house: House) -> None:
    house.run(1, '{"level":"INFO","n":1}')
    house.run(2, '{"level":"ERROR","n":2}', stream="2026/01/01/[$LATEST]bb")
    at_ms = house.clock.now_ms()
    house.run(3, "plain ERROR", stream="2026/01/02/[$LATEST]cc")
    assert await house.messages(filterPattern='{ $.level = "ERROR" }') == ['{"level":"ERROR","n":2}']
    assert len(await house.messages(filterPattern="ERROR")) == 2
    assert await house.messages(filterPattern="ERROR", logStreamNamePrefix="2026/01/02") == ["plain ERROR"]
    assert await house.messages(filterPattern="ERROR", startTime=at_ms + 1) == ["plain ERROR"]
    assert await house.messages(filterPattern="ERROR", endTime=at_ms) == ['{"level":"ERROR","n":2}']
    named = await house.messages(filterPattern="?INFO ?plain", logStreamNames=["2026/01/01/[$LATEST]aa"])
    assert named == ['{"level":"INFO","n":1}']
    assert (await house.refused("filter_log_events", logGroupName=GROUP, filterPattern="{")).startswith(
        "InvalidParameterException: Invalid filter pattern"
    )


async def test_filtered_events_come_in_pages_that_later_ones_do_not_disturb(house: House) -> None:
    for number in range(10):
        house.run(number, f"line {number}")
    found: list[str] = []
    request: dict[str, Any] = {"logGroupName": GROUP, "filterPattern": "line", "limit": 4}
    while True:
        page = await house.call("filter_log_events", **request)
        found += [event["message"].strip() for event in page["events"]]
        if page["nextToken"] is None:
            break
        request["nextToken"] = page["nextToken"]
        if len(found) == 4:
            house.run(10, "line 10")
    assert found == [f"line {number}" for number in range(11)]


async def test_a_stream_is_read_forwards_and_backwards(house: House) -> None:
    for number in range(3):
        house.run(number, f"line {number}")
    stream = {"logGroupName": GROUP, "logStreamName": "2026/01/01/[$LATEST]aa", "limit": 5}
    last = await house.call("get_log_events", **stream)
    assert last["events"][-1]["message"].startswith("REPORT RequestId: request-2")
    assert len(last["events"]) == 5
    before = await house.call("get_log_events", **stream, nextToken=last["nextBackwardToken"])
    assert before["events"][-1]["message"].startswith("REPORT RequestId: request-1") or len(before["events"]) == 5
    seen = [event["message"] for event in before["events"] + last["events"]]
    first = await house.call("get_log_events", **stream, nextToken=before["nextBackwardToken"])
    seen = [event["message"] for event in first["events"]] + seen
    assert len(seen) == 12
    nothing = await house.call("get_log_events", **stream, nextToken=first["nextBackwardToken"])
    assert (nothing["events"], nothing["nextBackwardToken"]) == ([], first["nextBackwardToken"])
    # forwards: at the end the token stays the same until there is more
    end = await house.call("get_log_events", **stream, nextToken=last["nextForwardToken"])
    assert (end["events"], end["nextForwardToken"]) == ([], last["nextForwardToken"])
    house.run(4, "more")
    more = await house.call("get_log_events", **stream, nextToken=end["nextForwardToken"])
    assert [event["message"].split()[0] for event in more["events"]] == ["START", "more", "END", "REPORT"]
    head = await house.call("get_log_events", **stream, startFromHead=True)
    assert head["events"][0]["message"].startswith("START RequestId: request-0")
    ends = await house.call("get_log_events", **stream, endTime=head["events"][0]["timestamp"])
    assert ends["events"] == []  # the end is not part of it


async def test_what_is_not_there(house: House) -> None:
    none = "ResourceNotFoundException: The specified log group does not exist."
    for operation in ("filter_log_events", "describe_log_streams", "delete_log_group", "delete_retention_policy"):
        assert await house.refused(operation, logGroupName="none") == none
    assert await house.refused("get_log_events", logGroupName="none", logStreamName="s") == none
    house.run(1, "x")
    text = "ResourceNotFoundException: The specified log stream does not exist."
    assert await house.refused("get_log_events", logGroupName=GROUP, logStreamName="s") == text
    assert await house.refused("put_log_events", logGroupName=GROUP, logStreamName="s", logEvents=[event(house, 0)]) == text
    assert (await house.refused("filter_log_events")).startswith("InvalidParameterException")
    for token in ("x", "f/1", "f/" + "9" * 57):
        call = {"logGroupName": GROUP, "logStreamName": "2026/01/01/[$LATEST]aa", "nextToken": token}
        assert await house.refused("get_log_events", **call) == "InvalidParameterException: The specified nextToken is invalid."


async def test_a_group_is_found_by_its_arn(house: House) -> None:
    house.run(1, "hello")
    arn = f"arn:aws:logs:us-east-1:000000000000:log-group:{GROUP}"
    for identifier in (GROUP, arn, f"{arn}:*"):
        found = await house.call("filter_log_events", logGroupIdentifier=identifier, filterPattern="hello")
        assert len(found["events"]) == 1
    wrong = await house.refused("filter_log_events", logGroupIdentifier="arn:aws:s3:::x")
    assert wrong.startswith("InvalidParameterException: Invalid log group ARN")


# --- retention and deletion


async def test_retention_hides_and_then_deletes(house: House) -> None:
    house.run(1, "old")
    await house.call("put_retention_policy", logGroupName=GROUP, retentionInDays=1)
    house.clock.advance(23 * 3600)
    house.run(2, "new")
    assert len(await house.messages(filterPattern="?old ?new")) == 2
    house.clock.advance(2 * 3600)
    assert await house.messages(filterPattern="?old ?new") == ["new"]
    (group,) = (await house.call("describe_log_groups"))["logGroups"]
    assert group["retentionInDays"] == 1
    house.clock.advance(24 * 3600)
    await house.service.expire()
    assert await house.logs.read("shop-echo") == []
    await house.call("delete_retention_policy", logGroupName=GROUP)
    assert (await house.call("describe_log_groups"))["logGroups"][0]["retentionInDays"] is None
    wrong = await house.refused("put_retention_policy", logGroupName=GROUP, retentionInDays=2)
    assert wrong.startswith("InvalidParameterException: retentionInDays 2 is not valid")


async def test_a_deleted_group_is_gone_and_comes_back_with_the_next_event(house: House) -> None:
    house.run(1, "old")
    await house.call("create_log_stream", logGroupName=GROUP, logStreamName="mine")
    await house.call("put_log_events", logGroupName=GROUP, logStreamName="mine", logEvents=[event(house, 0, "mine")])
    await house.call("delete_log_group", logGroupName=GROUP)
    assert (await house.call("describe_log_groups"))["logGroups"] == []
    house.run(2, "new")
    assert await house.messages(filterPattern="?old ?new ?mine") == ["new"]


# --- groups that others write to


def event(house: House, seconds: int, message: str = "x") -> dict[str, Any]:
    return {"timestamp": house.clock.now_ms() + seconds * 1000, "message": message}


async def own_group(house: House) -> dict[str, str]:
    await house.call("create_log_group", logGroupName="app", tags={"a": "b"})
    await house.call("create_log_stream", logGroupName="app", logStreamName="s")
    return {"logGroupName": "app", "logStreamName": "s"}


async def test_events_that_are_put_are_there(house: House) -> None:
    place = await own_group(house)
    answer = await house.call("put_log_events", **place, logEvents=[event(house, -1, "one"), event(house, 0, "two ü")])
    assert answer["rejectedLogEventsInfo"] is None
    assert len(answer["nextSequenceToken"]) == 56
    found = await house.call("get_log_events", **place)
    assert [item["message"] for item in found["events"]] == ["one", "two ü"]
    (stream,) = (await house.call("describe_log_streams", logGroupName="app"))["logStreams"]
    assert stream["lastEventTimestamp"] - stream["firstEventTimestamp"] == 1000
    (group,) = (await house.call("describe_log_groups"))["logGroups"]
    assert group["storedBytes"] == len(b"one" + "two ü".encode()) + 2 * 26
    assert (await house.call("list_tags_log_group", logGroupName="app"))["tags"] == {"a": "b"}
    arn = group["logGroupArn"]
    await house.call("tag_resource", resourceArn=arn, tags={"c": "d"})
    await house.call("untag_resource", resourceArn=arn, tagKeys=["a"])
    assert (await house.call("list_tags_for_resource", resourceArn=arn))["tags"] == {"c": "d"}


async def test_what_cannot_be_put(house: House) -> None:
    place = await own_group(house)
    taken = "ResourceAlreadyExistsException: The specified log group already exists"
    assert await house.refused("create_log_group", logGroupName="app") == taken
    taken = "ResourceAlreadyExistsException: The specified log stream already exists"
    assert await house.refused("create_log_stream", **place) == taken
    order = await house.refused("put_log_events", **place, logEvents=[event(house, 0), event(house, -1)])
    assert "chronological order" in order
    wide = await house.refused("put_log_events", **place, logEvents=[event(house, -90_000), event(house, 0)])
    assert "24 hours" in wide
    large = await house.refused("put_log_events", **place, logEvents=[event(house, 0, "x" * 1_048_576)])
    assert "exceeds limit of 1048576" in large
    for name, value in (("kmsKeyId", "k"), ("logGroupClass", "INFREQUENT_ACCESS")):
        assert await house.refused("create_log_group", logGroupName="other", **{name: value}) == "Unsupported"
    house.run(1, "x")
    assert "already exists" in await house.refused("create_log_group", logGroupName=GROUP)
    assert (await house.call("get_log_events", **place))["events"] == []


async def test_events_that_are_too_old_or_too_new_are_left_out_and_told(house: House) -> None:
    place = await own_group(house)
    new = [event(house, 0, "fine"), event(house, 3 * 3600, "too new")]
    answer = await house.call("put_log_events", **place, logEvents=new)
    assert answer["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 1}
    old = [event(house, -15 * 86_400, "too old"), event(house, -14 * 86_400 + 60, "fine")]
    answer = await house.call("put_log_events", **place, logEvents=old[:1])
    assert answer["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    await house.call("put_log_events", **place, logEvents=old[1:])
    await house.call("put_retention_policy", logGroupName="app", retentionInDays=1)
    answer = await house.call("put_log_events", **place, logEvents=[event(house, -2 * 86_400, "expired")])
    assert answer["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}
    assert [item["message"] for item in (await house.call("get_log_events", **place))["events"]] == ["fine"]
    await house.service.expire()
    await house.call("delete_retention_policy", logGroupName="app")
    assert [item["message"] for item in (await house.call("get_log_events", **place))["events"]] == ["fine"]


async def test_a_group_keeps_no_more_than_its_limit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "log_bytes_per_function", Limit("log_bytes_per_function", 1_000, "bytes", "test"))
    place = await own_group(house)
    for number in range(40):
        house.clock.advance(1)
        await house.call("put_log_events", **place, logEvents=[event(house, 0, f"message {number:03d}")])
    kept = [item["message"] for item in (await house.call("get_log_events", **place))["events"]]
    assert kept == [f"message {number:03d}" for number in range(40 - 1_000 // 37, 40)]
    assert house.store.read(lambda reader: log_rows.size(reader, "app")) <= 1_000


async def test_groups_in_pages_and_by_pattern(house: House) -> None:
    for name in ("app/one", "app/two", "App/Three", "other"):
        await house.call("create_log_group", logGroupName=name)

    async def names(**request: Any) -> list[str]:
        return [group["logGroupName"] for group in (await house.call("describe_log_groups", **request))["logGroups"]]

    assert await names() == ["App/Three", "app/one", "app/two", "other"]
    assert await names(logGroupNamePrefix="app/") == ["app/one", "app/two"]
    assert await names(logGroupNamePattern="APP") == ["App/Three", "app/one", "app/two"]
    assert await names(limit=2) == ["App/Three", "app/one"]
    assert await names(nextToken="app/one") == ["app/two", "other"]
    assert await names(logGroupIdentifiers=["other"]) == ["other"]
    assert "nextToken is invalid" in await house.refused("describe_log_groups", nextToken="nothing")


# --- live


async def test_a_live_tail_says_what_comes(house: House) -> None:
    place = await own_group(house)
    house.run(0, "before")
    arn = "arn:aws:logs:us-east-1:000000000000:log-group:"
    answer = await house.call("start_live_tail", logGroupIdentifiers=[arn + GROUP, arn + "app"], logEventFilterPattern="line")
    events = answer["responseStream"]
    start = await anext(events)
    assert start["sessionStart"]["requestId"] == "the-request"
    assert start["sessionStart"]["logGroupIdentifiers"] == [arn + GROUP, arn + "app"]
    house.run(1, "line 1", "other")
    house.run(1, "line of another", function="shop-other")
    await house.call("put_log_events", **place, logEvents=[event(house, 0, "line 2")])
    await asyncio.sleep(0.1)
    update = (await anext(events))["sessionUpdate"]
    assert sorted(item["message"].strip() for item in update["sessionResults"]) == ["line 1", "line 2"]
    assert {item["logGroupIdentifier"] for item in update["sessionResults"]} == {arn + GROUP, arn + "app"}
    assert update["sessionMetadata"] == {"sampled": False}
    house.clock.advance(3 * 3600)
    with pytest.raises(ServiceError, match="three hours"):
        await anext(events)
    await house.call("put_log_events", **place, logEvents=[event(house, 0, "line 3")])  # nobody listens any more
    assert not house.service._tails


async def test_a_live_tail_of_too_much_says_that_it_samples(house: House) -> None:
    await own_group(house)
    answer = await house.call("start_live_tail", logGroupIdentifiers=["app"])
    events = answer["responseStream"]
    await anext(events)
    batch = [event(house, 0, f"line {number}") for number in range(700)]
    await house.call("put_log_events", logGroupName="app", logStreamName="s", logEvents=batch)
    update = (await anext(events))["sessionUpdate"]
    assert (len(update["sessionResults"]), update["sessionMetadata"]) == (500, {"sampled": True})
    await events.aclose()
    assert (await house.refused("start_live_tail", logGroupIdentifiers=["none"])).startswith("ResourceNotFoundException")
