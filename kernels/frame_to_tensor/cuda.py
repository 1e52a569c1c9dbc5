"""`frame_to_tensor` in CUDA (csrc/cuda/kernels.cuh): every format, every dtype."""

from __future__ import annotations

import torch

from .. import cuda
from ..cuda import available, can_run
from .native import fields

__all__ = ["available", "can_run", "forward"]


def forward(out: tuple[torch.Tensor], frame: torch.Tensor, *args) -> None:
    image = out[0]
    struct = cuda.fill(cuda.FrameToTensor, fields(image, frame, *args))
    kernel = f"frame_to_tensor_kernel<{cuda.NAMES[image.dtype]}>"
    cuda.launch_pixels(kernel, image.shape[3], image.shape[0] * image.shape[2], image.device, struct)
