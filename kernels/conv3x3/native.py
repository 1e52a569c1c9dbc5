"""`conv3x3` on the CPU: csrc/conv.h, by Winograd's F(4x4, 3x3) where that is the faster form.

Channels that are no multiple of 16 are filled up in a copy, and NCHW is turned into channels-last. The weights are
packed in every call: a network that runs them often packs them once (packed.py, or the program). Of the gradients that
to x is a convolution with the weights turned, that to the weights (and the bias) has a kernel of its own.
"""

from __future__ import annotations

import threading

import torch

from .. import native
from ..native import available
from ..registry import Call, thread_count
from . import reference
from .packed import MULTIPLE, Packed, Workspace, convolve

__all__ = ["available", "backward", "can_run", "forward"]

Tensor = torch.Tensor


class _Memory(threading.local):
    """Kept from call to call: fresh memory of this size costs as much as the convolution of a small picture."""

    def __init__(self) -> None:
        self.packed, self.workspace = Workspace(), Workspace()


_memory = _Memory()


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
    _convolve(out[0], x, weight, bias, add, dilation, relu, relu_sum)


def backward(
    out: tuple[Tensor | None, ...],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    dilation: int,
    relu: bool,
    relu_sum: bool,
) -> None:
    grad_x, grad_weight, grad_bias, grad_add = out
    if relu or relu_sum:
        y = torch.empty_like(grad)
        _convolve(y, x, weight, bias, None, dilation)
        grad_sum, grad = reference.through_relus(grad, y, add, relu, relu_sum)
    else:
        grad_sum = grad
    if grad_add is not None:
        grad_add.copy_(grad_sum)
    _convolve(grad_x, grad, weight.flip(2, 3).transpose(0, 1), None, None, dilation)
    _sum_products(grad_weight, grad_bias, x, grad, dilation)


def _convolve(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    dilation: int,
    relu: bool = False,
    relu_sum: bool = False,
) -> None:
    fill = -x.shape[1] % MULTIPLE
    weight = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, fill)) if fill else weight
    weight, bias = weight.float().contiguous(), None if bias is None else bias.float()
    packed = Packed(weight, bias, None, torch.float32, dilation=dilation, memory=_memory.packed.at_least)
    added = None if add is None else _channels_last(add)
    y = out if out.is_contiguous(memory_format=torch.channels_last) else _channels_last(torch.empty_like(out))
    convolve([_filled(x)], packed, y, _memory.workspace, relu, added, relu_sum)
    if y is not out:
        out.copy_(y)


def _sum_products(grad_weight: Tensor, grad_bias: Tensor | None, x: Tensor, grad: Tensor, dilation: int) -> None:
    """The gradients to weights and bias, in float32 whatever the maps are."""
    maps, places = _filled(x), _filled(grad)
    weights = torch.empty_like(grad_weight, dtype=torch.float32, memory_format=torch.contiguous_format)
    biases = None if grad_bias is None else torch.empty_like(grad_bias, dtype=torch.float32)
    batch, inputs, height, width = x.shape
    call = dict(inputs=inputs, outputs=grad.shape[1], batch=batch, height=height, width=width, dilation=dilation)
    functions = native.load().functions  # type: ignore[union-attr]
    size = functions["conv_gradient_workspace_bytes"](**call, threads=thread_count())
    native.run(
        "conv_gradient",
        **call,
        x=maps,
        grad=places,
        dtype=maps.dtype,
        grad_weight=weights,
        grad_bias=biases,
        workspace=_memory.workspace.at_least(size),
    )
    grad_weight.copy_(weights)
    if grad_bias is not None:
        grad_bias.copy_(biases)


def _filled(x: Tensor) -> Tensor:
    """Channels-last, with channels up to the next multiple."""
    fill = -x.shape[1] % MULTIPLE
    return _channels_last(torch.nn.functional.pad(x, (0, 0, 0, 0, 0, fill)) if fill else x)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
