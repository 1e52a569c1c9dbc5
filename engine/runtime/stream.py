"""`Stream`: frames in, frames out, in bounded time, whatever happens to the network.

The network runs in a thread of its own; `process` waits for it no longer than the deadline. Whatever is ready by then
goes out: the last stage, an earlier stage, or the raw frame. It claims no certification.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...kernels import frame_to_tensor, tensor_to_frame
from ..errors import UnrainError
from .backends import Step
from .degrade import Budget
from .status import Counters, Outcome, Status

_OUTPUTS = 3  # frames a caller may hold before the oldest is written over
_CUT = 40.0  # mean difference of two frames, in codes of 0..255, that only a change of scene makes
_SPARSE = 8  # that difference is taken at every 8th pixel of every 8th row


class Steps(Protocol):
    """What a Stream needs of an Engine."""

    stages: int | None
    device: torch.device

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]: ...


class Stream:
    """Derains frames of one size: `frame, status = stream.process(frame)`.

    size         (height, width) of every frame
    deadline_ms  how long `process` may take; the rest of a frame's stages is given up then
    carry        None starts every frame afresh; "image" starts from the last result; "state" from the last hidden state
                 too. Both forget at a scene cut, after any fault, and after a gap of more than `gap_ms` (None: half a
                 second, or four deadlines)
    stages       stages a frame, None for the network's own number
    limit        the largest mean change of a frame, in [0,1], that is believed
    after, recover  faults in a row that cost stages, good frames in a row that bring one back

    `process` never raises and never blocks beyond the deadline by more than the two conversions of a frame. A frame it
    returns is one of three that take turns: copy it to keep it longer than two further calls. A raw frame is the
    caller's own. Use it from one thread; close it, or use it as a context manager.
    """

    def __init__(
        self,
        engine: Steps,
        size: tuple[int, int],
        deadline_ms: float = 33.0,
        carry: str | None = None,
        stages: int | None = None,
        limit: float = 0.5,
        gap_ms: float | None = None,
        after: int = 5,
        recover: int = 60,
    ) -> None:
        height, width = size
        if min(height, width) < 8:
            raise UnrainError(f"size must be at least 8 x 8, got {height} x {width}")
        if carry not in (None, "image", "state"):
            raise UnrainError(f"carry must be None, 'image' or 'state', got {carry!r}")
        if carry is not None and engine.stages is None:
            raise UnrainError(f"this network has no stages, so it cannot carry its {carry} from frame to frame")
        if deadline_ms <= 0:
            raise UnrainError(f"deadline_ms must be positive, got {deadline_ms}")
        full = engine.stages or 1
        if stages is not None and not 1 <= stages <= full:
            raise UnrainError(f"stages must be between 1 and {full}, got {stages}")

        self.size, self.carry, self.deadline = (height, width), carry, deadline_ms / 1e3
        self.counters = Counters()
        self.heartbeat = 0  # goes up with every frame and every finished stage: a watchdog may look at it
        self._limit = limit
        self._gap = (max(500.0, 4 * deadline_ms) if gap_ms is None else gap_ms) / 1e3
        self._budget = Budget(stages or full, after, recover)
        self._outputs = [torch.empty((height, width, 3), dtype=torch.uint8) for _ in range(_OUTPUTS)]
        self._frames = [output.numpy() for output in self._outputs]
        sparse = (-(-height // _SPARSE), -(-width // _SPARSE), 3)
        self._before, self._now = np.zeros(sparse, np.int16), np.zeros(sparse, np.int16)
        self._last_time: float | None = None
        self._worker = _Worker(engine, self.size, self)
        self.self_test = self._test_itself()

    def process(self, frame: np.ndarray, timestamp: float | None = None) -> tuple[np.ndarray, Status]:
        """The frame without rain, or the best there is at the deadline, and how it went.

        frame      uint8 RGB [H, W, 3]
        timestamp  seconds, when it was taken; None for now. A gap makes the stream forget what it carries
        """
        begin = time.perf_counter()
        picture, outcome, stages, reason, reset = frame, Outcome.PASSTHROUGH, 0, None, None
        degraded = self._budget.degraded
        try:
            reason = self._wrong(frame)
            if reason is not None:
                self._worker.forget()
            elif self._budget.stages == 0:
                reason = "resting after repeated faults"
                self._budget.rested()
            else:
                reset = self._changes(frame, begin if timestamp is None else timestamp)
                picture, outcome, stages, reason = self._derain(frame, begin + self.deadline)
        except Exception as error:  # the raw frame goes out, whatever it is
            picture, outcome, stages = frame, Outcome.PASSTHROUGH, 0
            reason = _name(error)
            self._worker.forget()
        self.heartbeat += 1
        milliseconds = (time.perf_counter() - begin) * 1e3
        status = Status(outcome, milliseconds, stages, reason, reset, degraded)
        self.counters.add(status)
        return picture, status

    def stats(self) -> dict[str, Any]:
        """Counters and latency quantiles so far, the stages now allowed, and what the self-test found."""
        return {
            **self.counters.summary(),
            "stages": self._budget.stages,
            "heartbeat": self.heartbeat,
            "self_test": self.self_test or "passed",
        }

    def close(self) -> None:
        """Ends the stream's thread, once the stage it may be in has ended."""
        self._worker.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wrong(self, frame: np.ndarray) -> str | None:
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            return "not a uint8 frame"
        if frame.shape != (*self.size, 3):
            return "a frame of another size"
        return None

    def _changes(self, frame: np.ndarray, now: float) -> str | None:
        """Why what was carried does not fit this frame; it is then forgotten."""
        if self.carry is None:
            return None
        first, gap = self._last_time is None, now - (self._last_time or now)
        self._last_time = now
        self._before, self._now = self._now, self._before
        self._now[...] = frame[::_SPARSE, ::_SPARSE]
        if first:
            return None
        if not 0 <= gap <= self._gap:
            reset = "a gap in time"
        elif np.abs(self._now - self._before).mean() > _CUT:
            reset = "a scene cut"
        else:
            return None
        self._worker.forget()
        return reset

    def _derain(self, frame: np.ndarray, deadline: float) -> tuple[np.ndarray, Outcome, int, str | None]:
        wanted = self._budget.stages
        if not self._worker.start(frame, wanted, self.carry, deadline):
            self._budget.failed(0)
            return frame, Outcome.PASSTHROUGH, 0, "the frame before is still being computed"
        done, error, picture = self._worker.result(deadline, self._outputs[self.counters.frames % _OUTPUTS])
        if error is None and done and self._changed_too_much(frame, picture):
            error = "the picture changed beyond belief"
        if error is not None:
            self._worker.forget()
            self._budget.failed(0)
            return frame, Outcome.PASSTHROUGH, 0, error
        if done < wanted:
            self._budget.failed(done)
            if done == 0:
                return frame, Outcome.PASSTHROUGH, 0, "no stage was ready at the deadline"
        elif time.perf_counter() > deadline:
            self._budget.failed(done - 1)
        else:
            self._budget.succeeded()
            return self._frames[self.counters.frames % _OUTPUTS], Outcome.OK, done, None
        return self._frames[self.counters.frames % _OUTPUTS], Outcome.LATE, done, "the deadline passed"

    def _changed_too_much(self, frame: np.ndarray, picture: Tensor) -> bool:
        before, after = frame[::_SPARSE, ::_SPARSE], picture.numpy()[::_SPARSE, ::_SPARSE]
        return np.abs(before.astype(np.int16) - after).mean() > self._limit * 255

    def _test_itself(self) -> str | None:
        """Runs a known frame twice, which also makes every buffer; None, or what is wrong."""
        height, width = self.size
        ramp = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3)
        results = []
        for _ in range(2):
            forever = time.perf_counter() + 600
            self._worker.start(ramp, self._budget.full, None, forever)
            _, error, picture = self._worker.result(forever, self._outputs[0])
            self._worker.forget()
            if error is not None:
                return error
            results.append(picture.clone())
        if self._changed_too_much(ramp, results[0]):
            return "the picture changed beyond belief"
        return None if torch.equal(*results) else "two runs on one frame differ"


