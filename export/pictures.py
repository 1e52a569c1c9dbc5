"""The real pictures an export is checked on: a folder of the user's, or the bundled ones with rain on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..engine.errors import UnrainError
from ..engine.images import FORMATS, read_image

FRAMES = 30  # of a clip: what a state gathers, and what it loses, shows within a second
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
    from ..engine.pictures import FOLDER, SHOWERS
    from ..engine.training.rain import add_rain, shower

    return [
        np.asarray(add_rain(read_image(FOLDER / file), shower(severity, seed), seed))
        for file, severity, seed in SHOWERS
    ]


def calibration(pictures: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """The user's and the bundled ones: dry pictures alone would leave no room for what rain does to the values."""
    return [*(pictures or []), *bundled()]


def batches(pictures: Sequence[np.ndarray] | None, side: int = SIDE) -> list[np.ndarray]:
    """Pictures as the networks take them, float32 [1,3,H,W]: the middle of each, at most `side` x `side`."""
    cut = []
    for picture in bundled() if pictures is None else pictures:
        top, left = (max(0, (length - side) // 2) for length in picture.shape[:2])
        middle = picture[top : top + side, left : left + side]
        cut.append(np.ascontiguousarray(middle.transpose(2, 0, 1)[None].astype(np.float32) / 255))
    return cut


def clips(pictures: Sequence[np.ndarray], side: int = 80) -> list[np.ndarray]:
    """Clips [FRAMES,3,H,W]: a camera that goes to and fro over each picture [1,3,H,W], in rain that falls on."""
    from ..engine.training.rain import rain_on_video, shower

    made = []
    for number, scene in enumerate(batches([_codes(picture) for picture in pictures], side)):
        height, width = scene.shape[2:]
        reach = max(1, min(height, width) // 4)
        places = [reach - abs(reach - step % (2 * reach)) for step in range(FRAMES)]
        dry = [_codes(scene[:, :, place : place + height - reach, place : place + width - reach]) for place in places]
        rainy = rain_on_video(iter(dry), shower(0.3, number), seed=number, fps=30)
        made.append(np.concatenate(batches(list(rainy), side)))
    return made


def _codes(picture: np.ndarray) -> np.ndarray:
    """[1,3,H,W] as uint8 [H,W,3]."""
    return np.ascontiguousarray(np.rint(picture[0].transpose(1, 2, 0) * 255).astype(np.uint8))
