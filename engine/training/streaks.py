"""Falling drops and the streaks they leave in one exposure.

A drop of diameter D at distance z, falling at its terminal speed v, draws a line `focal * v * exposure / z` pixels long
and `focal * D / z` pixels wide; out of focus it is wider and dimmer with the same light in it. Drops narrower than a
pixel keep their light too, so they come out faint, as in a real camera. All streaks are one flat list of points added
into the picture: a thousand drops cost a dozen tensor operations and no loop.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

# A bilinear splat is a tent of this standard deviation: what a point already has of width before any is added to it.
_SPLAT_SIGMA = 0.408
# Half a pixel between points: coarser, and wide streaks show a weave.
_ALONG_STEP = 0.5
_ACROSS_STEP = 0.5


@dataclass(frozen=True)
class RainLayer:
    """Drops that share one wind. Sizes are metres, millimetres, milliseconds; `focal` turns them into pixels."""

    light: float = (
        0.015  # mean brightness the layer adds to a pixel; with the drop sizes it fixes how many drops there are
    )
    drop_mm: float = 2.0  # median diameter
    drop_spread: float = 0.3  # log-normal spread of the diameter
    angle: float = 0.0  # degrees from straight down, positive leans right on the way down
    angle_spread: float = 1.5  # turbulence, degrees
    exposure_ms: float = 8.0
    near: float = 1.5
    far: float = 8.0
    focal: float = 800.0
    focus: float = 6.0
    aperture: float = 1.0  # pixels of blur for one dioptre of defocus
    lens: float = 0.6  # pixels of blur everywhere
    brightness: float = 0.6  # contrast of a streak at least a pixel wide
    brightness_spread: float = 0.5
    oscillation: float = 0.5  # how strongly a drop's wobble beads its streak
    gusts: float = 0.5  # unevenness of the density over the picture


class Drops(NamedTuple):
    """N drops of one layer, in pixels; `velocity` is pixels per second along the fall."""

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    length: np.ndarray
    velocity: np.ndarray
    sigma: np.ndarray
    energy: np.ndarray  # light per pixel of length, summed across the streak
    taper: np.ndarray
    slope: np.ndarray
    beads: np.ndarray
    bead_depth: np.ndarray
    phase: np.ndarray
    margin: float


def terminal_speed(diameter_mm: np.ndarray) -> np.ndarray:
    """Metres per second in still air (Atlas, Srivastava and Sekhon, 1973)."""
    return np.maximum(9.65 - 10.3 * np.exp(-0.6 * np.asarray(diameter_mm)), 0.8)


def _attributes(layer: RainLayer, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    diameter = np.clip(layer.drop_mm * np.exp(layer.drop_spread * rng.standard_normal(count)), 0.3, 7.0)
    # The view is a cone: the number of drops at a distance grows with its square.
    z = np.cbrt(rng.uniform(layer.near**3, layer.far**3, count))
    speed = terminal_speed(diameter) * layer.focal / z
    width = layer.focal * diameter * 1e-3 / z
    length = np.clip(speed * layer.exposure_ms * 1e-3, 1.5, 400.0)
    defocus = layer.aperture * np.abs(1.0 / z - 1.0 / layer.focus)
    contrast = layer.brightness * np.exp(layer.brightness_spread * rng.standard_normal(count))
    return {
        "length": length,
        "velocity": speed,
        "sigma": np.sqrt((width / 2.5) ** 2 + defocus**2 + layer.lens**2),
        "energy": np.minimum(contrast, 1.5) * width,
        "taper": rng.uniform(1.0, 6.0, count),
        "slope": rng.uniform(-0.8, 0.8, count),
        "beads": length / rng.uniform(7.0, 45.0, count),
        "bead_depth": layer.oscillation * rng.exponential(1.0, count),
        "phase": rng.uniform(0.0, 2 * np.pi, count),
    }


def scatter_drops(layer: RainLayer, height: int, width: int, rng: np.random.Generator) -> Drops:
    """Draw the layer's drops over a picture and a margin wide enough for streaks that begin outside it."""
    probe = _attributes(layer, 256, np.random.default_rng(1))  # fixed: density must not depend on the draw
    shine = probe["energy"] * probe["length"] * probe["taper"] / (1 + probe["taper"]) / (1 + 0.5 * probe["bead_depth"])
    density = layer.light / max(float(shine.mean()), 1e-6)
    margin = float(np.quantile(probe["length"], 0.9) / 2 + 4)
    tall, wide = height + 2 * margin, width + 2 * margin
    count = min(int(rng.poisson(density * tall * wide)), 200_000)
    x, y = rng.uniform(-margin, width + margin, count), rng.uniform(-margin, height + margin, count)
    angle = np.deg2rad(layer.angle + layer.angle_spread * rng.standard_normal(count))
    drops = Drops(x=x, y=y, angle=angle, margin=margin, **_attributes(layer, count, rng))
    if layer.gusts <= 0 or not count:
        return drops
    field = np.exp(layer.gusts * rng.standard_normal((5, 5)))
    thick = _between(field / field.mean(), (y + margin) / tall * 4, (x + margin) / wide * 4)
    return drops._replace(energy=drops.energy * thick)


