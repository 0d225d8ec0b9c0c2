"""The audit log: every management call and every denial, appended, each entry holding the hash of the one before it.

    digest = SHA-256(digest of the entry before, as 32 bytes + the entry without its digest, as JSON with sorted keys, UTF-8)

So no entry can be changed, left out or put in without changing all that follow; who keeps a copy of the newest digest
elsewhere can show it. Calls that carry data (a document, a message, an object) are not management: only their denials are here.
A change is written when it is made, before its answer leaves. Reads and denials that repeat (the same principal, action,
resource, address and error) are written at once the first time, and then once a minute with their number, so that neither a
dashboard nor an attacker fills the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from martlet.auth.acts import Act
from martlet.clock import Clock
from martlet.errors import InvalidInput, MartletError
from martlet.limits import LIMITS
from martlet.store import Reader, Store, Tx, keys
from martlet.types import ANONYMOUS, Principal

__all__ = ["AuditLog", "Call", "Entry", "Verdict", "check_chain", "is_management", "is_read"]

_ENTRY: Final = "audit.entry"  # (.., number) -> Entry
_END: Final = "audit.end"  # -> (number, digest) of the newest entry
_START: Final = "audit.start"  # -> (number, digest) of the newest entry that retention has removed
_NOTHING: Final = "0" * 64
_PAGE: Final = 1_000
_WINDOW_MS: Final = 60_000
_REPEATING_AT_MOST: Final = 10_000  # kinds of repeated calls that are counted at one time; beyond, the oldest is written early
_TEXT_AT_MOST: Final = 1_024
_READS: Final = ("Get", "List", "Describe", "Read", "Head", "BatchGet", "Query", "Scan", "Select", "Test", "Lookup", "Filter")
_DATA_ROOMS: Final = frozenset({"documents"})
_DATA: Final = frozenset(
    {
        *("lambda:InvokeFunction", "lambda:InvokeFunctionUrl", "lambda:InvokeAsync", "sns:Publish", "events:PutEvents"),
        *("sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
        *("sqs:GetQueueUrl", "sqs:GetQueueAttributes", "logs:PutLogEvents", "logs:GetLogEvents", "logs:FilterLogEvents"),
        *("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:Query"),
        *("dynamodb:Scan", "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:ConditionCheckItem"),
        *("dynamodb:PartiQLSelect", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:PartiQLDelete"),
        *("dynamodb:GetRecords", "dynamodb:GetShardIterator"),
        *("s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts"),
        *("s3:AbortMultipartUpload", "s3:RestoreObject", "s3:BypassGovernanceRetention"),
    }
)
_DEFINING: Final = frozenset({"documents:Define"})

Outcome = Literal["done", "failed", "denied"]


@lru_cache(maxsize=1_024)  # there are a few hundred actions, and every request asks of its own
def is_management(action: str) -> bool:
    """Whether an action is about the platform's things and not about the data in them (CloudTrail's "management events")."""
    if action in _DEFINING:
        return True
    room, _, name = action.partition(":")
    if action in _DATA or room in _DATA_ROOMS:
        return False
    return not (room == "s3" and "Object" in name)


def is_read(action: str) -> bool:
    """Whether it changes nothing, by its verb."""
    return action.partition(":")[2].startswith(_READS)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One answered request, as the log needs it. `claimed`: the access key that an unknown sender named."""

    acts: tuple[Act, ...] = ()
    principal: Principal | None = None
    claimed: str = ""
    status: int = 200
    denied: bool = False
    error: str = ""
    source_ip: str = ""
    user_agent: str = ""
    request_id: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`count` calls from `at_ms` to `until_ms`. `also`: further (action, resource) of the same request. Texts end at 1,024."""

    number: int
    at_ms: int
    until_ms: int
    count: int
    kind: str
    principal: str
    action: str
    resource: str
    outcome: Outcome
    status: int
    error: str
    also: tuple[tuple[str, str], ...] = ()
    source_ip: str = ""
    user_agent: str = ""
    request_id: str = ""
    previous: str = _NOTHING
    digest: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of the chain found: `entries` from `first` to `last` hold together, or the fault in `broken_at`."""

    entries: int
    first: int
    last: int
    digest: str
    broken_at: int = 0
    why: str = ""


_ENCODE: Final = msgspec.json.Encoder(order="sorted")
_DECODE: Final = msgspec.json.Decoder(Entry)
_DECODE_MARK: Final = msgspec.json.Decoder(tuple[int, str])


