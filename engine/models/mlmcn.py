"""MLMCN: Multi-Level Memory Compensation Network for Rain Removal via Divide-and-Conquer Strategy (Jiang et al., 2021).

One subnetwork per level of the picture's pyramid (1/4, 1/2, 1) predicts its share of the rain at full size; the
shares are summed and subtracted. A subnetwork is a chain of memory compensation blocks (MCB): a residual memory
module (RMM, with a ConvLSTM) estimates the rain, a background compensation module (BCM) the background that the
estimate took by mistake.

Parameters: `mlmcn` (3, 5 and 8 blocks) 6,005,440, printed as 6.001 M; `mlmcn-n2` 4,633,536 (4.614 M); `mlmcn-n1`
2,742,784 (2.731 M); the others are in `catalog.py`.

There is no code of the authors. What was settled, from the printed counts and from MSPFN's code by the same author:

* RMM: 67 -> 32 convolution over the feature and the rainy picture of this level (eq. 11), ConvLSTM 32/32 without
  peepholes (the W_c terms of eq. 12 are the generic formula), 32 -> 64 convolution of h = o * tanh(c), not of o as
  eq. 13 prints.
* BCM: a stride-2 convolution, three residual units of one convolution each, a transposed convolution of [before,
  after].
* The LSTM state is carried from block to block through a subnetwork; every block has weights of its own. So only the
  forget gate and the state half of a first block's LSTM weights receive no gradient.
* Eq. 10 adds a block's input to a rain estimate that holds it already (eq. 13). Taken literally, each block doubles
  its input: an untrained network is then off by some 15 times the picture's range, and after 150 steps was still
  worse than doing nothing, where the form built here had halved the error. So the input is added once, as in the
  authors' code for the same pair of modules in MSPFN.
* Transition 128 -> 64 on [last block, initial feature]; smaller levels rise by sub-pixel convolutions 64 -> 256, one
  per factor of 2; no bias but in the LSTMs, a PReLU after each convolution but the last; box-average pyramid; BGR in
  [-1, 1].
* The ablations keep "similar size" (6.008 M and 6.005 M printed, not derivable): `mlmcn-no-bcm` has three RMMs for
  each MCB (6,035,136), `mlmcn-no-rmm` 24 BCMs for the 16 MCBs (5,990,592).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UnrainError
from .mspfn import ConvLSTM, box_average, conv, deconv, from_network_difference, initialise, to_network_range
from .sizing import check_images, pad_to_multiple

CHANNELS = 64
MEMORY = 32  # channels of the ConvLSTM's input and state
UNITS = 3  # G, residual units in each BCM


@dataclass(frozen=True)
class MLMCNConfig:
    depths: tuple[int, ...] = (3, 5, 8)  # M, blocks of each subnetwork, from the smallest level to the full picture
    block: str = "mcb"  # "mcb", or one half of it: "rmm", "bcm"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))  # a list when it comes from a file
        if not self.depths or min(self.depths) < 1:
            raise UnrainError(f"mlmcn needs at least one block in every subnetwork, got depths {self.depths}.")
        if self.block not in BLOCKS:
            raise UnrainError(f"mlmcn has no block {self.block!r}; it takes {', '.join(BLOCKS)}.")


class MLMCN(nn.Module):
    Config = MLMCNConfig

    def __init__(self, config: MLMCNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MLMCNConfig()
        halvings = range(len(config.depths) - 1, -1, -1)  # 2, 1, 0: of each subnetwork's picture
        self.multiple = 2 ** len(config.depths)  # a BCM halves the smallest level again
        self.subnetworks = nn.ModuleList(
            Subnetwork(depth, BLOCKS[config.block], count) for depth, count in zip(config.depths, halvings, strict=True)
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in [0, 1] to the picture without rain, same shape."""
        check_images(x)
        padded, crop = pad_to_multiple(x, self.multiple)
        shares = self.rain_shares(to_network_range(padded))
        return x - crop(from_network_difference(sum(shares)))

    def rain_shares(self, image: Tensor) -> list[Tensor]:
        """Each subnetwork's share of the rain of a BGR picture in [-1, 1]; sides are multiples of `self.multiple`."""
        return [subnetwork(box_average(image, 2**subnetwork.halvings)) for subnetwork in self.subnetworks]


