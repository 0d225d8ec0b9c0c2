"""A circuit breaker: while a provider fails, callers are answered at once and the provider is left alone."""

from typing import Any

from breaker import Breaker, Open

from martlet import App, Collection, FunctionError, HTTPError

app = App("circuit-breaker")
breakers = Collection("breakers")
calls = Collection("calls")  # each request that reached the provider, and whether it failed
switches = Collection("switches")

guard = Breaker(breakers, "provider", threshold=5, cool_down=1.0, lease=15.0)


@app.function(uses=[calls.write, switches.read])
def provider(event: dict, context: Any) -> dict:
    """Stands for somebody else's service, which is down at times."""
    switch = switches.get("provider")
    down = switch is not None and switch.value["down"]
    calls.insert({"symbol": event["symbol"], "failed": down})
    if down:
        raise ConnectionError("the provider is down")
    return {"symbol": event["symbol"], "cents": 100 * len(event["symbol"])}


@app.get("/quotes/{symbol}", uses=[provider, breakers])
def quote(symbol: str) -> dict:
    try:
        return guard.call(lambda: provider.invoke({"symbol": symbol}))
    except Open as refused:
        seconds = str(refused.retry_after_seconds)
        raise HTTPError(503, "the provider fails; it is not asked now", headers={"retry-after": seconds}) from None
    except FunctionError as error:
        raise HTTPError(502, f"the provider failed: {error.message}") from None


@app.get("/breaker", uses=[breakers.read, calls.read])
def show() -> dict:
    made = [found.value["failed"] for found in calls.scan()]
    return {**guard.state(), "calls": len(made), "failed_calls": sum(made)}


@app.put("/provider", uses=[switches.write])
def switch(wanted: dict) -> None:
    """To try it: {"down": true} lets the provider fail."""
    switches.put("provider", {"down": bool(wanted.get("down"))})
