"""`Secret`: something that a function must know and others must not, asked for over the sandbox's private loopback."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from martlet.sdk.client import Answer

__all__ = ["Secret"]

_TIMEOUT_SECONDS = 30.0


class Secret:
    """A secret of this app, e.g. the key of a payment service. A function may read it after it says `uses=[secret]`.

    Its owner sets it: `martlet secret set APP/NAME`. It is never in the environment, in code or in a log; an instance keeps
    it in memory for `keep` seconds, so that a new value is taken up soon. `repr` does not show it.
    """

    def __init__(self, name: str, *, keep: float = 300.0) -> None:
        self.name = name
        self.keep = keep
        self._kept: tuple[float, str] | None = None  # until when, the value

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    @property
    def full_name(self) -> str:
        """The secret's name on the platform, as AWS's own clients know it."""
        import os

        return f"{os.environ.get('MARTLET_APP', '')}/{self.name}"

    def get(self, *, fresh: bool = False) -> str:
        """The value. `fresh`: as it is now, whatever was kept.

        Raises `NotFound` while nobody has set it, `AccessDenied` without `uses=[secret]`, `Unavailable`."""
        kept = None if fresh else self._current()
        if kept is not None:
            return kept
        from martlet.sdk.client import call

        return self._take(call("POST", "/", **self._request()))

    async def aget(self, *, fresh: bool = False) -> str:
        """`get` for coroutines."""
        kept = None if fresh else self._current()
        if kept is not None:
            return kept
        from martlet.sdk.client import acall

        return self._take(await acall("POST", "/", **self._request()))

    def json(self, *, fresh: bool = False) -> Any:
        """The value, read as JSON."""
        import json

        return json.loads(self.get(fresh=fresh))

    def _current(self) -> str | None:
        import time

        if self._kept is None or time.monotonic() >= self._kept[0]:
            return None
        return self._kept[1]

    def _request(self) -> dict[str, Any]:
        import json

        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "secretsmanager.GetSecretValue"}
        body = json.dumps({"SecretId": self.full_name}).encode()
        return {"headers": headers, "body": body, "timeout_seconds": _TIMEOUT_SECONDS}

    def _take(self, answer: Answer) -> str:
        import json
        import time

        from martlet.sdk.errors import AccessDenied, NotFound, from_answer

        if answer.status == 200:
            found = json.loads(answer.body)
            value = found.get("SecretString")
            if value is None:
                import base64

                value = base64.b64decode(found["SecretBinary"]).decode()
            self._kept = (time.monotonic() + self.keep, value)
            return str(value)
        error = from_answer(answer.status, answer.headers, answer.body)
        name = str(error.details.get("__type", "")).rpartition("#")[2]
        if name == "ResourceNotFoundException":
            raise NotFound(f"the secret {self.full_name} is not set: martlet secret set {self.full_name}")
        if name == "AccessDeniedException":
            raise AccessDenied(f"{error.message} (declare it: uses=[{self.name}])")
        raise error
