"""An Engine from a user's words: the network, its weights, device, tiles and memory; for commands, page and demo."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .engine.console import complain
from .engine.errors import UnrainError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from .engine.runtime import Engine

DEFAULT_MODEL = "srn"


def asked_for(name: str | None, weights: Path | None) -> tuple[str, Path | None]:
    """The network and weights that are meant: without a name the network of the weights file, or the default one."""
    if name is None and weights is not None:
        return str(weights.absolute()), None
    return name or DEFAULT_MODEL, weights


def load_model(name: str, weights: Path | None = None, stages: int | None = None) -> "nn.Module":
    """The model with its weights; `stages` sets how often a recurrent one runs."""
    from .engine.models import load, with_stages

    return with_stages(load(name, weights), stages)


def prepare_engine(
    name: str,
    weights: Path | None,
    stages: int | None,
    device: str,
    threads: int | None,
    backend: str,
    precision: str,
    trial_seconds: float | None,
    settings: dict[str, Any],
) -> tuple["Engine", dict[str, Any]]:
    """An engine for a model, and what there is to say of it; `trial_seconds` and `settings` are the Engine's."""
    from .engine.runtime import Engine

    place = pick_device(device)
    model: Any = load_model(name, weights, stages)
    _say_what_the_engine_says()
    engine = Engine(model, backend, precision, place, threads, trial_seconds=trial_seconds, **settings)
    details = {"model": model.name, "stages": getattr(model, "stages", None), "device": str(place)}
    return engine, details


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())


def _say_what_the_engine_says() -> None:
    """A trial that begins, a precision that was not to be had: a line each on stderr."""
    log = logging.getLogger("unrain.runtime")
    if not any(isinstance(each, _Lines) for each in log.handlers):
        log.addHandler(_Lines())
        log.setLevel(logging.INFO)
        log.propagate = False


def pick_device(wanted: str) -> "torch.device":
    """`auto` is the first GPU where there is one; anything else is torch's name of a device, and must be there."""
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device).cpu()  # `meta` can be made, and holds nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UnrainError(f"device {wanted} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def tile_size(text: str) -> int | str | None:
    """What `--tile` says: "auto", None for "none", or pixels a side."""
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    if not text.isdecimal():
        raise UnrainError(f"--tile takes a number of pixels, auto or none; got {text!r}")
    return int(text)


def byte_count(text: str) -> int:
    """800M, 1.5G or plain bytes; the units are powers of 1024."""
    units = {"K": 10, "M": 20, "G": 30}
    number, shift = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 0)
    try:
        count = float(number) * 2**shift
    except ValueError:
        count = 0.0
    if not 0 < count < 2**63:
        raise UnrainError(f"--max-memory takes a size such as 800M or 2G; got {text!r}")
    return int(count)


def frame_function(engine: "Engine") -> "Callable[[np.ndarray], np.ndarray]":
    """uint8 RGB [H, W, 3] -> the same without rain; a result that is no picture is an error, not a black frame."""

    def derain(frame: "np.ndarray") -> "np.ndarray":
        dry: Any = engine(frame)
        return dry

    return derain


def memory_error(error: BaseException, frame: Any) -> UnrainError | None:
    """The user's words for an exhausted memory, None for any other error."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        height, width = frame.shape[:2]
        return UnrainError(f"not enough memory for {width} x {height} pixels; use a smaller picture or model")
    return None