class _Repeated:
    """A kind of call that was written once and goes on."""

    __slots__ = ("count", "entry", "first_ms", "last_ms", "opened_ms")

    def __init__(self, entry: Entry, now_ms: int) -> None:
        self.entry = entry
        self.opened_ms = now_ms
        self.count = self.first_ms = self.last_ms = 0


class AuditLog:
    """Lives on the event loop. `start` before the first request, `stop` after the last."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._repeated: dict[tuple[Any, ...], _Repeated] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def stop(self) -> None:
        """Write the numbers of what repeated."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        await self.flush()

    async def answered(self, call: Call) -> None:
        """Note a request whose answer is about to leave; durable when this returns, but for the number of repeats."""
        entry = self._entry(call)
        if entry is None:
            return
        if entry.outcome != "denied" and not is_read(entry.action):
            await self._append([entry])
            return
        kind = (entry.principal, entry.action, entry.resource, entry.outcome, entry.error, entry.source_ip)
        now = self._clock.now_ms()
        known = self._repeated.get(kind)
        if known is not None and now - known.opened_ms < _WINDOW_MS:
            known.first_ms = known.first_ms or now
            known.last_ms = now
            known.count += 1
            return
        left = self._close(kind)
        while len(self._repeated) >= _REPEATING_AT_MOST:
            left += self._close(next(iter(self._repeated)))
        self._repeated[kind] = _Repeated(entry, now)
        await self._append([*left, entry])

    def _entry(self, call: Call) -> Entry | None:
        """What is written of a call, or None: nothing."""
        denied = call.denied
        acts = [act for act in call.acts if denied or is_management(act.action)]
        if not acts and not denied:
            return None
        who = acts[0].principal if acts else call.principal or ANONYMOUS
        named = who.standing.arn if who.standing is not None else who.name
        now = self._clock.now_ms()
        also = dict.fromkeys((_cut(act.action), _cut(act.resource)) for act in acts[1:])
        first = (_cut(acts[-1 if denied else 0].action), _cut(acts[-1 if denied else 0].resource)) if acts else ("", "")
        also.pop(first, None)
        return Entry(
            number=0,
            at_ms=now,
            until_ms=now,
            count=1,
            kind=who.kind,
            principal=_cut(named or call.claimed),
            action=first[0],
            resource=first[1],
            outcome="denied" if denied else "failed" if call.status >= 400 else "done",
            status=call.status,
            error=_cut(call.error),
            also=tuple(also)[:16],
            source_ip=_cut(call.source_ip),
            user_agent=_cut(call.user_agent)[:256],
            request_id=call.request_id,
        )

    async def flush(self) -> None:
        """Write what was counted so far."""
        left: list[Entry] = []
        for kind in list(self._repeated):
            left += self._close(kind)
        if left:
            await self._append(left)

    def _close(self, kind: tuple[Any, ...]) -> list[Entry]:
        known = self._repeated.pop(kind, None)
        if known is None or not known.count:
            return []
        entry = msgspec.structs.replace(
            known.entry, count=known.count, at_ms=known.first_ms, until_ms=known.last_ms, request_id="", user_agent=""
        )
        return [entry]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_WINDOW_MS / 2_000)
            now = self._clock.now_ms()
            left: list[Entry] = []
            for kind, known in list(self._repeated.items()):
                if now - known.opened_ms >= _WINDOW_MS:
                    left += self._close(kind)
            if left:
                try:
                    await self._append(left)
                except MartletError:
                    continue  # the store says what is wrong with it wherever it is asked

    async def _append(self, entries: list[Entry]) -> None:
        await self._store.transact(lambda tx: _append(tx, entries))

    # --- reading

    def read(self, after: int = 0, limit: int = _PAGE, *, wanted: Callable[[Entry], bool] = lambda entry: True) -> list[Entry]:
        """Up to `limit` entries with numbers beyond `after`, in order; at most 10,000 are looked at."""
        found: list[Entry] = []
        looked = 0
        while looked < 10 * _PAGE and len(found) < limit:
            page = self._page(after, _PAGE)
            if not page:
                break
            for entry in page:
                if wanted(entry) and len(found) < limit:
                    found.append(entry)
            looked += len(page)
            after = page[-1].number
        return found

    def newest(self, limit: int = _PAGE, *, wanted: Callable[[Entry], bool] = lambda entry: True) -> list[Entry]:
        """The last `limit` entries that are `wanted` among the last 10,000, oldest first."""
        end = self._store.read(_end)[0]
        found = self.read(max(0, end - 10 * _PAGE), 10 * _PAGE, wanted=wanted)
        return found[-limit:]

    def _page(self, after: int, limit: int) -> list[Entry]:
        low, (_, high) = keys.encode(_ENTRY, after + 1), keys.prefix_range(_ENTRY)
        return [_DECODE.decode(value) for _, value in self._store.read(lambda reader: reader.scan(low, high, limit))]

    async def verify(self) -> Verdict:
        """Check every entry that is kept; yields to others between pages."""
        start, end = self._store.read(lambda reader: (_mark(reader, _START), _mark(reader, _END)))
        chain = _Chain(*start)
        after = start[0]
        while page := self._page(after, _PAGE):
            for entry in page:
                if entry.number > end[0]:  # written since
                    return chain.verdict()
                if not chain.take(entry):
                    return chain.verdict()
            after = page[-1].number
            await asyncio.sleep(0)
        if (chain.number, chain.digest) != end:
            chain.fault = f"entries after {chain.number} are missing: the newest was {end[0]}"
        return chain.verdict()

    async def expire(self) -> None:
        """Remove entries older than `audit_days`; the chain then begins after them."""
        before_ms = self._clock.now_ms() - LIMITS["audit_days"].default * 86_400_000
        while await self._store.transact(lambda tx: _expire(tx, before_ms)):
            pass


