"""What an export is checked on: the bundled pictures in rain, and clips made of pictures where a state is carried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engine.images import read_image
from ..engine.runtime.calibration import batches

FRAMES = 30  # of a clip: what a state gathers, and what it loses, shows within a second


def bundled() -> list[np.ndarray]:
    """The pictures of the demo, in the rain: uint8 RGB [H,W,3]."""
    from ..engine.pictures import FOLDER, SHOWERS
    from ..engine.training.rain import add_rain, shower

    return [
        np.asarray(add_rain(read_image(FOLDER / file), shower(severity, seed), seed))
        for file, severity, seed in SHOWERS
    ]


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
