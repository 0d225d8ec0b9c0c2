"""A function that is easy to saturate: four at a time, ten milliseconds each."""

import time

from martlet import App

app = App("bench")


@app.get("/work", reserved=4)
def work() -> dict:
    time.sleep(0.01)
    return {"ok": True}
