"""A shop on its way from a legacy server to functions, one route after the other."""

from martlet import App

LEGACY = "http://127.0.0.1:9000"

app = App("strangler")

# What no function takes is the legacy server's.
app.proxy("$default", to=LEGACY)


# Moved altogether, by its path.
@app.get("/products/{name}")
def product(name: str) -> dict:
    return {"name": name, "cents": price(name), "by": "martlet"}


# On its way: who asks for it, and a tenth of the others.
@app.get("/quotes/{name}", when={"x-beta": "1"})
@app.get("/quotes/{name}", share=10, by="header:x-user")
def quote(name: str) -> dict:
    return {"name": name, "cents": price(name), "by": "martlet"}


def price(name: str) -> int:
    return 100 * len(name)
