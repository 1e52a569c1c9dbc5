"""Rain for any picture, time-lapse or video, from physical parameters and a seed.

    parameters = sample_parameters(np.random.default_rng(0), severity=0.5)
    rainy = add_rain(image, parameters, seed=1)

`dry_and_rainy` gives a training pair: the same scene, mist, noise and JPEG with and without the streaks, so that a
network learns to take out rain and is never asked to denoise, dehaze or deblock (a wiper that did would smear a dry
windscreen).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from .camera import Camera, blend, expose, mist
from .streaks import RainLayer, draw_streaks, fall, scatter_drops, terminal_speed

# Mean light per pixel at severity 0 and 1: a drizzle (about 35 dB) and rain as dense as Rain100H's (about 13 dB).
_LIGHT = (0.004, 0.25)


@dataclass(frozen=True)
class RainParameters:
    """One or more layers of drops, each with its own wind, and the camera that sees them."""

    layers: tuple[RainLayer, ...] = (RainLayer(),)
    camera: Camera = field(default_factory=Camera)


def sample_parameters(rng: np.random.Generator, severity: float | None = None) -> RainParameters:
    """Draw a plausible rain. `severity` runs from 0 (drizzle) to 1 (downpour); left out, it is drawn as well."""
    if severity is None:
        severity = float(rng.beta(1.2, 1.9))
    return _physical(rng, severity)


def sample_wide(rng: np.random.Generator) -> RainParameters:
    """Draw from all that is out there: a third of it heavy (8 to 16 dB), a quarter dense bright long lines."""
    severity = _often_heavy(rng)
    return _lines(rng, severity) if rng.random() < 0.25 else _physical(rng, severity)


def sample_close(rng: np.random.Generator) -> RainParameters:
    """As wide, and a quarter of it thick short streaks of drops close to the camera."""
    severity = _often_heavy(rng)
    return rng.choice([_lines, _close, _physical], p=[0.25, 0.25, 0.5])(rng, severity)


def _often_heavy(rng: np.random.Generator) -> float:
    heavy = rng.random() < 1 / 3
    return float(rng.uniform(0.8, 1.1) if heavy else rng.beta(1.0, 1.2))


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], RainParameters]] = {
    "physical": sample_parameters,
    "wide": sample_wide,
    "close": sample_close,
}


def _mean_light(rng: np.random.Generator, severity: float) -> float:
    return _LIGHT[0] * (_LIGHT[1] / _LIGHT[0]) ** severity * float(np.exp(0.15 * rng.standard_normal()))


def _lines(rng: np.random.Generator, severity: float) -> RainParameters:
    """Long bright lines in one to four directions, sharp and all alike, as in published synthetic sets."""
    light = _mean_light(rng, severity)
    count = 1 + int(rng.binomial(3, min(0.1 + 0.5 * severity, 1)))
    wind = float(rng.normal(0, 18))
    layers = []
    for share in rng.dirichlet(np.full(count, 2.0)):
        near, length = float(rng.uniform(2.0, 4.0)), float(np.exp(rng.uniform(np.log(6), np.log(60))))
        drop_mm = float(rng.uniform(1.5, 5.0))
        pixels_per_ms = float(terminal_speed(np.array(drop_mm))) * 800.0 / (1.15 * near) * 1e-3
        layers.append(
            RainLayer(
                light=light * float(share),
                drop_mm=drop_mm,
                drop_spread=0.1,
                angle=float(np.clip(wind + rng.normal(0, 25 * severity), -65, 65)),
                angle_spread=float(rng.exponential(0.8)),
                exposure_ms=length / pixels_per_ms,
                near=near,
                far=near * 1.3,
                aperture=0.0,
                lens=float(rng.uniform(0.2, 0.7)),
                brightness=float(rng.uniform(0.4, 1.4)),
                brightness_spread=float(rng.uniform(0.05, 0.4)),
                oscillation=0.0,
                gusts=float(rng.uniform(0, 0.3)),
            )
        )
    return RainParameters(tuple(layers), _sample_camera(rng, severity))


def _close(rng: np.random.Generator, severity: float) -> RainParameters:
    """Drops close to a camera that exposes for a few milliseconds, as by day: short thick streaks with blunt ends."""
    light = _mean_light(rng, severity)
    wind = float(rng.normal(0, 14))
    layers = []
    for share in rng.dirichlet(np.full(1 + int(rng.binomial(2, min(0.1 + 0.4 * severity, 1))), 2.0)):
        near = float(rng.uniform(0.4, 1.2))
        layers.append(
            RainLayer(
                light=light * float(share),
                drop_mm=float(rng.uniform(1.5, 4.0)),
                drop_spread=float(rng.uniform(0.1, 0.5)),
                angle=float(np.clip(wind + rng.normal(0, 2 + 14 * severity**2), -50, 50)),
                angle_spread=float(rng.exponential(0.8)),
                exposure_ms=float(np.exp(rng.uniform(np.log(2.5), np.log(10)))),
                near=near,
                far=near * float(rng.uniform(1.2, 3.0)),
                aperture=float(rng.exponential(0.4)),
                lens=float(rng.uniform(0.25, 0.8)),
                brightness=float(rng.uniform(0.15, 0.9)),
                brightness_spread=float(rng.uniform(0.2, 0.6)),
                oscillation=float(rng.exponential(0.2)),
                gusts=float(rng.uniform(0, 0.6)),
            )
        )
    return RainParameters(tuple(layers), _sample_camera(rng, severity))


def _physical(rng: np.random.Generator, severity: float) -> RainParameters:
    light = _mean_light(rng, severity)
    # Dense rain has more winds in it, as Rain100H has; a light shower has one.
    count = 1 + int(rng.binomial(4, min(0.05 + 0.6 * severity**1.5, 1)))
    shares = rng.dirichlet(np.full(count, 2.0))
    wind = float(rng.normal(0, 14))
    shared = {
        "focal": float(rng.uniform(600, 1100)),
        "exposure_ms": float(np.exp(rng.uniform(np.log(8.0), np.log(33.0)))),
        "focus": float(rng.uniform(3, 12)),
    }
    layers = [_sample_layer(rng, light * float(share), wind, severity, shared) for share in shares]
    if rng.random() < 0.5:
        layers = [_fine(layer, rng) for layer in layers]
    return RainParameters(tuple(layers), _sample_camera(rng, severity))


def _sample_layer(
    rng: np.random.Generator, light: float, wind: float, severity: float, shared: dict[str, float]
) -> RainLayer:
    near = float(rng.uniform(0.8, 2.6))
    return RainLayer(
        light=light,
        drop_mm=float(rng.uniform(1.2, 3.2)) * (0.8 + 0.5 * severity),
        drop_spread=float(rng.uniform(0.1, 0.45)),
        angle=float(np.clip(wind + rng.normal(0, 2 + 14 * severity**2), -50, 50)),
        angle_spread=float(rng.exponential(1.2)),
        near=near,
        far=near * float(rng.uniform(1.2, 3.5)),
        aperture=float(rng.exponential(1.2)),
        lens=float(rng.uniform(0.3, 1.1)),
        brightness=float(rng.uniform(0.2, 0.8)),
        brightness_spread=float(rng.uniform(0.2, 0.6)),
        oscillation=float(rng.exponential(0.4)),
        gusts=float(rng.uniform(0.0, 0.6)),
        **shared,
    )


def _fine(layer: RainLayer, rng: np.random.Generator) -> RainLayer:
    """The same rain farther away and in focus: hair-thin parallel streaks, a few much brighter than the rest."""
    near = float(rng.uniform(1.5, 4.0))
    return replace(
        layer,
        drop_mm=float(rng.uniform(1.5, 3.5)),
        angle_spread=float(rng.exponential(0.5)),
        exposure_ms=float(np.exp(rng.uniform(np.log(10.0), np.log(40.0)))),
        near=near,
        far=near * float(rng.uniform(1.5, 4.0)),
        aperture=float(rng.exponential(0.2)),
        lens=float(rng.uniform(0.25, 0.55)),
        brightness=float(rng.uniform(0.3, 0.8)),
        brightness_spread=float(rng.uniform(0.4, 0.8)),
        oscillation=float(rng.exponential(0.2)),
    )


def _sample_camera(rng: np.random.Generator, severity: float) -> Camera:
    grey = rng.random() < 0.7
    return Camera(
        blending=str(rng.choice(["add", "screen", "cover"], p=[0.7, 0.15, 0.15])),
        airlight=float(rng.uniform(0.7, 1.0)),
        tint=(1.0, 1.0, 1.0) if grey else tuple(float(v) for v in rng.uniform(0.85, 1.0, 3)),
        veil=float(rng.uniform(0, 0.35) * severity) if rng.random() < 0.2 else 0.0,
        noise=float(rng.uniform(0.002, 0.02)) if rng.random() < 0.2 else 0.0,
        jpeg=int(rng.integers(55, 96)) if rng.random() < 0.3 else 0,
    )


def rain_layer(
    parameters: RainParameters,
    height: int,
    width: int,
    seed: int,
    seconds: float = 0.0,
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """The light of the rain alone, [height, width], `seconds` after the first frame of this seed's rain."""
    total = torch.zeros(height, width, device=device)
    for number, layer in enumerate(parameters.layers):
        drops = scatter_drops(layer, height, width, np.random.default_rng((seed, number)))
        total += draw_streaks(fall(drops, seconds, height, width), height, width, device)
    return total


