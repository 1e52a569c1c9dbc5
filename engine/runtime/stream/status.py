"""What a Stream says of each frame, and what it counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np


class Outcome(str, Enum):
    OK = "OK"  # every stage that was asked for, in time
    LATE = "LATE"  # the deadline came first: the picture of an earlier stage
    PASSTHROUGH = "PASSTHROUGH"  # the raw frame

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Status:
    """Of one frame."""

    outcome: Outcome
    milliseconds: float  # from the call to its return
    stages: int = 0  # how many stages the picture has behind it; 0 for a raw frame
    reason: str | None = None  # why it is not OK
    reset: str | None = None  # why nothing was carried over from the frame before, where something could have been
    degraded: bool = False  # fewer stages than configured were asked for, after repeated faults


class Counters:
    """Outcomes, reasons and latencies of a stream; readable at any time, of constant size."""

    def __init__(self, window: int = 4096) -> None:
        self._latency = np.zeros(window)
        self._slowest = 0.0
        self.frames = 0
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.resets: Counter[str] = Counter()

    def add(self, status: Status) -> None:
        self._latency[self.frames % len(self._latency)] = status.milliseconds
        self._slowest = max(self._slowest, status.milliseconds)
        self.frames += 1
        self.outcomes[status.outcome.value] += 1
        if status.reason is not None:
            self.reasons[status.reason] += 1
        if status.reset is not None:
            self.resets[status.reset] += 1

    def summary(self) -> dict[str, Any]:
        """Counts, and the latency's p50, p99 (of the last `window` frames) and maximum (of all), in milliseconds."""
        recent = self._latency[: min(self.frames, len(self._latency))]
        p50, p99 = np.percentile(recent, (50, 99)) if self.frames else (0.0, 0.0)
        return {
            "frames": self.frames,
            **{outcome.value.lower(): self.outcomes[outcome.value] for outcome in Outcome},
            "reasons": dict(self.reasons),
            "resets": dict(self.resets),
            "latency_ms": {"p50": float(p50), "p99": float(p99), "max": self._slowest},
        }
