"""`Collection`: versioned JSON documents, kept by the platform, over the sandbox's private loopback.

`Transaction` is many changes at one moment. Every document has a version that grows by each change; a write that says which
version it saw is refused with `Conflict` when another came first. That is all that is needed for counters, stock and state
machines without a lock; see `update`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeVar

    from martlet.sdk.client import Answer
    from martlet.sdk.right import Right
    from martlet.sdk.schema import DocumentField, Index, Reference

    T = TypeVar("T")

__all__ = ["Changed", "Collection", "Document", "Page", "Transaction"]

_TIMEOUT_SECONDS = 30.0
_UPDATE_TRIES = 10
_BACKOFF_SECONDS = 0.004  # doubled by each try, up to _BACKOFF_SECONDS_MAX; the wait is a random share of it
_BACKOFF_SECONDS_MAX = 0.25


class Document:
    """A document as it was when read."""

    __slots__ = ("id", "value", "version")

    def __init__(self, id: str, value: Any, version: int) -> None:
        self.id = id
        self.value = value
        self.version = version

    def __repr__(self) -> str:
        return f"Document(id={self.id!r}, value={self.value!r}, version={self.version})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Document):
            return NotImplemented
        return (self.id, self.value, self.version) == (other.id, other.value, other.version)

    __hash__ = None  # type: ignore[assignment]


class Page(list[Document]):
    """Documents in order. `next` is the `after` (of `query` the `cursor`) of the following page; None: this is the last."""

    next: str | None = None


class Changed:
    """The changes of a collection, as what `@app.on` takes."""

    __slots__ = ("collection",)

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def __repr__(self) -> str:
        return f"{self.collection!r}.changed"


class Collection:
    """A named collection of documents of this app. A function may use it after it says `uses=[collection]`.

    What it is given beside its name is declared: deploy makes it so, with indexes built in the background, and tells what it
    changes by name. A collection that says nothing more is made by its first write.

        orders = Collection(
            "orders",
            indexes={"by_customer": ["customer", "-placed_at"]},
            unique=["number"],
            schema={"customer": Reference("customers"), "quantity": DocumentField("int", required=True, check="quantity > 0")},
        )

    `indexes`: by name a term, several, or an `Index`. `unique`: fields that no two documents share. `schema`: by field a type,
    a `DocumentField` or a `Reference`; `additional=False` allows no others. `checks`: by name an expression that every document
    must meet. `ttl`: a field with the second at which a document expires. `history`: seconds for which old versions are kept
    (the default is a day, 0 keeps none). `changes`: what the change feed carries, "keys", "new" or "new_and_old". `rules`: what
    the app's end users may do, {"read": 'document.owner == user.sub', "write": ...}; without it they may do nothing.
    """

    def __init__(
        self,
        name: str,
        *,
        indexes: Mapping[str, Index | str | Iterable[str]] | None = None,
        unique: Iterable[str] = (),
        schema: Mapping[str, DocumentField | Reference | str] | None = None,
        checks: Mapping[str, str] | None = None,
        additional: bool = True,
        ttl: str = "",
        history: int | None = None,
        changes: str = "new",
        rules: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.rules = rules
        self.declared = (indexes or {}, unique, schema or {}, checks or {}, additional, ttl, history, changes)

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

    @property
    def read(self) -> Right:
        """For `uses=[...]`: only to read."""
        from martlet.sdk.right import Right

        return Right(self, "read")

    @property
    def write(self) -> Right:
        """For `uses=[...]`: only to write and delete."""
        from martlet.sdk.right import Right

        return Right(self, "write")

    @property
    def changed(self) -> Changed:
        """Its changes: `@app.on(orders.changed)`."""
        return Changed(self)

    def settings(self) -> dict[str, Any]:
        """What it declares, as the platform takes it; {} for nothing. Raises `ValueError`, `TypeError`."""
        from martlet.sdk.schema import settings

        indexes, unique, schema, checks, additional, ttl, history, changes = self.declared
        return settings(
            indexes=indexes,
            unique=unique,
            schema=schema,
            checks=checks,
            additional=additional,
            ttl=ttl,
            history=history,
            changes=changes,
        )

    def get(self, id: str) -> Document | None:
        """The document, or None."""
        answer = self._call("GET", self._path(id), good=(200, 404))
        return None if answer.status == 404 else Document(id, _loads(answer.body), _version(answer))

    def put(self, id: str, value: Any, version: int | None = None) -> int:
        """Write the document and return its new version, after the commit.

        `version`: the version that must still be there; 0: it must not exist; None: whatever is there is replaced.
        Raises `Conflict` when that does not hold, `LimitExceeded` when `value` is too large.
        """
        from martlet.sdk.encode import dumps

        headers = {"content-type": "application/json"} | _condition(version)
        answer = self._call("PUT", self._path(id), headers, dumps(value).encode(), good=(200, 201, 204))
        return _version(answer)

    def delete(self, id: str, version: int | None = None) -> bool:
        """Delete the document; False when there was none. `version` as for `put`, but never 0. Raises `Conflict`."""
        if version == 0:
            raise ValueError("version=0 means that the document does not exist: there is nothing to delete")
        return self._call("DELETE", self._path(id), _condition(version), good=(200, 204, 404)).status != 404

    def list(self, prefix: str = "", limit: int = 100, after: str | None = None) -> Page:
        """One page of at most `limit` documents whose ids start with `prefix`, after id `after`."""
        return _listed(self._call("GET", self._list(prefix, limit, after)))

    def scan(self, prefix: str = "") -> Iterator[Document]:
        """Every document whose id starts with `prefix`, page by page. Not a snapshot: changes meanwhile may or may not show."""
        after = None
        while True:
            page = self.list(prefix, after=after)
            yield from page
            if page.next is None:
                return
            after = page.next

    def update(self, id: str, change: Callable[[Any], Any], tries: int = _UPDATE_TRIES) -> Document:
        """Read, `change`, write, as if nobody else wrote between; returns the document as written.

        `change` gets the value (None when there is no document) and returns the new one. It may be called several times, so it
        must have no other effect; it may raise, which leaves the document as it is. Raises `Conflict` after `tries` losses.
        """
        for attempt in range(1, tries + 1):
            seen = self.get(id)
            value = change(None if seen is None else seen.value)
            try:
                return Document(id, value, self.put(id, value, version=0 if seen is None else seen.version))
            except Exception as error:
                from martlet.sdk.errors import Conflict

                if not isinstance(error, Conflict) or attempt == tries:
                    raise
            _pause(attempt)
        raise ValueError(f"tries must be at least 1, got {tries}")

    def insert(self, value: Any) -> str:
        """Write a new document and return the id that was made for it: 19 digits that sort by time."""
        from martlet.sdk.client import quote
        from martlet.sdk.encode import dumps

        headers = {"content-type": "application/json"}
        target = f"/v1/documents/{quote(self.name)}"
        answer = self._call("POST", target, headers, dumps(value).encode(), good=(201,))
        return str(_loads(answer.body)["id"])

    def patch(self, id: str, merge: dict[str, Any], version: int | None = None) -> int:
        """Change fields (JSON Merge Patch: None removes one) and return the new version. Raises `NotFound`, `Conflict`."""
        from martlet.sdk.encode import dumps

        headers = {"content-type": "application/merge-patch+json"} | _condition(version)
        return _version(self._call("PATCH", self._path(id), headers, dumps(merge).encode(), good=(204,)))

    def query(self, index: str = "", **asked: Any) -> Page:
        """One page of documents by `index` ("": by id). `equals=[...]`: values of its first terms; `low`, `high`: bounds of the
        next ({"value": 5, "inclusive": False} or a bare value), or `prefix`; `filter`: an expression such as "left > $n" with
        `parameters={"n": 0}`; `sort`, `select`, `expand`: lists of fields; `reverse`, `limit`, `cursor`, `as_of`.

        Raises `InvalidInput`, and `Conflict` while the index is being built."""
        return _page(self._call("POST", *_query(self.name, index, asked)))

    def transact(self, work: Callable[[Transaction], T], tries: int = _UPDATE_TRIES, key: str | None = None) -> T:
        """Run `work` as one strictly serializable transaction over any collections of this app, and return what it returns.

        `work` gets a `Transaction`: what it reads by `tx.read` must still be so at the commit, else it runs again (up to
        `tries` times, then `Conflict`); so it must have no other effect. If it raises, nothing is written. `key`: see
        `Transaction.commit`."""
        for attempt in range(1, tries + 1):
            tx = Transaction()
            try:
                found = work(tx)
                tx.commit(key)
                return found
            except Exception as error:
                if not tx.lost_race(error) or attempt == tries:
                    raise
            _pause(attempt)
        raise ValueError(f"tries must be at least 1, got {tries}")

    def transaction(self) -> Transaction:
        """An empty transaction: what is added to it happens at one moment, over any collections of this app."""
        return Transaction()

    # for coroutines: the same, without blocking the event loop

    async def aget(self, id: str) -> Document | None:
        """`get` for coroutines."""
        answer = await self._acall("GET", self._path(id), good=(200, 404))
        return None if answer.status == 404 else Document(id, _loads(answer.body), _version(answer))

    async def aput(self, id: str, value: Any, version: int | None = None) -> int:
        """`put` for coroutines."""
        from martlet.sdk.encode import dumps

        headers = {"content-type": "application/json"} | _condition(version)
        return _version(await self._acall("PUT", self._path(id), headers, dumps(value).encode(), good=(200, 201, 204)))

    async def adelete(self, id: str, version: int | None = None) -> bool:
        """`delete` for coroutines."""
        if version == 0:
            raise ValueError("version=0 means that the document does not exist: there is nothing to delete")
        return (await self._acall("DELETE", self._path(id), _condition(version), good=(200, 204, 404))).status != 404

    async def aquery(self, index: str = "", **asked: Any) -> Page:
        """`query` for coroutines."""
        return _page(await self._acall("POST", *_query(self.name, index, asked)))

    async def ainsert(self, value: Any) -> str:
        """`insert` for coroutines."""
        from martlet.sdk.client import quote
        from martlet.sdk.encode import dumps

        headers = {"content-type": "application/json"}
        target = f"/v1/documents/{quote(self.name)}"
        answer = await self._acall("POST", target, headers, dumps(value).encode(), good=(201,))
        return str(_loads(answer.body)["id"])

    async def apatch(self, id: str, merge: dict[str, Any], version: int | None = None) -> int:
        """`patch` for coroutines."""
        from martlet.sdk.encode import dumps

        headers = {"content-type": "application/merge-patch+json"} | _condition(version)
        return _version(await self._acall("PATCH", self._path(id), headers, dumps(merge).encode(), good=(204,)))

    async def aupdate(self, id: str, change: Callable[[Any], Any], tries: int = _UPDATE_TRIES) -> Document:
        """`update` for coroutines."""
        for attempt in range(1, tries + 1):
            seen = await self.aget(id)
            value = change(None if seen is None else seen.value)
            try:
                return Document(id, value, await self.aput(id, value, version=0 if seen is None else seen.version))
            except Exception as error:
                from martlet.sdk.errors import Conflict

                if not isinstance(error, Conflict) or attempt == tries:
                    raise
            await _apause(attempt)
        raise ValueError(f"tries must be at least 1, got {tries}")

    async def alist(self, prefix: str = "", limit: int = 100, after: str | None = None) -> Page:
        """`list` for coroutines."""
        return _listed(await self._acall("GET", self._list(prefix, limit, after)))

    async def ascan(self, prefix: str = "") -> AsyncIterator[Document]:
        """`scan` for coroutines."""
        after = None
        while True:
            page = await self.alist(prefix, after=after)
            for found in page:
                yield found
            if page.next is None:
                return
            after = page.next

    async def atransact(
        self, work: Callable[[Transaction], Awaitable[T]], tries: int = _UPDATE_TRIES, key: str | None = None
    ) -> T:
        """`transact` for coroutines: `work` is one, and reads by `await tx.aread`."""
        for attempt in range(1, tries + 1):
            tx = Transaction()
            try:
                found = await work(tx)
                await tx.acommit(key)
                return found
            except Exception as error:
                if not tx.lost_race(error) or attempt == tries:
                    raise
            await _apause(attempt)
        raise ValueError(f"tries must be at least 1, got {tries}")

    def _list(self, prefix: str, limit: int, after: str | None) -> str:
        from martlet.sdk.client import quote

        query = f"limit={limit}"
        if prefix:
            query += f"&prefix={quote(prefix)}"
        if after is not None:
            query += f"&after={quote(after)}"
        return f"/v1/documents/{quote(self.name)}?{query}"

    def _path(self, id: str) -> str:
        from martlet.sdk.client import quote

        if not isinstance(id, str) or not id:
            raise ValueError(f"a document's id is a non-empty string, got {id!r}")
        return f"/v1/documents/{quote(self.name)}/{quote(id)}"

    def _call(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        good: tuple[int, ...] = (200,),
    ) -> Answer:
        from martlet.sdk.client import call

        return _checked(call(method, target, headers=headers, body=body, timeout_seconds=_TIMEOUT_SECONDS), good)

    async def _acall(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        good: tuple[int, ...] = (200,),
    ) -> Answer:
        from martlet.sdk.client import acall

        return _checked(await acall(method, target, headers=headers, body=body, timeout_seconds=_TIMEOUT_SECONDS), good)


class Transaction:
    """Operations on documents that happen together or not at all. Nothing is sent before `commit`; as a context manager it
    commits at the end of the block, unless that raises.

        with stock.transaction() as tx:
            tx.patch(stock, "cup", increment={"left": -1}, condition="left >= 1")
            tx.put(orders, None, {"product": "cup"})
    """

    def __init__(self) -> None:
        self._operations: list[dict[str, Any]] = []
        self._read: dict[tuple[str, str], int] = {}  # version of each document that `read` saw
        self.results: list[Any] = []  # one for each operation, after the commit

    def read(self, collection: Collection, id: str) -> Document | None:
        """Read a document now; the commit is refused with `Conflict` if it has changed by then. Sees nothing of this
        transaction's own writes."""
        return self._saw(collection, id, collection.get(id))

    async def aread(self, collection: Collection, id: str) -> Document | None:
        """`read` for coroutines."""
        return self._saw(collection, id, await collection.aget(id))

    def _saw(self, collection: Collection, id: str, found: Document | None) -> Document | None:
        version = 0 if found is None else found.version
        if self._read.setdefault((collection.name, id), version) != version:
            from martlet.sdk.errors import Conflict

            raise Conflict(f"document {id!r} changed while the transaction was reading", details={"read": id})
        return found

    def lost_race(self, error: Exception) -> bool:
        """Whether a commit failed because something that was read has changed: then the whole may be tried again."""
        from martlet.sdk.errors import Conflict

        if not isinstance(error, Conflict):
            return False
        place = error.details.get("operation")
        return "read" in error.details or (isinstance(place, int) and place < len(self._read))

    def get(self, collection: Collection, id: str) -> int:
        """Read a document within the transaction; its result is {"id", "version", "value"} or None. Returns its place."""
        return self._add("get", collection, id)

    def put(
        self,
        collection: Collection,
        id: str | None,
        value: Any,
        version: int | None = None,
        condition: str = "",
        parameters: dict[str, Any] | None = None,
    ) -> int:
        """Write a document; `id` None: one is made. `condition`: an expression over the document as it is that must be true."""
        return self._add("put", collection, id, value=value, version=version, condition=condition, parameters=parameters)

    def patch(
        self,
        collection: Collection,
        id: str,
        merge: dict[str, Any] | None = None,
        increment: dict[str, Any] | None = None,
        version: int | None = None,
        condition: str = "",
        parameters: dict[str, Any] | None = None,
    ) -> int:
        """Change fields of a document, and add to numbers in it."""
        asked = {"merge": merge, "increment": increment, "version": version, "condition": condition, "parameters": parameters}
        return self._add("patch", collection, id, **asked)

    def delete(self, collection: Collection, id: str, version: int | None = None, condition: str = "") -> int:
        """Delete a document."""
        return self._add("delete", collection, id, version=version, condition=condition)

    def check(self, collection: Collection, id: str, version: int) -> int:
        """The document must still be at this version (0: not be there): for what was read before."""
        return self._add("check", collection, id, version=version)

    def commit(self, key: str | None = None) -> list[Any]:
        """Do all of it and return the results, one for each operation. With an idempotency `key` (use the request's id) a
        second commit does nothing and gets the first one's results. Raises `Conflict` when a version or condition fails.
        """
        from martlet.sdk.client import call

        asked = self._ask(key)
        return self._took(call(*asked[:2], headers=asked[2], body=asked[3], timeout_seconds=_TIMEOUT_SECONDS))

    async def acommit(self, key: str | None = None) -> list[Any]:
        """`commit` for coroutines."""
        from martlet.sdk.client import acall

        asked = self._ask(key)
        return self._took(await acall(*asked[:2], headers=asked[2], body=asked[3], timeout_seconds=_TIMEOUT_SECONDS))

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.commit()

    def _add(self, op: str, collection: Collection, id: str | None, **asked: Any) -> int:
        if id is not None and (not isinstance(id, str) or not id):
            raise ValueError(f"a document's id is a non-empty string, got {id!r}")
        given = {name: value for name, value in asked.items() if name == "value" or value not in (None, "")}
        self._operations.append({"op": op, "collection": collection.name, "id": id, **given})
        return len(self._operations) - 1

    def _ask(self, key: str | None) -> tuple[str, str, dict[str, str], bytes]:
        from martlet.sdk.encode import dumps

        headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key is not None else {})
        checks = [
            {"op": "check", "collection": name, "id": id, "version": version} for (name, id), version in self._read.items()
        ]
        return "POST", "/v1/transactions", headers, dumps({"operations": checks + self._operations}).encode()

    def _took(self, answer: Answer) -> list[Any]:
        self.results = _loads(_checked(answer, (200,)).body)["results"][len(self._read) :]
        return self.results


