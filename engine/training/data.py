"""Where training patches come from: clean pictures with generated rain, pairs, or time-lapse folders.

Every patch is a pure function of (seed, step, place in the batch): a killed run goes on with the patches it would have
had, and two processes together draw exactly what one process with twice the batch draws.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .cache import Pictures
from .camera import expose, mist
from .clutter import LIKE_RAIN, STREET, add_clutter
from .rain import DISTRIBUTIONS, dry_and_rainy, to_tensor


class Source(Protocol):
    """Draws one training example [3, patch, patch] twice: rainy and clean, or two rainy views."""

    def example(self, rng: np.random.Generator, patch: int) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class CleanSource:
    """(rainy, clean): clean pictures under generated rain, some left dry, some with clutter that must be kept.

    Of the dry ones half have clutter and half are the most rain-like of `choices` crops: what a network wipes away by
    mistake (grass, fur, branches) is rare among crops drawn blindly.
    """

    pictures: Pictures
    dry: float = 0.2
    clutter: float = 0.2
    choices: int = 3
    rain: str = "physical"  # a name in rain.DISTRIBUTIONS
    kinds: tuple[str, ...] = (*STREET, *LIKE_RAIN)  # of the clutter

    def example(self, rng: np.random.Generator, patch: int) -> tuple[Tensor, Tensor]:
        parameters, seed = DISTRIBUTIONS[self.rain](rng), int(rng.integers(2**31))
        if rng.random() < self.dry:
            scene = expose(mist(self.dry_scene(rng, patch), parameters.camera), parameters.camera, seed)
            return scene, scene
        clean, rainy = dry_and_rainy(self.scene(rng, patch), parameters, seed)
        return rainy, clean

    def scene(self, rng: np.random.Generator, patch: int) -> Tensor:
        cut = self._crop(rng, patch)
        if rng.random() < self.clutter:
            cut = self._cluttered(cut, rng)
        return _relit(to_tensor(cut), rng)

    def dry_scene(self, rng: np.random.Generator, patch: int) -> Tensor:
        if rng.random() < 0.5:
            return _relit(to_tensor(self._cluttered(self._crop(rng, patch), rng)), rng)
        cuts = [self._crop(rng, patch) for _ in range(self.choices)]
        return _relit(to_tensor(max(cuts, key=rain_likeness)), rng)

    def _cluttered(self, cut: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return add_clutter(cut, rng, str(rng.choice(self.kinds)))

    def _crop(self, rng: np.random.Generator, patch: int) -> np.ndarray:
        return crop(self.pictures[int(rng.integers(len(self.pictures)))], patch, rng)


@dataclass(frozen=True)
class StaticSource:
    """Two differently rainy views of one scene by one camera, made from clean pictures."""

    scenes: CleanSource

    def example(self, rng: np.random.Generator, patch: int) -> tuple[Tensor, Tensor]:
        scene = self.scenes.scene(rng, patch)
        draw = DISTRIBUTIONS[self.scenes.rain]
        first = draw(rng)
        second = replace(draw(rng), camera=first.camera)
        one, other = (dry_and_rainy(scene, rain, int(rng.integers(2**31)))[1] for rain in (first, second))
        return one, other


@dataclass(frozen=True)
class PairSource:
    """(rainy, clean) patches of pictures with six channels, as `pack_pairs` makes them."""

    pictures: Pictures

    def example(self, rng: np.random.Generator, patch: int) -> tuple[Tensor, Tensor]:
        both = to_tensor(turned(cut_out(self.pictures[int(rng.integers(len(self.pictures)))], patch, rng), rng))
        return both[:3], both[3:]


@dataclass(frozen=True)
class TimeLapseSource:
    """Two pictures of one scene at different moments. `scenes` holds the picture numbers of each scene."""

    pictures: Pictures
    scenes: tuple[tuple[int, ...], ...]

    def example(self, rng: np.random.Generator, patch: int) -> tuple[Tensor, Tensor]:
        scene = self.scenes[int(rng.integers(len(self.scenes)))]
        first, second = rng.choice(scene, 2, replace=False)
        both = np.concatenate([self.pictures[first], self.pictures[second]], axis=2)
        views = to_tensor(turned(cut_out(both, patch, rng), rng))
        return views[:3], views[3:]


def crop(picture: np.ndarray, patch: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of an RGB picture, flipped and turned at random; a third of the time of a reduced copy."""
    side = min(int(patch * rng.uniform(1.0, 2.2)), *picture.shape[:2]) if rng.random() < 0.35 else patch
    cut = cut_out(picture, max(side, patch), rng)
    if len(cut) > patch:
        cut = np.asarray(Image.fromarray(cut).resize((patch, patch), Image.Resampling.LANCZOS))
    return turned(cut, rng)


def rain_likeness(cut: np.ndarray, reach: int = 3) -> float:
    """How much of a picture is thin, upright and brighter than what is `reach` pixels left and right of it."""
    grey = cut.mean(axis=2, dtype=np.float32)
    beside = np.maximum(grey[:, : -2 * reach], grey[:, 2 * reach :])
    return float(np.clip(grey[:, reach:-reach] - beside, 0, None).mean())


def cut_out(picture: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random square [side, side, C], mirrored where the picture is smaller."""
    height, width = picture.shape[:2]
    top, left = int(rng.integers(max(height - side, 0) + 1)), int(rng.integers(max(width - side, 0) + 1))
    return filled(picture[top : top + side, left : left + side], side)


def filled(cut: np.ndarray, side: int) -> np.ndarray:
    """Mirror what is smaller than the square."""
    missing = [(0, max(side - length, 0)) for length in cut.shape[:2]]
    return np.pad(cut, [*missing, (0, 0)], mode="symmetric")


def turned(cut: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the eight ways to lay a square down."""
    cut = np.rot90(cut, int(rng.integers(4)))
    return cut[:, ::-1] if rng.random() < 0.5 else cut


def _relit(scene: Tensor, rng: np.random.Generator) -> Tensor:
    """Another exposure and white balance of the same scene, half of the time."""
    if rng.random() < 0.5:
        return scene
    gamma = float(np.exp(0.3 * rng.standard_normal()))
    gain = np.exp(0.06 * rng.standard_normal((3, 1, 1)) + 0.1 * rng.standard_normal())
    return (scene.pow(gamma) * torch.from_numpy(gain).float()).clamp(0, 1)


class Batches(Dataset):
    """Item `step` is that step's batch, whoever asks for it and whenever."""

    def __init__(self, source: Source, patch: int, batch: int, seed: int, rank: int = 0) -> None:
        self.source, self.patch, self.batch, self.seed, self.rank = source, patch, batch, seed, rank

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        places = range(self.rank * self.batch, (self.rank + 1) * self.batch)
        examples = [
            self.source.example(np.random.default_rng((self.seed, step, place)), self.patch) for place in places
        ]
        first, second = zip(*examples, strict=True)
        return torch.stack(first), torch.stack(second)


def loader(batches: Dataset, start: int, stop: int, workers: int) -> DataLoader:
    """The batches of steps start .. stop-1 in order, made ahead by `workers` processes (0: made when asked for)."""
    return DataLoader(batches, batch_size=None, sampler=range(start, stop), num_workers=workers)
