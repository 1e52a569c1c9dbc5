"""`Stream`: frames in, frames out, in bounded time, whatever happens to the network.

The network runs in a thread of its own; `process` waits for it no longer than the deadline. Whatever is ready by then
goes out: the last stage, an earlier stage, or the raw frame. It claims no certification.
"""

from __future__ import annotations

import logging
import time
import weakref
from typing import Any

import numpy as np

from ...errors import UnrainError
from ...psnr import psnr
from ..strength import checked
from .degrade import Budget
from .scene import SPARSE, Difference, Scene
from .status import Counters, Outcome, Status
from .worker import CLOSED, Answer, Steps, Worker

log = logging.getLogger("unrain.runtime")

SAME = 50.0  # dB between two runs on the same frame
KNOWN = 40.0  # dB between a run on a known frame and its known answer
_PATIENCE = 600.0  # seconds the self-test waits for one frame


class Stream:
    """Derains frames of one size: `frame, status = stream.process(frame)`.

    engine       an Engine; a call that somebody else makes on it may keep the stream waiting for a stage
    size         (height, width) of every frame
    deadline_ms  how long `process` may take; the rest of a frame's stages is given up then. math.inf waits for them all
    carry        None is what the network was trained to: one made for video goes on from the state that the frame
                 before left, any other starts every frame afresh, as all do with "nothing". "image" starts from the
                 last result; "state" from half of the last hidden states, for fewer stages a frame
                 (benchmarks/carry.py says what each is worth). What is carried is forgotten at a scene cut, after any
                 fault, and after a gap of more than `gap_ms` (None: half a second, or four deadlines)
    stages       stages a frame, None for the network's own number
    limit        the largest mean change of a frame, in [0,1], that is believed
    after, recover  faults in a row that cost stages, good frames in a row that bring one back
    known        a frame and its derained picture, which the self-test must reproduce (40 dB)
    strength     how much of the rain is taken out, from 0 to 1; None for the engine's own. What is carried, and the
                 self-test, are the network's whole work all the same

    A self-test runs at the start: it makes every buffer, and compares two runs on one frame. Where it fails, every
    frame is passed through until `test_itself` has been called again and succeeded.

    `process` never raises, and takes no longer than the deadline and two copies of a frame. A derained frame is one of
    three that take turns: copy it to keep it longer than two further calls. A raw frame is the caller's own, the very
    object. Use a stream from one thread; close it, or use it as a context manager.
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
        known: tuple[np.ndarray, np.ndarray] | None = None,
        strength: float | None = None,
    ) -> None:
        height, width = size
        full = engine.stages or 1
        _check_arguments(height, width, deadline_ms, carry, stages, engine.stages)
        strength = checked(getattr(engine, "strength", 1.0) if strength is None else strength)
        if known is not None and any(_what_is_wrong(frame, (height, width)) for frame in known):
            raise UnrainError(f"known must be two uint8 RGB pictures of {height} x {width}")

        self.size, self.deadline = (height, width), deadline_ms / 1e3
        self.carry = _carried(carry, engine)
        self.counters = Counters()
        self._limit, self._known = limit, known
        self._gap = (max(500.0, 4 * deadline_ms) if gap_ms is None else gap_ms) / 1e3
        self._difference = Difference(height, width)
        self._scene = Scene(height, width, self._gap)
        self._worker = Worker(engine, self.size, self.carry, blends=strength != 1)
        self._strength = strength
        weakref.finalize(self, self._worker.close)
        self._budget, self._steps = Budget(full, after, recover), full
        self.self_test = self.test_itself()
        if self._steps < full:
            self._check_stage_by_stage(engine.stages, stages)
            full = self._steps
        if self.self_test is None and not self._worker.can_carry:
            self._cannot_carry()
        self._budget = Budget(stages or full, after, recover)

    def process(self, frame: np.ndarray, timestamp: float | None = None) -> tuple[np.ndarray, Status]:
        """The frame without rain, or the best there is at the deadline, and how it went.

        frame      uint8 RGB [H, W, 3]
        timestamp  seconds, when it was taken; None for now. A gap, and what is no number, make the stream forget what
                   it carries
        """
        begin = time.perf_counter()
        reset = None
        degraded = self._budget.degraded
        try:
            reason = _what_is_wrong(frame, self.size) or self._why_resting()
            if reason is not None:
                self._worker.forget()
                picture, outcome, stages = frame, Outcome.PASSTHROUGH, 0
            else:
                if self.carry is not None:
                    reset = self._scene.change(frame, begin if timestamp is None else timestamp)
                if reset is not None:
                    self._worker.forget()
                picture, outcome, stages, reason = self._derain(frame, begin + self.deadline)
        except Exception as error:  # the raw frame goes out, whatever it is
            picture, outcome, stages = frame, Outcome.PASSTHROUGH, 0
            reason = f"{type(error).__name__} in the stream"
            self._worker.forget()
        status = Status(outcome, (time.perf_counter() - begin) * 1e3, stages, reason, reset, degraded)
        self.counters.add(status)
        return picture, status

    @property
    def heartbeat(self) -> int:
        """Goes up with every frame and every finished stage; a watchdog in another thread may look at it."""
        return self.counters.frames + self._worker.beats

    def stats(self) -> dict[str, Any]:
        """Counters and latency quantiles so far, the stages now allowed, and what the self-test found."""
        return {
            **self.counters.summary(),
            "stages": self._budget.stages,
            "carry": self.carry or "nothing",
            "heartbeat": self.heartbeat,
            "self_test": self.self_test or "passed",
            "last_error": self._worker.last_error,
        }

    def test_itself(self) -> str | None:
        """Runs a known frame; None, or what is wrong. Takes as long as two frames and has no deadline."""
        height, width = self.size
        frame = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3)
        frame, expected = self._known or (frame, None)
        results = []
        # The second run starts from what the first one left, where the stream carries it: that makes its buffers too.
        for first in (True, False, True) if self.carry else (True, True):
            if first:
                self._worker.forget()
            answer = self._run_without_deadline(frame)
            if answer.picture is None:
                self.self_test = answer.error or "no stage was ready"
                return self.self_test
            if first:
                results.append(answer.picture.copy())
        self._worker.forget()
        self._steps = answer.stages  # fewer than the network has, where its backend runs them all at once
        self.self_test = None
        if _decibels(*results) < SAME:
            self.self_test = "two runs on one frame differ"
        elif expected is not None and _decibels(results[0], expected) < KNOWN:
            self.self_test = f"the known frame is off by {_decibels(results[0], expected):.1f} dB"
        return self.self_test

    def close(self) -> None:
        """Ends the stream's thread, once the stage it may be in has ended."""
        self._worker.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _why_resting(self) -> str | None:
        if self._worker.closed:
            return CLOSED
        if self.self_test is not None:
            return f"the self-test failed: {self.self_test}"
        if self._budget.stages == 0:
            self._budget.rested()
            return "resting after repeated faults"
        return None

    def _derain(self, frame: np.ndarray, deadline: float) -> tuple[np.ndarray, Outcome, int, str | None]:
        refusal = self._worker.start(frame, self._budget.stages, deadline, self._strength)
        if refusal is not None:
            # The frame under way has been counted as a fault already, unless it hangs.
            if self._worker.busy_seconds() > self._gap:
                self._budget.failed(0)
            return frame, Outcome.PASSTHROUGH, 0, refusal
        done, complete, error, picture = self._worker.answer(deadline)
        if picture is not None and self._changed_too_much(frame, picture):
            error = "the picture changed beyond belief"
            self._worker.forget()
        if error is None and picture is None:
            error = "no stage was ready at the deadline"
        if error is not None or picture is None:
            self._budget.failed(0)
            return frame, Outcome.PASSTHROUGH, 0, error
        if complete and time.perf_counter() <= deadline:
            self._budget.succeeded()
            return picture, Outcome.OK, done, None
        self._budget.failed(done - 1 if complete else done)
        return picture, Outcome.LATE, done, "the deadline passed"

    def _changed_too_much(self, frame: np.ndarray, picture: np.ndarray) -> bool:
        change = self._difference(frame[::SPARSE, ::SPARSE], picture[::SPARSE, ::SPARSE])
        return change > self._limit * 255

    def _run_without_deadline(self, frame: np.ndarray) -> Answer:
        forever = time.perf_counter() + _PATIENCE
        refusal = self._worker.start(frame, self._budget.full, forever, 1.0)
        return self._worker.answer(forever) if refusal is None else Answer(0, False, refusal, None)

    def _cannot_carry(self) -> None:
        if self.carry == "own":  # not asked for: the network's first-frame quality is what this backend has
            log.warning("the backend does not give the network's own state: every frame starts afresh; take 'fused'")
            self.carry = None
            return
        self.close()
        raise UnrainError("this network keeps no memory, so its state cannot be carried; take carry='image'")

    def _check_stage_by_stage(self, network: int | None, wanted: int | None) -> None:
        """A backend that gives only the last stage's picture can neither stop early nor go on from a frame before."""
        if self.carry is None and wanted in (None, network):
            return
        self.close()
        asked = f"carry={self.carry!r}" if self.carry else f"stages={wanted}"
        raise UnrainError(
            f"this engine's backend runs all {network} stages at once, so {asked} cannot be met; "
            "take backend='fused' or 'eager'"
        )


