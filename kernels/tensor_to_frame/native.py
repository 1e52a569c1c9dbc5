"""`tensor_to_frame` in C++ (csrc/kernels/tensor_to_frame.h): float32, float16 and bfloat16, either layout."""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call, is_nhwc

__all__ = ["available", "can_run", "fields", "forward"]

Tensor = torch.Tensor


def can_run(call: Call) -> str | None:
    return native.needs_cpu(call, torch.float32, torch.float16, torch.bfloat16)


def forward(out: tuple[Tensor], *args) -> None:
    native.run("tensor_to_frame", **fields(out[0], *args))


def fields(
    frame: Tensor, image: Tensor, residual: Tensor | None, height: int, width: int, rounding: str, bgr: bool
) -> dict[str, object]:
    """The struct TensorToFrame of csrc/ops.h."""
    return {
        "image": image,
        "residual": residual,
        "frame": frame,
        "batch": image.shape[0],
        "image_height": image.shape[2],
        "image_width": image.shape[3],
        "height": height,
        "width": width,
        "bgr": bgr,
        "truncate": rounding == "truncate",
        "channels_last": is_nhwc(image),
        "dtype": image.dtype,
    }
