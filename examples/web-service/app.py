"""A simple web service: a list of tasks. Gateway → functions → documents."""

from typing import Annotated

from pydantic import BaseModel, Field

from martlet import App, Collection, Conflict, HTTPError, Response

app = App("web-service")
tasks = Collection("tasks")


class Task(BaseModel):
    title: Annotated[str, Field(min_length=1, max_length=200)]
    done: bool = False


@app.post("/tasks", uses=[tasks.write])
def add(task: Task) -> Response:
    return Response({"id": tasks.insert(task)}, status=201)


@app.get("/tasks", uses=[tasks.read])
def show_all() -> list[dict]:
    return [{"id": found.id, **found.value} for found in tasks.scan()]


@app.get("/tasks/{id}", uses=[tasks.read])
def show(id: str) -> dict:
    found = tasks.get(id)
    if found is None:
        raise HTTPError(404, f"there is no task {id}")
    return {"id": id, **found.value}


@app.put("/tasks/{id}", uses=[tasks])
def change(id: str, task: Task) -> dict:
    found = tasks.get(id)
    if found is None:
        raise HTTPError(404, f"there is no task {id}")
    try:
        tasks.put(id, task, version=found.version)
    except Conflict:
        raise HTTPError(409, f"task {id} was changed by somebody else at the same moment") from None
    return {"id": id, **task.model_dump()}


@app.delete("/tasks/{id}", uses=[tasks.write])
def remove(id: str) -> None:
    if not tasks.delete(id):
        raise HTTPError(404, f"there is no task {id}")
