"""Wiper: this project's own small network for video in real time. Of no paper.

What decided its shape:

* Streaks are thin, so the first and the last layers work on the frame unshuffled to half its resolution; most of the
  work is done at a quarter and an eighth, where an operation costs least.
* It carries what it has seen: its last picture, clamped to [0, 1], and a hidden map at a quarter of the resolution,
  bounded by ReLU6 so that it quantises. A single picture is the first frame of a clip: both are zero.
* Only operations that every runtime and every number format has: 3x3 convolutions of stride 1 and 2, 1x1, a leaky or
  bounded activation, pixel shuffles, sums. No normalisation, attention, resizing or warping.

The output is not clamped to [0, 1]: losses need the gradient beyond it.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnrainError
from .sizing import check_images, pad_to_multiple

_MULTIPLE = 8
_SLOPE = 0.1


@dataclass(frozen=True)
class WiperConfig:
    half: int = 32  # channels at half the resolution
    quarter: int = 64
    eighth: int = 64
    hidden: int = 32  # channels of the carried map
    quarter_pairs: int = 0  # residual pairs of convolutions at a quarter
    eighth_pairs: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name.endswith("pairs") else 1
            if not isinstance(value, int) or value < least:
                raise UnrainError(f"{field.name} must be a whole number of at least {least}, got {value!r}")


class WiperState(NamedTuple):
    picture: Tensor  # [B, 3, H, W], the last output in [0, 1]
    hidden: Tensor  # [B, hidden, H/4, W/4], sides rounded up to multiples of 8 before


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)


class Pair(nn.Module):
    """Two convolutions and what went in, added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv3x3(channels, channels)
        self.second = _conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return _leaky(x + self.second(_leaky(self.first(x))))


class Wiper(nn.Module):
    """From a rainy frame and the state the frame before left to a picture without rain and the next state."""

    Config = WiperConfig
    multiple = _MULTIPLE

    def __init__(self, config: WiperConfig) -> None:
        super().__init__()
        self.config = config
        half, quarter, eighth, hidden = config.half, config.quarter, config.eighth, config.hidden
        self.enter = _conv3x3(24, half)
        self.to_quarter = _conv3x3(half, quarter, stride=2)
        self.merge = _conv3x3(quarter + hidden, quarter)
        self.to_eighth = _conv3x3(quarter, eighth, stride=2)
        self.deep = nn.Sequential(*(Pair(eighth) for _ in range(config.eighth_pairs)))
        self.from_eighth = nn.Conv2d(eighth, 4 * quarter, 1)
        self.refine = _conv3x3(quarter, quarter)
        self.body = nn.Sequential(*(Pair(quarter) for _ in range(config.quarter_pairs)))
        self.remember = _conv3x3(quarter, hidden)
        self.from_quarter = nn.Conv2d(quarter, 4 * half, 1)
        self.finish = _conv3x3(half, half)
        self.leave = _conv3x3(half, 12)

    def initial_state(self, x: Tensor) -> WiperState:
        """Nothing seen yet: zeros for frames of the shape of `x`."""
        batch, _, height, width = x.shape
        hidden = x.new_zeros(batch, self.config.hidden, hidden_side(height), hidden_side(width))
        return WiperState(torch.zeros_like(x), hidden)

    def step(self, x: Tensor, state: WiperState | None) -> tuple[Tensor, WiperState]:
        """One frame [B, 3, H, W] in [0, 1] after that of `state`, or after none: its picture, and the next state."""
        check_images(x)
        if state is None:
            state = self.initial_state(x)
        _check_state(state, x, self.config.hidden)
        seen, crop = pad_to_multiple(torch.cat((x, state.picture), 1), self.multiple)
        halved = _leaky(self.enter(F.pixel_unshuffle(seen, 2)))
        quartered = _leaky(self.to_quarter(halved))
        merged = _leaky(self.merge(torch.cat((quartered, state.hidden), 1)))
        deep = self.deep(_leaky(self.to_eighth(merged)))
        merged = merged + F.pixel_shuffle(self.from_eighth(deep), 2)
        merged = self.body(_leaky(self.refine(merged)))
        hidden = F.relu6(self.remember(merged))
        fine = halved + F.pixel_shuffle(self.from_quarter(merged), 2)
        change = F.pixel_shuffle(self.leave(_leaky(self.finish(fine))), 2)
        picture = x + crop(change)
        return picture, WiperState(picture.clamp(0, 1), hidden)

    def forward(self, x: Tensor, state: WiperState | None = None) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] without their rain; each is a first frame unless a state is given."""
        return self.step(x, state)[0]


def hidden_side(side: int) -> int:
    """A quarter of a side padded to a multiple of 8. No negative numbers: graph formats round their quotients up."""
    return (side + _MULTIPLE - 1) // _MULTIPLE * (_MULTIPLE // 4)


def _check_state(state: WiperState, x: Tensor, hidden: int) -> None:
    batch, _, height, width = x.shape
    sides = hidden_side(height), hidden_side(width)
    for given, wanted in ((state.picture, (batch, 3, height, width)), (state.hidden, (batch, hidden, *sides))):
        if tuple(given.shape) != wanted:
            raise UnrainError(
                f"the state is of shape {list(given.shape)} where frames of {height} x {width} need {list(wanted)}; "
                "begin anew with initial_state."
            )
