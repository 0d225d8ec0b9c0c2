"""A secret of an app: set by its owner, read by the function that says so, and by nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import Command, write_app

pytestmark = pytest.mark.e2e

PAY = """
    import os
    from martlet import AccessDenied, App, NotFound, Secret

    app = App("pay")
    stripe = Secret("stripe", keep=3600)
    other = Secret("other")

    @app.get("/key", uses=[stripe])
    def key(fresh: bool = False) -> dict:
        try:
            value = stripe.get(fresh=fresh)
        except NotFound as error:
            return {"missing": str(error)}
        return {"value": value, "shown": repr(stripe), "environment": value in str(dict(os.environ))}

    @app.get("/akey", uses=[stripe])
    async def akey() -> dict:
        return {"value": await stripe.aget(), "json": stripe.json()}

    @app.get("/stolen", uses=[other])
    def stolen() -> dict:
        try:
            return {"value": stripe.get()}
        except AccessDenied as error:
            return {"denied": str(error)}
"""


def test_a_secret_is_read_by_who_says_so_and_by_nobody_else(start: Start, martlet: Command, tmp_path: Path) -> None:
    platform = start(write_app(tmp_path / "pay", PAY), "--no-watch")

    def get(path: str) -> dict[str, object]:
        answer = httpx.get(f"{platform.app_url}{path}", timeout=30)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    assert "martlet secret set pay/stripe" in str(get("/key")["missing"])
    file = tmp_path / "key.txt"
    file.write_text('{"key": "sk_live_1"}\n')
    assert martlet("secret", "set", "pay/stripe", f"@{file}", data=platform.data).code == 0
    value = '{"key": "sk_live_1"}'
    assert get("/key") == {"value": value, "shown": "Secret('stripe')", "environment": False}
    assert get("/akey") == {"value": value, "json": {"key": "sk_live_1"}}
    assert martlet("secret", "get", "pay/stripe", data=platform.data).out == value + "\n"
    denied = str(get("/stolen")["denied"])
    assert "secretsmanager:GetSecretValue" in denied
    assert "sk_live" not in denied

    file.write_text("sk_live_2")
    assert martlet("secret", "set", "pay/stripe", f"@{file}", data=platform.data).code == 0
    assert get("/key")["value"] == value, "kept by the instance, as it was told to"
    assert get("/key?fresh=true")["value"] == "sk_live_2"

    listed = martlet("secret", "list", "--json", data=platform.data)
    assert listed.json == {"secrets": ["pay/stripe"]}
    assert martlet("secret", "delete", "pay/stripe", "--yes", data=platform.data).code == 0
    assert "not set" in str(get("/key?fresh=true")["missing"])
    for wrong in (
        ("set",),
        ("set", "pay/x", "sk_live_3"),
        ("set", "pay/x", "@/nowhere"),
        ("get", "pay/nothing"),
        ("delete", "x"),
    ):
        refused = martlet("secret", *wrong, data=platform.data)
        assert refused.code in (1, 2)
        assert "Traceback" not in refused.err

    everything = b"".join(path.read_bytes() for path in platform.data.rglob("*") if path.is_file())
    assert b"sk_live" not in everything, "encrypted at rest, and in no log"
    assert json.loads((platform.data / "endpoint.json").read_text())["api_port"]


def test_a_lost_key_is_not_replaced(start: Start, martlet: Command, tmp_path: Path) -> None:
    app = write_app(tmp_path / "pay", PAY)
    platform = start(app, "--no-watch")
    file = tmp_path / "key.txt"
    file.write_text("sk_live_1")
    assert martlet("secret", "set", "pay/stripe", f"@{file}", data=platform.data).code == 0
    key, kept = platform.data / "secret.key", tmp_path / "kept.key"
    assert platform.stop() == 0
    key.rename(kept)
    platform = start(app, "--no-watch", data=platform.data)
    refused = martlet("secret", "get", "pay/stripe", data=platform.data)
    assert refused.code != 0
    assert "sk_live" not in refused.out + refused.err
    assert martlet("secret", "set", "pay/stripe", f"@{file}", data=platform.data).code != 0
    assert not key.exists(), "no other key takes its place"
    assert platform.stop() == 0
    kept.rename(key)
    platform = start(app, "--no-watch", data=platform.data)
    assert martlet("secret", "get", "pay/stripe", data=platform.data).out == "sk_live_1\n"
