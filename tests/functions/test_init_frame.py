"""What each instance is told that is its own."""

from __future__ import annotations

import json
from typing import Any

from martlet.functions.init_frame import InitFrame
from martlet.functions.sandboxes.inside import frames

KEYS = ("A" * 20, "s" * 40, "t" * 60)
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
INIT = {
    "log_stream": "2026/01/01/[$LATEST]" + "0" * 32,
    "environment": {**dict(zip(NAMES, KEYS, strict=True)), "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"},
}


def _told(frame: bytes) -> Any:
    length, _, kind, _ = frames.HEADER.unpack_from(frame)
    assert (length, kind) == (len(frame) - frames.SIZE, frames.INIT)
    return json.loads(frame[frames.SIZE :])


def test_stream_and_keys_are_each_instances_own() -> None:
    made = InitFrame(INIT)
    stream, frame = made.of_instance(lambda: ("B" * 20, "u" * 40, "v" * 60))
    told = _told(frame)
    assert told["log_stream"] == stream != INIT["log_stream"]
    assert [told["environment"][name] for name in NAMES] == ["B" * 20, "u" * 40, "v" * 60]
    assert made.of_instance(lambda: KEYS)[0] != stream


def test_one_more_than_are_provisioned_is_on_demand() -> None:
    _, frame = InitFrame(INIT).of_instance(lambda: KEYS, beyond=True)
    assert _told(frame)["environment"]["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    _, frame = InitFrame(INIT).of_instance(lambda: KEYS)
    assert _told(frame)["environment"]["AWS_LAMBDA_INITIALIZATION_TYPE"] == "provisioned-concurrency"


def test_an_init_without_an_environment_is_sent_as_it_is() -> None:
    assert _told(InitFrame({"mode": "build"}).of_instance(lambda: KEYS)[1]) == {"mode": "build"}
