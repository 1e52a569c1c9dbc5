"""`conv3x3`: a 3x3 convolution with bias, ReLU, a sum and a ReLU in one pass, by Winograd on a CPU.

Call.detail is (Cin, C, dilation, has bias, has add). Under autocast all tensors are cast to autocast's dtype.
"""

from __future__ import annotations

import torch

from .. import library
from ..registry import Call
from . import reference

Tensor = torch.Tensor

MOST_DILATION = 1024


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    dilation: int = 1,
    relu: bool = False,
    relu_sum: bool = False,
) -> Tensor:
    """relu_sum(relu(conv(x) + bias) + add), each where it is asked for; stride 1, of the size of x.

    x        [B,I,H,W]
    weight   [O,I,3,3]; padding is the dilation
    bias     [O]
    add      [B,O,H,W]

    The result has the dtype and the memory format of x. Its error is not that of a direct convolution: by Winograd's
    form it may be 6 times that (it is about twice), and NaN and infinity reach, as NaN, whole tiles of 4 x 4 pixels.
    """
    x, weight, bias, add = library.autocast_to(None, x, weight, bias, add)
    args = (x, weight, bias, add, dilation, relu, relu_sum)
    check(*args)
    call = describe(*args, grad=library.wants_grad(x, weight, bias, add))
    return reference.forward(*args) if library.takes_plain_path(call) else _op(*args)


def check(
    x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, dilation: int, relu: bool, relu_sum: bool
) -> None:
    library.check_tensor("x", x, 4)
    library.check_tensor("weight", weight, 4)
    library.check_like("weight", weight, "x", x)
    outputs, inputs, *taps = weight.shape
    if tuple(taps) != (3, 3) or not outputs or not inputs:
        raise ValueError(f"weight must be [O,I,3,3], got {tuple(weight.shape)}")
    if x.shape[1] != inputs:
        raise ValueError(f"weight must have {x.shape[1]} input channels to go with x, got {inputs}")
    if bias is not None:
        library.check_tensor("bias", bias, 1)
        library.check_like("bias", bias, "x", x)
        if bias.shape[0] != outputs:
            raise ValueError(f"bias must have {outputs} elements to go with weight, got {bias.shape[0]}")
    if add is not None:
        library.check_tensor("add", add, 4)
        library.check_like("add", add, "x", x)
        if add.shape != (want := (x.shape[0], outputs, *x.shape[2:])):
            raise ValueError(f"add must have shape {want} to go with x and weight, got {tuple(add.shape)}")
    if not 1 <= dilation <= MOST_DILATION:
        raise ValueError(f"dilation must be 1 to {MOST_DILATION}, got {dilation}")


def describe(x, weight, bias, add, dilation, relu, relu_sum, grad: bool = False) -> Call:
    detail = (weight.shape[1], weight.shape[0], dilation, bias is not None, add is not None)
    return Call("conv3x3", x.device, x.dtype, library.layout_of(x), grad, detail)


def arrange(x, weight, bias, add, dilation, relu, relu_sum):
    check(x, weight, bias, add, dilation, relu, relu_sum)
    form = library.memory_format(library.layout_of(x))
    x, add = (None if each is None else each.contiguous(memory_format=form) for each in (x, add))
    weight, bias = (None if each is None else each.contiguous() for each in (weight, bias))
    return x, weight, bias, add, dilation, relu, relu_sum


def allocate(x, weight, bias, add, dilation, relu, relu_sum):
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    form = library.memory_format(library.layout_of(x))
    return (torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form),)


def arrange_backward(grad, *inputs):
    return grad.contiguous(memory_format=library.memory_format(library.layout_of(inputs[0]))), *arrange(*inputs)


def allocate_backward(grad, x, weight, bias, add, dilation, relu, relu_sum):
    return tuple(None if each is None else torch.empty_like(each) for each in (x, weight, bias, add))


_op = library.define(
    "conv3x3",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? add, SymInt dilation, bool relu, bool relu_sum) -> Tensor",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)
_backward = library.define(
    "conv3x3",
    "(Tensor grad, Tensor x, Tensor weight, Tensor? bias, Tensor? add, SymInt dilation, bool relu, bool relu_sum)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    arrange=arrange_backward,
    describe=lambda grad, *inputs: describe(*inputs, grad=True),
    allocate=allocate_backward,
    backward=True,
)


def _save(ctx, inputs) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.numbers = inputs[4:]


def _gradients(ctx, grad):
    return *_backward(grad, *ctx.saved_tensors, *ctx.numbers), None, None, None


library.differentiate("conv3x3", _save, _gradients)
