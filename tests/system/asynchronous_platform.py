"""A platform that is killed: `python asynchronous_platform.py DATA RAN send|drain`.

send: makes the function, then sends events for ever, and prints the id of each that was acknowledged.
drain: starts on what is there, waits until nothing is left, and prints "drained".
The function adds a line to the file RAN when it begins.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import zipfile
from types import SimpleNamespace

from martlet.clock import Clock, uuid4_text
from martlet.config import Settings
from martlet.functions import asynchronous
from martlet.server import Server
from martlet.types import Principal

CODE = """
import os, time
def handler(event, context):
    line = (context.aws_request_id + "\\n").encode()
    descriptor = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line)
    os.close(descriptor)
    time.sleep(0.01)
"""


def caller(id: str = "") -> SimpleNamespace:
    return SimpleNamespace(principal=Principal("root", "owner"), request_id=id, endpoint="http://here", trace_id="")


async def send(server: Server, ran: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("index.py", CODE.format(path=ran))
    runtime = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    request = {"FunctionName": "f", "Runtime": runtime, "Handler": "index.handler", "Code": {"ZipFile": out.getvalue()}}
    await server.control.create_function(caller(), {**request, "Role": "arn:aws:iam::000000000000:role/r", "Timeout": 30})
    await server.control.settled()

    async def client() -> None:
        while True:
            id = uuid4_text()
            await server.control.invoke(caller(id), {"FunctionName": "f", "InvocationType": "Event", "Payload": b"{}"})
            os.write(1, f"{id}\n".encode())
            if server.control.asynchronous.count > 200:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client() for _ in range(8)))


async def drain(server: Server) -> None:
    while server.control.asynchronous.count:  # noqa: ASYNC110 - another process's file says the rest
        await asyncio.sleep(0.02)
    os.write(1, b"drained\n")


CONCURRENCY = 3  # so that events wait


async def main() -> None:
    asynchronous._CONCURRENCY = CONCURRENCY  # type: ignore[misc]
    data, ran, what = sys.argv[1:]
    server = Server(Settings(data=data, port=0, sandbox="process", stem_cells=0, quiet=True), Clock())
    await server.start()
    try:
        await (send(server, ran) if what == "send" else drain(server))
    finally:
        await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
