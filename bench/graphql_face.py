"""GraphQL over the document database, in one process, on the embedded engine: `python -m bench.graphql_face [ROUNDS]`.

A list of 50 documents with one relation, document cached, as the face answers it (without HTTP and authorization, with the JSON
of the answer): CPU time p50 and the batches of reads it took; beside graphql-core's executor with bare resolvers.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from graphql import execute_sync, parse

from martlet.clock import Clock
from martlet.documents import Documents
from martlet.protocols.graphql.importing import put_schema
from martlet.protocols.graphql.service import Asking, Service
from martlet.store import Store

SDL = """
type User { name: String! email: String! @unique posts: [Post!] }
type Post { title: String! body: String! views: Int author: User! }
"""
REQUESTS = {
    "50 with a document each": "query ($n: Int) { listPost(size: $n) { data { id title views author { id name } } after } }",
    "50 with a list each (8)": "query ($n: Int) { listUser(size: $n) { data { id name posts(size: 8) { data { title } } } } }",
    "one by id with another": '{ findPostByID(id: "p0001") { title author { name } } }',
}


def _write(tx: Any) -> None:
    for n in range(50):
        tx.put("User", f"u{n:02}", {"name": f"user {n}", "email": f"e{n}"})
    for n in range(400):
        tx.put("Post", f"p{n:04}", {"title": f"title {n}", "body": "x" * 200, "views": n, "author": f"u{n * 7 % 50:02}"})


async def _call(database: str, function: str, event: bytes) -> bytes:
    raise RuntimeError("no function is asked here")


def _no_one(action: str, name: str) -> None:
    """Everything is allowed."""


async def _p50_us(work: Callable[[], Awaitable[Any]], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        begun = time.process_time_ns()
        await work()
        took.append(time.process_time_ns() - begun)
    return sorted(took)[rounds // 2] / 1_000


async def _measure(folder: Path, rounds: int) -> None:
    store = await Store.open(folder, clock=Clock())
    room = Documents(store, Clock())
    await room.start()
    with room.redefining():
        await store.transact(lambda tx: put_schema(tx, room, "blog", "bench", SDL))
    await room.transact("blog", _write)
    service = Service(room, _call)
    for name, text in REQUESTS.items():
        asked = Asking(text, None, {"n": 50})

        async def answer(asked: Asking = asked) -> bytes:
            return msgspec.json.encode(await service.run(await service.ready("blog", asked), _no_one))

        told = msgspec.json.decode(await answer())
        print(f"{name:26} {await _p50_us(answer, rounds):8.0f} us CPU p50   {told['extensions']['reads']} reads")
    engine = await service.engine("blog")
    document = parse(REQUESTS["50 with a document each"])

    def resolve(source: Any, info: Any, **given: Any) -> Any:
        if info.parent_type.name == "Query":
            return {"data": [(doc, doc.value()) for doc in room.list("blog", "Post", limit=50)[0]], "after": None}
        if info.parent_type.name == "PostPage":
            return source[info.field_name]
        doc, value = source
        if info.field_name == "id":
            return doc.id
        if info.field_name == "author":
            found = room.get("blog", "User", value["author"])
            return None if found is None else (found, found.value())
        return value.get(info.field_name)

    async def reference() -> None:
        execute_sync(engine.schema, document, None, None, {"n": 50}, field_resolver=resolve)

    print(f"{'(graphql-core, bare)':26} {await _p50_us(reference, rounds):8.0f} us CPU p50   one read a field")
    await room.stop()
    await store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(_measure(Path(made) / "store", int(sys.argv[1]) if len(sys.argv) > 1 else 300))