class _Worker:
    """The thread that runs the network, and the buffers it shares with the stream."""

    def __init__(self, engine: Steps, size: tuple[int, int], stream: Stream) -> None:
        self._engine, self._stream = engine, stream
        shape = (1, 3, *size)
        self._bytes = torch.empty((*size, 3), dtype=torch.uint8)
        self._input = torch.empty(shape, device=engine.device)
        self._image = torch.empty(shape, device=engine.device)  # of the last finished stage
        self._carried: Tensor = torch.empty(shape, device=engine.device)
        self._state: Any = None
        self._has_carried = False
        self._lock = threading.Condition()
        self._job: tuple[int, str | None, float] | None = None
        self._busy = self._closed = False
        self._done = 0
        self._error: str | None = None
        self._seconds = 0.0  # of a stage, lately
        self._epoch = 0  # goes up when everything carried is forgotten, so that a job under way does not bring it back
        self._thread = threading.Thread(target=self._loop, name="unrain-stream", daemon=True)
        self._thread.start()

    def start(self, frame: np.ndarray, stages: int, carry: str | None, deadline: float) -> bool:
        """Hands a frame over; False if the one before is still under way at the deadline."""
        with self._lock:
            if not self._lock.wait_for(lambda: not self._busy, max(deadline - time.perf_counter(), 0)):
                return False
            self._bytes.numpy()[...] = frame
            self._done, self._error = 0, None
            self._job, self._busy = (stages, carry, deadline), True
            self._lock.notify_all()
        return True

    def result(self, deadline: float, out: Tensor) -> tuple[int, str | None, Tensor]:
        """Stages finished by the deadline, what went wrong, and the picture of the last of them, written to `out`."""
        with self._lock:
            self._lock.wait_for(lambda: not self._busy, max(deadline - time.perf_counter(), 0))
            if self._error is None and self._done:
                tensor_to_frame(self._image, out=out) if out.device == self._image.device else out.copy_(
                    tensor_to_frame(self._image)
                )
            return self._done, self._error, out

    def forget(self) -> None:
        """The next frame starts afresh."""
        with self._lock:
            self._has_carried, self._state = False, None
            self._epoch += 1

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._job is not None or self._closed)
                if self._closed:
                    return
                job, self._job = self._job, None
                epoch = self._epoch
            error = None
            try:
                self._compute(*job, epoch)
            except Exception as problem:
                error = _name(problem)
            with self._lock:
                self._error, self._busy = self._error or error, False
                self._lock.notify_all()

    def _compute(self, stages: int, carry: str | None, deadline: float, epoch: int) -> None:
        frame_to_tensor(self._bytes.to(self._input.device, non_blocking=True), out=self._input)
        with self._lock:
            fresh = carry is None or not self._has_carried
        state = None if fresh or carry != "state" else self._state
        image = None if fresh or carry != "image" else self._carried
        steps = self._engine.steps(self._input, state, image)
        for done in range(1, stages + 1):
            begin = time.perf_counter()
            # A stage that cannot end in time would only delay the next frame.
            if done > 1 and begin + self._seconds > deadline:
                break
            step = next(steps)
            # One reduction, and nothing allocated but a number: NaN and Inf both survive a sum.
            if not torch.isfinite(step.image.sum()):
                self._error = "values that are no numbers"
                return
            with self._lock:
                self._image.copy_(step.image)
                self._done = done
                if carry is not None and epoch == self._epoch:
                    self._carried.copy_(step.image)
                    self._state, self._has_carried = step.state, True
            taken = time.perf_counter() - begin
            self._seconds = taken if done == 1 or not self._seconds else 0.5 * (self._seconds + taken)
            self._stream.heartbeat += 1
            if time.perf_counter() > deadline:
                break


def _name(error: Exception) -> str:
    """An error as a counter's key: its kind, without what changes from frame to frame."""
    return f"{type(error).__name__} in the network"
