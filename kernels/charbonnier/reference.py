"""The Charbonnier penalty in plain PyTorch: sqrt((pred - target)^2 + eps^2), a smooth L1."""

import torch

from ..library import accumulator

Tensor = torch.Tensor


def eps_squared(eps: float, wide: torch.dtype) -> float:
    """At least the smallest normal number: a square of zero would make the gradient 0 / 0 where the two agree."""
    return max(eps * eps, torch.finfo(wide).tiny)


def forward(pred: Tensor, target: Tensor, eps: float = 1e-3, reduction: str = "mean") -> Tensor:
    wide = accumulator(pred.dtype)
    difference = pred.to(wide) - target.to(wide)
    penalty = (difference * difference + eps_squared(eps, wide)).sqrt()
    return _REDUCE[reduction](penalty).to(pred.dtype)


def backward(grad: Tensor, pred: Tensor, target: Tensor, eps: float, reduction: str) -> Tensor:
    """The gradient to pred; that to target is its negative."""
    wide = accumulator(pred.dtype)
    difference = pred.to(wide) - target.to(wide)
    slope = difference / (difference * difference + eps_squared(eps, wide)).sqrt()
    if reduction == "mean":
        slope = slope / max(pred.numel(), 1)
    return (slope * grad.to(wide)).to(pred.dtype)


_REDUCE = {"mean": torch.mean, "sum": torch.sum, "none": lambda penalty: penalty}
REDUCTIONS = tuple(_REDUCE)
