"""`lstm_gates`: everything a ConvLSTM step does after its convolution, in one read and one write.

Call.detail is (C, has c, has peephole, dtype of c). Under autocast only a peephole is cast, to the dtype of
pre: h has the dtype of pre, and c keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import library
from ..registry import Call
from . import reference

Tensor = torch.Tensor


def lstm_gates(pre: Tensor, c: Tensor | None, peephole: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One LSTM step from its pre-activations: (h, c').

    pre       [B,4C,H,W], the gates i, f, g, o one after the other along the channels (`gate_permutation` for others)
    c         [B,C,H,W], the dtype of pre or float32; None is the zero state of a first step: pre is then [B,3C,H,W],
              the gates i, g, o, as the forget gate has nothing to forget
    peephole  [3,C,H,W] or [3,C,1,1], the weights of i, f (on c) and o (on c')

    h has the dtype of pre; c' that of c, or at least float32 where c is None. Both take the memory format of pre.
    """
    if peephole is not None and isinstance(pre, Tensor):
        (peephole,) = library.autocast_to(pre.dtype, peephole)
    check(pre, c, peephole)
    if library.takes_plain_path(describe(pre, c, peephole, library.wants_grad(pre, c, peephole))):
        return reference.forward(pre, c, peephole)
    return _op(pre, c, peephole)


def gate_permutation(order: str | Sequence[str], channels: int) -> Tensor:
    """Indices that bring 4C rows of gates in another order (say "ifog") into i, f, g, o: `weight[indices]`.

    `g` is the candidate (also called j, or c~). The inverse is `gate_permutation(order, C).argsort()`.
    """
    if sorted(order) != ["f", "g", "i", "o"]:
        raise ValueError(f"order must hold each of i, f, g, o once, got {order!r}")
    rows = torch.arange(4 * channels).view(4, channels)
    return torch.cat([rows[list(order).index(gate)] for gate in "ifgo"])


def check(pre: Tensor, c: Tensor | None, peephole: Tensor | None) -> None:
    library.check_tensor("pre", pre, 4)
    batch, rows, height, width = pre.shape
    gates = 3 if c is None else 4
    if rows % gates:
        raise ValueError(
            f"pre has {rows} channels, not divisible by the {gates} gates of a step {_WITH[c is not None]}"
        )
    channels = rows // gates
    if c is not None:
        library.check_tensor("c", c, 4)
        if c.shape != (batch, channels, height, width):
            raise ValueError(
                f"c must have shape {(batch, channels, height, width)} to go with pre, got {tuple(c.shape)}"
            )
        library.check_like("c", c, "pre", pre, dtype=False)
        if c.dtype != pre.dtype and not (pre.dtype in library.HALF and c.dtype == torch.float32):
            raise TypeError(
                f"c must have the dtype of pre ({pre.dtype}) or float32 beside half precision, got {c.dtype}"
            )
    if peephole is not None:
        library.check_tensor("peephole", peephole, 4)
        if peephole.shape != (3, channels, height, width) and peephole.shape != (3, channels, 1, 1):
            raise ValueError(
                f"peephole must have shape [3,{channels},{height},{width}] or [3,{channels},1,1], "
                f"got {tuple(peephole.shape)}"
            )
        library.check_like("peephole", peephole, "pre", pre)


_WITH = {False: "without c", True: "with c"}


def describe(pre: Tensor, c: Tensor | None, peephole: Tensor | None, grad: bool = False) -> Call:
    channels = pre.shape[1] // (3 if c is None else 4)
    detail = (channels, c is not None, peephole is not None, None if c is None else c.dtype)
    return Call("lstm_gates", pre.device, pre.dtype, library.layout_of(pre), grad, detail)


def arrange(pre: Tensor, c: Tensor | None, peephole: Tensor | None):
    check(pre, c, peephole)
    form = library.memory_format(library.layout_of(pre))
    return (
        pre.contiguous(memory_format=form),
        None if c is None else c.contiguous(memory_format=form),
        None if peephole is None else peephole.contiguous(memory_format=form),
    )


def allocate(pre: Tensor, c: Tensor | None, peephole: Tensor | None):
    batch, rows, height, width = pre.shape
    shape = (batch, rows // (3 if c is None else 4), height, width)
    form = library.memory_format(library.layout_of(pre))
    h = torch.empty(shape, dtype=pre.dtype, device=pre.device, memory_format=form)
    return h, torch.empty(shape, dtype=reference.cell_dtype(pre, c), device=pre.device, memory_format=form)


def arrange_backward(grad_h: Tensor, grad_c: Tensor, pre: Tensor, c: Tensor | None, peephole: Tensor | None):
    form = library.memory_format(library.layout_of(pre))
    pre, c, peephole = arrange(pre, c, peephole)
    return grad_h.contiguous(memory_format=form), grad_c.contiguous(memory_format=form), pre, c, peephole


def allocate_backward(grad_h: Tensor, grad_c: Tensor, pre: Tensor, c: Tensor | None, peephole: Tensor | None):
    return tuple(None if each is None else torch.empty_like(each) for each in (pre, c, peephole))


_op = library.define(
    "lstm_gates",
    "(Tensor pre, Tensor? c, Tensor? peephole) -> (Tensor, Tensor)",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)
_backward = library.define(
    "lstm_gates",
    "(Tensor grad_h, Tensor grad_c, Tensor pre, Tensor? c, Tensor? peephole) -> (Tensor, Tensor, Tensor)",
    arrange=arrange_backward,
    describe=lambda grad_h, grad_c, *inputs: describe(*inputs, grad=True),
    allocate=allocate_backward,
    backward=True,
)
library.differentiate(
    "lstm_gates",
    lambda ctx, inputs: ctx.save_for_backward(*inputs),
    lambda ctx, grad_h, grad_c: _backward(grad_h, grad_c, *ctx.saved_tensors),
)
