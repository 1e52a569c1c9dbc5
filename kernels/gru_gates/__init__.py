"""`gru_gates`: what a ConvGRU step does after its convolutions, in one read and one write.

Call.detail is (C, has h, has r, activation, dtype of h). Under autocast nothing is cast. Unlike other ops this one
promises its backends rows rather than dense tensors (`pitch`): z and r are mostly halves of one convolution's output,
and are read where they lie.
"""

from __future__ import annotations

import torch

from .. import library
from ..registry import Call
from . import reference

Tensor = torch.Tensor
ACTIVATIONS = ("tanh", "relu", "none")


def gru_gates(
    z: Tensor,
    candidate: Tensor,
    h: Tensor | None,
    r: Tensor | None = None,
    hidden: Tensor | None = None,
    *,
    z_keeps: bool = False,
    activation: str = "tanh",
) -> Tensor:
    """The end of a GRU step, from pre-activations: h' = (1 - u) h + u q.

    z          [B,C,H,W], the update gate: u = sigmoid(z). With `z_keeps` it weighs the old state instead, as in
               torch.nn.GRU: u = sigmoid(-z)
    candidate  [B,C,H,W]: q = activation(candidate), where the reset came before its convolution (`gru_reset`)
    h          [B,C,H,W], the dtype of z or float32; None is the zero state of a first step
    r, hidden  [B,C,H,W], the reset after the convolution: q = activation(candidate + sigmoid(r) hidden)
    activation "tanh", "relu" or "none"

    h' has the dtype of h, or of z where h is None, and the memory format of z. Channels of a larger tensor
    (`pre.chunk(2, 1)`) are read in place.
    """
    check(z, candidate, h, r, hidden, z_keeps, activation)
    call = describe(z, candidate, h, r, hidden, z_keeps, activation, library.wants_grad(z, candidate, h, r, hidden))
    if library.takes_plain_path(call):
        return reference.forward(z, candidate, h, r, hidden, z_keeps, activation)
    return _op(z, candidate, h, r, hidden, z_keeps, activation)


def gru_reset(r: Tensor, h: Tensor) -> Tensor:
    """sigmoid(r) h: the reset before the candidate's convolution. It is the first step of a GRU whose candidate is h
    itself, so `gru_gates` computes it."""
    return gru_gates(r, h, None, activation="none")


def check(
    z: Tensor,
    candidate: Tensor,
    h: Tensor | None,
    r: Tensor | None,
    hidden: Tensor | None,
    z_keeps: bool,
    activation: str,
) -> None:
    library.check_tensor("z", z, 4)
    if (r is None) != (hidden is None):
        raise ValueError("r and hidden must be given both, or neither")
    for name, value in (("candidate", candidate), ("h", h), ("r", r), ("hidden", hidden)):
        if value is None and name != "candidate":
            continue
        library.check_tensor(name, value, 4)
        if value.shape != z.shape:
            raise ValueError(f"{name} must have the shape of z, {tuple(z.shape)}; got {tuple(value.shape)}")
        library.check_like(name, value, "z", z, dtype=name != "h")
    if h is not None and h.dtype != z.dtype and not (z.dtype in library.HALF and h.dtype == torch.float32):
        raise TypeError(f"h must have the dtype of z ({z.dtype}) or float32 beside half precision, got {h.dtype}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")


def layout_of(z: Tensor) -> str:
    """As the other ops have it, but for channels of a larger channels-last tensor."""
    _, channels, height, width = z.shape
    return "nhwc" if channels > 1 and height * width > 1 and z.stride(1) == 1 else "nchw"


def pitch(x: Tensor, layout: str) -> int | None:
    """How far apart the rows of x lie: an image's C H W numbers in NCHW, a pixel's C in NHWC. None: not in rows."""
    _, _, height, width = x.shape
    if layout == "nchw":
        step = x.stride(0)
        due = (step, height * width, width, 1)
    else:
        step = x.stride(3)
        due = (height * width * step, 1, width * step, step)
    fits = all(size == 1 or have == want for size, have, want in zip(x.shape, x.stride(), due, strict=True))
    return step if fits or not x.numel() else None


def describe(z, candidate, h, r, hidden, z_keeps, activation, grad: bool = False) -> Call:
    detail = (z.shape[1], h is not None, r is not None, activation, None if h is None else h.dtype)
    return Call("gru_gates", z.device, z.dtype, layout_of(z), grad, detail)


def arrange(z, candidate, h, r, hidden, z_keeps, activation):
    check(z, candidate, h, r, hidden, z_keeps, activation)
    layout = layout_of(z)
    form = library.memory_format(layout)
    z, candidate, h, r, hidden = (
        each if each is None or pitch(each, layout) is not None else each.contiguous(memory_format=form)
        for each in (z, candidate, h, r, hidden)
    )
    return z, candidate, h, r, hidden, z_keeps, activation


def allocate(z, candidate, h, r, hidden, z_keeps, activation):
    form = library.memory_format(layout_of(z))
    return (torch.empty(z.shape, dtype=reference.state_dtype(z, h), device=z.device, memory_format=form),)


def arrange_backward(grad, *inputs):
    return grad.contiguous(memory_format=library.memory_format(layout_of(inputs[0]))), *arrange(*inputs)


def allocate_backward(grad, z, candidate, h, r, hidden, z_keeps, activation):
    return tuple(
        None if each is None else torch.empty_like(grad, dtype=each.dtype) for each in (z, candidate, h, r, hidden)
    )


def _save(ctx, inputs):
    ctx.save_for_backward(*inputs[:5])
    ctx.rest = inputs[5:]


_op = library.define(
    "gru_gates",
    "(Tensor z, Tensor candidate, Tensor? h, Tensor? r, Tensor? hidden, bool z_keeps, str activation) -> Tensor",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)
_backward = library.define(
    "gru_gates",
    "(Tensor grad, Tensor z, Tensor candidate, Tensor? h, Tensor? r, Tensor? hidden, bool z_keeps, str activation)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    arrange=arrange_backward,
    describe=lambda grad, *inputs: describe(*inputs, grad=True),
    allocate=allocate_backward,
    backward=True,
)
library.differentiate(
    "gru_gates", _save, lambda ctx, grad: (*_backward(grad, *ctx.saved_tensors, *ctx.rest), None, None)
)
