"""`conv3x3` on the CPU: csrc/conv.h, by Winograd's F(4x4, 3x3) where that is the faster form.

Forward only: where a gradient is needed, the reference runs. Channels that are no multiple of 16 are filled up in a
copy, and so is NCHW turned into channels-last. Measured on two Zen 3 cores the copies cost less than a tenth from 32
channels on.
"""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call
from .packed import MULTIPLE, Workspace, convolve, pack

__all__ = ["available", "can_run", "forward"]

Tensor = torch.Tensor


def can_run(call: Call) -> str | None:
    return native.needs_cpu(call, torch.float32, torch.bfloat16)


def forward(
    out: tuple[Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    dilation: int,
    relu: bool,
    relu_sum: bool,
) -> None:
    fill = -x.shape[1] % MULTIPLE
    maps = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, fill)) if fill else x
    weight = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, fill)) if fill else weight
    packed = pack(weight, bias, dilation=dilation)
    added = None if add is None else _channels_last(add)
    y = out[0] if out[0].is_contiguous(memory_format=torch.channels_last) else _channels_last(torch.empty_like(out[0]))
    convolve([_channels_last(maps)], packed, y, Workspace(), relu, added, relu_sum)
    if y is not out[0]:
        out[0].copy_(y)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
