"""`Bucket`: a bucket of this app, kept by the platform (the protocol is Amazon S3's), over the sandbox's private loopback."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from martlet.sdk.client import Answer
    from martlet.sdk.right import Right

__all__ = ["Bucket", "BucketEvents", "Item", "Subscription"]

_TIMEOUT_SECONDS = 300.0


class Item:
    """One object of a listing. `modified` is its time as S3 writes it, in UTC."""

    __slots__ = ("etag", "key", "modified", "size")

    def __init__(self, key: str, size: int, etag: str, modified: str) -> None:
        self.key = key
        self.size = size
        self.etag = etag
        self.modified = modified

    def __repr__(self) -> str:
        return f"Item({self.key!r}, size={self.size})"


class BucketEvents:
    """Changes of a bucket that `@app.on` can name: `bucket.created`, `bucket.removed`."""

    __slots__ = ("bucket", "event")

    def __init__(self, bucket: Bucket, event: str) -> None:
        self.bucket = bucket
        self.event = event

    def __repr__(self) -> str:
        return f"{self.bucket!r}.{'created' if 'Created' in self.event else 'removed'}"


class Bucket:
    """A named bucket of this app. A function may read and write it after it says `uses=[bucket]`, and is told of its changes
    by `@app.on(bucket.created, prefix="in/")`. `versioning`: what is replaced or deleted is kept as a version."""

    def __init__(self, name: str, *, versioning: bool = False) -> None:
        self.name = name
        self.versioning = versioning

    def __repr__(self) -> str:
        return f"Bucket({self.name!r})"

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
    def created(self) -> BucketEvents:
        return BucketEvents(self, "s3:ObjectCreated:*")

    @property
    def removed(self) -> BucketEvents:
        return BucketEvents(self, "s3:ObjectRemoved:*")

    @property
    def full_name(self) -> str:
        """The bucket's name on the platform, as AWS's own clients know it."""
        import os

        return f"{os.environ.get('MARTLET_APP', '')}-{self.name}"

    def put(
        self,
        key: str,
        data: bytes | str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
    ) -> str:
        """Store an object; returns its ETag once it is durable. `if_absent`: only if there is none, else `Conflict`.

        Raises `AccessDenied`, `NotFound` (no such bucket), `InvalidInput`, `Unavailable` when no answer came."""
        body = data.encode() if isinstance(data, str) else bytes(data)
        headers = {
            "content-type": content_type or ("text/plain; charset=utf-8" if isinstance(data, str) else "binary/octet-stream")
        }
        for name, value in (metadata or {}).items():
            headers[f"x-amz-meta-{name}"] = value
        if if_absent:
            headers["if-none-match"] = "*"
        return self._call("PUT", key, headers, body).headers["etag"].strip('"')

    def get(self, key: str, *, first: int | None = None, last: int | None = None) -> bytes:
        """The object's bytes; `first` and `last` are a range, both included. Raises `NotFound`, `AccessDenied`."""
        headers = {}
        if first is not None or last is not None:
            headers["range"] = f"bytes={first or 0}-{'' if last is None else last}"
        return self._call("GET", key, headers).body

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        from martlet.sdk.errors import NotFound

        try:
            self._call("HEAD", key)
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is fine."""
        self._call("DELETE", key)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[Item]:
        """Objects whose keys begin with `prefix`, in the order of keys, behind `after`; at most `limit`."""
        from urllib.parse import urlencode

        token = ""
        left = limit
        while left is None or left > 0:
            query = {"list-type": "2", "prefix": prefix, "max-keys": str(min(left or 1_000, 1_000))}
            query |= {"continuation-token": token} if token else {"start-after": after} if after else {}
            items, token = _listed(self._call("GET", "", query=urlencode(query)).body)
            yield from items
            left = None if left is None else left - len(items)
            if not token:
                return

    def presign(self, key: str, *, method: str = "GET", expires: int = 3_600) -> str:
        """A URL that lets whoever has it do this for `expires` seconds, as far as this function may now."""
        return self._call("GET", key, {"x-martlet-presign": f"{method.upper()} {int(expires)}"}).body.decode()

    def _call(
        self, method: str, key: str, headers: Mapping[str, str] | None = None, body: bytes = b"", query: str = ""
    ) -> Answer:
        from urllib.parse import quote

        from martlet.sdk.client import call

        target = f"/{self.full_name}/{quote(key, safe='/-_.~')}" if key else f"/{self.full_name}"
        target += f"?{query}" if query else ""
        sent = body if method == "PUT" else None
        answer = call(method, target, headers=dict(headers or {}), body=sent, timeout_seconds=_TIMEOUT_SECONDS)
        if answer.status < 300:
            return answer
        raise _error(answer, f"{method} {self.full_name}/{key}")


class Subscription:
    """What `@app.on(bucket.created)` says, with the place that says it."""

    __slots__ = ("events", "prefix", "suffix", "where")

    def __init__(self, events: BucketEvents, prefix: str, suffix: str, where: str) -> None:
        self.events = events
        self.prefix = prefix
        self.suffix = suffix
        self.where = where


def _error(answer: Answer, what: str) -> Exception:
    import re

    from martlet.sdk.errors import AccessDenied, Conflict, InvalidInput, NotFound, from_answer

    found = re.search(rb"<Code>([^<]*)</Code><Message>([^<]*)</Message>", answer.body)
    text = f"{what}: {found[2].decode()}" if found else what
    kinds: dict[int, Any] = {
        400: InvalidInput,
        403: AccessDenied,
        404: NotFound,
        409: Conflict,
        412: Conflict,
        416: InvalidInput,
    }
    kind = kinds.get(answer.status)
    if kind is None:
        return from_answer(answer.status, answer.headers, answer.body)
    error: Exception = kind(text, details={"code": found[1].decode() if found else str(answer.status)})
    return error


def _listed(body: bytes) -> tuple[list[Item], str]:
    """The objects of a page, and where the next begins ("" for nowhere)."""
    from xml.etree import ElementTree

    space = "{http://s3.amazonaws.com/doc/2006-03-01/}"
    root = ElementTree.fromstring(body)  # the platform's own

    def text(node: Any, name: str) -> str:
        return node.findtext(f"{space}{name}") or ""

    items = [
        Item(text(one, "Key"), int(text(one, "Size") or 0), text(one, "ETag").strip('"'), text(one, "LastModified"))
        for one in root.findall(f"{space}Contents")
    ]
    return items, text(root, "NextContinuationToken")
