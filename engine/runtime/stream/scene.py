"""Whether a frame continues the one before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

SPARSE = 8  # frames are compared at every 8th pixel of every 8th row
CUT = 40.0  # a mean difference of two frames, in codes of 0..255, that no motion makes
JUMP, LEAST = 3.0, 15.0  # a cut is also a difference this many times the usual one, and at least this large


class Difference:
    """The mean difference of two frames in codes of 0..255, in buffers of its own."""

    def __init__(self, height: int, width: int) -> None:
        self._buffer = np.zeros((-(-height // SPARSE), -(-width // SPARSE), 3), np.int16)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
        """Of two frames that are sparse already."""
        np.subtract(a, b, out=self._buffer, dtype=np.int16)
        np.abs(self._buffer, out=self._buffer)
        return float(self._buffer.mean())


class Scene:
    """Remembers the last frame, when it was taken, and how much frames differ of late."""

    def __init__(self, height: int, width: int, gap: float) -> None:
        self._gap = gap
        self._last = np.zeros((-(-height // SPARSE), -(-width // SPARSE), 3), np.uint8)
        self._difference = Difference(height, width)
        self._time: float | None = None
        self._usual: float | None = None

    def change(self, frame: np.ndarray, time: float) -> str | None:
        """Why this frame does not continue the last one, or None."""
        sparse = frame[::SPARSE, ::SPARSE]
        difference = self._difference(sparse, self._last)
        self._last[...] = sparse
        seconds = _seconds(time)
        if seconds is None:  # what the next frame says is held against the last time that is known
            self._usual = None
            return "a timestamp that is no number"
        before, self._time = self._time, seconds
        if before is None:
            return None
        if not 0 <= seconds - before <= self._gap:
            self._usual = None
            return "a gap in time"
        usual, self._usual = self._usual, difference
        if difference > CUT or (usual is not None and difference > max(LEAST, JUMP * usual)):
            self._usual = None
            return "a scene cut"
        if usual is not None:
            self._usual = 0.75 * usual + 0.25 * difference
        return None


def _seconds(time: Any) -> float | None:
    try:
        return float(time) if math.isfinite(time) else None
    except (TypeError, ValueError, OverflowError):
        return None