def _between(grid: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Bilinear reading of a small grid."""
    i, j = np.minimum(row.astype(int), grid.shape[0] - 2), np.minimum(column.astype(int), grid.shape[1] - 2)
    v, u = row - i, column - j
    upper = grid[i, j] * (1 - u) + grid[i, j + 1] * u
    lower = grid[i + 1, j] * (1 - u) + grid[i + 1, j + 1] * u
    return upper * (1 - v) + lower * v


def fall(drops: Drops, seconds: float, height: int, width: int) -> Drops:
    """Where the same drops are later. One that has left the bottom comes in at the top somewhere else."""
    tall, wide = height + 2 * drops.margin, width + 2 * drops.margin
    path = drops.velocity * seconds
    y = drops.y + drops.margin + path * np.cos(drops.angle)
    turns = np.floor(y / tall)
    x = drops.x + drops.margin + path * np.sin(drops.angle) + _hashed(turns) * wide
    return drops._replace(x=x % wide - drops.margin, y=y % tall - drops.margin)


def _hashed(turns: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each drop and turn, 0 for turn 0, so that frame n needs no frame before it."""
    mixed = np.sin(np.arange(turns.size) * 12.9898 + turns * 78.233) * 43758.5453
    return np.where(turns == 0, 0.0, mixed - np.floor(mixed))


def draw_streaks(drops: Drops, height: int, width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The light of all drops as a picture [height, width], not clipped."""
    if not drops.x.size:
        return torch.zeros(height, width, device=device)
    f = {k: torch.as_tensor(v, dtype=torch.float32, device=device) for k, v in drops._asdict().items() if k != "margin"}
    extra = (f["sigma"].square() - _SPLAT_SIGMA**2).clamp_min(0).sqrt()
    along = (f["length"] / _ALONG_STEP).ceil().long() + 1
    side = (2.2 * extra / _ACROSS_STEP).round().long().clamp_max(32)
    across = 2 * side + 1
    # One row per point: which drop it belongs to, and its place in that drop's grid of along x across points.
    points = along * across
    drop = torch.repeat_interleave(torch.arange(points.numel(), device=device), points)
    place = torch.arange(drop.numel(), device=device) - (points.cumsum(0) - points)[drop]
    wide = across[drop]
    t = (place // wide).float() / (along[drop] - 1).float() - 0.5
    offset = (place % wide - side[drop]).float() * _ACROSS_STEP
    profile = torch.exp(-0.5 * (offset / extra[drop].clamp_min(1e-3)).square())
    total = torch.zeros_like(extra).index_add_(0, drop, profile) / along  # the Gaussian's sum over one cross-section
    shape = (1 - (2 * t.abs()).pow(f["taper"][drop])) * (1 + f["slope"][drop] * t)
    beads = torch.exp(f["bead_depth"][drop] * (torch.cos(6.2832 * f["beads"][drop] * t + f["phase"][drop]) - 1))
    step = f["length"] / (along - 1)
    light = (f["energy"] * step / total)[drop] * profile * shape * beads
    sin, cos = f["angle"].sin()[drop], f["angle"].cos()[drop]
    reach = t * f["length"][drop]
    x = f["x"][drop] + reach * sin + offset * cos
    y = f["y"][drop] + reach * cos - offset * sin
    return _splat(x, y, light, height, width)


def _splat(x: torch.Tensor, y: torch.Tensor, light: torch.Tensor, height: int, width: int) -> torch.Tensor:
    inside = (x > -1) & (x < width) & (y > -1) & (y < height)
    x, y, light = x[inside], y[inside], light[inside]
    left, top = x.floor(), y.floor()
    fx, fy = x - left, y - top
    # A border of one pixel takes what falls just outside.
    corner = (top.long() + 1) * (width + 2) + left.long() + 1
    index = torch.cat([corner, corner + 1, corner + width + 2, corner + width + 3])
    weight = torch.cat([light * (1 - fx) * (1 - fy), light * fx * (1 - fy), light * (1 - fx) * fy, light * fx * fy])
    size = (height + 2) * (width + 2)
    if x.is_cuda:  # sorted, hence repeatable, unlike a weighted bincount there
        flat = torch.zeros(size, device=x.device).index_put_((index,), weight, accumulate=True)
    else:
        flat = torch.bincount(index, weight, minlength=size)
    return flat.view(height + 2, width + 2)[1:-1, 1:-1]
