"""`ssim`: the mean structural similarity, all five windowed moments in one pass.

Call.detail is (window,). Under autocast it runs in float32, as PyTorch's losses.
"""

from __future__ import annotations

import math

import torch

from .. import library
from ..registry import Call
from . import reference

Tensor = torch.Tensor


def ssim(x: Tensor, y: Tensor, window: str = "same", data_range: float = 1.0) -> Tensor:
    """The mean SSIM of two batches of images, a scalar: 11 x 11 Gaussian window of sigma 1.5, per channel.

    x, y        [B,C,H,W]
    window      "same": zero padding, one value per pixel (the training loss of SRN and BRN); "valid": only windows that
                lie inside, as the metric is defined (H and W of at least 11)
    data_range  the distance of black and white

    The result has the dtype of x; it is computed in float32 or better.
    """
    x, y = library.autocast_to(torch.float32, x, y)
    check(x, y, window, data_range)
    if library.takes_plain_path(describe(x, y, window, data_range, library.wants_grad(x, y))):
        return reference.forward(x, y, window, data_range)
    return _op(x, y, window, data_range)


def check(x: Tensor, y: Tensor, window: str, data_range: float) -> None:
    library.check_tensor("x", x, 4)
    library.check_tensor("y", y, 4)
    if x.shape != y.shape:
        raise ValueError(f"y must have the shape of x, {tuple(x.shape)}, got {tuple(y.shape)}")
    library.check_like("y", y, "x", x)
    if window not in reference.WINDOWS:
        raise ValueError(f"window must be one of {', '.join(reference.WINDOWS)}; got {window!r}")
    if window == "valid" and min(x.shape[2:]) < reference.TAPS:
        raise ValueError(f"x must be at least 11 x 11 for valid windows, got {x.shape[2]} x {x.shape[3]}")
    if not 0 < data_range < math.inf:
        raise ValueError(f"data_range must be positive, got {data_range}")


def describe(x: Tensor, y: Tensor, window: str, data_range: float, grad: bool = False) -> Call:
    return Call("ssim", x.device, x.dtype, library.layout_of(x), grad, (window,))


def arrange(x: Tensor, y: Tensor, window: str, data_range: float):
    check(x, y, window, data_range)
    form = library.memory_format(library.layout_of(x))
    return x.contiguous(memory_format=form), y.contiguous(memory_format=form), window, data_range


def allocate(x: Tensor, y: Tensor, window: str, data_range: float):
    return (torch.empty((), dtype=x.dtype, device=x.device),)


def arrange_backward(grad: Tensor, x: Tensor, y: Tensor, window: str, data_range: float, want: list[bool]):
    return grad, *arrange(x, y, window, data_range), list(want)


def allocate_backward(grad: Tensor, x: Tensor, y: Tensor, window: str, data_range: float, want: list[bool]):
    return tuple(torch.empty_like(each) if wanted else None for each, wanted in zip((x, y), want, strict=True))


def _save(ctx, inputs):
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _gradients(ctx, grad):
    return *_backward(grad, *ctx.saved_tensors, *ctx.rest, list(ctx.needs_input_grad[:2])), None, None


_op = library.define(
    "ssim",
    "(Tensor x, Tensor y, str window, float data_range) -> Tensor",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)
_backward = library.define(
    "ssim",
    "(Tensor grad, Tensor x, Tensor y, str window, float data_range, bool[] want) -> (Tensor, Tensor)",
    arrange=arrange_backward,
    describe=lambda grad, x, y, window, data_range, want: describe(x, y, window, data_range, grad=True),
    allocate=allocate_backward,
    backward=True,
)
library.differentiate("ssim", _save, _gradients)
