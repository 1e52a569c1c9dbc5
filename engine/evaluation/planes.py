"""What every metric starts from: pictures as double-precision planes, luminance, and separable windows."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import torch

from ..errors import UnrainError

Picture: TypeAlias = "np.ndarray | torch.Tensor"

# MATLAB's rgb2ycbcr on double images: Y = 16/255 + (65.481 R + 128.553 G + 24.966 B)/255, so Y lies in [16/255,
# 235/255].
BT601_STUDIO = (65.481 / 255, 128.553 / 255, 24.966 / 255)
BT601_OFFSET = 16 / 255
# The luminance of FSIM and of MATLAB's rgb2gray: full range.
BT601_FULL = (0.299, 0.587, 0.114)


def as_planes(picture: Picture, name: str = "picture") -> torch.Tensor:
    """RGB [B, 3, H, W], float64, in [0, 1], from an array [H, W, 3] or a tensor [3, H, W] or [B, 3, H, W]."""
    if isinstance(picture, torch.Tensor):
        planes = picture.detach()
        planes = planes[None] if planes.dim() == 3 else planes
        if planes.dim() != 4 or planes.shape[1] != 3:
            raise UnrainError(f"{name}: a tensor must be [3, H, W] or [B, 3, H, W] in RGB, not {list(picture.shape)}")
    else:
        array = np.asarray(picture)
        if array.ndim != 3 or array.shape[2] != 3:
            raise UnrainError(f"{name}: an array must be [H, W, 3] in RGB, not {list(array.shape)}")
        planes = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None]
    if planes.numel() == 0:
        raise UnrainError(f"{name} is empty: {list(picture.shape)}")
    if planes.dtype == torch.uint8:
        return planes.to(torch.float64) / 255
    if not planes.is_floating_point():
        raise UnrainError(f"{name}: values must be uint8, or floating point in [0, 1], not {planes.dtype}")
    planes = planes.to(torch.float64)
    # A network's raw output may leave [0, 1] a little; values this large are 0 to 255 by mistake.
    if planes.abs().amax() > 4:
        raise UnrainError(f"{name}: floating-point values must lie in [0, 1]; the largest is {planes.abs().amax():.4g}")
    return planes


def as_pair(x: Picture, y: Picture) -> tuple[torch.Tensor, torch.Tensor]:
    """Both pictures as planes of one size on one device."""
    a, b = as_planes(x, "first picture"), as_planes(y, "second picture")
    if a.shape != b.shape:
        sizes = [f"{p.shape[-1]}x{p.shape[-2]}" + (f" (batch {len(p)})" if len(p) > 1 else "") for p in (a, b)]
        raise UnrainError(f"the two pictures differ in size: {sizes[0]} and {sizes[1]}; compare pictures of one size")
    return a, b.to(a.device)


def luma(planes: torch.Tensor) -> torch.Tensor:
    """MATLAB's BT.601 Y of RGB in [0, 1], unrounded: [B, 3, H, W] -> [B, H, W]."""
    return weighted(planes, BT601_STUDIO).add_(BT601_OFFSET)


def weighted(planes: torch.Tensor, weights: tuple[float, float, float]) -> torch.Tensor:
    """A weighted sum of the three channels: [B, 3, H, W] -> [B, H, W]."""
    red, green, blue = planes.unbind(1)
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2])


def gaussian(size: int, sigma: float) -> list[float]:
    """MATLAB's fspecial('gaussian') along one axis: `size` taps that sum to one."""
    taps = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return [tap / sum(taps) for tap in taps]


def filter_valid(plane: torch.Tensor, taps: list[float]) -> torch.Tensor:
    """The plane [..., H, W] through a symmetric separable window, only where the window fits entirely."""
    return _along(_along(plane, taps, -2), taps, -1)


def _along(plane: torch.Tensor, taps: list[float], dim: int) -> torch.Tensor:
    # Shifted adds in place: no im2col, which double-precision convolution on a CPU would fall back to.
    length = plane.shape[dim] - len(taps) + 1
    total = plane.narrow(dim, 0, length) * taps[0]
    for shift, tap in enumerate(taps[1:], 1):
        total.add_(plane.narrow(dim, shift, length), alpha=tap)
    return total


def automatic_factor(height: int, width: int) -> int:
    """Wang's and Zhang's downsampling factor, max(1, round(min(H, W) / 256)) with MATLAB's rounding (halves go up)."""
    return max(1, math.floor(min(height, width) / 256 + 0.5))
