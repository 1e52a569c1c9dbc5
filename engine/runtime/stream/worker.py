"""The thread that runs a Stream's network, and the buffers the two share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ....kernels import frame_to_tensor, tensor_to_frame
from ..backends import Step
from .carry import faded, has_memory

HELD = 3  # pictures a caller may hold before the oldest is written over
CLOSED = "the stream is closed"
_STATES = ("state", "own")  # what is carried of a frame: a part of its hidden states, or the network's own state whole


class Steps(Protocol):
    """What a Stream needs of an Engine."""

    stages: int | None
    device: torch.device

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]: ...


class Answer(NamedTuple):
    stages: int  # that the picture has behind it
    complete: bool  # as many as were asked for
    error: str | None
    picture: np.ndarray | None  # of the last finished stage; None before the first


class Worker:
    """One frame at a time: `start` it, fetch the `answer` at the deadline; a stage under way then goes on by itself.

    Each finished stage is turned into bytes on the host here, in a spare buffer that is then swapped for the latest, so
    that whoever fetches it waits for neither a stage nor a device.
    """

    def __init__(self, engine: Steps, size: tuple[int, int], carry: str | None, blends: bool) -> None:
        self._engine, self._carry = engine, carry
        on_gpu = engine.device.type == "cuda"
        shape = (1, 3, *size)
        self._frame = torch.empty((1, *size, 3), dtype=torch.uint8, pin_memory=on_gpu)
        self._sent = torch.empty_like(self._frame, device=engine.device) if on_gpu else self._frame
        self._input = torch.empty(shape, device=engine.device)
        self._blend = torch.empty(shape if blends else 0, device=engine.device)
        self._carried = torch.empty(shape if carry == "image" else 0, device=engine.device)
        self._bytes = torch.empty((1, *size, 3), dtype=torch.uint8, device=engine.device) if on_gpu else None
        pictures = [torch.empty((1, *size, 3), dtype=torch.uint8, pin_memory=on_gpu) for _ in range(HELD + 2)]
        self._spare, self._latest, *held = pictures
        self._held = deque(held)
        self._state: Any = None
        self._has_carried = False
        self.can_carry = carry not in _STATES  # or not, as the network's first frame shows
        self._lock = threading.Condition()
        self._job: tuple[int, float, float] | None = None
        self._busy = self._closed = False
        self._begun = 0.0
        self._done, self._complete = 0, False
        self._error: str | None = None
        self._epoch = 0  # goes up when all is forgotten, so that a job under way does not bring it back
        self.stage_seconds = 0.0  # of a stage, lately
        self.beats = 0  # finished stages
        self.last_error: str | None = None
        self._thread = threading.Thread(target=self._loop, name="unrain-stream", daemon=True)
        self._thread.start()

    def start(self, frame: np.ndarray, stages: int, deadline: float, strength: float) -> str | None:
        """Hands a frame over; or why not, as when the one before leaves no time for a stage before the deadline."""
        with self._lock:
            ready = self._lock.wait_for(self._takes_frames_or_never_will, _seconds_to(deadline - self.stage_seconds))
            if self._closed:
                return CLOSED
            if not ready:
                return "the frame before is still being computed"
            self._frame[0].numpy()[...] = frame
            self._done, self._complete, self._error = 0, False, None
            self._job, self._busy, self._begun = (stages, deadline, strength), True, time.perf_counter()
            self._lock.notify_all()
        return None

    def answer(self, deadline: float) -> Answer:
        """What the frame has come to, when it is finished or the deadline is there."""
        with self._lock:
            self._lock.wait_for(self._is_idle, _seconds_to(deadline))
            picture = None
            if self._done and self._error is None:
                picture = self._latest[0].numpy()
                self._held.append(self._latest)
                self._latest = self._held.popleft()
            return Answer(self._done, self._complete, self._error, picture)

    @property
    def closed(self) -> bool:
        return self._closed

    def busy_seconds(self) -> float:
        """How long the frame under way has taken so far; 0 when there is none."""
        return time.perf_counter() - self._begun if self._busy else 0.0

    def forget(self) -> None:
        """The next frame starts afresh."""
        with self._lock:
            self._forget()

    def close(self, patience: float = 5.0) -> None:
        """Ends the thread; one that hangs in a stage is left behind after `patience` seconds."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        self._thread.join(patience)

    def _is_idle(self) -> bool:
        return not self._busy

    def _takes_frames_or_never_will(self) -> bool:
        return not self._busy or self._closed

    def _has_work(self) -> bool:
        return self._job is not None or self._closed

    def _forget(self) -> None:
        self._has_carried, self._state = False, None
        self._epoch += 1

    def _loop(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(self._has_work)
                if self._closed or self._job is None:
                    self._error, self._busy = CLOSED, False  # for whoever waits for a frame that nobody will compute
                    self._lock.notify_all()
                    return
                job, self._job = self._job, None
            error = None
            try:
                error = self._compute(*job)
            except BaseException as problem:  # whatever it is, this thread must outlive it
                error = f"{type(problem).__name__} in the network"
                self.last_error = f"{type(problem).__name__}: {problem}"[:300]
            with self._lock:
                self._error, self._busy = error, False
                if error is not None:
                    self._forget()
                self._lock.notify_all()

    def _compute(self, stages: int, deadline: float, strength: float) -> str | None:
        with self._lock:
            epoch = self._epoch
            state = self._state if self._has_carried and self._carry in _STATES else None
            image = self._carried if self._has_carried and self._carry == "image" else None
        if self._sent is not self._frame:
            self._sent.copy_(self._frame, non_blocking=True)
        frame_to_tensor(self._sent, out=self._input)
        if state is not None and self._carry == "state":
            state = faded(state, self._input)
        steps = self._engine.steps(self._input, state, image)
        step: Step | None = None
        for done in range(1, stages + 1):
            begin = time.perf_counter()
            # A stage that cannot end in time would only delay the next frame.
            if done > 1 and begin + self.stage_seconds > deadline:
                break
            following = next(steps, None)
            if following is None:  # it has fewer than were asked for
                break
            step = following
            # One reduction, and nothing allocated but a number: NaN and Inf both survive a sum.
            if not torch.isfinite(step.image.sum()):
                return "values that are no numbers"
            self._publish(self._blended(step.image, strength), done, done == stages)
            now = time.perf_counter()
            self.stage_seconds = now - begin if done == 1 else 0.5 * (self.stage_seconds + now - begin)
            self.beats += 1
        if self._carry is not None and step is not None:
            self._keep(step, epoch)
        return None

    def _blended(self, derained: Tensor, strength: float) -> Tensor:
        """As `strength.blended`, in a buffer of its own: the network goes on from what it gave."""
        if strength == 1:
            return derained
        self._blend.copy_(derained).clamp_(0, 1)
        return torch.lerp(self._input, self._blend, strength, out=self._blend)

    def _publish(self, image: Tensor, done: int, complete: bool) -> None:
        """The stage's picture becomes the latest."""
        if self._bytes is None:
            tensor_to_frame(image, out=self._spare)
        else:
            tensor_to_frame(image, out=self._bytes)
            self._spare.copy_(self._bytes)
        with self._lock:
            self._spare, self._latest = self._latest, self._spare
            self._done, self._complete = done, complete

    def _keep(self, step: Step, epoch: int) -> None:
        if self._carry == "image":
            self._carried.copy_(step.image)
        elif step.state is not None and (self._carry == "own" or has_memory(step.state)):
            self.can_carry = True
        else:
            return
        if self._carry == "own" and not _is_sound(step):
            self.forget()
            return
        with self._lock:
            if epoch == self._epoch:
                self._has_carried, self._state = True, step.state


def _is_sound(step: Step) -> bool:
    """Whether the maps of a network's own state are numbers; its picture has been looked at."""
    maps = (each for each in step.state if each.shape != step.image.shape)
    return all(bool(torch.isfinite(each.sum(dtype=torch.float32))) for each in maps)


def _seconds_to(deadline: float) -> float:
    """As long as a lock can wait: for ever is more than that."""
    return min(max(deadline - time.perf_counter(), 0), threading.TIMEOUT_MAX)
