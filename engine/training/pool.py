"""Batches for a network that trains faster than rain can be drawn: examples are kept and used a few times.

The pool of a step holds the newest examples up to a number that grows with the steps; example n is a pure function of
(seed, n): a killed run draws its pool anew and goes on with the batches it would have had. With two workers one has
the single pictures and the other the clips; with more, each draws a whole pool of its own.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .clips import ClipSource
from .data import Batches, Source
from .recipes import Recipe

_FIRST = 64  # examples to begin with


class Drawn(Protocol):
    def example(self, rng: np.random.Generator, patch: int) -> tuple[Tensor, Tensor]: ...


@dataclass
class Pool:
    """The examples of one source as bytes; `renewal` of them are new in each batch, in the mean."""

    source: Drawn
    patch: int
    batch: int
    size: int
    renewal: float
    seed: int
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def draw(self, turn: int) -> tuple[Tensor, Tensor]:
        """The batch of the pool's own step `turn`, some of it mirrored."""
        newest = _FIRST + int(turn * self.renewal)
        alive = range(max(newest - self.size, 0), newest)
        for gone in [number for number in self.kept if number not in alive]:
            del self.kept[gone]
        rng = np.random.default_rng((self.seed, turn, 1))
        pairs = []
        for number in rng.choice(len(alive), self.batch, replace=False) + alive.start:
            pair = self.kept.get(int(number)) or self._make(int(number))
            pairs.append(tuple(side.flip(-1) for side in pair) if rng.random() < 0.5 else pair)
        first, second = zip(*pairs, strict=True)
        return torch.stack(first).float() / 255, torch.stack(second).float() / 255

    def _make(self, number: int) -> tuple[Tensor, Tensor]:
        drawn = self.source.example(np.random.default_rng((self.seed, number, 2)), self.patch)
        first, second = ((side.clamp(0, 1) * 255 + 0.5).to(torch.uint8) for side in drawn)
        self.kept[number] = first, second
        return first, second


class VideoBatches(Dataset):
    """Item `step`: clips [B/4, T, 3, H, W] at odd steps, single pictures [B, 3, H, W] at even ones."""

    def __init__(self, source: ClipSource, patch: int, batch: int, size: int, seed: int) -> None:
        singles: Source = source.scenes
        self.singles = Pool(singles, patch, batch, 2 * size, batch / 8, seed)
        self.clips = Pool(source, patch, max(batch // 4, 1), size, batch / 32, seed + 1)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        return (self.clips if step % 2 else self.singles).draw(step // 2)


def batches_of(source: Source, recipe: Recipe, seed: int, rank: int = 0) -> Dataset:
    """What the recipe trains on, by step. Processes that train together draw different pools."""
    if recipe.frames:
        return VideoBatches(source, recipe.patch, recipe.batch, recipe.pool, seed + 1000 * rank)
    return Batches(source, recipe.patch, recipe.batch, seed, rank)
