"""What passes from sources to sinks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Colour:
    """How a video's colours are coded, in FFmpeg's numbers; 2 is "not said"."""

    space: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2


@dataclass
class Frame:
    rgb: np.ndarray  # uint8 [H, W, 3], upright
    pts: int  # in units of the source's time base
    seconds: float
    duration: int | None = None
    raw: bytes | bytearray | None = None  # as it came, from a pipe


@dataclass
class Video:
    """What a sink must know of a source."""

    size: tuple[int, int]  # height, width of the upright frames
    rate: Fraction
    time_base: Fraction
    frames: int | None = None  # None where nobody knows
    rotation: int = 0  # degrees, in FFmpeg's sense: what a player turns the stored picture by to have it upright
    colour: Colour = field(default_factory=Colour)
    audio: list[Any] = field(default_factory=list)  # streams whose packets a source also gives
    metadata: dict[str, str] = field(default_factory=dict)


class Source(Protocol):
    video: Video
    live: bool  # frames do not wait: the newest counts
    stall_seconds: float | None  # how long it may give nothing before it counts as gone
    cut_short: str | None  # why it ended before its end, once it has ended

    def __iter__(self) -> Iterator[Any]:
        """`Frame`s, and packets of sound."""

    def close(self) -> None: ...


class Sink(Protocol):
    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """The derained picture of that frame."""

    def copy(self, packet: Any) -> None:
        """A packet of one of the source's audio streams."""

    def finish(self) -> None:
        """Whatever was written becomes a whole file under its name."""

    def leave(self) -> None:
        """Stops where it is."""
