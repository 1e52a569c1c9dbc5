"""Runs a model over pairs and measures it: per picture and on average, beside the rainy input itself."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn

from ..errors import UnrainError
from ..models import is_for_video
from .flicker import FlickerMeter
from .metrics import BLIND, DEFINITIONS, metric
from .pairs import Pair
from .report import Example, Report, Row

Quantise: TypeAlias = Literal["truncate", "round"]
Derain: TypeAlias = "nn.Module | Callable[[torch.Tensor], torch.Tensor]"
Progress: TypeAlias = Callable[[int, int, Row], None]

DEFAULT_METRICS = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")


def evaluate(
    model: Derain | None,
    pairs: Sequence[Pair],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    quantise: Quantise = "truncate",
    progress: Progress | None = None,
    examples: int = 10,
    name: str | None = None,
    data: str | None = None,
) -> Report:
    """Measures `model` on the pairs.

    `model` takes a float tensor [1, 3, H, W] in [0, 1] and gives one of the same shape: a module (run in eval mode on
    its own device and in its own dtype, then left as it was), an Engine or any callable. None measures the rainy
    pictures themselves. The output becomes uint8 before it is measured: "truncate" is what the papers' code does,
    "round" is half a level brighter on average; the report names it. Photos without clean pictures take `niqe` alone.
    `progress(done, total, row)` is called after every picture. The `examples` pictures that are worst by the first
    metric are kept for the report's slider.
    """
    return _measure(model, pairs, metrics, quantise, progress, examples, name, data, observe=None)


def evaluate_video(
    model: Derain | None,
    frames: Sequence[Pair],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    quantise: Quantise = "truncate",
    progress: Progress | None = None,
    examples: int = 10,
    name: str | None = None,
    data: str | None = None,
    carry: bool = True,
) -> Report:
    """As `evaluate`, for the frames of one clip in their order; the report also holds the temporal flicker.

    A network with a state of its own carries it from frame to frame, unless `carry` is off.
    """
    if carry and isinstance(model, nn.Module) and is_for_video(model):
        name, model = name or _name(model), Carrying(model)
    if any(frame.clean is None for frame in frames):
        raise UnrainError("flicker is measured against a clean clip; leave --video out for photos that have none")
    if len(frames) < 2:
        raise UnrainError("video evaluation needs at least two frames; use `evaluate` for single pictures")
    rainy_meter, output_meter = FlickerMeter(), FlickerMeter()

    def observe(rainy: np.ndarray, output: np.ndarray, clean: np.ndarray) -> None:
        rainy_meter.update(rainy, clean)
        output_meter.update(output, clean)

    report = _measure(model, frames, metrics, quantise, progress, examples, name, data, observe)
    report.flicker = {"rainy": rainy_meter.result(), "output": output_meter.result()}
    return report


class Carrying(nn.Module):
    """A network with a state, as one from frame to frame; begins anew when the size changes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.state: tuple[torch.Tensor, ...] | None = None

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        if self.state is None or self.state[0].shape != frame.shape:
            self.state = self.network.initial_state(frame)
        picture, self.state = self.network.step(frame, self.state)
        return picture


def derain_uint8(model: Derain | None, rainy: np.ndarray, quantise: Quantise = "truncate") -> np.ndarray:
    """The model's answer to one uint8 picture [H, W, 3], again as uint8."""
    if model is None:
        return rainy
    frame = torch.from_numpy(rainy).permute(2, 0, 1)[None].to(torch.float32) / 255
    if isinstance(model, nn.Module):
        parameter = next(model.parameters(), frame)
        frame = frame.to(parameter.device, parameter.dtype)
    with torch.inference_mode():
        output = model(frame)
    if not isinstance(output, torch.Tensor) or output.shape != frame.shape:
        found = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UnrainError(f"the model must give a tensor {list(frame.shape)} for one of that shape, not {found}")
    return quantised(output[0], quantise)


def quantised(image: torch.Tensor, quantise: Quantise) -> np.ndarray:
    """[3, H, W] in [0, 1] -> uint8 [H, W, 3]. A value that is not a number has no level: UnrainError."""
    if quantise not in ("truncate", "round"):
        raise UnrainError(f'quantise must be "truncate" or "round", not {quantise!r}')
    if not torch.isfinite(image).all():
        raise UnrainError("the model's output holds NaN or Inf")
    levels = image.to(torch.float32).clamp(0, 1) * 255
    levels = levels.round() if quantise == "round" else levels
    return levels.to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()


def _measure(
    model: Derain | None,
    pairs: Sequence[Pair],
    metrics: Sequence[str],
    quantise: Quantise,
    progress: Progress | None,
    examples: int,
    name: str | None,
    data: str | None,
    observe: Callable[[np.ndarray, np.ndarray, Any], None] | None,
) -> Report:
    if not pairs:
        raise UnrainError("there are no pairs to evaluate")
    functions = {key: metric(key) for key in metrics}
    if not functions:
        raise UnrainError("name at least one metric")
    compared = [key for key in functions if key not in BLIND]
    if compared and any(pair.clean is None for pair in pairs):
        raise UnrainError(f"{', '.join(compared)} need clean pictures; without them there is {', '.join(BLIND)}")
    training = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    for part in training:
        part.training = False
    rows: list[Row] = []
    worst: list[tuple[float, int, Example]] = []  # a heap with the best of the worst on top
    try:
        for index, pair in enumerate(pairs):
            rainy, clean = pair.read()
            started = time.perf_counter()
            try:
                output = derain_uint8(model, rainy, quantise)
            except UnrainError as error:
                raise UnrainError(f"{pair.rainy}: {error}") from error
            seconds = time.perf_counter() - started
            before = {key: function(rainy, clean) for key, function in functions.items()}
            after = before if model is None else {key: function(output, clean) for key, function in functions.items()}
            rows.append(Row(pair.name, rainy.shape[1], rainy.shape[0], before, after, seconds))
            if observe is not None:
                observe(rainy, output, clean)
            if examples > 0:
                badness = after[metrics[0]] if metrics[0] in BLIND else -after[metrics[0]]
                entry = (badness, -index, Example(rows[-1], rainy, output, clean))
                (heapq.heappush if len(worst) < examples else heapq.heappushpop)(worst, entry)
            if progress is not None:
                progress(index + 1, len(pairs), rows[-1])
    finally:
        for part in training:
            part.training = True
    return Report(
        model=name or _name(model),
        data=data or str(pairs[0].rainy.parent),
        quantise=quantise,
        metrics=tuple(functions),
        definitions={key: DEFINITIONS[key] for key in functions},
        rows=rows,
        worst=[entry[2] for entry in sorted(worst, key=lambda entry: entry[:2], reverse=True)],
    )


def _name(model: Derain | None) -> str:
    if model is None:
        return "rainy input"
    return getattr(model, "__name__", type(model).__name__)
