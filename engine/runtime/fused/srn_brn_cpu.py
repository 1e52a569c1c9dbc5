"""SRN and BRN on a CPU.

Everything is channels-last, in float32 or bfloat16; the cell state and the pictures are float32 either way.

* The gates: one convolution over bands of rows, so that the 4C pre-activations of a band are still in the cache when
  `lstm_gates` reads them; no tensor of the size [4C, H, W] exists.
* A first stage starts from zero memory: its hidden part of the convolution and its forget gate are left out. Exact.
* The part of f_in that sees the rainy picture is the same in all stages: computed once per frame.
* In a residual block, relu(x + relu(z)) is x + relu(z) where x >= 0, which holds in every block but the first.
* Hidden states live in two sets of buffers that take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ....kernels.lstm_gates import describe
from ....kernels.registry import resolve
from ...errors import UnrainError
from ...models.srn_brn import SRN, Branch, ConvGRU, ConvLSTM, ResBlock
from ..backends import Runner, Step
from .convolution import Convolution

BAND_BYTES = 1 << 20  # of pre-activations: what a second-level cache holds beside the band's inputs and the weights

Memory = tuple[Tensor, ...] | None  # (h, c) or (h,) of one branch; None is zero


def empty(batch: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(batch, channels, height, width, dtype=dtype, memory_format=torch.channels_last)


def lstm_step(pre: Tensor, c: Tensor | None, h_out: Tensor, c_out: Tensor) -> None:
    """`lstm_gates` into buffers; the tensors are bands of larger ones."""
    implementation = resolve(describe(pre, c, None))
    if implementation.__name__.endswith(".reference"):
        h, c = implementation.forward(pre, c, None)
        h_out.copy_(h)
        c_out.copy_(c)
    else:
        implementation.forward((h_out, c_out), pre, c, None)


class LSTM:
    """A ConvLSTM whose input is a list of maps; a map that is None is zero, and its columns are left out."""

    states = 2

    def __init__(self, gates: nn.Conv2d, widths: Sequence[int], dtype: torch.dtype) -> None:
        assert gates.bias is not None
        self.weight, self.bias = gates.weight.detach(), gates.bias.detach()
        self.widths, self.dtype = list(widths), dtype
        self.channels = self.weight.shape[0] // 4
        self._convolutions: dict[tuple[bool, ...], Convolution] = {}
        self._window = torch.empty(0)

    def _convolution(self, present: tuple[bool, ...]) -> Convolution:
        found = self._convolutions.get(present)
        if found is None:
            weight, bias = self.weight, self.bias
            columns = [part for part, here in zip(weight.split(self.widths, 1), present, strict=True) if here]
            weight = torch.cat(columns, 1)
            if not present[-1]:  # nothing to forget: the gates i, g, o
                kept = [0, 2, 3]
                weight = weight.unflatten(0, (4, -1))[kept].flatten(0, 1)
                bias = bias.unflatten(0, (4, -1))[kept].flatten(0, 1)
            found = self._convolutions[present] = Convolution(weight, bias, self.dtype)
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
                pre = convolution(self._rows(present, b, band, rows), rows_padded=True)
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
    """A ConvGRU over a list of maps. Its candidate waits for the reset gate, so it goes map by map, not in bands."""

    states = 1

    def __init__(self, cell: ConvGRU, widths: Sequence[int], dtype: torch.dtype) -> None:
        self.widths = list(widths)
        self.gates = Convolution(cell.gates.weight, cell.gates.bias, dtype)
        self.candidate = Convolution(cell.candidate.weight, cell.candidate.bias, dtype)

    def __call__(self, maps: Sequence[Tensor | None], memory: Memory, out: tuple[Tensor, ...]) -> None:
        like = next(each for each in maps if each is not None)
        all_maps = [
            like.new_zeros(()).expand(like.shape[0], width, *like.shape[2:]) if each is None else each
            for each, width in zip((*maps, None if memory is None else memory[0]), self.widths, strict=True)
        ]
        h = all_maps[-1]
        joined = torch.cat(all_maps, 1).contiguous(memory_format=torch.channels_last)
        update, reset = self.gates(joined).sigmoid_().chunk(2, 1)
        torch.mul(reset, h, out=joined[:, -self.widths[-1] :])
        candidate = self.candidate(joined).tanh_()
        torch.lerp(h, candidate, update, out=out[0])


class FusedBranch:
    def __init__(self, branch: Branch, dtype: torch.dtype) -> None:
        weight, bias = branch.f_in.weight, branch.f_in.bias
        self.sees_rainy = weight.shape[1] > 3
        self.f_in_rainy = Convolution(
            weight[:, :3], bias, dtype
        )  # the only part of srn-x, whose picture is the estimate
        self.f_in = Convolution(weight[:, 3:], None, dtype) if self.sees_rainy else None
        channels = weight.shape[0]
        recurrent = branch.f_recurrent
        widths = [channels] * (recurrent.gates.weight.shape[1] // channels)
        self.cell: LSTM | GRU
        if isinstance(recurrent, ConvLSTM):
            self.cell = LSTM(recurrent.gates, widths, dtype)
        else:
            self.cell = GRU(recurrent, widths, dtype)
        self.blocks = [
            tuple(Convolution(conv.weight, conv.bias, dtype) for conv in (block.conv1, block.conv2))
            for block in cast("Sequence[ResBlock]", branch.f_res)
        ]
        self.f_out = Convolution(branch.f_out.weight, branch.f_out.bias, dtype)
        self.channels, self.dtype = channels, dtype

    def buffers(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        dtypes = (self.dtype, torch.float32)[: self.cell.states]
        return tuple(empty(batch, self.channels, height, width, dtype) for dtype in dtypes)

    def constant(self, rainy: Tensor) -> Tensor | None:
        """What the rainy picture adds to f_in in every stage."""
        return self.f_in_rainy(rainy) if self.sees_rainy else None

    def __call__(
        self,
        constant: Tensor | None,
        pictures: Tensor,
        others: Sequence[Tensor | None],
        memory: Memory,
        out: tuple[Tensor, ...],
    ) -> Tensor:
        """The branch's result [B,3,H,W]; its new memory goes to `out`."""
        if self.f_in is None or constant is None:
            z = self.f_in_rainy(pictures, relu=True)
        else:
            z = self.f_in.plus(pictures, constant, relu=True)
        self.cell([z, *others], memory, out)
        x = out[0]
        for number, (conv1, conv2) in enumerate(self.blocks):
            y = conv2(conv1(x, relu=True), relu=True).add_(x)
            x = y.relu_() if number == 0 else y
        return self.f_out(x)


