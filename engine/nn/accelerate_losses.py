"""Charbonnier and SSIM losses as people write them, and their fused forms.

A candidate is a module without parameters and children whose forward takes two tensors and returns one number. What it
computes is found by asking it: its value for equal images is eps (Charbonnier), or a known end of the scale (SSIM).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import charbonnier, ssim
from ...kernels.charbonnier import reference as charbonnier_reference
from ...kernels.ssim import reference as ssim_reference
from .accelerate_probe import SAME_FORMULA, at, call_original, keeps_to_itself, prove
from .accelerate_swap import Recipe, plain_settings, required_arguments

# loss = offset + scale * SSIM
SCALES = {"1 - SSIM": (1.0, -1.0), "-SSIM": (0.0, -1.0), "SSIM": (0.0, 1.0), "(1 - SSIM) / 2": (0.5, -0.5)}


def recognise(module: nn.Module) -> Recipe | None:
    """The proven fused form of a loss; None where it is no candidate, or is none of the known losses."""
    names = required_arguments(type(module).forward)
    childless = next(module.children(), None) is None and next(module.parameters(), None) is None
    if names is None or len(names) != 3 or not childless or type(module).__module__.startswith("torch."):
        return None
    trials = _trials()
    try:
        wide = at(copy.deepcopy(module), "cpu", torch.float64)
        found = [call_original(wide, trial) for trial in trials]
        at_zero = call_original(wide, (trials[0][0], trials[0][0]))
    except Exception:
        return None  # whatever it is, it is no loss of two pictures
    if not all(isinstance(value, Tensor) and value.dim() == 0 for value in (*found, at_zero)):
        return None
    form = _charbonnier(trials[0], float(found[0]), float(at_zero)) or _ssim(trials[0], float(found[0]), float(at_zero))
    if form is None:
        return None
    kind, *rest = form
    recipe = kind(names[1:], plain_settings(module, wide), *rest)
    keeps_to_itself(wide, trials[0])
    prove(module, recipe, trials)
    return recipe


@dataclass(frozen=True)
class _Loss(Recipe):
    def arguments(self, module: nn.Module, x: Any, y: Any) -> tuple[Any, ...] | None:
        """Two pictures of one shape and kind; broadcasting and mixed dtypes stay with the original."""
        if not (isinstance(x, Tensor) and isinstance(y, Tensor) and x.is_floating_point()):
            return None
        same = x.shape == y.shape and x.dtype == y.dtype and x.device == y.device
        return (x, y) if same and self.takes(x) else None

    def takes(self, x: Tensor) -> bool:
        return True


@dataclass(frozen=True)
class Charbonnier(_Loss):
    eps: float
    reduction: str

    def describe(self) -> str:
        return f"Charbonnier loss, eps {self.eps:g}, {self.reduction}"

    def run(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return charbonnier(x, y, self.eps, self.reduction)


@dataclass(frozen=True)
class SSIM(_Loss):
    form: str
    window: str
    data_range: float

    def describe(self) -> str:
        return f"{self.form}, window {self.window}, range {self.data_range:g}"

    def takes(self, x: Tensor) -> bool:
        return x.dim() == 4 and (self.window == "same" or min(x.shape[2:]) >= ssim_reference.TAPS)

    def run(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        offset, scale = SCALES[self.form]
        value = ssim(x, y, self.window, self.data_range)
        value = value if scale == 1 else value * scale
        return value + offset if offset else value


def _charbonnier(trial: tuple[Tensor, Tensor], found: float, at_zero: float) -> tuple[Any, ...] | None:
    for reduction, count in (("mean", 1), ("sum", trial[0].numel())):
        eps = at_zero / count
        if 0 < eps < math.inf:
            # what was meant is the round number, not what summing made of it
            eps = float(f"{eps:.12g}")
            if _close(float(charbonnier_reference.forward(*trial, eps, reduction)), found):
                return Charbonnier, eps, reduction
    return None


def _ssim(trial: tuple[Tensor, Tensor], found: float, at_zero: float) -> tuple[Any, ...] | None:
    for (form, (offset, scale)), window, data_range in product(SCALES.items(), ssim_reference.WINDOWS, (1.0, 255.0)):
        if abs(offset + scale - at_zero) > SAME_FORMULA:
            continue
        if _close(offset + scale * float(ssim_reference.forward(*trial, window, data_range)), found):
            return SSIM, form, window, data_range
    return None


def _close(value: float, found: float) -> bool:
    return abs(value - found) <= SAME_FORMULA * abs(found)


def _trials() -> list[tuple[Tensor, Tensor]]:
    """Pictures in [0, 1], in [-1, 1] and in [0, 255]: some losses look at the range of what they are given."""

    def pair(*shape: int, low: float, high: float) -> tuple[Tensor, Tensor]:
        x = torch.rand(shape, dtype=torch.float64, generator=generator)
        y = (x + 0.2 * torch.randn(shape, dtype=torch.float64, generator=generator)).clamp(0, 1)
        return low + (high - low) * x, low + (high - low) * y

    generator = torch.Generator().manual_seed(0)
    return [
        pair(2, 3, 24, 20, low=0.0, high=1.0),
        pair(1, 3, 17, 31, low=-1.0, high=1.0),
        pair(1, 3, 16, 16, low=0.0, high=255.0),
    ]
