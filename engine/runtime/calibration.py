"""The pictures that int8 learns its ranges from, in the Engine as in an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UnrainError
from ..images import FORMATS, read_image
from ..pictures import FOLDER, SHOWERS
from .fidelity import rained

SIDE = 128  # what is looked at of each picture: enough for every layer, and seconds on a CPU


def pictures_in(folder: str | Path, most: int = 8) -> list[np.ndarray]:
    """uint8 RGB [H,W,3]: up to `most` pictures, spread evenly over the folder's."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UnrainError(f"{folder} is no folder of pictures")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FORMATS and path.is_file())
    if not files:
        raise UnrainError(f"{folder} holds no pictures; it needs files ending in {' '.join(FORMATS)}")
    step = max(1, len(files) // most)
    return [read_image(path) for path in files[::step][:most]]


def calibration(pictures: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """The user's, and bundled ones in rain: dry pictures alone would leave no room for what rain does to the values."""
    return [*(pictures or []), *(rained(read_image(FOLDER / file), seed) for file, _, seed in SHOWERS)]


def tensors(folder: str | Path | None) -> list[Tensor]:
    """What a backend of the Engine calibrates with: [1,3,H,W] of the folder's and of the bundled pictures."""
    own = None if folder is None else pictures_in(folder, most=24)
    return [torch.from_numpy(picture) for picture in batches(calibration(own))]


def batches(pictures: Sequence[np.ndarray], side: int = SIDE) -> list[np.ndarray]:
    """Pictures as the networks take them, float32 [1,3,H,W]: the middle of each, at most `side` x `side`."""
    cut = []
    for picture in pictures:
        top, left = (max(0, (length - side) // 2) for length in picture.shape[:2])
        middle = picture[top : top + side, left : left + side]
        cut.append(np.ascontiguousarray(middle.transpose(2, 0, 1)[None].astype(np.float32) / 255))
    return cut
