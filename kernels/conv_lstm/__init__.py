"""`conv_lstm`: one ConvLSTM step, convolution and gates together, so that the pre-activations never reach memory.

Call.detail is (Cin, C, has a state, has bias, dtype of c). Under autocast x, h, weight and bias are cast to autocast's
dtype; c keeps its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .. import library
from ..lstm_gates import lstm_gates
from ..lstm_gates.reference import cell_dtype
from ..registry import Call, chosen
from . import reference
from .packing import GROUP, pack, size

Tensor = torch.Tensor


class PreparedWeight(NamedTuple):
    """The parameters of a cell as they were when `prepare_conv_lstm` copied them.

    packed  the weight in the order that the fused kernels read it (packing.py); None for a number of channels that no
            kernel takes. What has no kernel reads `weight`
    """

    weight: Tensor
    bias: Tensor | None
    packed: Tensor | None


def conv_lstm(
    x: Tensor, h: Tensor | None, c: Tensor | None, weight: Tensor | PreparedWeight, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One ConvLSTM step: (h', c').

    x       [B,Cin,H,W]
    h, c    [B,C,H,W]; both None for the zero state, where the h half of the convolution and the forget gate are skipped
    weight  [4C,Cin+C,3,3] over the channels [x, h], its rows the gates i, f, g, o; padding 1. Or what
            `prepare_conv_lstm` made of it and of bias
    bias    [4C]

    h' has the dtype of x; c' that of c, or at least float32 from the zero state. Both take the memory format of x.
    """
    packed = None
    if isinstance(weight, PreparedWeight):
        if bias is not None:
            raise TypeError("bias is part of the prepared weight already")
        weight, bias, packed = weight
    x, h, weight, bias, packed = library.autocast_to(None, x, h, weight, bias, packed)
    check(x, h, c, weight, bias, packed)
    call = describe(x, h, c, weight, bias, packed, library.wants_grad(x, h, c, weight, bias))
    if library.takes_plain_path(call):
        if chosen() == "reference":
            return reference.forward(x, h, c, weight, bias)
        return lstm_gates(reference.pre_activations(x, h, weight, bias), c)  # the gates may have more than a reference
    return _op(x, h, c, weight, bias, packed)


def prepare_conv_lstm(weight: Tensor, bias: Tensor | None = None) -> PreparedWeight:
    """Orders the weights for the fused kernels once, for a cell that runs many steps. Later changes of `weight` are not
    seen, and no gradient reaches it."""
    check_weight(weight, bias)
    weight, bias = weight.detach().clone(), None if bias is None else bias.detach().clone()
    return PreparedWeight(weight, bias, None if weight.shape[0] % (4 * GROUP) else pack(weight))


def check_weight(weight: Tensor, bias: Tensor | None) -> None:
    library.check_tensor("weight", weight, 4)
    rows, inputs, *taps = weight.shape
    if rows % 4:
        raise ValueError(f"weight has {rows} rows, not divisible by the 4 gates")
    if tuple(taps) != (3, 3):
        raise ValueError(f"weight must be [4C,Cin+C,3,3], got {tuple(weight.shape)}")
    if inputs <= rows // 4:
        raise ValueError(f"weight must have Cin + C input channels with C = {rows // 4}, got {inputs}")
    if bias is not None:
        library.check_tensor("bias", bias, 1)
        library.check_like("bias", bias, "weight", weight)
        if bias.shape[0] != rows:
            raise ValueError(f"bias must have {rows} elements to go with weight, got {bias.shape[0]}")


def check(
    x: Tensor, h: Tensor | None, c: Tensor | None, weight: Tensor, bias: Tensor | None, packed: Tensor | None = None
) -> None:
    library.check_tensor("x", x, 4)
    check_weight(weight, bias)
    library.check_like("weight", weight, "x", x)
    channels = weight.shape[0] // 4
    batch, inputs, height, width = x.shape
    if inputs + channels != weight.shape[1]:
        raise ValueError(f"weight must have {inputs} + {channels} input channels to go with x, got {weight.shape[1]}")
    if (h is None) != (c is None):
        raise ValueError("h and c must be given both, or neither")
    if h is not None and c is not None:
        for name, state in (("h", h), ("c", c)):
            library.check_tensor(name, state, 4)
            if state.shape != (batch, channels, height, width):
                want = (batch, channels, height, width)
                raise ValueError(f"{name} must have shape {want} to go with x and weight, got {tuple(state.shape)}")
        library.check_like("h", h, "x", x)
        library.check_like("c", c, "x", x, dtype=False)
        if c.dtype != x.dtype and not (x.dtype in library.HALF and c.dtype == torch.float32):
            raise TypeError(f"c must have the dtype of x ({x.dtype}) or float32 beside half precision, got {c.dtype}")
    if packed is not None:
        library.check_like("packed", packed, "x", x)
        if packed.shape != (size(weight),):
            raise ValueError(f"packed does not belong to this weight: it has shape {tuple(packed.shape)}")


def describe(x, h, c, weight, bias, packed=None, grad: bool = False) -> Call:
    detail = (x.shape[1], weight.shape[0] // 4, h is not None, bias is not None, None if c is None else c.dtype)
    return Call("conv_lstm", x.device, x.dtype, library.layout_of(x), grad, detail)


def arrange(x, h, c, weight, bias, packed=None):
    check(x, h, c, weight, bias, packed)
    form = library.memory_format(library.layout_of(x))
    x, h, c = (None if each is None else each.contiguous(memory_format=form) for each in (x, h, c))
    weight, bias, packed = (None if each is None else each.contiguous() for each in (weight, bias, packed))
    return x, h, c, weight, bias, packed


def allocate(x, h, c, weight, bias, packed=None):
    shape = (x.shape[0], weight.shape[0] // 4, *x.shape[2:])
    form = library.memory_format(library.layout_of(x))
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)
    return out, torch.empty(shape, dtype=cell_dtype(x, c), device=x.device, memory_format=form)


def arrange_backward(grad_h, grad_c, x, h, c, weight, bias):
    form = library.memory_format(library.layout_of(x))
    grads = grad_h.contiguous(memory_format=form), grad_c.contiguous(memory_format=form)
    return *grads, *arrange(x, h, c, weight, bias)[:5]


def allocate_backward(grad_h, grad_c, x, h, c, weight, bias):
    return tuple(None if each is None else torch.empty_like(each) for each in (x, h, c, weight, bias))


_op = library.define(
    "conv_lstm",
    "(Tensor x, Tensor? h, Tensor? c, Tensor weight, Tensor? bias, Tensor? packed) -> (Tensor, Tensor)",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)
_backward = library.define(
    "conv_lstm",
    "(Tensor grad_h, Tensor grad_c, Tensor x, Tensor? h, Tensor? c, Tensor weight, Tensor? bias)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    arrange=arrange_backward,
    describe=lambda grad_h, grad_c, *inputs: describe(*inputs, grad=True),
    allocate=allocate_backward,
    backward=True,
)
library.differentiate(
    "conv_lstm",
    lambda ctx, inputs: ctx.save_for_backward(*inputs[:5]),
    lambda ctx, grad_h, grad_c: (*_backward(grad_h, grad_c, *ctx.saved_tensors), None),
)
