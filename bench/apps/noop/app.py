"""The handler that every peer has too: one small JSON object."""

from martlet import App

app = App("bench")


@app.get("/noop")
def noop() -> dict:
    return {"ok": True}


@app.get("/noop-concurrent", concurrency=64)
async def noop_concurrent() -> dict:
    return {"ok": True}