def dry_and_rainy(
    scene: torch.Tensor, parameters: RainParameters, seed: int, seconds: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures [3, H, W] by one camera at one moment: without the streaks, and with them."""
    camera = parameters.camera
    hazy = mist(scene, camera)
    streaks = rain_layer(parameters, *scene.shape[-2:], seed, seconds, scene.device)
    grain = _grain(seed, seconds)
    return expose(hazy, camera, grain), expose(blend(hazy, streaks, camera), camera, grain)


def _grain(seed: int, seconds: float) -> int:
    """The seed of a frame's noise: rain is coherent over time, noise is not."""
    return seed + round(seconds * 1e6)


def add_rain(image: torch.Tensor | np.ndarray, parameters: RainParameters, seed: int) -> torch.Tensor | np.ndarray:
    """Rain on a picture: float tensor [..., 3, H, W] in [0, 1] or uint8 RGB [H, W, 3], and the same comes back."""
    if isinstance(image, np.ndarray):
        return to_array(_rainy(to_tensor(image), parameters, seed))
    if image.dim() == 3:
        return _rainy(image, parameters, seed)
    flat = image.reshape(-1, *image.shape[-3:])
    return torch.stack([_rainy(one, parameters, seed + n) for n, one in enumerate(flat)]).reshape(image.shape)


def time_lapse(scene: torch.Tensor, count: int, seed: int, severity: float | None = None) -> torch.Tensor:
    """`count` pictures [count, 3, H, W] of a scene that stands still while the rain changes, from one fixed camera."""
    rng = np.random.default_rng((seed, 0x71E))
    first = sample_parameters(rng, severity)
    rains = [replace(sample_parameters(rng, severity), camera=first.camera) for _ in range(count)]
    return torch.stack([_rainy(scene, rain, int(rng.integers(2**31))) for rain in rains])


def shower(severity: float, seed: int) -> RainParameters:
    """Rain alone, without mist, noise and JPEG: those stay in a picture that is only freed of rain."""
    return replace(sample_parameters(np.random.default_rng(seed), severity), camera=Camera())


def rain_on_video(
    frames: Iterable[np.ndarray], parameters: RainParameters, seed: int, fps: float = 25.0
) -> Iterator[np.ndarray]:
    """uint8 RGB frames with one shower falling through all of them: a streak goes on where the last frame left it."""
    for number, frame in enumerate(frames):
        yield to_array(_rainy(to_tensor(frame), parameters, seed, number / fps))


def _rainy(scene: torch.Tensor, parameters: RainParameters, seed: int, seconds: float = 0.0) -> torch.Tensor:
    camera = parameters.camera
    streaks = rain_layer(parameters, *scene.shape[-2:], seed, seconds, scene.device)
    return expose(blend(mist(scene, camera), streaks, camera), camera, _grain(seed, seconds))


def to_tensor(picture: np.ndarray) -> torch.Tensor:
    """uint8 [H, W, C] to float [C, H, W] in [0, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


def to_array(picture: torch.Tensor) -> np.ndarray:
    """Float [C, H, W] to uint8 [H, W, C], rounded."""
    return (picture.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
