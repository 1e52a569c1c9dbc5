"""The stage-wise network on a CPU.

* Dilated and 1x1 convolutions are our own, and read the block's maps where they lie: none are laid side by side.
* What joins the earlier results, x - r_1, x - r_2, ... and x, by a 1x1 convolution is one matrix times the planes
  x, r_1, r_2, ..., which stay in float32: the weights of x are summed beforehand. Each run through the stages has its
  own planes, so that runs may take turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....kernels.conv3x3.packed import MULTIPLE
from ...errors import UnrainError
from ...models.stagewise import Stagewise
from ..backends import Runner, Step
from .cells_cpu import Room, Rooms
from .convolution import Arithmetic
from .layers_cpu import Layer, Maps

LEAK = torch.tensor([0.2])


class State(NamedTuple):
    """Where a run stands."""

    done: int  # stages
    planes: Room  # [B, 3 (stages + 1), H W]: the rainy picture, then the rain of each stage
    shape: torch.Size  # of the picture


class FusedStagewise(Runner):
    def __init__(self, model: Stagewise, dtype: torch.dtype, products: torch.dtype) -> None:
        arithmetic = Arithmetic(dtype, products)
        outer: Any = model.outer
        self.stages, self.channels, self.maps = model.stages, model.config.channels, Maps(dtype)
        self.joins = [joined_weights(each) for each in outer]
        self.feature = Layer(model.feature, arithmetic, LEAK)
        self.block = Block(model.block, arithmetic, self.maps)
        self.rain = Layer(model.rain, arithmetic)
        self.refine = [Layer(each, arithmetic, LEAK) for each in (model.refine.conv1, model.refine.conv2)]
        self.refined = Layer(model.refine.conv3, arithmetic)
        self._rooms = Rooms()

    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        planes = self._start(x).planes.buffers
        for done in range(self.stages):
            self._advance(x, planes, done)
        return self._refined(x, planes, self.stages)

    def steps(self, x: Tensor, state: State | None = None, image: Tensor | None = None) -> Iterator[Step]:
        """`image` changes nothing: the stages look at the rainy picture and at the rain found so far."""
        if state is None:
            with torch.inference_mode():
                state = self._start(x)
        elif x.shape != state.shape:
            raise UnrainError(f"the state is of pictures {list(state.shape)}, these are {list(x.shape)}")
        room = state.planes
        for done in range(state.done, self.stages):
            if room.stage != done:
                raise UnrainError("this state has been overwritten: go on from the last Step that this engine gave")
            room.stage += 1
            with torch.inference_mode():
                self._advance(x, room.buffers, done)
                picture = self._refined(x, room.buffers, done + 1)
            yield Step(picture, State(done + 1, room, x.shape))

    def _start(self, x: Tensor) -> State:
        batch, _, height, width = x.shape
        room = self._rooms.one(x, lambda: torch.empty(batch, 3 * (self.stages + 1), height * width))
        room.buffers[:, :3] = x.flatten(2)
        return State(0, room, x.shape)

    def _advance(self, x: Tensor, planes: Tensor, done: int) -> None:
        """The rain of one stage, into its planes."""
        self.maps.begin(x)
        seen = x
        if done:
            weight, bias = self.joins[done - 1]
            known = planes[:, : 3 * (done + 1)]
            seen = torch.baddbmm(bias, weight.expand(len(x), -1, -1), known).view_as(x)
        feature = self.feature([self._picture(seen)], self.maps("feature", x, self.channels))
        rain = self.rain([self.block(feature)], self.maps("rain", x, 3, torch.float32))
        planes[:, 3 * (done + 1) : 3 * (done + 2)].view_as(x).copy_(rain)

    def _refined(self, x: Tensor, planes: Tensor, done: int) -> Tensor:
        y = self._picture(x - planes[:, 3 * done : 3 * (done + 1)].view_as(x))
        for number, layer in enumerate(self.refine):
            y = layer([y], self.maps(f"refine{number}", x, self.channels))
        return self.refined([y], self.maps("refined", x, 3, torch.float32)).contiguous()

    def _picture(self, image: Tensor) -> Tensor:
        """A picture as the layers read it: 16 channels, 13 of them zero."""
        picture = self.maps("picture", image, MULTIPLE).zero_()
        picture[:, :3] = image
        return picture


def joined_weights(outer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """[1,3,3(t+1)] for the planes x, r_1, ..., r_t, of weights for x - r_t, ..., x - r_1, x."""
    *rains, own = outer.weight.detach().flatten(1).split(3, 1)
    of_x = own + sum(rains)
    bias = torch.zeros(3) if outer.bias is None else outer.bias.detach()
    return torch.cat((of_x, *(-each for each in reversed(rains))), 1)[None], bias[:, None]


class Block:
    """The densely connected dilated convolutions."""

    def __init__(self, block: Any, arithmetic: Arithmetic, maps: Maps) -> None:
        self.maps = maps
        self.dilated = [Layer(each, arithmetic, LEAK) for each in block.dilated]
        self.inner = [Layer(each, arithmetic, LEAK) for each in block.inner]
        self.fusion = Layer(block.fusion, arithmetic, LEAK)

    def __call__(self, x: Tensor) -> Tensor:
        channels, found = x.shape[1], [x]  # newest first
        for level, dilated in enumerate(self.dilated):
            z = self.inner[level - 1](found, self.maps("inner", x, channels)) if level else x
            found.insert(0, dilated([z], self.maps(f"dilated{level}", x, channels)))
        return self.fusion(found, self.maps("fused", x, channels))
