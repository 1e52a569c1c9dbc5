"""Structural similarity in plain PyTorch: an 11-tap Gaussian window of sigma 1.5, separable, per channel.

    S = (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sxx + syy + C2)),  C1 = (0.01 L)^2, C2 = (0.03 L)^2

with local means m, and variances and covariance s as the mean of products minus the product of means.
"""

import math

import torch
import torch.nn.functional as F

from ..library import accumulator

Tensor = torch.Tensor
TAPS = 11
SIGMA = 1.5
WINDOWS = ("same", "valid")


def forward(x: Tensor, y: Tensor, window: str = "same", data_range: float = 1.0) -> Tensor:
    """x, y [B,C,H,W] -> the mean of S over batch, channels and places."""
    wide = accumulator(x.dtype)
    top, bottom = _parts(_moments(x.to(wide), y.to(wide), window), data_range)
    return (top[0] * top[1] / (bottom[0] * bottom[1])).mean().to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, y: Tensor, window: str, data_range: float, want: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    wide = accumulator(x.dtype)
    a, b = x.to(wide), y.to(wide)
    moments = _moments(a, b, window)
    (top1, top2), (bottom1, bottom2) = _parts(moments, data_range)
    mean_a, mean_b = moments[:2]
    share = grad.to(wide) / max(mean_a.numel(), 1)
    bottom = bottom1 * bottom2
    similarity = top1 * top2 / bottom
    # Gradients to the five windowed moments: means of a, b, a^2, b^2 (the same for both squares), ab.
    to_square = -share * similarity / bottom2
    to_product = share * 2 * top1 / bottom
    ring = share * 2 * (top2 - top1) / bottom
    slope = share * 2 * similarity * (1 / bottom2 - 1 / bottom1)
    back = _spread(
        torch.stack([ring * mean_b + slope * mean_a, ring * mean_a + slope * mean_b, to_square, to_product]), window
    )
    grad_x = (back[0] + 2 * a * back[2] + b * back[3]).to(x.dtype) if want[0] else None
    grad_y = (back[1] + 2 * b * back[2] + a * back[3]).to(y.dtype) if want[1] else None
    return grad_x, grad_y


def taps() -> list[float]:
    """The 11 weights of the window, which sum to one."""
    weights = [math.exp(-((k - TAPS // 2) ** 2) / (2 * SIGMA**2)) for k in range(TAPS)]
    return [weight / sum(weights) for weight in weights]


def _parts(moments: Tensor, data_range: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y, square_x, square_y, product = moments
    both = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    return (2 * both + c1, 2 * (product - both) + c2), (squares + c1, square_x + square_y - squares + c2)


def _moments(x: Tensor, y: Tensor, window: str) -> Tensor:
    """[5,B,C,H',W']: the windowed means of x, y, x^2, y^2 and xy."""
    return _blur(torch.stack([x, y, x * x, y * y, x * y]), TAPS // 2 if window == "same" else 0)


def _spread(grads: Tensor, window: str) -> Tensor:
    """The transpose of the window; it is symmetric, so only the padding differs."""
    return _blur(grads, TAPS // 2 if window == "same" else TAPS - 1)


def _blur(images: Tensor, padding: int) -> Tensor:
    weights = torch.tensor(taps(), dtype=images.dtype, device=images.device)
    flat = images.reshape(-1, 1, *images.shape[-2:])
    flat = F.conv2d(flat, weights.view(1, 1, 1, -1), padding=(0, padding))
    flat = F.conv2d(flat, weights.view(1, 1, -1, 1), padding=(padding, 0))
    return flat.reshape(*images.shape[:-2], *flat.shape[-2:])
