"""Consumers: one does nothing, one tells how old each message was when its function began."""

import time

from martlet import App, Queue

app = App("bench")
idle = Queue("idle", retries=None)
timed = Queue("timed", retries=None)
ages = Queue("ages", retries=None)


@app.on(idle, batch=10)
def nothing(event, context):
    return None


@app.on(timed, batch=1, uses=[ages])
def age(event, context):
    now = time.time()
    ages.send(str(now - float(event["Records"][0]["body"])))
