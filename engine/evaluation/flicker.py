"""Temporal flicker of a derained clip against the clean one, in levels of an 8-bit luminance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import UnrainError
from .planes import Picture, as_pair, luma

# A pixel counts as still while the clean clip's luminance moves by at most this many levels from frame to frame.
STILL = 2.0


@dataclass(frozen=True)
class Flicker:
    """Both are root mean squares over all frame-to-frame steps, in levels of 0 to 255; zero is the clean clip itself.

    * `change_error`: of (O_t - O_{t-1}) - (C_t - C_{t-1}), with O the clip and C the clean one. Motion of the scene
      cancels; an error that stays the same from frame to frame cancels too, only what comes and goes is counted.
    * `still_change`: of O_t - O_{t-1} over the pixels where the clean clip stands still (moves by at most two levels):
      what an eye sees twinkling on a wall. NaN when nothing stands still.
    * `still_share`: the share of such pixels.
    """

    change_error: float
    still_change: float
    still_share: float


class FlickerMeter:
    """Collects the flicker of a clip frame by frame; keeps two frames."""

    def __init__(self) -> None:
        self._previous: tuple[torch.Tensor, torch.Tensor] | None = None
        self._pixels = self._still_pixels = 0
        self._change = self._still_change = 0.0

    def update(self, frame: Picture, clean: Picture) -> None:
        """The next frame and its clean one."""
        planes = as_pair(frame, clean)
        current = luma(planes[0]) * 255, luma(planes[1]) * 255
        if self._previous is not None:
            if current[0].shape != self._previous[0].shape:
                raise UnrainError("the frames of a clip must have one size")
            change = current[0] - self._previous[0]
            clean_change = current[1] - self._previous[1]
            still = clean_change.abs() <= STILL
            self._change += float((change - clean_change).square().sum())
            self._still_change += float((change * still).square().sum())
            self._pixels += change.numel()
            self._still_pixels += int(still.sum())
        self._previous = current

    def result(self) -> Flicker:
        if not self._pixels:
            return Flicker(math.nan, math.nan, math.nan)
        return Flicker(
            math.sqrt(self._change / self._pixels),
            math.sqrt(self._still_change / self._still_pixels) if self._still_pixels else math.nan,
            self._still_pixels / self._pixels,
        )
