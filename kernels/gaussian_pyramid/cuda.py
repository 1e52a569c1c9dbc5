"""`gaussian_pyramid` in CUDA (csrc/cuda/kernels.cuh): float32, float16, bfloat16 and uint8, either layout.

"box" is one launch for all levels, "binomial" one for every three. The backward pass of "binomial" goes level by level,
its running sums in float32.
"""

from __future__ import annotations

import ctypes

import torch

from .. import cuda
from ..cuda import MOST_LEVELS, available
from ..registry import Call
from .native import fields

__all__ = ["available", "backward", "can_run", "forward"]

Tensor = torch.Tensor

TILE, AT_ONCE = 16, 3  # kTile, kMostAtOnce in csrc/pixel/pyramid_blocks.h


def can_run(call: Call) -> str | None:
    if len(call.detail[1]) > MOST_LEVELS:
        return f"it makes at most {MOST_LEVELS} levels"
    if call.dtype not in cuda.NAMES:
        return f"dtype {call.dtype} is not one of float32, float16, bfloat16, uint8"
    return cuda.can_run(call)


def forward(out: tuple[Tensor, ...], x: Tensor, factors: list[int], kernel: str) -> None:
    levels = [level.data_ptr() for level in out]
    struct = cuda.fill(cuda.GaussianPyramid, {"x": x, "levels": levels, **fields(x, *x.shape[2:], factors, kernel)})
    name = cuda.NAMES[x.dtype]
    if kernel == "box":
        return cuda.launch_over(f"box_kernel<{name}>", sum(level.numel() for level in out), x.device, struct)
    for first in range(0, len(out), AT_ONCE):
        before, last = (x, *out)[first], out[min(first + AT_ONCE, len(out)) - 1]
        count = min(AT_ONCE, len(out) - first)
        group = cuda.LevelGroup(before.data_ptr(), before.shape[2], before.shape[3], first, count)
        tiles = [-(-side // TILE) for side in (last.shape[3], last.shape[2])]
        planes = min(x.shape[0] * x.shape[1], cuda.GRID_LIMIT)
        cuda.launch(f"binomial_kernel<{name}>", (*tiles, planes), (cuda.THREADS,), x.device, struct, group)


def backward(out: tuple[Tensor], grads: list[Tensor], height: int, width: int, factors: list[int], kernel: str) -> None:
    grad_x = out[0]
    name, device = cuda.NAMES[grad_x.dtype], grad_x.device
    if kernel == "box":
        pointers = {"grad_levels": [grad.data_ptr() for grad in grads], "grad_x": grad_x}
        struct = cuda.fill(cuda.GaussianPyramid, {**pointers, **fields(grad_x, height, width, factors, kernel)})
        return cuda.launch_over(f"box_gradient_kernel<{name}>", grad_x.numel(), device, struct)

    def address(tensor: Tensor | None) -> ctypes.c_void_p:
        return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())

    coarser = torch.empty_like(grads[-1], dtype=torch.float32)
    cuda.launch_over(f"to_float_kernel<{name}>", coarser.numel(), device, address(grads[-1]), address(coarser))
    channels = fields(grad_x, height, width, factors, kernel)["channels"]
    for own in (*reversed(grads[:-1]), None):
        to = grad_x if own is None else torch.empty_like(own, dtype=torch.float32)
        result = name if own is None else "float"
        sizes = [ctypes.c_longlong(value) for value in (*to.shape[2:], channels)]
        pointers = [address(each) for each in (coarser, own, to)]
        cuda.launch_over(f"binomial_gradient_kernel<{name}, {result}>", to.numel(), device, *pointers, *sizes)
        coarser = to
