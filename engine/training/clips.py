"""Clips made of stills: a camera that pans, zooms, shakes, cuts or stands, and rain that falls on through all of it."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import expose, mist
from .data import CleanSource
from .rain import DISTRIBUTIONS, dry_and_rainy

_FPS = (24.0, 25.0, 30.0, 60.0)
# So far a clip of `frames` frames can move out of its patch.
_REACH = 24


class Motion(NamedTuple):
    """Where the camera is in each frame, against the first: pixels right and down, and a scale."""

    right: np.ndarray
    down: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class ClipSource:
    """(rainy, clean), each [frames, 3, patch, patch]: scenes of a CleanSource in motion.

    A fifth stands still, a fifth has something moving before it, a few are cut to another scene.
    """

    scenes: CleanSource
    frames: int = 4
    still: float = 0.2
    layered: float = 0.2
    cut: float = 0.06
    incoherent: float = 0.25  # the rain of every frame is another one, as in made sets

    def example(self, rng: np.random.Generator, patch: int) -> tuple[Tensor, Tensor]:
        dry = rng.random() < self.scenes.dry
        frames = self.moving(rng, patch, dry)
        if rng.random() < self.cut:
            after = int(rng.integers(1, self.frames))
            frames = torch.cat((frames[:after], self.moving(rng, patch, dry)[after:]))
        rain, seed = DISTRIBUTIONS[self.scenes.rain](rng), int(rng.integers(2**31))
        fps, coherent = float(rng.choice(_FPS)), rng.random() >= self.incoherent
        pairs = []
        for number, frame in enumerate(frames):
            falling, seconds = (seed, number / fps) if coherent else (seed + number, 0.0)
            if dry:
                clean = expose(mist(frame, rain.camera), rain.camera, seed + number)
                pairs.append((clean, clean))
            else:
                pairs.append(dry_and_rainy(frame, rain, falling, seconds)[::-1])
        rainy, clean = zip(*pairs, strict=True)
        return torch.stack(rainy), torch.stack(clean)

    def moving(self, rng: np.random.Generator, patch: int, dry: bool) -> Tensor:
        """The frames without rain."""
        side = patch + 2 * _REACH
        scene = self.scenes.dry_scene(rng, side) if dry else self.scenes.scene(rng, side)
        if rng.random() < self.still:
            return scene[:, _REACH:-_REACH, _REACH:-_REACH].expand(self.frames, -1, -1, -1)
        frames = filmed(scene, draw_motion(rng, self.frames), patch)
        if rng.random() < self.layered:
            before = filmed(self.scenes.scene(rng, side), draw_motion(rng, self.frames), patch)
            shape = filmed(blob(rng, side), draw_motion(rng, self.frames), patch)
            frames = frames + shape * (before - frames)
        return frames


def draw_motion(rng: np.random.Generator, frames: int) -> Motion:
    """A pan of 0.3 to 6 pixels a frame, mostly sideways, some with a zoom or a shake."""
    speed, angle = float(np.exp(rng.uniform(np.log(0.3), np.log(6)))), float(rng.normal(0, 0.5))
    heading = speed * np.array([np.cos(angle) * rng.choice([-1, 1]), np.sin(angle)])
    time = np.arange(frames)
    shake = rng.normal(0, rng.exponential(0.8), (2, frames)) if rng.random() < 0.3 else np.zeros((2, frames))
    zoom = float(rng.normal(0, 0.01)) if rng.random() < 0.3 else 0.0
    right, down = np.clip(heading[:, None] * time + shake, 3 - _REACH, _REACH - 3)
    return Motion(right, down, np.exp(zoom * time))


def filmed(scene: Tensor, motion: Motion, patch: int) -> Tensor:
    """[C, S, S] seen by a moving camera: [frames, C, patch, patch], read with cubic interpolation."""
    side = scene.shape[-1]
    middle = (torch.arange(patch) - (patch - 1) / 2) * (2 / side)
    frames = len(motion.scale)
    grid = torch.empty(frames, patch, patch, 2)
    for number, (right, down, scale) in enumerate(zip(*motion, strict=True)):
        grid[number, ..., 0] = middle[None] * float(scale) + float(right) * 2 / side
        grid[number, ..., 1] = middle[:, None] * float(scale) + float(down) * 2 / side
    seen = scene[None].expand(frames, -1, -1, -1)
    return F.grid_sample(seen, grid, "bicubic", "reflection", align_corners=False).clamp(0, 1)


def blob(rng: np.random.Generator, side: int) -> Tensor:
    """The outline [1, side, side] of something before the scene: a post, a box or a disc, 1 inside."""
    rows, columns = torch.arange(side)[:, None].float(), torch.arange(side)[None].float()
    (row, column), (tall, wide) = rng.uniform(0.25, 0.75, 2) * side, np.exp(rng.uniform(np.log(2), np.log(40), 2))
    if rng.random() < 0.3:
        tall = float(side)
    down, right = (rows - row).abs() / tall, (columns - column).abs() / wide
    away = torch.maximum(down, right) if rng.random() < 0.6 else (down.square() + right.square()).sqrt()
    return ((1 - away) * min(tall, wide) + 0.5).clamp(0, 1)[None]


def clips_of(scenes: CleanSource, frames: int) -> ClipSource:
    """The clips a video recipe trains on: little that is dry, much that is regular."""
    return ClipSource(replace(scenes, dry=0.12, clutter=0.35), frames)
