"""SRN and BRN on a GPU.

Channels-last storage in the precision asked for, with a float32 cell state and float32 pictures. The cell is
`unrain.kernels.conv_lstm`, which is one kernel where that was measured to be faster than cuDNN and `lstm_gates`; the
plain convolutions are cuDNN's. A first stage leaves out its hidden half and its forget gate.

Launches cost more than kernels at these sizes, so everything is recorded once per picture size: one CUDA graph for the
whole recurrence, and one for a first and one for a later stage, for whoever takes the stages one by one. Their inputs
and results are static buffers. On another device the same functions run as they are, unrecorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ....kernels import conv_lstm, prepare_conv_lstm
from ...errors import UnrainError
from ...models.srn_brn import SRN, Branch, ResBlock
from . import Runner, Step

_WARM_UPS = 2  # runs before recording: libraries choose their kernels and take their workspaces then
_SIZES = 2  # picture sizes recorded at a time


Memory = tuple[Tensor, ...] | None  # (h, c) of one branch; None is zero


class State(NamedTuple):
    """Where a recurrence stands. The memories are buffers, good until the next stage has been computed."""

    image: Tensor  # [B,3,H,W] float32
    rain: Tensor | None
    memories: tuple[Memory, ...]  # of the image branch, and of the rain branch
    stage: int  # how many stages had been computed


class BranchWeights:
    """One branch's weights in storage precision, and its pass."""

    def __init__(self, branch: Branch, dtype: torch.dtype, device: torch.device) -> None:
        def stored(value: Tensor) -> Tensor:
            value = value.detach().to(device, dtype, copy=True)
            return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value

        def pair(conv: Any) -> tuple[Tensor, Tensor]:
            return stored(conv.weight), stored(conv.bias)

        self.f_in, self.f_out = pair(branch.f_in), pair(branch.f_out)
        gates: Any = branch.f_recurrent.gates
        self.gates = prepare_conv_lstm(stored(gates.weight).contiguous(), stored(gates.bias))
        self.blocks = [(pair(block.conv1), pair(block.conv2)) for block in cast("Sequence[ResBlock]", branch.f_res)]
        self.dtype = dtype

    def __call__(
        self, pictures: Sequence[Tensor], others: Sequence[Tensor | None], memory: Memory
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        joined = torch.cat([each.to(self.dtype) for each in pictures], 1)
        z = _conv(joined.contiguous(memory_format=torch.channels_last), self.f_in).relu_()
        x = torch.cat([z, *(torch.zeros_like(z) if each is None else each for each in others)], 1)
        h, c = memory or (None, None)
        after = conv_lstm(x.contiguous(memory_format=torch.channels_last), h, c, self.gates)
        x = after[0]
        for number, (conv1, conv2) in enumerate(self.blocks):
            y = _conv(_conv(x, conv1).relu_(), conv2).relu_().add_(x)
            x = y.relu_() if number == 0 else y  # the later blocks add what is not negative to what is not negative
        return _conv(x, self.f_out), after


def _conv(x: Tensor, parameters: tuple[Tensor, Tensor]) -> Tensor:
    return F.conv2d(x, *parameters, padding=1)


class RecordedRecurrence(Runner):
    def __init__(self, model: Any, dtype: torch.dtype, device: torch.device) -> None:
        self.stages, self.config, self.device = model.stages, model.config, device
        self.single = isinstance(model, SRN)
        parts = (model.branch,) if self.single else (model.image, model.rain)
        self.branches = tuple(BranchWeights(part, dtype, device) for part in parts)
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self.count = 0

    def stage(self, x: Tensor, image: Tensor, rain: Tensor, memories: tuple[Memory, ...]) -> tuple[Any, ...]:
        """(image, rain, memories) after one more stage."""
        if self.single:
            pictures = (x, image) if self.config.sees_rainy else (image,)
            image, memory = self.branches[0](pictures, (), memories[0])
            image = image.float() + x if self.config.residual else image.float()
            return image.contiguous(), rain, (memory,)
        image_branch, rain_branch = self.branches
        memory_x, memory_r = memories
        others = ((memory_x[0] if memory_x else None),) if self.config.rain_sees_image else ()
        rain, memory_r = rain_branch((x, rain), others, memory_r)
        others = (memory_r[0],) if memory_r and self.config.image_sees_rain else ()
        image, memory_x = image_branch((x, image, rain), others, memory_x)
        return image.float().contiguous(), rain.float().contiguous(), (memory_x, memory_r)

    @torch.no_grad()
    def run(self, x: Tensor) -> Tensor:
        plan = self._plan(x)
        plan.x.copy_(x)
        self.count += 1
        plan.whole()
        return plan.out

    def steps(self, x: Tensor, state: State | None = None, image: Tensor | None = None) -> Iterator[Step]:
        with torch.no_grad():
            plan = self._plan(x)
            if state is not None:
                if state.image.shape != x.shape:
                    raise UnrainError(f"the state is of pictures {list(state.image.shape)}, these are {list(x.shape)}")
                if state.stage != self.count:
                    raise UnrainError("this state has been overwritten: go on from the last Step that this engine gave")
                plan.take(state)
            else:
                plan.rain.copy_(x)
            plan.x.copy_(x)
            if image is not None or state is None:
                plan.image.copy_(x if image is None else image)
        first = state is None
        mine = self.count
        for _ in range(self.stages):
            if self.count != mine:
                raise UnrainError("another call on this engine has overwritten the state of this one")
            with torch.no_grad():
                self.count = mine = mine + 1
                (plan.first if first else plan.later)()
                first = False
                yielded = State(plan.image, plan.rain, plan.memories, mine)
            yield Step(plan.image, yielded)

    def _plan(self, x: Tensor) -> _Plan:
        key = tuple(x.shape)
        if key not in self._plans:
            if len(self._plans) >= _SIZES:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = _Plan(self, x)
        return self._plans[key]


class _Plan:
    """The static buffers of one picture size, and what runs on them: `first`, `later` and `whole`."""

    def __init__(self, recurrence: RecordedRecurrence, x: Tensor) -> None:
        self.recurrence = recurrence
        self.x, self.image, self.rain = (x.clone(memory_format=torch.contiguous_format) for _ in range(3))
        _, _, memories = recurrence.stage(self.x, self.image, self.rain, (None,) * len(recurrence.branches))
        self.memories = tuple(tuple(part.clone() for part in memory) for memory in memories)
        self.out = x.clone()
        self.first = self._recorded(self._first)
        self.later = self._recorded(self._later)
        self.whole = self._recorded(self._whole)

    def take(self, state: State) -> None:
        """Goes on from a state; its tensors are mostly these very buffers."""
        mine = [self.image, self.rain, *(part for memory in self.memories for part in memory)]
        given = [state.image, state.rain, *(part for memory in state.memories for part in memory or ())]
        for old, new in zip(mine, given, strict=True):
            if new is not None and old is not new:
                old.copy_(new)

    def _first(self) -> None:
        self._keep(self.recurrence.stage(self.x, self.image, self.rain, (None,) * len(self.memories)))

    def _later(self) -> None:
        self._keep(self.recurrence.stage(self.x, self.image, self.rain, self.memories))

    def _whole(self) -> None:
        image, rain, memories = self.x, self.x, (None,) * len(self.memories)
        for _ in range(self.recurrence.stages):
            image, rain, memories = self.recurrence.stage(self.x, image, rain, memories)
        self.out.copy_(image)

    def _keep(self, after: tuple[Any, ...]) -> None:
        image, rain, memories = after
        self.image.copy_(image)
        self.rain.copy_(rain)
        for mine, new in zip(self.memories, memories, strict=True):
            for old, value in zip(mine, new, strict=True):
                old.copy_(value)

    def _recorded(self, function: Callable[[], None]) -> Callable[[], Any]:
        if self.x.device.type != "cuda":
            return function
        side = torch.cuda.Stream(self.x.device)
        side.wait_stream(torch.cuda.current_stream(self.x.device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function()
        torch.cuda.current_stream(self.x.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function()
        return graph.replay
