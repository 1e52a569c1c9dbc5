"""Numbers that no public data set gives: what a network does to dry pictures, and to light, middling and heavy rain.

python -m unrain.engine.training.examine srn --data DIR [--json]

The pictures are the middle 256 x 256 of those that `unrain train --data DIR` holds out, so nothing here was trained on:
all of them dry, every second one for the rest. All PSNRs are of 8-bit luminance (Y), in dB.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from ..evaluation.metrics import psnr_y
from ..models import load
from .cache import pack
from .clutter import KINDS, add_clutter
from .progress import middle
from .rain import dry_and_rainy, sample_parameters, to_array, to_tensor
from .setup import pictures_in, split

SEVERITIES = {"light rain": (0.1, 0.35), "middling rain": (0.4, 0.65), "heavy rain": (0.9, 1.0)}
SIDE = 256


def examine(model: nn.Module, scenes: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean PSNR in and out, and the smallest out, for each kind of input; dry inputs have no PSNR in."""
    found = {"dry": summary(model, ((scene, scene) for scene in scenes))}
    for kind in KINDS:
        found[f"dry, {kind}"] = summary(model, _cluttered(scenes[::2], kind))
    for name, (low, high) in SEVERITIES.items():
        found[name] = summary(model, _rained(scenes[::2], low, high))
    return found


def _cluttered(scenes: list[np.ndarray], kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for number, scene in enumerate(scenes):
        same = add_clutter(scene, np.random.default_rng((11, number)), kind)
        yield same, same


def _rained(scenes: list[np.ndarray], low: float, high: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for number, scene in enumerate(scenes):
        rng = np.random.default_rng((12, number))
        parameters = sample_parameters(rng, float(rng.uniform(low, high)))
        clean, rainy = dry_and_rainy(to_tensor(scene), parameters, number)
        yield to_array(rainy), to_array(clean)


def summary(model: nn.Module, pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    given, got = [], []
    for rainy, clean in pairs:
        got.append(psnr_y(derain(model, to_tensor(rainy)), clean))
        if rainy is not clean:
            given.append(psnr_y(rainy, clean))
    means = {"in": float(np.mean(given))} if given else {}
    return {**means, "out": float(np.mean(got)), "lowest": float(np.min(got))}


@torch.inference_mode()
def derain(model: nn.Module, picture: Tensor) -> np.ndarray:
    """[3, H, W] in [0, 1] to uint8 [H, W, 3], rounded."""
    return to_array(model(picture[None])[0])


def main(
    model: Annotated[str, typer.Argument(help="A name with shipped weights, or a weights file.")],
    data: Annotated[Path, typer.Option(help="The clean pictures it was trained on.")],
    cache: Annotated[Path, typer.Option(help="Folder for decoded pictures.")] = Path("runs/cache"),
    pictures: Annotated[int, typer.Option(min=1, help="How many of the held-out pictures.")] = 20,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    network = load(model).eval()
    held = pack(split(pictures_in(data), 20)[1], cache)
    scenes = [to_array(middle(held[n], SIDE)) for n in range(min(pictures, len(held)))]
    found = examine(network, scenes)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name, numbers in found.items():
        typer.echo(f"{name:16}" + "".join(f"  {key} {value:6.2f}" for key, value in numbers.items()))


if __name__ == "__main__":
    typer.run(main)
