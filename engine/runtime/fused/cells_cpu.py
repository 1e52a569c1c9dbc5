"""The recurrent cells of SRN and BRN on a CPU. A cell's input is a list of maps; one that is None is zero.

* `LSTM`: one kernel from the maps and the state to the new state (`kernels/conv3x3.py`): no pre-activation is stored,
  and no maps are laid side by side.
* `BandedLSTM`, where that kernel does not run: oneDNN over bands of rows, so that the 4C pre-activations of a band are
  still in the cache when `lstm_gates` reads them.
* `GRU`: its candidate waits for the reset gate, so it goes map by map.

A first step starts from zero memory: the hidden part of its convolution and its forget gate are left out. Exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ....kernels.conv3x3 import packed as conv3x3
from ....kernels.lstm_gates import describe
from ....kernels.registry import resolve
from ...models.srn_brn import ConvGRU, ConvLSTM
from .convolution import Arithmetic, Direct

BAND_BYTES = 1 << 20  # of pre-activations: what a second-level cache holds beside the band's inputs and the weights

Memory = tuple[Tensor, ...] | None  # (h, c) or (h,) of one branch; None is zero. A step may write c where it read it


def empty(batch: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(batch, channels, height, width, dtype=dtype, memory_format=torch.channels_last)


class Room:
    """The buffers of one run through the stages. Once nobody holds them any more, the next run takes them over."""

    def __init__(self, buffers: Any, spare: list[Any]) -> None:
        self.buffers, self._spare = buffers, spare
        self.stage = 0  # how many stages have been written into them

    def __del__(self) -> None:
        self._spare.append(self.buffers)


class Rooms:
    """The buffers of all runs that go on at the same time, for one size of picture."""

    def __init__(self) -> None:
        self._shape: torch.Size | None = None
        self._spare: list[Any] = []

    def one(self, picture: Tensor, make: Callable[[], Any]) -> Room:
        if picture.shape != self._shape:
            self._shape, self._spare = picture.shape, []
        return Room(self._spare.pop() if self._spare else make(), self._spare)


def recurrent_cell(cell: nn.Module, widths: Sequence[int], arithmetic: Arithmetic) -> LSTM | BandedLSTM | GRU:
    """`widths` are the channels of its maps and of its own hidden state."""
    if isinstance(cell, ConvGRU):
        return GRU(cell, widths, arithmetic)
    assert isinstance(cell, ConvLSTM)
    if conv3x3.can_run(widths) is None:
        return LSTM(cell.gates, widths, arithmetic)
    return BandedLSTM(cell.gates, widths, arithmetic.dtype)


def without_absent(
    weight: Tensor, bias: Tensor, widths: Sequence[int], present: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """The gates' weights for the maps that are there; the last one is the hidden state."""
    columns = [part for part, here in zip(weight.split(list(widths), 1), present, strict=True) if here]
    weight = torch.cat(columns, 1)
    if not present[-1]:  # nothing to forget: the gates i, g, o
        kept = [0, 2, 3]
        weight = weight.unflatten(0, (4, -1))[kept].flatten(0, 1)
        bias = bias.unflatten(0, (4, -1))[kept].flatten(0, 1)
    return weight, bias


class LSTM:
    """One kernel per step."""

    states = 2

    def __init__(self, gates: nn.Conv2d, widths: Sequence[int], arithmetic: Arithmetic) -> None:
        assert gates.bias is not None
        self.weight, self.bias, self.widths = gates.weight.detach(), gates.bias.detach(), widths
        self.arithmetic = arithmetic
        self._packed: dict[tuple[bool, ...], conv3x3.Packed] = {}

    def __call__(self, maps: Sequence[Tensor | None], memory: Memory, out: tuple[Tensor, ...]) -> None:
        h, c = memory or (None, None)
        here = tuple(each is not None for each in (*maps, h))
        if here not in self._packed:
            self._packed[here] = self.arithmetic.packed(*without_absent(self.weight, self.bias, self.widths, here))
        present = [each for each in (*maps, h) if each is not None]
        conv3x3.cell(present, self._packed[here], c, *out, self.arithmetic.workspace)


