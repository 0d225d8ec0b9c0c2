"""Calls over HTTP that events cause: API destinations with their connection's credentials, and plain ones for subscriptions.

Where they may go is decided by whoever makes the connection (`ask`), after it has resolved the name and before it connects to
that address. Here is how often: so many a second to one API destination, so many at one time to one host and in all. What is
over that waits its turn, which counts as no try. Source: EventBridge user guide, "API destinations as targets".
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode, urlsplit

from martlet.buses.rows import Connection, Destination
from martlet.errors import MartletError, NotFound, Throttled
from martlet.limits import LIMITS

__all__ = ["Answer", "Ask", "CallFailed", "Calls"]

_SECONDS: Final = float(LIMITS["http_delivery_seconds"].default)
_AT_ONCE: Final = LIMITS["http_deliveries"].default
_PER_HOST: Final = LIMITS["http_deliveries_per_host"].default
_AGENT: Final = "Amazon/EventBridge/ApiDestinations"
_TOKEN_MARGIN_SECONDS: Final = 60.0
_TOKENS_MAX: Final = 1_000
_CLOUD_EVENT: Final = "application/cloudevents+json"


class Answer(Protocol):
    """An HTTP answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Headers = list[tuple[str, str]]
Ask = Callable[[str, str, Headers, bytes, float], Awaitable[Answer]]


class CallFailed(MartletError):
    """The endpoint did not take the event."""

    http_status = 502
    code = "call_failed"
    headers: Sequence[tuple[str, str]] = ()  # of its answer


class _Bucket:
    """So many a second, and as many at once."""

    __slots__ = ("at", "left", "rate")

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self.left = float(rate)
        self.at = now

    def take(self, now: float) -> bool:
        self.left = min(self.left + (now - self.at) * self.rate, self.rate)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Calls:
    """All calls of one platform."""

    def __init__(self, ask: Ask, now_ms: Callable[[], int]) -> None:
        self._ask = ask
        self._now_ms = now_ms
        self._running: dict[str, int] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._tokens: dict[str, tuple[str, float]] = {}

    async def call(self, method: str, url: str, headers: Headers, body: bytes, seconds: float = _SECONDS) -> Answer:
        """One call. Raises `Throttled` when it must wait its turn, `CallFailed` for an answer that is none of 2xx, and what
        `ask` raises when there was none."""
        host = urlsplit(url).netloc
        if sum(self._running.values()) >= _AT_ONCE or self._running.get(host, 0) >= _PER_HOST:
            raise Throttled(f"so many calls to {host} are under way already")
        self._running[host] = self._running.get(host, 0) + 1
        try:
            answer = await self._ask(method, url, headers, body, seconds)
        except TimeoutError:
            raise CallFailed(f"{host} did not answer within {seconds:g} seconds") from None
        finally:
            self._running[host] -= 1
            if not self._running[host]:
                del self._running[host]
        if not 200 <= answer.status < 300:
            refused = answer.status not in (409, 429) and answer.status < 500
            failed = CallFailed(f"{host} answered {answer.status}", status=answer.status, refused=refused)
            failed.headers = answer.headers
            raise failed
        return answer

    async def destination(self, one: Destination, connection: Connection, given: Mapping[str, Any], payload: bytes) -> None:
        """Call an API destination. `given` are the target's HttpParameters; what the connection says wins."""
        if connection.state == "DEAUTHORIZED":
            raise NotFound(f"connection {connection.name} is deauthorized")
        now = asyncio.get_running_loop().time()
        bucket = self._buckets.get(one.id)
        if bucket is None or bucket.rate != one.rate:
            bucket = self._buckets[one.id] = _Bucket(one.rate, now)
        if not bucket.take(now):
            raise Throttled(f"API destination {one.name} takes {one.rate} calls a second")
        more = connection.parameters.get("InvocationHttpParameters") or {}
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": _AGENT, "Range": "bytes=0-1048575"}
        headers |= {str(key): str(value) for key, value in (given.get("HeaderParameters") or {}).items()}
        headers |= _pairs(more.get("HeaderParameters"))
        headers |= await self._credentials(connection)
        query = {str(key): str(value) for key, value in (given.get("QueryStringParameters") or {}).items()}
        query |= _pairs(more.get("QueryStringParameters"))
        url = _url(one.endpoint, given.get("PathParameterValues") or (), query)
        body = _with_members(payload, _pairs(more.get("BodyParameters")))
        if any(name.lower() == "content-type" and value.startswith(_CLOUD_EVENT) for name, value in headers.items()):
            headers.pop("Range", None)
            body = _cloud_event(body)
        headers = _once(headers)
        try:
            await self.call(one.method, url, list(headers.items()), body)
        except CallFailed as error:
            if error.details.get("status") in (401, 407):  # tried again, with a token that is fetched anew
                self._tokens.pop(connection.id, None)
                error.details["refused"] = False
            seconds = _retry_after(error.headers, self._now_ms() / 1000)
            if seconds is not None and seconds < 0:
                error.details["refused"] = True  # the endpoint wants no other try
            elif seconds is not None:
                error.details["retry_after_ms"] = int(seconds * 1000)
            raise

    async def _credentials(self, connection: Connection) -> dict[str, str]:
        parameters = connection.parameters
        if connection.kind == "BASIC":
            basic = parameters["BasicAuthParameters"]
            pair = f"{basic.get('Username', '')}:{basic.get('Password', '')}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        if connection.kind == "API_KEY":
            key = parameters["ApiKeyAuthParameters"]
            return {str(key["ApiKeyName"]): str(key.get("ApiKeyValue", ""))}
        return {"Authorization": f"Bearer {await self._token(connection)}"}

    async def _token(self, connection: Connection) -> str:
        """An access token by client credentials (RFC 6749 section 4.4), kept until shortly before it expires."""
        now = asyncio.get_running_loop().time()
        token, until = self._tokens.get(connection.id, ("", 0.0))
        if now < until:
            return token
        auth = connection.parameters["OAuthParameters"]
        client, more = auth.get("ClientParameters") or {}, auth.get("OAuthHttpParameters") or {}
        members = {
            "grant_type": "client_credentials",
            "client_id": str(client.get("ClientID", "")),
            "client_secret": str(client.get("ClientSecret", "")),
            **_pairs(more.get("BodyParameters")),
        }
        headers = {"Content-Type": "application/json", "User-Agent": _AGENT, **_pairs(more.get("HeaderParameters"))}
        form = headers["Content-Type"].startswith("application/x-www-form-urlencoded")
        body = urlencode(members).encode() if form else json.dumps(members).encode()
        url = _url(str(auth["AuthorizationEndpoint"]), (), _pairs(more.get("QueryStringParameters")))
        answer = await self.call(str(auth.get("HttpMethod", "POST")).upper(), url, list(headers.items()), body)
        try:
            found = json.loads(answer.body)
            token = str(found["access_token"])
            lasts = float(found.get("expires_in", 3600))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CallFailed(f"the authorization endpoint of connection {connection.name} gave no access token") from None
        if len(self._tokens) >= _TOKENS_MAX:
            self._tokens.clear()
        self._tokens[connection.id] = (token, now + max(lasts - _TOKEN_MARGIN_SECONDS, 0))
        return token


