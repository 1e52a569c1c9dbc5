"""3x3 convolutions of a training step through `conv3x3`, whose gradients on a CPU are several times as fast, and the
PReLUs after them, whose gradients PyTorch takes one number at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from ...kernels import conv3x3, native

LEAST_CHANNELS = 16  # below, most of what Winograd's form multiplies is padding
LEAST_PIXELS = 2048  # of a batch: below, what each call does once (it packs the weights) is most of it
LEAST_NUMBERS = 16_384  # of a PReLU's map


def fast_convolutions(device: torch.device) -> AbstractContextManager[Any]:
    """What a forward pass is run in, so that it and its gradients are fast where they can be."""
    return FastConvolutions() if device.type == "cpu" and native.available() is None else nullcontext()


class FastConvolutions(TorchFunctionMode):
    """Each call of `conv2d` that fits is one of `conv3x3`, each of a wide `prelu` has quicker gradients: modules, and
    what is saved of them, know nothing of it."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is torch.conv2d and not kwargs and len(args) == 7 and fits(*args):
            x, weight, bias, _, _, dilation, _ = args
            return conv3x3(x.contiguous(memory_format=torch.channels_last), weight, bias, dilation=dilation[0])
        if function is torch.prelu and not kwargs and wide(*args):
            return PReLU.apply(*args)
        return function(*args, **(kwargs or {}))


class PReLU(torch.autograd.Function):
    """`torch.prelu` with a slope per channel; the gradients by four passes that use vectors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(x, slopes)
        return torch.prelu(x, slopes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slopes = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(grad, x, 0)
        below = grad - above
        return torch.addcmul(above, below, slopes.view(-1, 1, 1)), (below * x).sum((0, 2, 3))


def wide(x: Tensor, slopes: Tensor) -> bool:
    """Whether it is a picture's PReLU, of as many numbers as make the passes worth their calls."""
    return (
        slopes.requires_grad
        and torch.is_grad_enabled()
        and x.dtype == slopes.dtype == torch.float32
        and x.dim() == 4
        and slopes.numel() == x.shape[1]
        and x.numel() >= LEAST_NUMBERS
    )


def fits(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether a call of `conv2d`, as `nn.Conv2d` makes it, is one that `conv3x3` does, and does faster."""
    return (
        tuple(weight.shape[2:]) == (3, 3)
        and tuple(stride) == (1, 1)
        and groups == 1
        and tuple(padding) == tuple(dilation)
        and dilation[0] == dilation[1]
        and weight.requires_grad
        and torch.is_grad_enabled()
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and x.dim() == 4
        and x.numel() >= LEAST_PIXELS * x.shape[1]
    )
