"""A whole FastAPI application and a whole Flask application, each one line."""

import asyncio

from fastapi import FastAPI, Request
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


@api.get("/endless/{name}")
async def endless(name: str, client: Request) -> StreamingResponse:
    """Writes until the client leaves; then says so in a document."""

    async def lines():
        count = 0
        try:
            while True:
                count += 1
                yield f"{count}\n" + "x" * 1000 + "\n"
                await asyncio.sleep(0.005)
        finally:
            seen.put(name, {"lines": count})

    return StreamingResponse(lines(), media_type="text/plain")


@site.get("/hello/<name>")
def hello(name: str):
    return jsonify(hello=name, query=request.args.get("q"), script=request.script_root)


app.mount("/api", api, uses=[seen], concurrency=4)
app.mount("/site", site)
