"""SRN and BRN: "Single Image Deraining Using Bilateral Recurrent Network" (Ren, Shang, Zhu, Hu, Meng, Zuo; 2020).

What the paper leaves open, settled by the authors' code and by their weights:

* All convolutions are 3x3, stride 1, zero padding 1, with bias; no normalisation, no clamping between stages.
* A residual block has a ReLU after both convolutions and one more after the sum.
* The LSTM has no peepholes and no forget offset; the residual blocks see h. States start at zero.
* Residual SRN carries the image, x_t = F(y, x_{t-1}) + y, where the paper's equation (4) carries the rain.
  `srn-gru` and `srn-x` learn the direct mapping, x_t = F(y, x_{t-1}).
* BRN starts both its rain layer and its image at the rainy picture, updates the rain branch first, and lets the image
  branch see the new hidden state of the rain branch. Its image is predicted directly, without "+ y".
* The paper says T = 6; the published BRN weights give its numbers at T = 8. T is chosen at call time.

Here the gates of a cell are one convolution (order i, f, g, o) over [its input, its own hidden state]; in BRN the input
is [features, the other branch's hidden state]. The output is not clamped to [0, 1]: losses need the gradient beyond it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnrainError
from .sizing import check_images

CELLS = ("lstm", "gru")


def _check(config: "SRNConfig | BRNConfig", counts: tuple[str, ...]) -> None:
    if config.cell not in CELLS:
        raise UnrainError(f"cell must be one of {', '.join(CELLS)}, got {config.cell!r}")
    for name in counts:
        value = getattr(config, name)
        if not isinstance(value, int) or value < 1:
            raise UnrainError(f"{name} must be a whole number of at least 1, got {value!r}")


@dataclass(frozen=True)
class SRNConfig:
    channels: int = 32
    blocks: int = 5
    cell: str = "lstm"
    sees_rainy: bool = True  # the input layer sees the rainy picture beside the last estimate
    residual: bool = True  # the network predicts what to add to the rainy picture
    stages: int = 6

    def __post_init__(self) -> None:
        _check(self, ("channels", "blocks", "stages"))


@dataclass(frozen=True)
class BRNConfig:
    channels: int = 32
    rain_blocks: int = 3
    image_blocks: int = 5
    cell: str = "lstm"
    rain_sees_image: bool = True  # the rain branch's gates see the image branch's hidden state
    image_sees_rain: bool = True
    stages: int = 6

    def __post_init__(self) -> None:
        _check(self, ("channels", "rain_blocks", "image_blocks", "stages"))


class SRNState(NamedTuple):
    image: Tensor  # [B, 3, H, W]
    h: Tensor  # [B, C, H, W]
    c: Tensor


class SRNGRUState(NamedTuple):
    image: Tensor
    h: Tensor


class BRNState(NamedTuple):
    image: Tensor  # [B, 3, H, W]
    rain: Tensor  # [B, 3, H, W]
    h_x: Tensor  # [B, C, H, W]
    c_x: Tensor
    h_r: Tensor
    c_r: Tensor


class BRNGRUState(NamedTuple):
    image: Tensor
    rain: Tensor
    h_x: Tensor
    h_r: Tensor


State = SRNState | SRNGRUState | BRNState | BRNGRUState


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ConvLSTM(nn.Module):
    """Equation (3). One convolution gives the four gates, in the order i, f, g, o."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.gates = _conv3x3(inputs + channels, 4 * channels)

    def forward(self, x: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = memory
        i, f, g, o = self.gates(torch.cat((x, h), 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, c


class ConvGRU(nn.Module):
    """One convolution gives update and reset, a second one the candidate from [x, reset * h]."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.gates = _conv3x3(inputs + channels, 2 * channels)
        self.candidate = _conv3x3(inputs + channels, channels)

    def forward(self, x: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = memory
        update, reset = self.gates(torch.cat((x, h), 1)).sigmoid().chunk(2, 1)
        candidate = self.candidate(torch.cat((x, reset * h), 1)).tanh()
        return ((1 - update) * h + update * candidate,)


class ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, channels)
        self.conv2 = _conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + F.relu(self.conv2(F.relu(self.conv1(x)))))


class Branch(nn.Module):
    """Equation (2): f_in, f_recurrent, f_res, f_out. `others`: channels of the other hidden state its gates see."""

    def __init__(self, pictures: int, channels: int, blocks: int, cell: str, others: int = 0) -> None:
        super().__init__()
        self.f_in = _conv3x3(3 * pictures, channels)
        self.f_recurrent = (ConvLSTM if cell == "lstm" else ConvGRU)(channels + others, channels)
        self.f_res = nn.Sequential(*(ResBlock(channels) for _ in range(blocks)))
        self.f_out = _conv3x3(channels, 3)

    def forward(
        self, pictures: tuple[Tensor, ...], memory: tuple[Tensor, ...], others: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        z = F.relu(self.f_in(torch.cat(pictures, 1)))  # [B, 3 * pictures, H, W] -> [B, C, H, W]
        memory = self.f_recurrent(torch.cat((z, *others), 1), memory)
        return self.f_out(self.f_res(memory[0])), memory


class Recurrent(nn.Module):
    """The part that SRN and BRN share: a stage is repeated T times, and can go on from any state."""

    stages: int
    repeats_one_stage = True

    def initial_state(self, x: Tensor) -> State:
        """The state before the first stage: pictures start at the rainy one, hidden states at zero."""
        raise NotImplementedError

    def stage(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One stage: the rainy picture and the state before it give a better picture and the state after it."""
        raise NotImplementedError

    def run(self, x: Tensor, T: int | None = None, state: State | None = None) -> tuple[list[Tensor], State]:
        """The pictures of all T stages, and the state to go on from."""
        check_images(x)
        T = self.stages if T is None else T
        if T < 1:
            raise UnrainError(f"T must be at least 1, got {T}")
        state = self.initial_state(x) if state is None else state
        images = []
        for _ in range(T):
            image, state = self.stage(x, state)
            images.append(image)
        return images, state

    def forward(
        self, x: Tensor, T: int | None = None, stages: bool = False, state: State | None = None
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        images, _ = self.run(x, T, state)
        return (images[-1], images) if stages else images[-1]


def _zeros_like(x: Tensor, channels: int, count: int) -> tuple[Tensor, ...]:
    shape = (x.shape[0], channels, *x.shape[-2:])
    return tuple(x.new_zeros(shape) for _ in range(count))


class SRN(Recurrent):
    """Single recurrent network: one branch, from the rainy picture y and the last estimate to the next estimate."""

    Config = SRNConfig

    def __init__(self, config: SRNConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = config.stages
        pictures = 2 if config.sees_rainy else 1
        self.branch = Branch(pictures, config.channels, config.blocks, config.cell)

    def initial_state(self, x: Tensor) -> SRNState | SRNGRUState:
        if self.config.cell == "lstm":
            return SRNState(x, *_zeros_like(x, self.config.channels, 2))
        return SRNGRUState(x, *_zeros_like(x, self.config.channels, 1))

    def stage(self, x: Tensor, state: SRNState | SRNGRUState) -> tuple[Tensor, SRNState | SRNGRUState]:
        pictures = (x, state.image) if self.config.sees_rainy else (state.image,)
        image, memory = self.branch(pictures, state[1:])
        if self.config.residual:
            image = image + x
        return image, type(state)(image, *memory)


class BRN(Recurrent):
    """Bilateral recurrent network: a rain branch, then an image branch that also sees the new rain layer."""

    Config = BRNConfig

    def __init__(self, config: BRNConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = config.stages
        channels, cell = config.channels, config.cell
        self.rain = Branch(2, channels, config.rain_blocks, cell, channels if config.rain_sees_image else 0)
        self.image = Branch(3, channels, config.image_blocks, cell, channels if config.image_sees_rain else 0)

    def initial_state(self, x: Tensor) -> BRNState | BRNGRUState:
        if self.config.cell == "lstm":
            return BRNState(x, x, *_zeros_like(x, self.config.channels, 4))
        return BRNGRUState(x, x, *_zeros_like(x, self.config.channels, 2))

    def stage(self, x: Tensor, state: BRNState | BRNGRUState) -> tuple[Tensor, BRNState | BRNGRUState]:
        half = (
            1 + len(state) // 2
        )  # the fields are image, rain, then the memory of the image branch, then of the rain one
        memory_x, memory_r = state[2:half], state[half:]
        others = memory_x[:1] if self.config.rain_sees_image else ()
        rain, memory_r = self.rain((x, state.rain), memory_r, others)
        others = memory_r[:1] if self.config.image_sees_rain else ()
        image, memory_x = self.image((x, state.image, rain), memory_x, others)
        return image, type(state)(image, rain, *memory_x, *memory_r)
