"""The control plane in the whole platform: a function made through it runs in a sandbox, its code is fetched by HTTP."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import httpx

from martlet.config import Settings
from martlet.server import Server
from martlet.types import Principal

HANDLER = """
import json, os
def handler(event, context):
    return [event, context.function_version, context.invoked_function_arn.split(":", 6)[6], os.environ["A"]]
"""


async def test_from_a_zip_to_an_answer(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("index.py", HANDLER)
    server = Server(Settings(data=str(tmp_path / "data"), port=0, sandbox="process", stem_cells=0, quiet=True))
    await server.start()
    try:
        endpoint = f"http://127.0.0.1:{server.api_port}"
        caller = SimpleNamespace(principal=Principal("root", "owner"), request_id="", endpoint=endpoint, trace_id="")
        runtime = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        made = {
            "FunctionName": "f",
            "Runtime": runtime,
            "Handler": "index.handler",
            "Role": "arn:aws:iam::000000000000:role/r",
            "Code": {"ZipFile": out.getvalue()},
            "Environment": {"Variables": {"A": "b"}},
        }
        await server.control.create_function(caller, made)
        await server.control.settled()
        await server.control.publish_version(caller, {"FunctionName": "f"})
        await server.control.create_alias(caller, {"FunctionName": "f", "Name": "live", "FunctionVersion": "1"})
        answer = await server.control.invoke(caller, {"FunctionName": "f:live", "Payload": b'{"n": 1}'})
        assert json.loads(answer["Payload"]) == [{"n": 1}, "1", "f:live", "b"]
        location = (await server.control.get_function(caller, {"FunctionName": "f"}))["Code"]["Location"]
        async with httpx.AsyncClient() as client:
            assert (await client.get(location)).content == out.getvalue()
            refused = await client.get(location[:-1] + ("0" if location[-1] != "0" else "1"))
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/xml")
    finally:
        await server.stop()
