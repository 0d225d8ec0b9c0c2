"""Attacks on the pipes to the platform: frames that the runtime would never write."""

import os
import socket
import struct
import time

from trying import outcome

EVENTS, RESULTS, LOG = 3, 4, 1
READY, INIT_ERROR, RESULT, ERROR, HEAD, CHUNK, END, STREAM_ERROR = range(11, 19)


def _frame(kind, sequence, payload=b"", length=None):
    return struct.pack("<IIBxxx", len(payload) if length is None else length, sequence, kind) + payload


def _send(data):
    view = memoryview(data)
    while view:
        view = view[os.write(RESULTS, view) :]


def _own():
    """The sequence number of the running event: the runtime's own, found in its frames."""
    import sys

    frame = sys._getframe()
    while frame:
        if "sequence" in frame.f_locals and isinstance(frame.f_locals["sequence"], int):
            return frame.f_locals["sequence"]
        frame = frame.f_back
    return 1


def _wait(seconds=6):
    time.sleep(seconds)
    return "still here"


def frame(kind, sequence=None, payload="", length=None, wait=True):
    """One frame; sequence None: the own one."""
    _send(_frame(kind, _own() if sequence is None else sequence, payload.encode(), length))
    return _wait() if wait else "sent"


def frames(sequence_of, wait=True):
    """[[kind, sequence or None, payload, length or None] …] in one write."""
    own = _own()
    _send(
        b"".join(
            _frame(kind, own if sequence is None else sequence, payload.encode(), length)
            for kind, sequence, payload, length in sequence_of
        )
    )
    return _wait() if wait else "sent"


def garbage(size):
    _send(os.urandom(size))
    return _wait()


def zeros(size):
    _send(bytes(size))
    return _wait()


def partial(seconds=6):
    """Half a plausible frame, then nothing."""
    _send(_frame(RESULT, _own(), b"x" * 100, 5_000_000))
    return _wait(seconds)


def dribble(megabytes, steps):
    """A large frame whose end comes one byte at a time."""
    size = megabytes << 20
    payload = b'"' + b"a" * (size - 2) + b'"'
    data = _frame(RESULT, _own(), payload)
    _send(data[:-steps])
    for at in range(len(data) - steps, len(data)):
        os.write(RESULTS, data[at : at + 1])
        time.sleep(0.0005)  # so that each byte is read by itself
    os._exit(0)


def flood(seconds, kind=READY):
    """Well-formed small frames without end."""
    until = time.monotonic() + seconds
    batch = _frame(kind, _own()) * 2000
    while time.monotonic() < until:
        _send(batch)
    return _wait()


def chunks_without_head():
    return frames([[CHUNK, None, "a", None]])


def small_chunks(count, head_bytes):
    """A large head, then very many empty chunks."""
    own = _own()
    _send(_frame(HEAD, own, b'{"statusCode":200,"x":"' + b"a" * head_bytes + b'"}'))
    chunk = _frame(CHUNK, own) * 1000
    for _ in range(count // 1000):
        _send(chunk)
    _send(_frame(END, own))
    os._exit(0)


def leave_with(text):
    """The answer, and the end."""
    _send(_frame(RESULT, _own(), text.encode()))
    os._exit(0)


def answer_twice():
    """An answer before the runtime's own: then the second is for an event that is over."""
    _send(_frame(RESULT, _own(), b'"first"'))
    return "second"


def answer_ahead(steps):
    """An answer for events that are still to come."""
    own = _own()
    for step in range(1, steps + 1):
        _send(_frame(RESULT, own + step, b'"forged"'))
    return _wait()


def close(descriptors):
    for descriptor in descriptors:
        os.close(descriptor)
    return _wait()


def rights():
    """Descriptors by SCM_RIGHTS need a socket; the pipes are none."""
    results = {}
    for descriptor in (EVENTS, RESULTS, LOG):
        duplicate = os.dup(descriptor)
        try:
            results[str(descriptor)] = outcome(lambda duplicate=duplicate: socket.socket(fileno=duplicate))
        finally:
            os.close(duplicate)
    return results


def read_events():
    """What waits in the pipe of events: nothing but one's own."""
    os.set_blocking(EVENTS, False)
    try:
        return os.read(EVENTS, 65536).decode("latin-1")
    except BlockingIOError:
        return ""
    finally:
        os.set_blocking(EVENTS, True)


def write_backwards():
    """The pipes have one direction each; opening them again by /proc must not give the other one to the platform's side."""
    return {"events": outcome(os.write, EVENTS, b"x"), "results": outcome(os.read, RESULTS, 1)}


def reopen():
    """/proc/self/fd gives the other end of one's own pipes: read what one wrote oneself, no more."""
    return {
        str(number): outcome(os.open, f"/proc/self/fd/{number}", os.O_RDWR | os.O_NONBLOCK) for number in (EVENTS, RESULTS, LOG)
    }


def bad_error(payload):
    """An ERROR frame whose payload is `payload`, instead of an answer."""
    _send(_frame(ERROR, _own(), payload.encode("utf-8", "surrogatepass")))
    os._exit(0)


def deep_error(depth):
    _send(_frame(ERROR, _own(), b"[" * depth))
    os._exit(0)


def stream(head, body="x"):
    """A streamed answer with `head` as its prelude."""
    own = _own()
    _send(_frame(HEAD, own, head.encode()) + _frame(CHUNK, own, body.encode()) + _frame(END, own))
    return _wait()
