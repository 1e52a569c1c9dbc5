"""Does an exported network compute the same as the PyTorch one? Real pictures through both, and what differs.

The rule, on pictures of [0, 1] with peak 1, over the worst picture: at least 60 dB in fp32, 50 dB in half precision and
40 dB in int8, and every number finite. What carries a state is held to it in every frame of clips, with its own state
running.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..engine.errors import UnrainError
from ..engine.psnr import psnr
from ..engine.runtime.fidelity import LIMITS

if TYPE_CHECKING:
    from torch import nn

RULE = LIMITS  # dB by precision; the Engine chooses by the same


class Fidelity(NamedTuple):
    """How near an exported network is to the reference, over all pictures."""

    precision: str
    decibels: float  # of the worst picture; infinite when all are equal
    largest_code: int  # the largest difference of an 8-bit value
    not_finite: int  # how many numbers were NaN or infinite
    pictures: int
    first_broken: str | None = None  # the first layer whose values do not fit into half precision

    @property
    def required(self) -> float:
        return RULE[self.precision]

    @property
    def passed(self) -> bool:
        return self.not_finite == 0 and self.first_broken is None and self.decibels >= self.required

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        return (
            f"{self.precision} {verdict}: {self.decibels:.1f} dB on the worst of {self.pictures} pictures "
            f"(at least {self.required:.0f}), largest difference {self.largest_code} codes, "
            f"{self.not_finite} values not finite"
            + (f", {self.first_broken} does not fit into half precision" if self.first_broken else "")
        )


Run = Callable[[np.ndarray], np.ndarray]  # float32 [1,3,H,W] or a clip's frames [T,3,H,W] in [0,1] -> the same


def compare(run: Run, reference: Run, clips: Sequence[np.ndarray], precision: str) -> Fidelity:
    """Both functions on every picture (float32 [1,3,H,W] in [0,1]) or clip [T,3,H,W], of which each frame counts as a
    picture. They are compared as what is shown: clamped to [0, 1]."""
    if not clips:
        raise UnrainError("there is no picture to verify on")
    worst, largest, broken = np.inf, 0, 0
    for clip in clips:
        found, expected = run(clip), reference(clip).clip(0, 1)
        if found.shape != expected.shape:
            raise UnrainError(f"the exported network gives {list(found.shape)} where {list(expected.shape)} is due")
        broken += int((~np.isfinite(found)).sum())
        found = np.nan_to_num(found.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
        error = float(np.mean((found - expected) ** 2, axis=(1, 2, 3)).max())
        worst = min(worst, psnr(error))
        codes = np.rint(found * 255) - np.rint(expected * 255)
        largest = max(largest, int(np.abs(codes).max()))
    return Fidelity(precision, float(worst), largest, broken, sum(map(len, clips)))


def reference(model: nn.Module, stages: int | None = None) -> Run:
    """The PyTorch network in fp32 on the CPU."""
    import torch

    from ..engine.models import with_stages
    from ..engine.runtime.backends.eager import Eager

    runner = Eager(with_stages(model, stages), "fp32", torch.device("cpu"))
    return lambda picture: runner.run(torch.from_numpy(picture)).numpy()


def carried_reference(model: nn.Module, stages: int | None = None) -> Run:
    """The same on the frames of a clip, each from the state that the one before left."""
    import torch

    from ..engine.models import with_stages
    from ..engine.runtime.backends.eager import Eager

    return carried(Eager(with_stages(model, stages), "fp32", torch.device("cpu")))


def carried(runner: Any) -> Run:
    """A runner with `steps` as a function of a clip; each frame goes on from the state that the one before left."""
    import torch

    def run(clip: np.ndarray) -> np.ndarray:
        state, found = None, []
        for number in range(len(clip)):
            *_, (picture, state) = runner.steps(torch.from_numpy(clip[number : number + 1]), state)
            found.append(picture.numpy().copy())
        return np.concatenate(found)

    return run


def as_frames(run: Run) -> Run:
    """What a camera sees of it: values rounded to the nearest 8-bit code."""
    return lambda picture: (np.rint(run(picture).clip(0, 1) * 255) / 255).astype(np.float32)
