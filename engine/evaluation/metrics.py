"""Picture metrics, each named by its definition, as functions (x, clean) -> float.

A picture is an RGB array [H, W, 3] or tensor [3, H, W] or [B, 3, H, W], uint8 or floating point in [0, 1]. Everything
is computed in double precision, and a batch gives the mean of its pictures' values.

* psnr_y, ssim_y: on Y of MATLAB's rgb2ycbcr for double images, not rounded; what the deraining papers' tables hold.
* psnr_rgb: one mean squared error over the three channels.  ssim_rgb: the mean of the three channels' SSIM.
* SSIM is Wang's (2004) on values of 0 to 255: 11 x 11 Gaussian window of sigma 1.5 where it fits ("valid"), K = 0.01
  and 0.03, after the automatic downsampling of the authors' code by max(1, round(min(H, W) / 256)).
* fsim, fsimc: Zhang et al. 2011 (fsim.py).  vif: Sheikh and Bovik's pixel-domain VIF (vif.py).
* niqe: Mittal et al. 2013 (niqe.py); it looks at no clean picture, and is less where the picture is better.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..errors import UnrainError
from ..psnr import psnr
from .fsim import fsim, fsimc
from .niqe import niqe
from .planes import Picture, as_pair, automatic_factor, filter_valid, gaussian, luma
from .vif import vif

SSIM_WINDOW = gaussian(11, 1.5)
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr_y(x: Picture, clean: Picture) -> float:
    """Peak signal-to-noise ratio of the BT.601 luminance in dB, peak 1; infinite for equal pictures."""
    a, b = as_pair(x, clean)
    return _mean_psnr(luma(a), luma(b))


def psnr_rgb(x: Picture, clean: Picture) -> float:
    """Peak signal-to-noise ratio over the three channels together in dB, peak 1; infinite for equal pictures."""
    return _mean_psnr(*as_pair(x, clean))


def ssim_y(x: Picture, clean: Picture) -> float:
    """Wang's structural similarity of the BT.601 luminance, 1 for equal pictures."""
    a, b = as_pair(x, clean)
    return float(_ssim(luma(a) * 255, luma(b) * 255).mean())


def ssim_rgb(x: Picture, clean: Picture) -> float:
    """The mean of Wang's structural similarity of the red, green and blue channel."""
    a, b = as_pair(x, clean)
    return sum(float(_ssim(a[:, channel] * 255, b[:, channel] * 255).mean()) for channel in range(3)) / 3


METRICS: dict[str, Callable[[Picture, Picture], float]] = {
    "psnr_y": psnr_y,
    "ssim_y": ssim_y,
    "psnr_rgb": psnr_rgb,
    "ssim_rgb": ssim_rgb,
    "fsim": fsim,
    "fsimc": fsimc,
    "vif": vif,
}

# Those that need no clean picture.
BLIND: dict[str, Callable[[Picture], float]] = {"niqe": niqe}

DEFINITIONS = {
    "psnr_y": "PSNR in dB of Y, MATLAB's BT.601 on double images, peak 1",
    "ssim_y": "SSIM of Y scaled to 255, 11x11 Gaussian window, sigma 1.5, valid, automatic downsampling",
    "psnr_rgb": "PSNR in dB over the three channels, peak 1",
    "ssim_rgb": "mean SSIM of the three channels, window as ssim_y",
    "fsim": "feature similarity of the luminance (Zhang 2011)",
    "fsimc": "feature similarity with the chrominance of YIQ (Zhang 2011)",
    "vif": "visual information fidelity in the pixel domain, four scales (Sheikh and Bovik)",
    "niqe": "distance from the statistics of pristine photographs, less is better (Mittal 2013, BasicSR's arithmetic)",
}


def metric(name: str) -> Callable[[Picture, Picture], float]:
    """The metric of this name; one that needs no clean picture takes None for it."""
    if name in BLIND:
        return lambda x, clean: BLIND[name](x)
    if name not in METRICS:
        raise UnrainError(f"unknown metric {name!r}; choose among {', '.join((*METRICS, *BLIND))}")
    return METRICS[name]


def _mean_psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    values = [psnr(error) for error in (a - b).square_().flatten(1).mean(1).tolist()]
    return sum(values) / len(values)


def _ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """SSIM of planes [B, H, W] in 0 to 255, one value each."""
    factor = automatic_factor(*x.shape[-2:])
    if factor > 1:
        x, y = _mean_symmetric(x, factor), _mean_symmetric(y, factor)
    if min(x.shape[-2:]) < len(SSIM_WINDOW):
        raise UnrainError(f"SSIM needs pictures of at least 11x11 pixels, not {x.shape[-1]}x{x.shape[-2]}")
    # Written out rather than kernels.ssim(window="valid"), which it equals: what counts here is double precision on a
    # CPU, and as only the sum of the two variances enters, four filtered planes are enough.
    mean_x, mean_y = filter_valid(x, SSIM_WINDOW), filter_valid(y, SSIM_WINDOW)
    product = mean_x * mean_y
    squares = mean_x.square_().add_(mean_y.square_())
    covariance = filter_valid(x * y, SSIM_WINDOW).sub_(product)
    variances = filter_valid(x.square().addcmul_(y, y), SSIM_WINDOW).sub_(squares)
    top = product.mul_(2).add_(C1).mul_(covariance.mul_(2).add_(C2))
    return top.div_(squares.add_(C1).mul_(variances.add_(C2))).flatten(1).mean(1)


def _mean_symmetric(plane: torch.Tensor, factor: int) -> torch.Tensor:
    """imfilter(plane, ones(f) / f^2, 'symmetric') at every f-th pixel, as in Wang's code."""
    # MATLAB's window starts (f - 1) // 2 before the pixel; 'symmetric' repeats the edge pixel itself.
    before, height, width = (factor - 1) // 2, *plane.shape[-2:]
    rows = _reflect(torch.arange(-before, height + factor, device=plane.device), height)
    columns = _reflect(torch.arange(-before, width + factor, device=plane.device), width)
    padded = plane[:, rows][:, :, columns]
    return F.avg_pool2d(padded, factor, factor)[:, : -(-height // factor), : -(-width // factor)]


def _reflect(index: torch.Tensor, length: int) -> torch.Tensor:
    index = index.remainder(2 * length)
    return torch.minimum(index, 2 * length - 1 - index)
