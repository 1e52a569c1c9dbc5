"""Does deraining help a detector? People found on clean, rainy and derained frames of one clip.

python -m unrain.engine.training.detect srn --clip vtest.avi --frames 24

The rain is one shower of this package's generator; what counts as right is what the detector finds on the clean frames.
Any other detector: `unrain.engine.evaluation.detector.compare_detections`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from ..errors import UnrainError
from ..evaluation.detector import HogPeopleDetector, compare_detections
from ..evaluation.evaluate import Carrying
from ..models import is_for_video, load
from .examine import derain
from .rain import rain_on_video, sample_parameters, to_tensor


def frames_of(clip: Path, count: int, every: int) -> Iterator[np.ndarray]:
    """RGB frames 0, `every`, 2 `every`, ... of a clip."""
    import cv2

    reader = cv2.VideoCapture(str(clip))
    if not reader.isOpened():
        raise UnrainError(f"{clip} cannot be opened as a clip.")
    for _ in range(count):
        there, frame = reader.read()
        if not there:
            return
        yield np.ascontiguousarray(frame[:, :, ::-1])
        for _ in range(every - 1):
            reader.grab()


def main(
    model: Annotated[str, typer.Argument(help="A name with shipped weights, or a weights file.")],
    clip: Annotated[Path, typer.Option(help="A clip in good weather.")],
    frames: Annotated[int, typer.Option(min=1)] = 24,
    every: Annotated[int, typer.Option(min=1, help="Take one frame of so many.")] = 30,
    severity: Annotated[float, typer.Option(min=0, max=1)] = 0.55,
    seed: Annotated[int, typer.Option(help="Of the rain.")] = 0,
    carry: Annotated[
        bool, typer.Option("--carry", help="Carry the network's state: take frames close to each other.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    network = load(model).eval()
    if carry:
        if not is_for_video(network):
            raise UnrainError(f"{model} has no state to carry.")
        network = Carrying(network)
    rain = sample_parameters(np.random.default_rng((13, seed)), severity)
    clean = list(frames_of(clip, frames, every))
    rainy = list(rain_on_video(clean, rain, seed, fps=10 / every))
    clips = {"clean": clean, "rainy": rainy, "derained": (derain(network, to_tensor(frame)) for frame in rainy)}
    scores = compare_detections(HogPeopleDetector(), clips)
    found = {name: score.to_dict() for name, score in scores.items()}
    typer.echo(json.dumps({"clip": clip.name, "frames": len(clean), "severity": severity, **found}, indent=2))


if __name__ == "__main__":
    typer.run(main)
