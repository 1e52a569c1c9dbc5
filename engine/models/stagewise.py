"""Stage-wise deraining with densely connected dilation convolution blocks (DCDCB), 17,305 parameters.

What the paper leaves open, settled by its parameter count (the more regular of the two layer lists that fit it exactly)
and by the habits of the group's later code:

* Feature, block and rain layers are shared by all stages. The 1x1 convolution that fuses the earlier results is each
  stage's own, 3t -> 3 for t = 2 .. T; stage 1 sees only the rainy picture and needs none. So T is limited by how many
  of them the network has.
* Plain 3x3 convolutions have no bias, dilated and 1x1 convolutions have one.
* LeakyReLU(0.2) after the feature, dilated, inner 1x1 and fusion convolutions and between the refinement's layers; none
  after the rain convolution, the outer 1x1 and the last refinement layer. No 1x1 before the first dilated convolution.
* Concatenations run from the newest to the oldest, as the paper writes them. Pictures are RGB in [0, 1].

The image of a stage is the refined one, so that every stage's image can be shown; only the unrefined estimate goes into
later stages. The output is not clamped to [0, 1]: losses need the gradient beyond it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnrainError
from .sizing import check_images


@dataclass(frozen=True)
class StagewiseConfig:
    channels: int = 16
    dilated: int = 4  # dilated convolutions in the block, with dilation 1, 2, 4, ...
    stages: int = 12

    def __post_init__(self) -> None:
        for name in ("channels", "dilated", "stages"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UnrainError(f"{name} must be a whole number of at least 1, got {value!r}")


class StagewiseState(NamedTuple):
    image: Tensor  # [B, 3, H, W], the last estimate before refinement; at the start the rainy picture
    rains: Tensor  # [B, 3t, H, W], the rain layers of the t stages so far, newest first


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class DilationBlock(nn.Module):
    """Equations (3) and (4): each dilated convolution sees all earlier maps through a 1x1, a last 1x1 fuses all."""

    def __init__(self, channels: int, dilated: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Conv2d(count * channels, channels, 1) for count in range(2, dilated + 1))
        self.dilated = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=2**level, dilation=2**level) for level in range(dilated)
        )
        self.fusion = nn.Conv2d((dilated + 1) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]  # newest first
        for level, dilated in enumerate(self.dilated):
            z = x if level == 0 else _activate(self.inner[level - 1](torch.cat(maps, 1)))
            maps.insert(0, _activate(dilated(z)))
        return _activate(self.fusion(torch.cat(maps, 1)))


class Refine(nn.Module):
    """Equation (5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(_activate(self.conv2(_activate(self.conv1(x)))))


class Stagewise(nn.Module):
    Config = StagewiseConfig
    repeats_one_stage = False

    def __init__(self, config: StagewiseConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = config.stages
        self.outer = nn.ModuleList(nn.Conv2d(3 * count, 3, 1) for count in range(2, config.stages + 1))
        self.feature = nn.Conv2d(3, config.channels, 3, padding=1, bias=False)
        self.block = DilationBlock(config.channels, config.dilated)
        self.rain = nn.Conv2d(config.channels, 3, 3, padding=1, bias=False)
        self.refine = Refine(config.channels)

    def initial_state(self, x: Tensor) -> StagewiseState:
        return StagewiseState(x, x.new_zeros((x.shape[0], 0, *x.shape[-2:])))

    def advance(self, x: Tensor, state: StagewiseState) -> StagewiseState:
        """One stage of equation (2), without refinement."""
        done = state.rains.shape[1] // 3
        if done == 0:
            fused = x
        else:
            estimates = x.repeat(1, done, 1, 1) - state.rains
            fused = self.outer[done - 1](torch.cat((estimates, x), 1))  # [B, 3(t+1), H, W] -> [B, 3, H, W]
        rain = self.rain(self.block(_activate(self.feature(fused))))
        return StagewiseState(x - rain, torch.cat((rain, state.rains), 1))

    def stage(self, x: Tensor, state: StagewiseState) -> tuple[Tensor, StagewiseState]:
        """One stage: the refined picture, and the state after it."""
        self._check_room(state, 1)
        state = self.advance(x, state)
        return self.refine(state.image), state

    def run(
        self, x: Tensor, T: int | None = None, state: StagewiseState | None = None
    ) -> tuple[list[Tensor], StagewiseState]:
        """The refined pictures of T stages (all that are left, if T is not given), and the state to go on from."""
        T, state = self._start(x, T, state)
        images = []
        for _ in range(T):
            image, state = self.stage(x, state)
            images.append(image)
        return images, state

    def forward(
        self, x: Tensor, T: int | None = None, stages: bool = False, state: StagewiseState | None = None
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        if stages:
            images, _ = self.run(x, T, state)
            return images[-1], images
        T, state = self._start(x, T, state)
        for _ in range(T):
            state = self.advance(x, state)
        return self.refine(state.image)

    def _start(self, x: Tensor, T: int | None, state: StagewiseState | None) -> tuple[int, StagewiseState]:
        check_images(x)
        state = self.initial_state(x) if state is None else state
        T = max(self.stages - state.rains.shape[1] // 3, 1) if T is None else T
        if T < 1:
            raise UnrainError(f"T must be at least 1, got {T}")
        self._check_room(state, T)
        return T, state

    def _check_room(self, state: StagewiseState, more: int) -> None:
        limit, done = len(self.outer) + 1, state.rains.shape[1] // 3
        if done + more > limit:
            raise UnrainError(
                f"this stagewise network has {limit} stages, {done + more} were asked for; "
                f"each stage has weights of its own, so build it with stages={done + more} and train it"
            )
