"""A whole FastAPI application and a whole Flask application, each one line."""

import asyncio

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from flask import Flask, jsonify, request

from martlet import App, Collection

app = App("web")
seen = Collection("seen")
api = FastAPI()
site = Flask(__name__)


@api.get("/items/{id}")
async def item(id: int, limit: int = 10) -> dict:
    return {"id": id, "limit": limit}


@api.get("/lines/{name}")
async def lines(name: str, count: int = 300) -> StreamingResponse:
    """Writes a line every few milliseconds, and at the end a document that says how many."""

    async def written():
        for number in range(count):
            yield f"{number}\n"
            await asyncio.sleep(0.005)
        seen.put(name, {"lines": count})

    return StreamingResponse(written(), media_type="text/plain")


@api.get("/flood/{name}")
async def flood(name: str) -> StreamingResponse:
    """64 MB, as quickly as they are taken."""

    async def written():
        for number in range(1024):
            yield b"x" * 65_536
            if number % 64 == 63:
                seen.put(name, {"parts": number + 1})

    return StreamingResponse(written(), media_type="application/octet-stream")


@site.get("/hello/<name>")
def hello(name: str):
    return jsonify(hello=name, query=request.args.get("q"), script=request.script_root)


app.mount("/api", api, uses=[seen], concurrency=4)
app.mount("/site", site)
