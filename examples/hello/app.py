"""Hello: two routes, a document that counts, and something every five minutes."""

from martlet import App, Collection

app = App("hello")
visits = Collection("visits")


@app.get("/hello/{name}", uses=[visits])
def hello(name: str) -> dict:
    seen = visits.update(name, lambda value: {"count": (value or {"count": 0})["count"] + 1})
    return {"message": f"Hello, {name}", "visits": seen.value["count"]}


@app.get("/health")
def health() -> str:
    return "ok"


@app.schedule("rate(5 minutes)")
def tick() -> None:
    print("five minutes have passed")
