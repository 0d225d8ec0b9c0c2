"""What waits in an instance's pipe can be taken back, and only that."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator

import pytest

from martlet.functions.instance import PACKET_BYTES, CutLog, Instance
from martlet.functions.sandboxes.inside import frames
from martlet.types import Invocation


class Nobody:
    def on_frame(self, instance: Instance, kind: int, sequence: int, payload: bytes) -> None:
        raise AssertionError("no frame was sent")

    def on_broken(self, instance: Instance, reason: str) -> None:
        raise AssertionError(reason)


class Pipe:
    """An instance with events 1 (running), 2 and 3 behind it, and the descriptor that its inside reads."""

    def __init__(self) -> None:
        self.instance = Instance(1, Nobody(), 1, 0)
        self.inside, *self.others = self.instance.open_pipes()
        os.set_blocking(self.inside, False)
        for sequence in (1, 2, 3):
            self.instance.inflight[sequence] = Invocation("f", b"", str(sequence), lambda *_: None)
            self.instance.send(frames.pack(frames.INVOKE, sequence, b"event %d" % sequence))

    def read(self) -> bytes | None:
        try:
            return os.read(self.inside, 65_536)[frames.SIZE :]
        except BlockingIOError:
            return None

    def close(self) -> None:
        self.instance.close()
        for fd in (self.inside, *self.others):
            os.close(fd)


@pytest.fixture
async def pipe() -> AsyncIterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


async def test_a_read_takes_one_event(pipe: Pipe) -> None:
    assert [pipe.read() for _ in range(4)] == [b"event 1", b"event 2", b"event 3", None]


async def test_what_waits_behind_the_running_event_is_taken_back(pipe: Pipe) -> None:
    assert pipe.read() == b"event 1"
    assert [invocation.request_id for invocation in pipe.instance.take_back()] == ["2", "3"]
    assert list(pipe.instance.inflight) == [1]
    assert pipe.read() is None


async def test_a_running_event_that_was_not_read_yet_stays(pipe: Pipe) -> None:
    """A busy host: five milliseconds are over, and the instance has not had the processor once."""
    assert [invocation.request_id for invocation in pipe.instance.take_back()] == ["2", "3"]
    assert list(pipe.instance.inflight) == [1]
    assert [pipe.read(), pipe.read()] == [b"event 1", None]


@pytest.mark.parametrize("ahead", [1, 2])
async def test_an_instance_that_reads_on_while_the_first_is_in_our_hands_runs_what_it_read(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """It wakes up at the worst moment: the first event is out of the pipe, and those behind it are still there."""
    read, seen = os.read, []

    def read_and_be_overtaken(fd: int, size: int) -> bytes:
        data = read(fd, size)
        if fd == pipe.instance._recall and not seen:
            seen.extend(read(pipe.inside, 65_536)[frames.SIZE :] for _ in range(ahead))
        return data

    monkeypatch.setattr(os, "read", read_and_be_overtaken)
    taken = pipe.instance.take_back()
    monkeypatch.undo()
    assert seen == [b"event 2", b"event 3"][:ahead]
    assert [invocation.request_id for invocation in taken] == ["1", "3"][: 3 - ahead]
    assert list(pipe.instance.inflight) == [2, 3][:ahead]
    assert pipe.read() is None


async def test_every_event_is_read_or_taken_back_while_both_sides_pull(pipe: Pipe) -> None:
    """A real reader beside ours, as fast as it can: no event is lost, none is had by both, and it reads in our order."""
    instance, read = pipe.instance, []
    while instance.take_back() or pipe.read():
        pass
    instance.inflight.clear()
    os.set_blocking(pipe.inside, True)

    def inside() -> None:
        while data := os.read(pipe.inside, 65_536)[frames.SIZE :]:
            read.append(int(data))

    reader = threading.Thread(target=inside)
    reader.start()
    taken, sent = [], 0
    for _ in range(4_000):
        for _ in range(3):
            sent += 1
            instance.inflight[sent] = Invocation("f", b"", str(sent), lambda *_: None)
            instance.send(frames.pack(frames.INVOKE, sent, b"%d" % sent))
        taken += [int(invocation.request_id) for invocation in instance.take_back()]
        while instance.inflight:
            first = next(iter(instance.inflight))
            while first not in read[-8:]:
                os.sched_yield()
            del instance.inflight[first]
    os.write(instance._events, frames.pack(frames.INVOKE, 0, b""))
    reader.join()
    assert sorted(read + taken) == list(range(1, sent + 1))
    assert read == sorted(read)


async def test_what_was_read_ahead_is_not_taken_back(pipe: Pipe) -> None:
    assert [pipe.read(), pipe.read()] == [b"event 1", b"event 2"]
    assert [invocation.request_id for invocation in pipe.instance.take_back()] == ["3"]
    assert list(pipe.instance.inflight) == [1, 2]


async def test_nothing_is_queued_behind_an_event_of_more_than_one_packet(pipe: Pipe) -> None:
    assert pipe.instance.takes_more
    pipe.instance.send(frames.pack(frames.INVOKE, 4, b"x" * PACKET_BYTES))
    assert not pipe.instance.takes_more
    assert pipe.instance.take_back() == []


async def test_the_end_of_a_log_follows_its_beginning_and_its_whole_size_is_known(pipe: Pipe) -> None:
    inside = pipe.others[1]
    os.set_blocking(inside, False)
    most = 1_048_576
    chunk = b"x" * 32_767 + b"\n"
    for _ in range(40):
        os.write(inside, chunk)
        pipe.instance.read_log()
    os.write(inside, b"the end\n")
    del pipe.instance.inflight[1]
    taken = pipe.instance.take_log(1)
    assert taken == (chunk * 32)[:most]
    assert isinstance(taken, CutLog)
    assert len(taken) + taken.lost == 40 * len(chunk) + len(b"the end\n")
    assert pipe.instance.take_log(2) == b"", "nothing of it is the next event's"


async def test_what_was_written_last_is_the_ended_events_though_another_waits(pipe: Pipe) -> None:
    os.write(pipe.others[1], b"first\n")
    pipe.instance.read_log()
    os.write(pipe.others[1], b"last\n")
    del pipe.instance.inflight[1]
    assert pipe.instance.take_log(1) == b"first\nlast\n"
