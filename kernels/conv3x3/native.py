"""`conv3x3` on the CPU: csrc/conv.h, by Winograd's F(4x4, 3x3) where that is the faster form.

Channels that are no multiple of 16 are filled up in a copy, and NCHW is turned into channels-last. The weights are
packed in every call: a network that runs them often packs them once (packed.py, or the program). The gradients are
PyTorch's.
"""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call
from . import reference
from .packed import MULTIPLE, Workspace, convolve, pack

__all__ = ["available", "backward", "can_run", "forward"]

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


def backward(out: tuple[Tensor | None, ...], *args) -> None:
    for to, gradient in zip(out, reference.backward(*args), strict=True):
        if to is not None:
            to.copy_(gradient)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
