"""Frames on an instance's two pipes: `<u32 length> <u32 sequence> <u8 kind> <u8 flags> 2 zero bytes`, then `length` bytes.

Little-endian. The sequence number names the event that a frame belongs to; the platform gives it, the instance repeats it.
"""

from __future__ import annotations

import struct

HEADER = struct.Struct("<IIBBxx")
SIZE = HEADER.size

# platform → instance
INIT = 1  # JSON: handler, environment, limits; once, first
INVOKE = 2  # request id, time-out in ms, ARN, trace id, client context (US-separated, one line), then the event
START = 3  # to a launcher: every extension has registered, start the runtime
DELIVER = 4  # to a launcher: an address in the sandbox, a line break, a body to POST there
HOLD = 5  # where several events run at once: send no more of this one's streamed answer, its client is slow
GO_ON = 6  # its client reads again

# instance → platform
READY = 11  # JSON: {"at": CLOCK_MONOTONIC in ns}; the handler is imported
INIT_ERROR = 12  # JSON error object
RESULT = 13  # the handler's value as JSON
ERROR = 14  # JSON error object
HEAD = 15  # a streamed answer begins: JSON prelude
CHUNK = 16  # bytes of a streamed answer; in a build: "path\n" and a compiled module
END = 17  # a streamed answer is complete
STREAM_ERROR = 18  # a streamed answer broke: JSON error object
LAUNCHED = 19  # a launcher: JSON list of the extensions that it has started
EXTENSION_ENDED = 20  # a launcher: JSON [name, exit code]
DELIVERED = 21  # a launcher: it takes the next DELIVER

WROTE = 1  # flag: lines were written to the log since the frame before


def pack(kind: int, sequence: int, payload: bytes) -> bytes:
    return HEADER.pack(len(payload), sequence, kind, 0) + payload