class _Chain:
    """Entries in order, held together by their digests."""

    def __init__(self, number: int, digest: str) -> None:
        self.begun, self.number, self.digest, self.fault = number, number, digest, ""

    def take(self, entry: Entry) -> bool:
        if entry.number != self.number + 1:
            self.fault = f"entry {self.number + 1} is missing"
        elif entry.previous != self.digest:
            self.fault = f"entry {entry.number} does not follow entry {self.number}"
        elif entry.digest != _digest(entry):
            self.fault = f"entry {entry.number} was changed"
        else:
            self.number, self.digest = entry.number, entry.digest
            return True
        return False

    def verdict(self) -> Verdict:
        broken = self.number + 1 if self.fault else 0
        return Verdict(
            entries=self.number - self.begun,
            first=self.begun + 1,
            last=self.number,
            digest=self.digest,
            broken_at=broken,
            why=self.fault,
        )


def check_chain(lines: Iterable[bytes]) -> Verdict:
    """Check an export: one entry a line, in order, from any entry on. Raises `InvalidInput` for a line that is none."""
    chain: _Chain | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = _DECODE.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidInput(f"line {number} is no entry of an audit log: {error}") from None
        if chain is None:
            chain = _Chain(entry.number - 1, entry.previous)
        if not chain.take(entry):
            break
    return (chain or _Chain(0, _NOTHING)).verdict()


def _cut(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:_TEXT_AT_MOST]


def _digest(entry: Entry) -> str:
    plain: Mapping[str, Any] = msgspec.to_builtins(entry)
    content = _ENCODE.encode({name: value for name, value in plain.items() if name != "digest"})
    return hashlib.sha256(bytes.fromhex(entry.previous) + content).hexdigest()


def _mark(reader: Reader | Tx, name: str) -> tuple[int, str]:
    raw = reader.get(keys.encode(name))
    return (0, _NOTHING) if raw is None else _DECODE_MARK.decode(raw)


def _end(reader: Reader) -> tuple[int, str]:
    return _mark(reader, _END)


def _append(tx: Tx, entries: list[Entry]) -> None:
    number, digest = _mark(tx, _END)
    for entry in entries:
        number += 1
        chained = msgspec.structs.replace(entry, number=number, previous=digest)
        digest = _digest(chained)
        tx.put(keys.encode(_ENTRY, number), _ENCODE.encode(msgspec.structs.replace(chained, digest=digest)))
    tx.put(keys.encode(_END), _ENCODE.encode((number, digest)))


def _expire(tx: Tx, before_ms: int) -> bool:
    """Remove a page of old entries; True: there may be more."""
    low, high = keys.prefix_range(_ENTRY)
    page: Iterator[tuple[bytes, bytes]] | Any = tx.scan(low, high, _PAGE)
    removed = 0
    for key, value in page:
        entry = _DECODE.decode(value)
        if entry.until_ms >= before_ms:
            break
        tx.delete(key)
        tx.put(keys.encode(_START), _ENCODE.encode((entry.number, entry.digest)))
        removed += 1
    return removed == _PAGE
