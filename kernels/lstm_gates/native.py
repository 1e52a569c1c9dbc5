"""`lstm_gates` in C++ (csrc/kernels/lstm_gates.h): float32 and bfloat16, either layout."""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call, is_nhwc
from . import reference

__all__ = ["available", "backward", "can_run", "forward"]

Tensor = torch.Tensor


def can_run(call: Call) -> str | None:
    return native.needs_cpu(call, torch.float32, torch.bfloat16)


def forward(out: tuple[Tensor, Tensor], pre: Tensor, c: Tensor | None, peephole: Tensor | None) -> None:
    h, c_next = out
    native.run("lstm_gates", h=h, c_next=c_next, **_fields(pre, c, peephole, c_next.dtype))


def backward(
    out: tuple[Tensor, Tensor | None, Tensor | None],
    grad_h: Tensor,
    grad_c: Tensor,
    pre: Tensor,
    c: Tensor | None,
    peephole: Tensor | None,
) -> None:
    grad_pre, grad_state, grad_peephole = out
    fields = _fields(pre, c, peephole, grad_c.dtype)
    native.run("lstm_gates", True, grad_h=grad_h, grad_c_next=grad_c, grad_pre=grad_pre, grad_c=grad_state, **fields)
    if grad_peephole is not None:
        # A sum over the batch that few models need: plain PyTorch, from the gates' gradients just written.
        grad_peephole.copy_(reference.backward(grad_h, grad_c, pre, c, peephole)[2])


def _fields(pre: Tensor, c: Tensor | None, peephole: Tensor | None, state_dtype: torch.dtype) -> dict[str, object]:
    batch, channels, height, width = pre.shape
    channels //= 3 if c is None else 4
    nhwc = is_nhwc(pre)
    pixels = height * width
    if peephole is None:
        peephole_rows = 0
    elif nhwc:
        peephole_rows = peephole.shape[2] * peephole.shape[3]
    else:
        peephole, peephole_rows = peephole.expand(3, channels, height, width).contiguous(), 1
    return {
        "pre": pre,
        "c": c,
        "peephole": peephole,
        "rows": batch * pixels if nhwc else batch,
        "inner": channels if nhwc else channels * pixels,
        "peephole_rows": peephole_rows,
        "dtype": pre.dtype,
        "state_dtype": state_dtype,
    }
