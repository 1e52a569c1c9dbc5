"""`gaussian_pyramid` in C++ (csrc/kernels/gaussian_pyramid.h): float32, bfloat16 and uint8, either layout."""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call, is_nhwc

__all__ = ["available", "backward", "can_run", "fields", "forward"]

Tensor = torch.Tensor

KERNELS = {"box": 0, "binomial": 1}  # enum PyramidKernel in csrc/ops.h
MOST_LEVELS = 16


def can_run(call: Call) -> str | None:
    if len(call.detail[1]) > MOST_LEVELS:
        return f"it makes at most {MOST_LEVELS} levels"
    return native.needs_cpu(call, torch.float32, torch.bfloat16, torch.uint8)


def forward(out: tuple[Tensor, ...], x: Tensor, factors: list[int], kernel: str) -> None:
    common = fields(x, x.shape[2], x.shape[3], factors, kernel)
    native.run("gaussian_pyramid", x=x, levels=[level.data_ptr() for level in out], **common)


def backward(out: tuple[Tensor], grads: list[Tensor], height: int, width: int, factors: list[int], kernel: str) -> None:
    common = fields(out[0], height, width, factors, kernel)
    native.run("gaussian_pyramid", True, grad_levels=[grad.data_ptr() for grad in grads], grad_x=out[0], **common)


def fields(image: Tensor, height: int, width: int, factors: list[int], kernel: str) -> dict[str, object]:
    """The struct GaussianPyramid of csrc/ops.h, less its pointers."""
    batch, channels = image.shape[:2]
    nhwc = is_nhwc(image)
    return {
        "pictures": batch if nhwc else batch * channels,
        "channels": channels if nhwc else 1,
        "height": height,
        "width": width,
        "kernel": KERNELS[kernel],
        "count": len(factors),
        "factors": factors,
        "dtype": image.dtype,
    }
