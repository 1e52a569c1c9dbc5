"""NIQE: how far a picture's statistics are from those of pristine photographs. Needs no clean picture; less is better.

A. Mittal, R. Soundararajan, A. C. Bovik, "Making a completely blind image quality analyzer", IEEE Signal Processing
Letters 2013. niqe.npz is their pristine model, a mean and a covariance of 36 features, as the project BasicSR
(Apache-2.0) carries it; the arithmetic here gives that project's values (Y rounded to levels, no border cut off).

It was made for photographs, not for rain: it stands beside a look at the pictures, never instead of one.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import UnrainError
from .planes import Picture, as_planes, filter_valid, gaussian, luma

BLOCK = 96  # pixels a side, at the first of two scales
_WINDOW = gaussian(7, 7 / 6)
# MATLAB's imresize(..., 0.5): Keys' cubic, stretched by two, between the pixels 2i and 2i + 1.
_HALF = [-0.01171875, -0.03515625, 0.11328125, 0.43359375, 0.43359375, 0.11328125, -0.03515625, -0.01171875]
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(picture: Picture) -> float:
    """The mean over a batch's pictures. What is beyond whole blocks of 96 x 96 is not looked at."""
    levels = (luma(as_planes(picture)) * 255).round()
    return sum(_of_plane(plane) for plane in levels) / len(levels)


def _of_plane(plane: torch.Tensor) -> float:
    rows, columns = (side // BLOCK for side in plane.shape)
    if rows * columns < 2:
        raise UnrainError(f"NIQE needs two blocks of {BLOCK}x{BLOCK} pixels, not {plane.shape[1]}x{plane.shape[0]}")
    plane = plane[: rows * BLOCK, : columns * BLOCK]
    features = [_features(_blocks(_normalised(plane), BLOCK))]
    features.append(_features(_blocks(_normalised(_halved(plane)), BLOCK // 2)))
    found = torch.cat(features, 1).numpy()
    whole = found[~np.isnan(found).any(1)]  # a block of one colour has no statistics
    if len(whole) < 2:
        raise UnrainError("NIQE needs a picture with some texture in it")
    mean, covariance = _pristine()
    distance = mean - np.nanmean(found, 0)
    spread = np.linalg.pinv((covariance + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(distance @ spread @ distance))


@cache
def _pristine() -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(__file__).with_suffix(".npz"), allow_pickle=False) as model:
        return model["mean"], model["covariance"]


def _normalised(plane: torch.Tensor) -> torch.Tensor:
    """Each pixel's distance from the mean around it, in standard deviations there."""
    padded = F.pad(plane[None, None], (3, 3, 3, 3), mode="replicate")[0, 0]
    mean = filter_valid(padded, _WINDOW)
    deviation = (filter_valid(padded.square(), _WINDOW) - mean.square()).abs().sqrt()
    return (plane - mean) / (deviation + 1)


def _halved(plane: torch.Tensor) -> torch.Tensor:
    for dim in (0, 1):
        first, last = plane.narrow(dim, 0, 3).flip(dim), plane.narrow(dim, plane.shape[dim] - 3, 3).flip(dim)
        padded = torch.cat([first, plane, last], dim)
        plane = padded.unfold(dim, len(_HALF), 2) @ torch.tensor(_HALF, dtype=plane.dtype)
    return plane


def _blocks(plane: torch.Tensor, side: int) -> torch.Tensor:
    """[N, side, side]"""
    return plane.unfold(0, side, side).unfold(1, side, side).flatten(0, 1)


def _features(blocks: torch.Tensor) -> torch.Tensor:
    """18 of each block: the shape of its values' distribution, and of their products with each neighbour's."""
    shape, left, right = _asymmetric_fit(blocks)
    found = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _asymmetric_fit(blocks * blocks.roll(shift, (1, 2)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        found += [shape, mean, left, right]
    return torch.stack(found, 1)


def _asymmetric_fit(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shape, left and right scale of the generalised Gaussian that fits each block's values, by their moments."""
    values = blocks.flatten(1)
    left, right = (_root_mean_square(values, side) for side in (values < 0, values > 0))
    ratio = left / right
    moments = values.abs().mean(1).square() / values.square().mean(1)
    moments = moments * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    shapes, expected = _moments_of_shapes()
    shape = shapes[(expected - moments[:, None]).square().argmin(1)]
    scale = ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()
    return shape, left * scale, right * scale


def _root_mean_square(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return ((values.square() * chosen).sum(1) / chosen.sum(1)).sqrt()


@cache
def _moments_of_shapes() -> tuple[torch.Tensor, torch.Tensor]:
    shapes = torch.from_numpy(np.arange(0.2, 10.001, 0.001))
    inverse = 1 / shapes
    return shapes, (2 * torch.lgamma(2 * inverse) - torch.lgamma(inverse) - torch.lgamma(3 * inverse)).exp()
