"""`Collection`: versioned JSON documents, kept by the platform, over the sandbox's private loopback.

Every document has a version that grows by each change; a write that says which version it saw is refused with `Conflict` when
another came first. That is all that is needed for counters, stock and state machines without a lock; see `update`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from martlet.sdk.client import Answer

__all__ = ["Collection", "Document", "Page"]

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
    """Documents in the order of their ids. `next` is the `after` of the following page, or None when this is the last."""

    next: str | None = None


class Collection:
    """A named collection of documents of this app. A function may use it after it says `uses=[collection]`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

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
        from martlet.sdk.client import quote

        query = f"limit={limit}"
        if prefix:
            query += f"&prefix={quote(prefix)}"
        if after is not None:
            query += f"&after={quote(after)}"
        body = _loads(self._call("GET", f"/v1/documents/{quote(self.name)}?{query}").body)
        page = Page(Document(item["id"], item["value"], int(item["version"])) for item in body["items"])
        page.next = body.get("next") or None
        return page

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

        answer = call(method, target, headers=headers, body=body, timeout_seconds=_TIMEOUT_SECONDS)
        if answer.status not in good or (answer.status == 404 and not _absent(answer)):
            from martlet.sdk.errors import from_answer

            raise from_answer(answer.status, answer.headers, answer.body)
        return answer


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
    import random
    import time

    ceiling = min(_BACKOFF_SECONDS_MAX, _BACKOFF_SECONDS * 2**attempt)
    time.sleep(ceiling * random.random())
