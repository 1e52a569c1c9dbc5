"""`gru_gates` in C++ (csrc/kernels/gru_gates.h): float32 and bfloat16, either layout."""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call
from . import layout_of, pitch

__all__ = ["available", "backward", "can_run", "forward"]

Tensor = torch.Tensor
ACTS = {"none": 0, "relu": 1, "tanh": 5}  # enum Act in csrc/conv.h


def can_run(call: Call) -> str | None:
    return native.needs_cpu(call, torch.float32, torch.bfloat16)


def forward(out, z, candidate, h, r, hidden, z_keeps, activation) -> None:
    native.run("gru_gates", h_next=out[0], **_fields(out[0], z, candidate, h, r, hidden, z_keeps, activation))


def backward(out, grad, *inputs) -> None:
    names = ("grad_z", "grad_candidate", "grad_h", "grad_r", "grad_hidden")
    native.run("gru_gates", True, grad=grad, **dict(zip(names, out, strict=True)), **_fields(grad, *inputs))


def _fields(state: Tensor, z, candidate, h, r, hidden, z_keeps: bool, activation: str) -> dict[str, object]:
    """`state`: any dense tensor with the dtype of the state."""
    batch, channels, height, width = z.shape
    layout, pixels = layout_of(z), height * width
    maps = {"z": z, "candidate": candidate, "h": h, "r": r, "hidden": hidden}
    return {
        **maps,
        **{f"{name}_pitch": 0 if each is None else pitch(each, layout) for name, each in maps.items()},
        "rows": batch * pixels if layout == "nhwc" else batch,
        "inner": channels if layout == "nhwc" else channels * pixels,
        "dtype": z.dtype,
        "state_dtype": state.dtype,
        "z_keeps": z_keeps,
        "activation": ACTS[activation],
    }
