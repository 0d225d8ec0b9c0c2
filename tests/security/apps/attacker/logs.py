"""Attacks by what is written to the log."""

import os
import time


def flood(seconds=0.0, megabytes=0, line="x" * 1000 + "\n"):
    block = (line * (1 + 65536 // len(line))).encode()
    written, until = 0, time.monotonic() + seconds
    while written < megabytes << 20 or time.monotonic() < until:
        written += os.write(1, block)
    return written


def flood_bytes(block, seconds):
    """`block` (latin-1) again and again, in large writes."""
    data = block.encode("latin-1")
    data *= max(1, 65536 // len(data))
    until, written = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        written += os.write(1, data)
    return written


def write(text):
    os.write(1, text.encode("latin-1"))
    return "written"


def tagged(sequence, text):
    """A line with the mark of another event."""
    os.write(1, f"\x1e{sequence:08x}\x1f{text}\n".encode())
    return "written"


def raise_named(name, message="m"):
    raise type(name, (Exception,), {})(message)