def lstm_step(pre: Tensor, c: Tensor | None, h_out: Tensor, c_out: Tensor) -> None:
    """`lstm_gates` into buffers; the tensors are bands of larger ones."""
    implementation = resolve(describe(pre, c, None))
    if implementation.__name__.endswith(".reference"):
        h, c = implementation.forward(pre, c, None)
        h_out.copy_(h)
        c_out.copy_(c)
    else:
        implementation.forward((h_out, c_out), pre, c, None)


class BandedLSTM:
    """oneDNN over bands of rows, then `lstm_gates`."""

    states = 2

    def __init__(self, gates: nn.Conv2d, widths: Sequence[int], dtype: torch.dtype) -> None:
        assert gates.bias is not None
        self.weight, self.bias = gates.weight.detach(), gates.bias.detach()
        self.widths, self.dtype = list(widths), dtype
        self.channels = self.weight.shape[0] // 4
        self._convolutions: dict[tuple[bool, ...], Direct] = {}
        self._window = torch.empty(0)

    def _convolution(self, present: tuple[bool, ...]) -> Direct:
        found = self._convolutions.get(present)
        if found is None:
            weight, bias = without_absent(self.weight, self.bias, self.widths, present)
            found = self._convolutions[present] = Direct(weight, bias, self.dtype)
        return found

    def __call__(self, maps: Sequence[Tensor | None], memory: Memory, out: tuple[Tensor, ...]) -> None:
        h, c = memory or (None, None)
        convolution = self._convolution(tuple(each is not None for each in (*maps, h)))
        present = [each for each in (*maps, h) if each is not None]
        batch, _, height, width = present[0].shape
        rows = max(1, min(height, BAND_BYTES // (width * 4 * self.channels * self.dtype.itemsize)))
        for b in range(batch):
            for top in range(0, height, rows):
                band = slice(top, min(top + rows, height))
                pre = convolution.band(self._rows(present, b, band, rows))
                state = None if c is None else c[b : b + 1, :, band]
                lstm_step(pre, state, out[0][b : b + 1, :, band], out[1][b : b + 1, :, band])

    def _rows(self, maps: list[Tensor], b: int, band: slice, rows: int) -> Tensor:
        """The maps side by side over the band, with the row above and the row below it (zero outside the picture)."""
        height, width = maps[0].shape[-2:]
        top, bottom = max(band.start - 1, 0), min(band.stop + 1, height)
        if len(maps) == 1 and (top, bottom) == (band.start - 1, band.stop + 1):
            return maps[0][b : b + 1, :, top:bottom]
        channels = sum(each.shape[1] for each in maps)
        if self._window.shape != (1, channels, rows + 2, width):
            self._window = empty(1, channels, rows + 2, width, self.dtype)
        window = self._window[:, :, : band.stop - band.start + 2]
        if top == band.start:
            window[:, :, 0].zero_()
        if bottom == band.stop:
            window[:, :, -1].zero_()
        inner = window[:, :, top - (band.start - 1) : bottom - (band.start - 1)]
        torch.cat([each[b : b + 1, :, top:bottom] for each in maps], 1, out=inner)
        return window


class GRU:
    """Update and reset in one convolution, the candidate in another."""

    states = 1

    def __init__(self, cell: ConvGRU, widths: Sequence[int], arithmetic: Arithmetic) -> None:
        self.widths, self.dtype = list(widths), arithmetic.dtype
        self.gates = arithmetic.convolution(cell.gates.weight, cell.gates.bias)
        self.candidate = arithmetic.convolution(cell.candidate.weight, cell.candidate.bias)
        self._joined = self._gates = self._candidate = torch.empty(0)

    def __call__(self, maps: Sequence[Tensor | None], memory: Memory, out: tuple[Tensor, ...]) -> None:
        batch, channels, *size = out[0].shape
        if self._candidate.shape != out[0].shape:
            self._joined, self._gates, self._candidate = (
                empty(batch, count, *size, self.dtype) for count in (sum(self.widths), 2 * channels, channels)
            )
        *inputs, h = self._joined.split(self.widths, 1)
        for to, each in zip((*inputs, h), (*maps, None if memory is None else memory[0]), strict=True):
            to.zero_() if each is None else to.copy_(each)
        update, reset = self.gates(self._joined, self._gates).sigmoid_().chunk(2, 1)
        h.mul_(reset)
        candidate = self.candidate(self._joined, self._candidate).tanh_()
        if memory is None:
            torch.mul(candidate, update, out=out[0])
        else:
            torch.lerp(memory[0], candidate, update, out=out[0])
