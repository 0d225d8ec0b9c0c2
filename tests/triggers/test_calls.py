"""Calls of API destinations: what becomes of a refusal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from martlet.buses.rows import Connection, Destination
from martlet.triggers.calls import CallFailed, Calls
from martlet.triggers.event import Event
from martlet.triggers.kinds.bus import backoff_ms
from martlet.triggers.source import Attempt

NOW_MS = 1_700_000_000_000  # 2023-11-14T22:13:20Z


@dataclass
class Answer:
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b'{"access_token": "t", "expires_in": 3600}'


class World:
    """Endpoints that answer one after the other, and then that all is well."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.calls = Calls(self._ask, lambda: NOW_MS)

    async def _ask(self, method: str, url: str, headers: Any, body: bytes, seconds: float) -> Answer:
        self.asked.append(url)
        if url.endswith("/token"):
            return Answer()
        return self.answers.pop(0) if self.answers else Answer()

    async def failed(self, kind: str = "API_KEY") -> CallFailed:
        with pytest.raises(CallFailed) as caught:
            await self.call(kind)
        return caught.value

    async def call(self, kind: str = "API_KEY") -> None:
        parameters: dict[str, Any] = {
            "ApiKeyAuthParameters": {"ApiKeyName": "k", "ApiKeyValue": "v"},
            "OAuthParameters": {"AuthorizationEndpoint": "https://a.example/token", "HttpMethod": "POST"},
        }
        connection = Connection(
            name="c", id="c", secret="", kind=kind, parameters=parameters, created_at_ms=0, modified_at_ms=0
        )
        to = Destination(
            name="d", id="d", connection="c", connection_arn="", endpoint="https://a.example/in", method="POST",
            created_at_ms=0, modified_at_ms=0,
        )  # fmt: skip
        await self.calls.destination(to, connection, {}, b"{}")


def next_try_ms(error: CallFailed) -> int | None:
    event = Event("i", "bus", "", "r", "", msgspec.Raw(b"{}"))
    return backoff_ms(Attempt(event, error, 1, 0), {}, 185, 86_400)


@pytest.mark.parametrize(
    ("said", "least_ms", "most_ms"),
    [
        ("120", 120_000, 120_000),
        ("Tue, 14 Nov 2023 22:15:20 GMT", 120_000, 120_000),
        ("0", 500, 1_000),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 500, 1_000),
        ("soon", 500, 1_000),
        ("9" * 40, 500, 1_000),
    ],
)
async def test_a_retry_waits_as_long_as_the_endpoint_says(said: str, least_ms: int, most_ms: int) -> None:
    error = await World(Answer(503, [("retry-after", said)])).failed()
    delay_ms = next_try_ms(error)
    assert delay_ms is not None
    assert least_ms <= delay_ms <= most_ms


async def test_a_negative_wait_ends_the_tries() -> None:
    assert next_try_ms(await World(Answer(429, [("Retry-After", "-1")])).failed()) is None


async def test_a_wait_past_the_age_of_the_event_ends_the_tries() -> None:
    assert next_try_ms(await World(Answer(429, [("Retry-After", "86401")])).failed()) is None


@pytest.mark.parametrize(("status", "again"), [(400, False), (401, True), (404, False), (407, True), (409, True), (500, True)])
async def test_which_answers_are_tried_again(status: int, again: bool) -> None:
    assert (next_try_ms(await World(Answer(status)).failed()) is not None) is again


async def test_a_refused_token_is_fetched_anew() -> None:
    world = World(Answer(), Answer(401))
    await world.call("OAUTH_CLIENT_CREDENTIALS")
    await world.failed("OAUTH_CLIENT_CREDENTIALS")
    await world.call("OAUTH_CLIENT_CREDENTIALS")
    assert [url.rpartition("/")[2] for url in world.asked] == ["token", "in", "in", "token", "in"]
