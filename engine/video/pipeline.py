"""Decoding, deraining and encoding at the same time, with little between them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import UnrainError
from ..runtime.stream.status import Outcome, Status
from .frames import Frame, Sink, Source
from .mailbox import Closed, Mailbox, Stalled

ROOM = 4  # frames that may wait before and after the network
PATIENCE = 2.0  # seconds a reader that hangs in its device gets to end

Process = Callable[[np.ndarray, float], tuple[np.ndarray, Status]]


@dataclass
class Report:
    frames: int = 0
    late: int = 0
    passed: Counter[str] = field(default_factory=Counter)  # frames that went through raw, by reason
    dropped: int = 0  # frames of a live source that nobody had time for
    cut_short: str | None = None  # why the source ended before its end
    interrupted: bool = False
    reader_left: bool = False  # the consumer went away


def derain_all(
    source: Source,
    process: Process,
    sinks: Sequence[Sink],
    max_frames: int | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> Report:
    """Every frame of the source through `process` into every sink, and the source closed.

    Ctrl-C ends it as the source's own end would.
    """
    report = Report()
    incoming, outgoing = Mailbox(ROOM, source.live, source.stall_seconds), Mailbox(ROOM)
    reader, writer = _Reader(source, incoming), _Writer(sinks, outgoing)
    reader.start()
    writer.start()
    try:
        for item in incoming:
            if not isinstance(item, Frame):
                outgoing.put((item, None))
                continue
            picture, status = process(item.rgb, item.seconds)
            _count(report, status)
            # The stream's picture is written over two frames from now; a raw frame is nobody else's.
            outgoing.put((item, picture if picture is item.rgb else picture.copy()))
            on_frame()
            if report.frames == max_frames:
                break
    except KeyboardInterrupt:
        report.interrupted = True
    except Stalled:
        report.cut_short = f"nothing came from the source for {source.stall_seconds:.0f} seconds"
    except Closed:  # the writer has failed; its error says how
        pass
    finally:
        incoming.close()
        outgoing.end()
        _join(writer)
        reader.join(PATIENCE)
        if not reader.is_alive():  # packets of sound belong to the source until they are written
            source.close()
    report.dropped = incoming.dropped
    if isinstance(writer.error, BrokenPipeError):
        report.reader_left = True
    elif writer.error is not None:
        raise writer.error
    if reader.error is not None:
        raise reader.error
    if report.frames != max_frames and not report.interrupted:
        report.cut_short = report.cut_short or source.cut_short
    return report


def _count(report: Report, status: Status) -> None:
    report.frames += 1
    if status.outcome == Outcome.LATE:
        report.late += 1
    elif status.outcome == Outcome.PASSTHROUGH:
        report.passed[status.reason or "unknown"] += 1


def _join(writer: threading.Thread) -> None:
    """Waits until everything is written, also when ctrl-C is pressed again: a file is only whole then."""
    while writer.is_alive():
        try:
            writer.join()
        except KeyboardInterrupt:
            continue


class _Reader(threading.Thread):
    def __init__(self, source: Source, incoming: Mailbox) -> None:
        super().__init__(name="unrain-read", daemon=True)
        self._source, self._incoming = source, incoming
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for item in self._source:
                self._incoming.put(item, droppable=isinstance(item, Frame))
        except Closed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self._incoming.end()


class _Writer(threading.Thread):
    def __init__(self, sinks: Sequence[Sink], outgoing: Mailbox) -> None:
        super().__init__(name="unrain-write", daemon=True)
        self._sinks, self._outgoing = sinks, outgoing
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for item, picture in self._outgoing:
                for sink in self._sinks:
                    if picture is None:
                        sink.copy(item)
                    else:
                        sink.write(item, picture)
        except BrokenPipeError as error:
            self.error = error
        except OSError as error:
            self.error = UnrainError(f"the result cannot be written: {error.strerror or error}")
        except BaseException as error:
            self.error = error
        finally:
            self._outgoing.close()
