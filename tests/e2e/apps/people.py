"""End users of an app, and a sender that keeps what it is told where the test can read it."""

from typing import Any

from martlet import App, Collection, User, Users

app = App("people")
box = Collection("box")


@app.function(uses=[box])
def mail(event: Any, context: Any) -> None:
    box.put(f"{event['kind']} {event['email']}", event)


users = Users("members", sender=mail)
app.mount_users("/auth", users, cors="https://spa.example")


notes = Collection("notes", rules={"read": "document.owner == user.sub", "write": "document.owner == user.sub"})


@app.get("/box/{id}", uses=[box.read])
def sent(id: str) -> dict[str, Any]:
    found = box.get(id)
    return found.value if found else {}


@app.get("/me", user=users)
def me(user: User) -> dict[str, Any]:
    return {"id": user.id, "email": user.email, "groups": list(user.groups)}


@app.get("/claims", user=users)
def claims(event: Any, context: Any) -> Any:
    return event["requestContext"]["authorizer"]


@app.post("/promote/{id}", uses=[users])
def promote(id: str) -> dict[str, Any]:
    return users.set_groups(id, ["admins"])


@app.post("/meddle/{id}", uses=[users.read])
def meddle(id: str) -> dict[str, Any]:
    from martlet import AccessDenied

    try:
        users.disable(id)
    except AccessDenied as error:
        return {"refused": error.message, "email": users.get(id)["email"]}
    return {}
