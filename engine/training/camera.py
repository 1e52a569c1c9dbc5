"""What happens to light on its way into a picture: mist in the air, rain added or laid over, sensor noise, JPEG."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

BLENDINGS = ("add", "screen", "cover")


@dataclass(frozen=True)
class Camera:
    blending: str = "add"
    airlight: float = 0.9  # brightness of the sky that drops and mist scatter
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    veil: float = 0.0  # share of airlight that mist puts over the scene
    noise: float = 0.0  # standard deviation of read noise, in [0, 1] units; shot noise comes with it
    jpeg: int = 0  # quality, 0 for none


def mist(scene: torch.Tensor, camera: Camera) -> torch.Tensor:
    """Lay the veil over a scene [3, H, W]; thicker towards the top, where the view usually reaches further."""
    if camera.veil <= 0:
        return scene
    top_to_bottom = torch.linspace(1.2, 0.8, scene.shape[-2], device=scene.device)[:, None]
    share = (camera.veil * top_to_bottom).clamp(0, 1)
    return scene * (1 - share) + share * camera.airlight


def blend(scene: torch.Tensor, streaks: torch.Tensor, camera: Camera) -> torch.Tensor:
    """Rain [H, W] over a scene [3, H, W]. Light adds; 'screen' saturates softly; 'cover' also hides what is behind."""
    tint = torch.tensor(camera.tint, device=scene.device).view(3, 1, 1)
    if camera.blending == "add":
        return (scene + streaks * tint).clamp(0, 1)
    alpha = streaks.clamp(0, 1)
    if camera.blending == "screen":
        return 1 - (1 - scene) * (1 - alpha * tint)
    return (scene * (1 - alpha) + alpha * tint * camera.airlight).clamp(0, 1)


def expose(scene: torch.Tensor, camera: Camera, seed: int) -> torch.Tensor:
    """Noise and JPEG. The noise depends on the seed alone, so a dry and a rainy picture of one scene share it."""
    if camera.noise > 0:
        field = np.random.default_rng((seed, 0xCA3)).standard_normal(tuple(scene.shape), dtype=np.float32)
        grain = torch.from_numpy(field).to(scene.device)
        scene = (scene + camera.noise * (0.5 + scene).sqrt() * grain).clamp(0, 1)
    return compress(scene, camera.jpeg) if camera.jpeg else scene


def compress(picture: torch.Tensor, quality: int) -> torch.Tensor:
    """[3, H, W] in [0, 1] through a JPEG file and back."""
    pixels = (picture.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    back = np.asarray(Image.open(file), dtype=np.float32) / 255
    return torch.from_numpy(back).permute(2, 0, 1).to(picture.device)
