"""`tensor_to_frame` in CUDA (csrc/cuda/kernels.cuh): float32, float16 and bfloat16, either layout."""

from __future__ import annotations

import torch

from .. import cuda
from ..cuda import available
from ..registry import Call
from .native import fields

__all__ = ["available", "can_run", "forward"]


def can_run(call: Call) -> str | None:
    if call.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"dtype {call.dtype} is not one of float32, float16, bfloat16"
    return cuda.can_run(call)


def forward(out: tuple[torch.Tensor], image: torch.Tensor, *args) -> None:
    frame = out[0]
    struct = cuda.fill(cuda.TensorToFrame, fields(frame, image, *args))
    kernel = f"tensor_to_frame_kernel<{cuda.NAMES[image.dtype]}>"
    cuda.launch_pixels(kernel, frame.shape[2], frame.shape[0] * frame.shape[1], frame.device, struct)
