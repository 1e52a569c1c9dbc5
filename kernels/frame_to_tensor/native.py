"""`frame_to_tensor` in C++ (csrc/kernels/frame_to_tensor.h): every format, every dtype."""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call
from .reference import LUMA

__all__ = ["available", "can_run", "fields", "forward"]

Tensor = torch.Tensor


def can_run(call: Call) -> str | None:
    return native.needs_cpu(call, torch.uint8)


def forward(out: tuple[Tensor], *args) -> None:
    native.run("frame_to_tensor", **fields(out[0], *args))


def fields(
    image: Tensor, frame: Tensor, format: str, multiple: int, dtype: torch.dtype, channels_last: bool
) -> dict[str, object]:
    """The struct FrameToTensor of csrc/ops.h."""
    batch, height, width = frame.shape[:3]
    kind, _, standard = format.partition("-")
    standard, _, full = standard.partition("-")
    nv12 = kind == "nv12"
    black, white, chroma = (0, 255, 255) if full else (16, 219, 224)
    kr, kb = LUMA.get(standard, (0.0, 0.0))
    return {
        "frame": frame,
        "image": image,
        "batch": batch,
        "height": height // 3 * 2 if nv12 else height,
        "width": width,
        "padded_height": image.shape[2],
        "padded_width": image.shape[3],
        "bgr": format == "bgr",
        "nv12": nv12,
        "channels_last": channels_last,
        "black": black,
        "white": white,
        "chroma": chroma,
        "kr": kr,
        "kb": kb,
        "dtype": dtype,
    }
