"""How far a faster way may be from the fp32 reference, and the picture it is tried on."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..images import read_image
from ..pictures import FOLDER
from ..psnr import psnr

LIMITS = {"fp32": 60.0, "bf16": 50.0, "fp16": 50.0, "int8": 40.0}  # dB, against the reference on real pictures


def decibels(output: Tensor, reference: Tensor) -> float:
    """PSNR of the picture that comes out, in [0,1]. Where both are NaN they agree; where one is, they do not."""
    output, reference = output.clamp(0, 1).double(), reference.clamp(0, 1).double()
    both = output.isnan() & reference.isnan()
    error = float((output - reference).masked_fill(both, 0).square().mean())
    return 0.0 if error != error else psnr(error)


@cache
def sample(height: int, width: int) -> Tensor:
    """A bundled picture in synthetic rain, [1,3,H,W] in [0,1]; a small one is mirrored until it is large enough."""
    return _fitted(rained(read_image(FOLDER / "chelsea.png"), seed=0), height, width)


def _fitted(picture: np.ndarray, height: int, width: int) -> Tensor:
    """Its top left corner as [1,3,height,width], mirrored where it ends."""
    rows, columns = (_mirrored(wanted, side) for wanted, side in zip((height, width), picture.shape[:2], strict=True))
    return torch.from_numpy(np.ascontiguousarray(picture[rows][:, columns])).permute(2, 0, 1)[None].float().div_(255)


def _mirrored(wanted: int, side: int) -> np.ndarray:
    ramp = np.arange(wanted) % (2 * side)
    return np.minimum(ramp, 2 * side - 1 - ramp)


def rained(picture: np.ndarray, seed: int) -> np.ndarray:
    """Bright slanted streaks, enough to drive a network as rain does; training has the real generator."""
    random = np.random.default_rng(seed)
    height, width = picture.shape[:2]
    drops = random.random((height, width)) * (random.random((height, width)) > 0.995)
    streaks = sum(np.roll(drops, (step, step // 3), (0, 1)) for step in range(16))
    return np.clip(picture + 140.0 * np.minimum(streaks, 1)[..., None], 0, 255).astype(np.uint8)
