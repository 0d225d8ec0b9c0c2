"""Readings of sensors: they are stored, summed up by the minute, and a minute that is too hot is told to whoever listens."""

import json
from datetime import UTC
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field

from martlet import App, Collection, Response, Topic

app = App("iot")
readings = Collection("readings")  # "sensor/2026-01-31T12:00:07.000000": one document for each moment of a sensor
windows = Collection("windows")  # "sensor/2026-01-31T12:00"
notices = Collection("notices")
alerts = Topic("alerts")

HOT_CELSIUS = 30


class Reading(BaseModel):
    sensor: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
    at: AwareDatetime
    celsius: Annotated[float, Field(ge=-90, le=200)]


@app.post("/readings", uses=[readings.write])
def ingest(batch: Annotated[list[Reading], Field(max_length=25)]) -> Response:
    """A device sends again what it got no answer for: the same moment is the same document."""
    moments = {f"{one.sensor}/{one.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}": one.celsius for one in batch}
    with readings.transaction() as tx:
        for id, celsius in moments.items():
            tx.put(readings, id, {"celsius": celsius})
    return Response({"stored": len(batch)}, status=202)


@app.on(readings.changed, start="oldest", retries=-1, uses=[readings.read, windows])
def aggregate(event: dict, context: Any) -> None:
    for window in {record["id"][: -len(":00.000000")] for record in event["Records"]}:
        windows.update(window, lambda _, window=window: summary(window), tries=50)


def summary(window: str) -> dict:
    """Made anew from the readings themselves, so it is right however often and in whichever order they came."""
    celsius = [found.value["celsius"] for found in readings.scan(f"{window}:")]
    mean = sum(celsius) / len(celsius)
    return {"count": len(celsius), "mean": mean, "highest": max(celsius), "hot": mean >= HOT_CELSIUS}


@app.on(windows.changed, start="oldest", retries=-1, filter={"value": {"hot": [True]}}, uses=[alerts.publish])
def alert(event: dict, context: Any) -> None:
    for record in event["Records"]:
        alerts.publish({"window": record["id"], **record["value"]}, attributes={"kind": "hot"})


@app.on(alerts, filter={"kind": ["hot"]}, uses=[notices.write])
def notify(event: dict, context: Any) -> None:
    """One of those who listen; it keeps one notice for each window."""
    for record in event["Records"]:
        told = json.loads(record["Sns"]["Message"])
        notices.put(told["window"], {"text": f"{told['window']} is too hot"})


@app.get("/windows/{sensor}", uses=[windows.read])
def show(sensor: str) -> dict:
    return {found.id.partition("/")[2]: found.value for found in windows.scan(f"{sensor}/")}


@app.get("/notices", uses=[notices.read])
def told() -> dict:
    return {found.id: found.value["text"] for found in notices.scan()}