class State(NamedTuple):
    """Where a recurrence stands. The memories are buffers of the Runner, good until its next stage has run."""

    image: Tensor  # [B,3,H,W] float32
    rain: Tensor | None
    memories: tuple[Memory, ...]  # of the image branch, and of the rain branch
    stage: int  # how many stages the Runner had run


class Recurrence(Runner):
    """The loop over stages; SRN and BRN differ in `_stage`."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.stages, self.dtype, self.config = model.stages, dtype, model.config
        single = isinstance(model, SRN)
        self.branches = tuple(
            FusedBranch(each, dtype) for each in ((model.branch,) if single else (model.image, model.rain))
        )
        self._shape: tuple[int, ...] = ()
        self._sets: list[tuple[tuple[Tensor, ...], ...]] = []
        self._count = 0

    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        *_, last = self._loop(x, self._start(x, None, None))
        return last.image

    def steps(self, x: Tensor, state: State | None = None, image: Tensor | None = None) -> Iterator[Step]:
        # Inference mode is entered anew around each stage: a generator must not leave it on in its caller.
        with torch.inference_mode():
            stages = self._loop(x, self._start(x, state, image))
        while True:
            with torch.inference_mode():
                step = next(stages, None)
            if step is None:
                return
            yield step

    def _start(self, x: Tensor, state: State | None, image: Tensor | None) -> State:
        batch, _, height, width = x.shape
        if state is not None:
            if state.image.shape != x.shape:
                raise UnrainError(f"the state is of pictures {list(state.image.shape)}, these are {list(x.shape)}")
            if state.stage != self._count:
                raise UnrainError("this state has been overwritten: go on from the last Step that this engine gave")
        if self._shape != tuple(x.shape):
            self._shape = tuple(x.shape)
            self._sets = [tuple(each.buffers(batch, height, width) for each in self.branches) for _ in range(2)]
        if state is None:
            return State(x if image is None else image, x, (None,) * len(self.branches), self._count)
        return state if image is None else state._replace(image=image)

    def _loop(self, x: Tensor, state: State) -> Iterator[Step]:
        rainy = self._compact(x)
        constants = tuple(branch.constant(rainy) for branch in self.branches)
        for _ in range(self.stages):
            if state.stage != self._count:
                raise UnrainError("another call on this engine has overwritten the state of this one")
            self._count += 1
            out = self._sets[self._count % 2]
            state = self._stage(x, constants, state, out)
            yield Step(state.image, state)

    def _compact(self, picture: Tensor) -> Tensor:
        return picture.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def _stage(self, x: Tensor, constants: tuple, state: State, out: tuple[tuple[Tensor, ...], ...]) -> State:
        raise NotImplementedError


class FusedSRN(Recurrence):
    def _stage(self, x: Tensor, constants: tuple, state: State, out: tuple[tuple[Tensor, ...], ...]) -> State:
        image = self.branches[0](constants[0], self._compact(state.image), (), state.memories[0], out[0])
        image = x + image if self.config.residual else image.float()
        return State(image.contiguous(), None, out, self._count)


class FusedBRN(Recurrence):
    def _stage(self, x: Tensor, constants: tuple, state: State, out: tuple[tuple[Tensor, ...], ...]) -> State:
        image_branch, rain_branch = self.branches
        memory_x, memory_r = state.memories
        others = () if not self.config.rain_sees_image else (memory_x[0] if memory_x else None,)
        assert state.rain is not None  # a BRN's always is a picture
        rain = rain_branch(constants[1], self._compact(state.rain), others, memory_r, out[1])
        others = () if not self.config.image_sees_rain else (out[1][0],)
        pictures = torch.cat((self._compact(state.image), rain), 1).contiguous(memory_format=torch.channels_last)
        image = image_branch(constants[0], pictures, others, memory_x, out[0])
        return State(image.float().contiguous(), rain, out, self._count)