class Subnetwork(nn.Module):
    """The rain seen at one level of the pyramid, at full size."""

    def __init__(self, depth: int, block: type[nn.Module], halvings: int) -> None:
        super().__init__()
        self.halvings = halvings
        self.initial = conv(3, CHANNELS)
        self.blocks = nn.ModuleList(block() for _ in range(depth))
        self.transition = conv(2 * CHANNELS, CHANNELS)
        self.sub_pixel = nn.Sequential(*(SubPixel() for _ in range(halvings)))
        self.to_rain = nn.Conv2d(CHANNELS, 3, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        shallow = feature = self.initial(image)  # [B, 64, H/k, W/k]
        zeros = feature.new_zeros(feature.shape[0], MEMORY, *feature.shape[-2:])
        state = (zeros, zeros)
        for block in self.blocks:
            feature, state = block(feature, image, state)
        feature = self.transition(torch.cat((feature, shallow), dim=1))
        return self.to_rain(self.sub_pixel(feature))  # [B, 3, H, W]


State = tuple[Tensor, Tensor]  # h and c of the ConvLSTM, [B, 32, H/k, W/k] each


class MCB(nn.Module):
    """Memory compensation block, eq. (10): the new rain feature, less the background found in it."""

    def __init__(self) -> None:
        super().__init__()
        self.rmm = RMM()
        self.bcm = BCM()

    def forward(self, feature: Tensor, image: Tensor, state: State) -> tuple[Tensor, State]:
        estimate, state = self.rmm(feature, image, state)
        return estimate - self.bcm(estimate), state


class MemoryBlock(nn.Module):
    """The block of the ablation without BCM."""

    def __init__(self) -> None:
        super().__init__()
        self.rmm = RMM()

    def forward(self, feature: Tensor, image: Tensor, state: State) -> tuple[Tensor, State]:
        return self.rmm(feature, image, state)


class CompensationBlock(nn.Module):
    """The block of the ablation without RMM; there is no memory, the state goes through as it came."""

    def __init__(self) -> None:
        super().__init__()
        self.bcm = BCM()

    def forward(self, feature: Tensor, image: Tensor, state: State) -> tuple[Tensor, State]:
        return feature - self.bcm(feature), state


BLOCKS: dict[str, type[nn.Module]] = {"mcb": MCB, "rmm": MemoryBlock, "bcm": CompensationBlock}


class RMM(nn.Module):
    """Residual memory module, eq. (11) to (13): the rain so far and the rainy picture through a ConvLSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.transition = conv(CHANNELS + 3, MEMORY)
        self.lstm = ConvLSTM(MEMORY, MEMORY)
        self.residual = conv(MEMORY, CHANNELS)

    def forward(self, feature: Tensor, image: Tensor, state: State) -> tuple[Tensor, State]:
        h, state = self.lstm(self.transition(torch.cat((feature, image), dim=1)), state)
        return self.residual(h) + feature, state


class BCM(nn.Module):
    """Background compensation module, eq. (14) and (15): the background in a rain estimate, worked out at half size."""

    def __init__(self) -> None:
        super().__init__()
        self.down = conv(CHANNELS, CHANNELS, stride=2)
        self.units = nn.ModuleList(conv(CHANNELS, CHANNELS) for _ in range(UNITS))
        self.up = deconv(2 * CHANNELS, CHANNELS)

    def forward(self, estimate: Tensor) -> Tensor:
        before = x = self.down(estimate)
        for unit in self.units:
            x = x + unit(x)
        return self.up(torch.cat((before, x), dim=1))


class SubPixel(nn.Sequential):
    """Twice the size: a convolution to 4 x 64 channels, rearranged to 64 channels of 2 x 2 pixels."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(CHANNELS, 4 * CHANNELS, 3, padding=1, bias=False), nn.PixelShuffle(2), nn.PReLU(CHANNELS)
        )
