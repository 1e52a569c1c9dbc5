"""SRN and BRN on a CPU.

Everything is channels-last, in float32 or bfloat16; the cell state and the pictures are float32 either way.

* Convolutions are our own, in Winograd's form, with ReLU and sum done before they store; the gates of a cell are done
  there too (`cells_cpu.py`). Without the compiled part they are oneDNN's.
* The part of f_in that sees the rainy picture is the same in all stages: computed once per frame.
* All maps are buffers that stay, few and written in place where each pixel needs only itself; hidden states live in two
  buffers that take turns, for their neighbours are read while they are written. Each run through the stages has its
  own two, so that runs may take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ...errors import UnrainError
from ...models.srn_brn import SRN, Branch, ResBlock
from ..backends import Runner, Step
from .cells_cpu import Memory, Room, Rooms, empty, recurrent_cell
from .convolution import Arithmetic, Direct


class FusedBranch:
    def __init__(self, branch: Branch, arithmetic: Arithmetic) -> None:
        weight, bias, dtype = branch.f_in.weight, branch.f_in.bias, arithmetic.dtype
        self.sees_rainy = weight.shape[1] > 3
        self.f_in_rainy = Direct(weight[:, :3], bias, dtype)  # the only part of srn-x, whose picture is the estimate
        self.f_in = Direct(weight[:, 3:], None, dtype) if self.sees_rainy else None
        channels = weight.shape[0]
        recurrent = branch.f_recurrent
        widths = [channels] * (recurrent.gates.weight.shape[1] // channels)
        self.cell = recurrent_cell(recurrent, widths, arithmetic)
        self.blocks = [
            tuple(arithmetic.convolution(conv.weight, conv.bias) for conv in (block.conv1, block.conv2))
            for block in cast("Sequence[ResBlock]", branch.f_res)
        ]
        self.f_out = arithmetic.convolution(branch.f_out.weight, branch.f_out.bias)
        self.channels, self.dtype = channels, dtype
        self._maps: tuple[Tensor, ...] = ()

    def buffers(self, batch: int, height: int, width: int) -> tuple[tuple[Tensor, ...], ...]:
        """Room for two memories, which share the cell state."""
        shape = (batch, self.channels, height, width)
        hidden = [empty(*shape, self.dtype) for _ in range(2)]
        cell = [empty(*shape, torch.float32)] if self.cell.states == 2 else []
        return tuple((h, *cell) for h in hidden)

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
        picture: Tensor,
        add: Tensor | None = None,
    ) -> Tensor:
        """The branch's result, plus `add`, in `picture` [B,3,H,W] or a new tensor like it; its new memory in `out`."""
        if self.f_in is None or constant is None:
            z = self.f_in_rainy(pictures, relu=True)
        else:
            z = self.f_in.plus(pictures, constant)
        self.cell([z, *others], memory, out)
        x = out[0]
        if not self._maps or self._maps[0].shape != x.shape:
            self._maps = tuple(torch.empty_like(x) for _ in range(2))
        inner, result = self._maps
        for number, (conv1, conv2) in enumerate(self.blocks):
            y = conv1(x, inner, relu=True)
            # relu(x + relu(z)) is x + relu(z) where x is not negative: in every block but the first.
            x = conv2(y, result, relu=True, add=x, relu_sum=number == 0)
        return self.f_out(x, picture, add=add)


class State(NamedTuple):
    """Where a recurrence stands. The memories are buffers, good until the next stage of this run has been computed."""

    image: Tensor  # [B,3,H,W] float32
    rain: Tensor | None
    memories: tuple[Memory, ...]  # of the image branch, and of the rain branch
    stage: int  # how many stages had been computed
    room: Room | None = None


class Recurrence(Runner):
    """The loop over stages; SRN and BRN differ in `_stage`. `products` are what maps of `dtype` are multiplied in."""

    def __init__(self, model: Any, dtype: torch.dtype, products: torch.dtype) -> None:
        self.stages, self.dtype, self.config = model.stages, dtype, model.config
        single = isinstance(model, SRN)
        arithmetic = Arithmetic(dtype, products)
        self.branches = tuple(
            FusedBranch(each, arithmetic) for each in ((model.branch,) if single else (model.image, model.rain))
        )
        self._rooms = Rooms()

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
        if state is None:
            room = self._rooms.one(x, lambda: self._memories(x))
            return State(x if image is None else image, x, (None,) * len(self.branches), 0, room)
        if state.image.shape != x.shape:
            raise UnrainError(f"the state is of pictures {list(state.image.shape)}, these are {list(x.shape)}")
        if state.room is None or state.stage != state.room.stage:
            raise UnrainError("this state has been overwritten: go on from the last Step that this engine gave")
        return state if image is None else state._replace(image=image)

    def _memories(self, x: Tensor) -> list[tuple[tuple[Tensor, ...], ...]]:
        """Two sets of memories that take turns."""
        batch, _, height, width = x.shape
        return list(zip(*(each.buffers(batch, height, width) for each in self.branches), strict=True))

    def _loop(self, x: Tensor, state: State) -> Iterator[Step]:
        rainy = x.contiguous(memory_format=torch.channels_last)
        compact = self._compact(x)
        constants = tuple(branch.constant(compact) for branch in self.branches)
        room = state.room
        assert room is not None
        for _ in range(self.stages):
            if state.stage != room.stage:
                raise UnrainError("another run from the same state has overwritten it")
            room.stage += 1
            out = room.buffers[room.stage % 2]
            image, rain = self._stage(rainy, constants, state, out)
            state = State(image, rain, out, room.stage, room)
            yield Step(image.contiguous(), state)

    def _picture(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        return empty(like.shape[0], 3, like.shape[2], like.shape[3], dtype)

    def _compact(self, picture: Tensor) -> Tensor:
        return picture.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def _stage(
        self, rainy: Tensor, constants: tuple, state: State, out: tuple[tuple[Tensor, ...], ...]
    ) -> tuple[Tensor, Tensor | None]:
        """The next picture, and the next rain where the network has any; `rainy` is channels-last."""
        raise NotImplementedError


class FusedSRN(Recurrence):
    def _stage(
        self, rainy: Tensor, constants: tuple, state: State, out: tuple[tuple[Tensor, ...], ...]
    ) -> tuple[Tensor, Tensor | None]:
        image = self.branches[0](
            constants[0],
            self._compact(state.image),
            (),
            state.memories[0],
            out[0],
            self._picture(rainy, torch.float32),
            rainy if self.config.residual else None,
        )
        return image, None


class FusedBRN(Recurrence):
    def _stage(
        self, rainy: Tensor, constants: tuple, state: State, out: tuple[tuple[Tensor, ...], ...]
    ) -> tuple[Tensor, Tensor | None]:
        image_branch, rain_branch = self.branches
        memory_x, memory_r = state.memories
        others = () if not self.config.rain_sees_image else (memory_x[0] if memory_x else None,)
        assert state.rain is not None  # a BRN's always is a picture
        room = self._picture(rainy, self.dtype)
        rain = rain_branch(constants[1], self._compact(state.rain), others, memory_r, out[1], room)
        others = () if not self.config.image_sees_rain else (out[1][0],)
        pictures = torch.cat((self._compact(state.image), rain), 1).contiguous(memory_format=torch.channels_last)
        room = self._picture(rainy, torch.float32)
        return image_branch(constants[0], pictures, others, memory_x, out[0], room), rain
