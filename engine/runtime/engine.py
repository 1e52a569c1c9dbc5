"""`Engine`: a network, and the way to run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ... import kernels
from ...kernels import frame_to_tensor, tensor_to_frame
from ..errors import UnrainError
from ..models import load
from ..models.sizing import check_images
from .backends import PRECISIONS, Runner, Step, backend


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """At most this many threads in PyTorch and in our own kernels; None leaves both as they are."""
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with kernels.threads(threads):
            yield
    finally:
        torch.set_num_threads(before)


class Engine:
    """Takes rain out of pictures: `engine(x)`.

    model      a name (its shipped weights are loaded), a file of weights, or a network
    backend    "auto", or one of `unrain.engine.runtime.backends.BACKENDS`
    precision  "auto", "fp32", "bf16", "fp16" or "int8"
    device     where to compute; None takes the first GPU where there is one
    threads    how many CPU threads to use, None for what PyTorch uses
    stages     how often a recurrent network runs, None for its own number
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        backend: str = "auto",
        precision: str = "auto",
        device: torch.device | str | None = None,
        threads: int | None = None,
        stages: int | None = None,
    ) -> None:
        model = model if isinstance(model, nn.Module) else load(model)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.threads = threads
        self.stages = getattr(model, "stages", None)
        self._runner = self._choose(model, backend, precision)

    def __call__(self, x: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """float [B,3,H,W] in [0,1] -> the same; uint8 numpy RGB [H,W,3] -> the same."""
        if isinstance(x, np.ndarray):
            return self._frame(x)
        check_images(x)
        with limited_to(self.threads):
            return self._runner.run(x.to(self.device, torch.float32)).clamp(0, 1).to(x.device, x.dtype)

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]:
        """The pictures of a recurrent network one stage after the other: see `backends.Runner.steps`."""
        steps = self._runner.steps(x, state, image)
        while True:
            with limited_to(self.threads):
                step = next(steps, None)
            if step is None:
                return
            yield step

    def _frame(self, frame: np.ndarray) -> np.ndarray:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UnrainError(f"expected a uint8 RGB picture [H, W, 3], got {frame.dtype} of shape {list(frame.shape)}")
        with limited_to(self.threads):
            x = frame_to_tensor(frame, device=self.device)
            check_images(x)
            return tensor_to_frame(self._runner.run(x)).cpu().numpy()

    def _choose(self, model: nn.Module, name: str, precision: str) -> Runner:
        if precision != "auto" and precision not in PRECISIONS:
            raise UnrainError(f"precision must be auto, {', '.join(PRECISIONS)}; got {precision!r}")
        module = backend("eager" if name == "auto" else name)
        precision = "fp32" if precision == "auto" else precision
        reason = module.available(self.device) or module.can_run(model, precision, self.device)
        if reason is not None:
            raise UnrainError(f"the {name} backend cannot run this in {precision}: {reason}")
        self._explanation = f"{name}, {precision}, on {self.device}"
        with limited_to(self.threads):
            return module.make(model, precision, self.device, self.threads)

    def explain(self) -> str:
        """Which backend and precision run, and why."""
        return self._explanation