def _checked(answer: Answer, good: tuple[int, ...]) -> Answer:
    if answer.status not in good or (answer.status == 404 and not _absent(answer)):
        from martlet.sdk.errors import from_answer

        raise from_answer(answer.status, answer.headers, answer.body)
    return answer


def _query(name: str, index: str, asked: dict[str, Any]) -> tuple[str, dict[str, str], bytes]:
    from martlet.sdk.client import quote
    from martlet.sdk.encode import dumps

    body = {"index": index, **asked}
    for side in ("low", "high"):
        if side in body and not isinstance(body[side], dict):
            body[side] = {"value": body[side]}
    return f"/v1/collections/{quote(name)}/query", {"content-type": "application/json"}, dumps(body).encode()


def _listed(answer: Answer) -> Page:
    body = _loads(answer.body)
    page = Page(Document(item["id"], item["value"], int(item["version"])) for item in body["items"])
    page.next = body.get("next") or None
    return page


def _page(answer: Answer) -> Page:
    body = _loads(answer.body)
    page = Page(Document(item["id"], item["value"], int(item["version"])) for item in body["items"])
    page.next = body["cursor"]
    return page


def _absent(answer: Answer) -> bool:
    """Whether a 404 says that the document is not there, rather than that no such endpoint is."""
    return "json" in answer.headers.get("content-type", "")


def _condition(version: int | None) -> dict[str, str]:
    if version is None:
        return {}
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise ValueError(f"version is a whole number from Document.version or 0, got {version!r}")
    return {"if-match": f'"{version}"'} if version else {"if-none-match": "*"}


def _version(answer: Answer) -> int:
    return int(answer.headers["etag"].strip('"'))


def _loads(body: bytes) -> Any:
    import json

    return json.loads(body)


def _pause(attempt: int) -> None:
    import time

    time.sleep(_wait_seconds(attempt))


async def _apause(attempt: int) -> None:
    import asyncio

    await asyncio.sleep(_wait_seconds(attempt))


def _wait_seconds(attempt: int) -> float:
    import random

    ceiling: float = min(_BACKOFF_SECONDS_MAX, _BACKOFF_SECONDS * 2**attempt)
    return ceiling * random.random()
