"""A queue that is easy to flood: two consumers, ten messages each, a tenth of a second for them."""

import time

from martlet import App, Queue

app = App("flooded")
work = Queue("work")


@app.on(work, batch=10, consumers=2)
def consume(event, context):
    time.sleep(0.1)
