"""FastAPI through Mangum, whichever way the event comes."""

from fastapi import FastAPI, Request
from mangum import Mangum

app = FastAPI()


@app.get("/hi/{name}")
async def hi(name: str, request: Request):
    return {"hi": name, "query": request.url.query, "version": request.scope["aws.event"].get("version", "1.0")}


@app.post("/echo", status_code=201)
async def echo(request: Request):
    return {"body": (await request.body()).decode(), "cookies": request.cookies}


handler = Mangum(app, lifespan="off")
