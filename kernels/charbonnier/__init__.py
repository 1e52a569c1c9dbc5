"""`charbonnier`: difference, square, root and reduction in one pass; the backward pass keeps nothing but the inputs.

Call.detail is (reduction,); Call.layout is "flat": both tensors have the same strides, whatever they are. Under
autocast it runs in float32, as PyTorch's losses.
"""

from __future__ import annotations

import math

import torch

from .. import library
from ..registry import Call
from . import reference

Tensor = torch.Tensor


def charbonnier(pred: Tensor, target: Tensor, eps: float = 1e-3, reduction: str = "mean") -> Tensor:
    """sqrt((pred - target)^2 + eps^2), then its "mean", its "sum", or "none": one value per element.

    pred, target  any shape, the same for both: nothing is broadcast
    eps           positive; the width of the rounding around zero. It is squared here: what is smaller than the root of
                  the smallest normal number, 1.1e-19 in float32, counts as that root

    The result has the dtype of pred; sums are made in float32 or better, in an order that depends on the size alone.
    """
    pred, target = library.autocast_to(torch.float32, pred, target)
    check(pred, target, eps, reduction)
    if library.takes_plain_path(describe(pred, target, eps, reduction, library.wants_grad(pred, target))):
        return reference.forward(pred, target, eps, reduction)
    return _op(pred, target, eps, reduction)


def check(pred: Tensor, target: Tensor, eps: float, reduction: str) -> None:
    library.check_tensor("pred", pred)
    library.check_tensor("target", target)
    if pred.shape != target.shape:
        raise ValueError(f"target must have the shape of pred, {tuple(pred.shape)}, got {tuple(target.shape)}")
    library.check_like("target", target, "pred", pred)
    if not 0 < eps < math.inf:
        raise ValueError(f"eps must be positive, got {eps}")
    if reduction not in reference.REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(reference.REDUCTIONS)}; got {reduction!r}")


def describe(pred: Tensor, target: Tensor, eps: float, reduction: str, grad: bool = False) -> Call:
    return Call("charbonnier", pred.device, pred.dtype, "flat", grad, (reduction,))


def arrange(pred: Tensor, target: Tensor, eps: float, reduction: str):
    check(pred, target, eps, reduction)
    form = _format(pred)
    return pred.contiguous(memory_format=form), target.contiguous(memory_format=form), eps, reduction


def allocate(pred: Tensor, target: Tensor, eps: float, reduction: str):
    if reduction == "none":
        return (torch.empty_like(pred),)
    return (torch.empty((), dtype=pred.dtype, device=pred.device),)


def arrange_backward(grad: Tensor, *inputs):
    if grad.dim():
        grad = grad.contiguous(memory_format=_format(inputs[0]))
    return grad, *arrange(*inputs)


def allocate_backward(grad: Tensor, pred: Tensor, target: Tensor, eps: float, reduction: str):
    return (torch.empty_like(pred),)


def _format(image: Tensor) -> torch.memory_format:
    return library.memory_format(library.layout_of(image) if image.dim() == 4 else "nchw")


def _save(ctx, inputs):
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _gradients(ctx, grad):
    grad_pred = _backward(grad, *ctx.saved_tensors, *ctx.rest)
    return grad_pred, -grad_pred if ctx.needs_input_grad[1] else None, None, None


_op = library.define(
    "charbonnier",
    "(Tensor pred, Tensor target, float eps, str reduction) -> Tensor",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)
_backward = library.define(
    "charbonnier",
    "(Tensor grad, Tensor pred, Tensor target, float eps, str reduction) -> Tensor",
    arrange=arrange_backward,
    describe=lambda grad, *inputs: describe(*inputs, grad=True),
    allocate=allocate_backward,
    backward=True,
)
library.differentiate("charbonnier", _save, _gradients)
