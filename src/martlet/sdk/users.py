"""`Users`: the end users of this app, who sign up and in at the path where the app mounts them; and `User`, one of them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from martlet.sdk.right import Right

__all__ = ["User", "Users"]

_TIMEOUT_SECONDS = 30.0


class User:
    """Who signed in. A handler of a route with `user=` gets it by a parameter annotated `User`."""

    __slots__ = ("claims", "email", "groups", "id")

    def __init__(self, claims: dict[str, Any]) -> None:
        self.claims = claims  # all text, as API Gateway's JWT authorizers pass them
        self.id = str(claims["sub"])
        self.email = str(claims.get("email", ""))
        self.groups = tuple(str(claims.get("groups", "")).strip("[]").split())

    def __repr__(self) -> str:
        return f"User({self.id!r})"


class Users:
    """End users of this app: `app.mount_users("/auth", users)` makes the endpoints at which they sign up and in, and
    `@app.get("/me", user=users)` lets in only who did. A function changes groups after it says `uses=[users]`.

    `sender`: the function that delivers codes, called with {"kind": "verify" | "reset" | "exists", "email", "code", "app",
    "users"}; without one they are written to the platform's log, for development. `sign_up`: "open" or "closed". `issuer`: the
    public URL of the path where they are mounted, e.g. "https://shop.example/auth", which their tokens name.
    """

    def __init__(self, name: str, *, sender: Any = None, sign_up: str = "open", issuer: str = "") -> None:
        self.name = name
        self.sender = sender
        self.sign_up = sign_up
        self.issuer = issuer

    def __repr__(self) -> str:
        return f"Users({self.name!r})"

    @property
    def read(self) -> Right:
        """For `uses=[...]`: only to read."""
        from martlet.sdk.right import Right

        return Right(self, "read")

    def get(self, id: str) -> dict[str, Any]:
        """{"sub", "email", "groups", "disabled", "totp", "created_at_ms"}. Raises `NotFound`, `AccessDenied`."""
        return self._call("GET", id)

    def set_groups(self, id: str, groups: Iterable[str]) -> dict[str, Any]:
        """The user's groups from the next access token on (15 minutes at most). Raises `NotFound`, `AccessDenied`."""
        return self._call("PATCH", id, {"groups": list(groups)})

    def disable(self, id: str, disabled: bool = True) -> dict[str, Any]:
        """Shut a user out, at once, or let one in again. Raises `NotFound`, `AccessDenied`."""
        return self._call("PATCH", id, {"disabled": disabled})

    def delete(self, id: str) -> None:
        """Remove the account. What the app keeps of the user is the app's to remove. Raises `NotFound`, `AccessDenied`."""
        self._call("DELETE", id)

    def _call(self, method: str, id: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        import json
        import os

        from martlet.sdk.client import call, quote
        from martlet.sdk.errors import from_answer

        path = f"/v1/users/{quote(os.environ.get('MARTLET_APP', ''))}/{quote(self.name)}/{quote(id)}"
        headers = {"content-type": "application/json"}
        raw = b"" if body is None else json.dumps(body).encode()
        answer = call(method, path, headers=headers, body=raw, timeout_seconds=_TIMEOUT_SECONDS)
        if answer.status not in (200, 204):
            raise from_answer(answer.status, answer.headers, answer.body)
        found: dict[str, Any] = json.loads(answer.body) if answer.body else {}
        return found
