"""The order in which the fused kernels read a cell's weights. The C header of exported kernels packs them so, too."""

from __future__ import annotations

from typing import NamedTuple

import torch

GROUP = 16  # channels whose gates lie together


class Packed(NamedTuple):
    step: torch.Tensor  # [9 (Cin + C), 4C]
    first_io: torch.Tensor  # [9 Cin, 2C]: gates i and o of a channel side by side
    first_g: torch.Tensor  # [9 Cin, C]


def pack(weight: torch.Tensor) -> torch.Tensor:
    """[4C,Cin+C,3,3], C a multiple of GROUP, to the three matrices one after the other: `parts` tells them apart.

    A row per tap and input channel, columns ordered for the accumulator: in those of mma and wgmma a thread owns column
    pairs 2j, 2j+1, and columns 32 apart. So of every 64 columns of `step`, column 32 a + 2 c + b is gate a + 2 b of
    channel c: all four gates of a channel in one thread's registers.
    """
    rows, inputs = weight.shape[:2]
    channels = rows // 4
    step = weight.reshape(2, 2, channels // GROUP, GROUP, inputs, 9).permute(5, 4, 2, 1, 3, 0)
    of_x = weight.reshape(4, channels, inputs, 9)[:, :, : inputs - channels].permute(0, 3, 2, 1)
    first_io, first_g = of_x[::3].permute(1, 2, 3, 0), of_x[2]
    return torch.cat([step.reshape(-1), first_io.reshape(-1), first_g.reshape(-1)])


def parts(packed: torch.Tensor, weight: torch.Tensor) -> Packed:
    """What `pack` made of a weight of this shape, as matrices that share its memory."""
    channels, inputs = weight.shape[0] // 4, weight.shape[1]
    columns = {"step": (inputs, 4), "first_io": (inputs - channels, 2), "first_g": (inputs - channels, 1)}
    pieces = packed.split([9 * source * gates * channels for source, gates in columns.values()])
    return Packed(*(each.view(-1, gates * channels) for each, (_, gates) in zip(pieces, columns.values(), strict=True)))


def size(weight: torch.Tensor) -> int:
    """How many numbers `pack` makes of a weight of this shape."""
    channels, inputs = weight.shape[0] // 4, weight.shape[1]
    return 9 * channels * (4 * inputs + 3 * (inputs - channels))