def _retry_after(headers: Sequence[tuple[str, str]], now: float) -> float | None:
    """The seconds that an answer asks for (RFC 9110 section 10.2.3: a number or a date); None: it does not say."""
    text = next((value.strip() for name, value in headers if name.lower() == "retry-after"), "")
    if re.fullmatch(r"-?[0-9]{1,9}", text):
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _once(headers: Mapping[str, str]) -> dict[str, str]:
    """Of headers that differ in case only, the last."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in headers.items():
        found[name.lower()] = (name, value)
    return dict(found.values())


def _cloud_event(payload: bytes) -> bytes:
    """An event as a CloudEvent 1.0 in its JSON format; what is no whole event is left as it is."""
    event = json.loads(payload)
    if not isinstance(event, dict) or "detail-type" not in event:
        return payload
    more = event.get("cloudevent") or {}
    members: dict[str, Any] = {
        "specversion": "1.0",
        "id": event["id"],
        "source": event["source"],
        "type": event["detail-type"],
        "time": event["time"],
    }
    if event.get("resources"):
        members["subject"] = event["resources"][0]
    wrapped = more.pop("data", None) if isinstance(more, dict) else None
    members |= more if isinstance(more, dict) else {}
    detail = event.get("detail")
    if wrapped and isinstance(detail, dict):  # it was no object when it came in
        members |= detail
    else:
        members |= {"datacontenttype": "application/json", "data": detail}
    return json.dumps(members, ensure_ascii=False).encode()


def _pairs(given: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    return {str(one["Key"]): str(one.get("Value", "")) for one in given or () if one.get("Key")}


def _url(endpoint: str, values: Sequence[str], query: Mapping[str, str]) -> str:
    """The endpoint with its "*"s filled in, in order; what is left over goes to the end of the path."""
    base, _, before = endpoint.partition("?")
    scheme, _, rest = base.partition("://")
    for value in values:
        text = quote(str(value), safe="")
        rest = rest.replace("*", text, 1) if "*" in rest else f"{rest.rstrip('/')}/{text}"
    whole = "&".join(part for part in (before, urlencode(query)) if part)
    return f"{scheme}://{rest}" + (f"?{whole}" if whole else "")


def _with_members(payload: bytes, members: Mapping[str, str]) -> bytes:
    if not members:
        return payload
    found = json.loads(payload)
    return json.dumps({**found, **members}).encode() if isinstance(found, dict) else payload
