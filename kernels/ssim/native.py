"""`ssim` in C++ (csrc/kernels/ssim.h): float32 and bfloat16, either layout."""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call, is_nhwc
from .reference import TAPS, taps

__all__ = ["available", "backward", "can_run", "forward"]

Tensor = torch.Tensor

HALF_WINDOW = taps()[: TAPS // 2 + 1]


def can_run(call: Call) -> str | None:
    return native.needs_cpu(call, torch.float32, torch.bfloat16)


def forward(out: tuple[Tensor], x: Tensor, y: Tensor, window: str, data_range: float) -> None:
    native.run("ssim", result=out[0], **_fields(x, y, window, data_range))


def backward(
    out: tuple[Tensor | None, Tensor | None],
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    window: str,
    data_range: float,
    want: list[bool],
) -> None:
    native.run("ssim", True, grad=grad, grad_x=out[0], grad_y=out[1], **_fields(x, y, window, data_range))


def _fields(x: Tensor, y: Tensor, window: str, data_range: float) -> dict[str, object]:
    batch, channels, height, width = x.shape
    nhwc = is_nhwc(x)
    return {
        "x": x,
        "y": y,
        "pictures": batch if nhwc else batch * channels,
        "channels": channels if nhwc else 1,
        "height": height,
        "width": width,
        "valid": window == "valid",
        "data_range": data_range,
        "taps": HALF_WINDOW,
        "dtype": x.dtype,
    }
