"""Numbers that no public data set gives: what a network does to dry pictures, and to light, middling and heavy rain.

python -m unrain.engine.training.examine srn --data DIR [--clean DIR] [--json]

The pictures are the middle 256 x 256 of those that `unrain train --data DIR` holds out, so nothing here was trained on:
all of them dry, every second one for the rest; those of `--clean` are other pictures without rain, whole. A network
that carries a state is measured on clips as well: drawn clutter in motion in the fourth frame, a standing scene in the
sixth, and rain on moving clips in the fourth, with the state and without. All PSNRs are of 8-bit luminance, in dB.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from ..evaluation.metrics import psnr_y
from ..images import read_image
from ..models import is_for_video, load
from .cache import Pictures, pack
from .clips import clips_of, draw_motion, filmed
from .clutter import STREET, add_clutter
from .data import CleanSource
from .progress import middle
from .rain import dry_and_rainy, sample_parameters, to_array, to_tensor
from .setup import pictures_in, split

SEVERITIES = {"light rain": (0.1, 0.35), "middling rain": (0.4, 0.65), "heavy rain": (0.9, 1.0)}
SIDE = 256
MOVING, STANDING = 4, 6  # frames before one is measured
SPOILT = 36.0  # a dry picture below it shows the damage


def examine(model: nn.Module, scenes: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean PSNR in and out, and the smallest out, for each kind of input; dry inputs have no PSNR in."""
    found = {"dry": summary(model, ((scene, scene) for scene in scenes))}
    for kind in STREET:
        found[f"dry, {kind}"] = summary(model, _cluttered(scenes[::2], kind))
    for name, (low, high) in SEVERITIES.items():
        found[name] = summary(model, _rained(scenes[::2], low, high))
    return found


def examine_clips(model: nn.Module, scenes: list[np.ndarray], pictures: Pictures) -> dict[str, dict[str, float]]:
    """The same in motion, for a network with a state."""
    found = {"dry, standing": _last_of(model, (_standing(scene) for scene in scenes))}
    for kind in STREET:
        drawn = (same for same, _ in _cluttered(scenes[::2], kind))
        found[f"dry, {kind}, moving"] = _last_of(model, map(_moving, drawn, range(len(scenes))))
    clips = clips_of(CleanSource(pictures, rain="wide"), MOVING)
    clips = replace(clips, scenes=replace(clips.scenes, dry=0.0), still=0.0, cut=0.0)
    pairs = [clips.example(np.random.default_rng((13, number)), SIDE // 2) for number in range(2 * len(scenes))]
    found["rain, moving"] = _last_of(model, pairs)
    found["rain, moving, no state"] = summary(model, ((to_array(r[-1]), to_array(c[-1])) for r, c in pairs))
    return found


def examine_clean(model: nn.Module, folder: Path) -> dict[str, dict[str, float]]:
    """Clean pictures of another set as single ones and, where there is a state, after standing still."""
    files = pictures_in(folder)
    found = {"clean": _spoilt([psnr_y(derain(model, to_tensor(p)), p) for p in map(read_image, files)])}
    if is_for_video(model):
        clips = (_standing(read_image(file)) for file in files)
        found["clean, standing"] = _spoilt([_last(model, *clip)[1] for clip in clips])
    return found


def _spoilt(values: list[float]) -> dict[str, float]:
    below = float(sum(value < SPOILT for value in values))
    return {"median": float(np.median(values)), "lowest": min(values), "below 36": below}


def _standing(scene: np.ndarray) -> tuple[Tensor, Tensor]:
    clip = to_tensor(scene).expand(STANDING, -1, -1, -1)
    return clip, clip


def _moving(scene: np.ndarray, number: int) -> tuple[Tensor, Tensor]:
    motion = draw_motion(np.random.default_rng((14, number)), MOVING)
    clip = filmed(to_tensor(scene), motion, SIDE - 64)
    return clip, clip


def _last_of(model: nn.Module, clips: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Of the last frame of each clip."""
    given, got = zip(*(_last(model, *clip) for clip in clips), strict=True)
    rainy = [value for value in given if np.isfinite(value)]
    means = {"in": float(np.mean(rainy))} if rainy else {}
    return {**means, "out": float(np.mean(got)), "lowest": float(np.min(got))}


@torch.inference_mode()
def _last(model: nn.Module, rainy: Tensor, clean: Tensor) -> tuple[float, float]:
    state = model.initial_state(rainy[:1])
    for frame in rainy:
        picture, state = model.step(frame[None], state)
    wanted = to_array(clean[-1])
    return psnr_y(to_array(rainy[-1]), wanted), psnr_y(to_array(picture[0]), wanted)


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
    clean: Annotated[Path | None, typer.Option(help="Pictures without rain that were never trained on.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    network = load(model).eval()
    held = pack(split(pictures_in(data), 20)[1], cache)
    scenes = [to_array(middle(held[n], SIDE)) for n in range(min(pictures, len(held)))]
    found = examine(network, scenes)
    if is_for_video(network):
        found |= examine_clips(network, scenes, held)
    if clean is not None:
        found |= examine_clean(network, clean)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name, numbers in found.items():
        typer.echo(f"{name:24}" + "".join(f"  {key} {value:6.2f}" for key, value in numbers.items()))


if __name__ == "__main__":
    typer.run(main)