def _check_arguments(
    height: int, width: int, deadline_ms: float, carry: str | None, stages: int | None, network: int | None
) -> None:
    if min(height, width) < 8:
        raise UnrainError(f"size must be at least 8 x 8, got {height} x {width}")
    if carry not in (None, "nothing", "image", "state"):
        raise UnrainError(f"carry must be None, 'nothing', 'image' or 'state', got {carry!r}")
    if carry in ("image", "state") and network is None:
        raise UnrainError(f"this network has no stages, so it cannot carry its {carry} from frame to frame")
    if not deadline_ms > 0:
        raise UnrainError(f"deadline_ms must be positive, got {deadline_ms}")
    if stages is not None and not 1 <= stages <= (network or 1):
        raise UnrainError(f"stages must be between 1 and {network or 1}, got {stages}")


def _carried(asked: str | None, engine: Steps) -> str | None:
    """What goes from frame to frame: "own" is the state of a network that was made for video."""
    if asked is None:
        return "own" if getattr(engine, "made_for_video", False) else None
    return None if asked == "nothing" else asked


def _what_is_wrong(frame: np.ndarray, size: tuple[int, int]) -> str | None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        return "not a uint8 frame"
    if frame.shape != (*size, 3):
        return "a frame of another size"
    return None


def _decibels(a: np.ndarray, b: np.ndarray) -> float:
    return psnr(float(np.square(a.astype(np.float32) - b).mean()), peak=255)
