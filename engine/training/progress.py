"""How a run is doing: PSNR on pictures held out of it, and the log of both."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...kernels.kept import replacing
from ..psnr import psnr
from .cache import Pictures
from .data import PairSource, TimeLapseSource, filled
from .rain import dry_and_rainy, sample_parameters, to_tensor

COLUMNS = ("step", "loss", "rate", "psnr", "dry", "minutes")


@dataclass(frozen=True)
class HeldOut:
    """Fixed crops: rainy and what should come out, and dry ones that should come out as they are."""

    rainy: Tensor
    clean: Tensor
    dry: Tensor

    @torch.inference_mode()
    def measure(self, model: nn.Module, device: torch.device, precision: torch.dtype) -> dict[str, float]:
        """Mean RGB PSNR in dB of the rainy crops against the clean ones, and of the dry ones against themselves."""
        model.eval()
        found = {"psnr": _mean_psnr(model, self.rainy, self.clean, device, precision)}
        if len(self.dry):
            found["dry"] = _mean_psnr(model, self.dry, self.dry, device, precision)
        return found


def _mean_psnr(model: nn.Module, given: Tensor, wanted: Tensor, device: torch.device, precision: torch.dtype) -> float:
    values = []
    for x, y in zip(given.split(4), wanted.split(4), strict=True):
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            image = model(x.to(device))
        error = (image.float().clamp(0, 1) - y.to(device)).square().mean((1, 2, 3))
        values += [psnr(each) for each in error.clamp_min(1e-10).tolist()]
    return float(np.mean(values))


def generated_held_out(pictures: Pictures, side: int = 128) -> HeldOut:
    """Crops from the middle of clean pictures, each under its own rain from drizzle to downpour."""
    dry, clean, rainy = [], [], []
    count = min(len(pictures), 12)
    for number in range(count):
        scene = middle(pictures[number * len(pictures) // count], side)
        parameters = sample_parameters(np.random.default_rng((7, number)), severity=(number % 6) / 5.5)
        target, wet = dry_and_rainy(scene, parameters, number)
        dry.append(scene)
        clean.append(target)
        rainy.append(wet)
    return HeldOut(torch.stack(rainy), torch.stack(clean), torch.stack(dry))


def drawn_held_out(source: PairSource | TimeLapseSource, side: int = 128, count: int = 12) -> HeldOut:
    """Crops of pairs or of scenes. Of a scene nothing dry is known: its PSNR is that of one view's picture against the
    other view, which rises as rain goes but cannot tell rain from the scene, so it only shows that training goes on."""
    drawn = [source.example(np.random.default_rng((7, number)), side) for number in range(count)]
    rainy, clean = (torch.stack(half) for half in zip(*drawn, strict=True))
    return HeldOut(rainy, clean, clean if isinstance(source, PairSource) else clean[:0])


def middle(picture: np.ndarray, side: int) -> Tensor:
    """The middle square of a picture, mirrored where the picture is smaller."""
    height, width = picture.shape[:2]
    top, left = max((height - side) // 2, 0), max((width - side) // 2, 0)
    return to_tensor(filled(picture[top : top + side, left : left + side], side))


class Log:
    """log.csv of a run, and TensorBoard beside it when that is installed. A resumed run drops the rows it will redo."""

    def __init__(self, folder: Path, start: int) -> None:
        self.path = folder / "log.csv"
        rows = []
        if start and self.path.exists():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= start]
        with replacing(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        self._board = _tensorboard(folder)

    def write(self, row: dict[str, Any]) -> None:
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        if self._board is not None:
            for name in COLUMNS[1:]:
                if row.get(name) not in (None, ""):
                    self._board.add_scalar(name, float(row[name]), int(row["step"]))


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
