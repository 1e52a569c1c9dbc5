"""Real pictures in the rain: what int8 learns its ranges from, and what an exported network is checked on.

They are a user's own, or the bundled ones with rain on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UnrainError
from ..images import FORMATS, read_image
from ..pictures import FOLDER, SHOWERS

SIDE = 128  # what is looked at of each picture: enough for every layer, and seconds on a CPU


def pictures_in(folder: str | Path | None, most: int = 8) -> list[np.ndarray]:
    """uint8 RGB [H,W,3]: up to `most` pictures spread evenly over the folder's, or the bundled ones for None."""
    if folder is None:
        return bundled()
    folder = Path(folder)
    if not folder.is_dir():
        raise UnrainError(f"{folder} is no folder of pictures")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FORMATS and path.is_file())
    if not files:
        raise UnrainError(f"{folder} holds no pictures; it needs files ending in {' '.join(FORMATS)}")
    step = max(1, len(files) // most)
    return [read_image(path) for path in files[::step][:most]]


def bundled() -> list[np.ndarray]:
    """The pictures of the demo, in the rain."""
    from ..training.rain import add_rain, shower

    return [
        np.asarray(add_rain(read_image(FOLDER / file), shower(severity, seed), seed))
        for file, severity, seed in SHOWERS
    ]


def calibration(pictures: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """The user's and the bundled ones: dry pictures alone would leave no room for what rain does to the values."""
    return [*(pictures or []), *bundled()]


def tensors(folder: str | Path | None) -> list[Tensor]:
    """What a backend of the Engine calibrates with: [1,3,H,W] of the folder's and of the bundled pictures."""
    own = None if folder is None else pictures_in(folder, most=24)
    return [torch.from_numpy(picture) for picture in batches(calibration(own))]


def batches(pictures: Sequence[np.ndarray] | None, side: int = SIDE) -> list[np.ndarray]:
    """Pictures as the networks take them, float32 [1,3,H,W]: the middle of each, at most `side` x `side`."""
    cut = []
    for picture in bundled() if pictures is None else pictures:
        top, left = (max(0, (length - side) // 2) for length in picture.shape[:2])
        middle = picture[top : top + side, left : left + side]
        cut.append(np.ascontiguousarray(middle.transpose(2, 0, 1)[None].astype(np.float32) / 255))
    return cut
