"""Threads, queues and faults between a source and its sinks."""

import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from unrain.engine.errors import UnrainError
from unrain.engine.runtime.stream.status import Outcome, Status
from unrain.engine.video.frames import Frame, Video
from unrain.engine.video.mailbox import Closed, Mailbox, Stalled
from unrain.engine.video.pipeline import derain_all

SIZE = (8, 8)
OK = Status(Outcome.OK, 1.0, 1)


class Source:
    stall_seconds = None
    cut_short = None

    def __init__(self, frames, live=False, pause=0.0, error=None):
        self.video = Video(SIZE, Fraction(30), Fraction(1, 30))
        self.frames, self.live, self.pause, self.error = frames, live, pause, error
        self.given, self.closed = 0, False
        self.hang = None

    def __iter__(self):
        for number in range(self.frames):
            time.sleep(self.pause)
            self.given += 1
            yield Frame(np.full((*SIZE, 3), number, np.uint8), number, number / 30)
        if self.hang is not None:
            self.hang.wait(30)
        if self.error is not None:
            raise self.error

    def close(self):
        self.closed = True


class Sink:
    def __init__(self, error=None, after=3):
        self.seen, self.error, self.after = [], error, after

    def write(self, frame, picture):
        if self.error is not None and len(self.seen) == self.after:
            raise self.error
        self.seen.append((frame.pts, int(picture.mean())))

    def copy(self, packet):
        self.seen.append(packet)


def bright(frame, seconds):
    return frame + 1, OK


def test_every_frame_goes_through_in_order_into_every_sink():
    source, sinks, calls = Source(50), [Sink(), Sink()], []
    report = derain_all(source, bright, sinks, on_frame=lambda: calls.append(1))
    assert sinks[0].seen == sinks[1].seen == [(number, number + 1) for number in range(50)]
    assert report.frames == len(calls) == 50 and report.dropped == 0 and source.closed


def test_reading_computing_and_writing_overlap():
    class Slow(Sink):
        def write(self, frame, picture):
            time.sleep(0.04)

    def compute(frame, seconds):
        time.sleep(0.04)
        return frame, OK

    begin = time.perf_counter()
    derain_all(Source(20, pause=0.04), compute, [Slow()])
    assert time.perf_counter() - begin < 0.8 * 20 * 0.12


def test_a_file_is_not_read_far_ahead():
    source, gate = Source(100), threading.Event()

    def compute(frame, seconds):
        time.sleep(0.2)
        assert source.given <= 7
        gate.set()
        return frame, OK

    derain_all(source, compute, [Sink()], max_frames=2)
    assert gate.is_set() and source.given < 12


def test_a_live_source_drops_to_its_newest_frame():
    sink = Sink()

    def compute(frame, seconds):
        time.sleep(0.1)
        return frame, OK

    report = derain_all(Source(30, live=True, pause=0.01), compute, [sink])
    numbers = [number for number, _ in sink.seen]
    assert numbers == sorted(numbers) and numbers[-1] == 29
    assert report.dropped == 30 - len(numbers) > 10


def test_a_camera_that_stalls_ends_with_a_line_and_what_there_was():
    source, sink = Source(3, live=True, pause=0.05), Sink()
    source.stall_seconds, source.hang = 1.0, threading.Event()
    report = derain_all(source, bright, [sink])
    source.hang.set()
    assert report.cut_short == "nothing came from the source for 1 seconds"
    assert sink.seen[-1] == (2, 3)


def test_raw_frames_are_counted_by_reason():
    def compute(frame, seconds):
        if frame[0, 0, 0] % 3 == 0:
            return frame, Status(Outcome.PASSTHROUGH, 1.0, 0, "values that are no numbers")
        return frame, Status(Outcome.LATE, 1.0, 2, "the deadline passed")

    report = derain_all(Source(9), compute, [Sink()])
    assert report.passed == {"values that are no numbers": 3} and report.late == 6


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(28, "No space left on device"), UnrainError), (ValueError("odd"), ValueError)]
)
def test_a_result_that_cannot_be_written_ends_it(error, raised):
    source = Source(1000)
    with pytest.raises(raised, match=r"No space left|odd"):
        derain_all(source, bright, [Sink(error)])
    assert source.closed and source.given < 50


def test_a_consumer_that_goes_away_is_no_error():
    source = Source(1000)
    report = derain_all(source, bright, [Sink(BrokenPipeError())])
    assert report.reader_left and source.given < 50


def test_a_reader_that_breaks_gives_what_came_before():
    sink = Sink()
    with pytest.raises(RuntimeError, match="broken"):
        derain_all(Source(5, error=RuntimeError("broken")), bright, [sink])
    assert len(sink.seen) == 5


def test_ctrl_c_writes_what_is_there():
    sink = Sink()

    def compute(frame, seconds):
        if frame[0, 0, 0] == 7:
            raise KeyboardInterrupt
        return frame, OK

    report = derain_all(Source(1000), compute, [sink])
    assert report.interrupted and len(sink.seen) == report.frames == 7


def test_a_mailbox_that_is_closed_takes_nothing():
    box = Mailbox(2)
    box.put(1)
    box.close()
    with pytest.raises(Closed):
        box.put(2)
    assert list(box) == []


def test_a_mailbox_waits_no_longer_than_it_may():
    with pytest.raises(Stalled):
        next(iter(Mailbox(2, stall_seconds=0.05)))
