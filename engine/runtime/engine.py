"""`Engine`: a network, and the fastest way to run it that keeps to its reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ...kernels import frame_to_tensor, tensor_to_frame
from ..errors import UnrainError
from ..models import is_for_video, load, with_stages
from ..models.sizing import check_images, check_size
from . import tiling
from .backends import Planned, Runner, Step
from .selection.explanation import Explanation
from .selection.selection import Chosen, Selection
from .strength import blended, checked
from .turns import Turns, limited_to


class Engine:
    """Takes rain out of pictures: `engine(x)`.

    model        a name (its shipped weights are loaded), a file of weights, or a network
    backend      "auto", or one of `unrain.engine.runtime.backends.BACKENDS`
    precision    "auto" (what keeps 50 dB to the reference), "fp32", "bf16", "fp16", or "int8" (40 dB; where the backend
                 is free, more precision is taken if that is faster all the same)
    device       where to compute; None takes the first GPU where there is one
    threads      how many CPU threads to use, None for what PyTorch uses
    tile         "auto" cuts pictures that would not fit into `max_memory`, a number cuts into tiles of that many pixels
                 a side, None never cuts
    max_memory   bytes for one run beside the weights and the pictures themselves, 768 MiB if left out; a batch that
                 would take more is run in parts
    stages       how often a recurrent network runs, None for its own number
    calibration  folder of rainy pictures that int8 learns its ranges from, None for bundled ones
    trial_seconds  about how long that trial may take, 30 if left out (or UNRAIN_TRIAL_SECONDS); at 0 nothing is timed,
                 and a stored result is taken or what needs no build, which suits a handful of pictures
    strength     how much of the rain is taken out, from 0 (the picture as it is, to the bit) to 1 (all that the network
                 takes out)

    "auto" is decided with the first picture of a size class, by a short trial that is kept on disk (UNRAIN_CACHE).

    It runs the weights, and the number of stages, that the network had when the Engine was made, on every backend:
    later changes to the network are not seen, a new Engine sees them.

    Any number of threads may call one Engine. Where the backend keeps buffers between calls, they run one after the
    other, each on all the threads there are, which is no slower than side by side.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        backend: str = "auto",
        precision: str = "auto",
        device: torch.device | str | None = None,
        threads: int | None = None,
        tile: int | str | None = "auto",
        max_memory: int | None = None,
        stages: int | None = None,
        calibration: Path | str | None = None,
        trial_seconds: float | None = None,
        strength: float = 1.0,
    ) -> None:
        if threads is not None and threads < 1:
            raise UnrainError(f"threads must be at least 1, got {threads}")
        if not (tile is None or tile == "auto" or (isinstance(tile, int) and tile >= tiling.SMALLEST)):
            raise UnrainError(f"tile must be 'auto', None or at least {tiling.SMALLEST} pixels, got {tile!r}")
        model = model if isinstance(model, nn.Module) else load(model)
        self.model = with_stages(model, stages)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.threads, self.tile, self.max_memory = threads, tile, max_memory
        self.strength = checked(strength)
        self.stages = getattr(self.model, "stages", None)
        self._asked = (
            backend,
            precision,
            self.device,
            threads,
            tile,
            max_memory,
            None,
            calibration,
            trial_seconds,
            strength,
        )
        self._turns = Turns(self.device)
        self._known_needs: WeakKeyDictionary[Runner, tiling.Needs] = WeakKeyDictionary()
        self._last: tuple[Chosen, tiling.Plan | None] | None = None  # what the last call ran
        with limited_to(threads):
            self._selection = Selection(
                self.model, backend, precision, self.device, threads, calibration, trial_seconds
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made anew from the same weights: what a backend has prepared belongs to this process and device."""
        return type(self), (self._selection.model, *self._asked)

    def __call__(self, x: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """float [B,3,H,W] in [0,1] -> the same; uint8 numpy RGB [H,W,3] -> the same.

        What the network gives that is no number comes out as such, or raises where the result is bytes.
        """
        if isinstance(x, np.ndarray):
            return self._frame(x)
        check_images(x)
        with limited_to(self.threads):
            runner, plan = self._runner_and_plan(x.shape[0], *x.shape[-2:])
            with self._turn(runner):
                derained = self._whole_or_tiles(x, runner, plan).clamp(0, 1)
                return blended(x, derained, self.strength).to(x.device, x.dtype)

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]:
        """The pictures of a recurrent network one stage after the other: see `backends.Runner.steps`. Never tiled.

        They are the network's own, whatever the strength: what a state goes on from must be.
        Other threads may call the Engine between two stages.
        """
        with limited_to(self.threads):
            runner = self._chosen(*x.shape[-2:]).runner
            with self._turn(runner):
                steps = runner.steps(x, state, image)
        while True:
            with limited_to(self.threads), self._turn(runner):
                step = next(steps, None)
                if step is not None and not runner.concurrent:  # the next call may write over it
                    step = step._replace(image=step.image.clone())
            if step is None:
                return
            yield step

    @property
    def made_for_video(self) -> bool:
        """Whether the network carries a state of its own from frame to frame, which `steps` then gives and takes."""
        return is_for_video(self.model)

    def explain(self) -> Explanation:
        """Which backend, precision and tiling run, what was measured, and why the others were not taken."""
        chosen, plan = self._last or (self._selection.fixed, None)
        notes = [*self._selection.notes, *([plan.note] if plan is not None and plan.note else [])]
        if chosen is not None and isinstance(chosen.runner, Planned):
            notes.append(chosen.runner.summary)
        return Explanation(
            model=getattr(self.model, "name", type(self.model).__name__),
            device=str(self.device),
            threads=self.threads or torch.get_num_threads(),
            backend=chosen.each.backend if chosen else None,
            precision=chosen.each.precision if chosen else None,
            fidelity_db=chosen.decibels if chosen else None,
            milliseconds=chosen.milliseconds if chosen else None,
            trial_pixels=chosen.trial_pixels if chosen else None,
            tile=list(plan.tile) if plan and plan.tile is not None else None,
            halo=plan.halo if plan and plan.tile is not None else None,
            notes=notes,
            others={**self._selection.others, **(chosen.others if chosen else {})},
        )

    def _turn(self, runner: Runner) -> AbstractContextManager[None]:
        """Around what runs it, and around whatever reads what it returned."""
        return nullcontext() if runner.concurrent else self._turns.one()

    def _chosen(self, height: int, width: int) -> Chosen:
        with self._turns.one():
            chosen = self._selection.for_size(height, width)
        self._last = chosen, None
        return chosen

    def _runner_and_plan(self, batch: int, height: int, width: int) -> tuple[Runner, tiling.Plan]:
        chosen = self._chosen(height, width)
        needs = self._needs(chosen.runner, batch * height * width)
        plan = tiling.plan(needs, height, width, self.tile, self.max_memory)
        self._last = chosen, plan
        return chosen.runner, plan

    def _needs(self, runner: Runner, pixels: int) -> tiling.Needs:
        known = self._known_needs.get(runner)
        if known is not None:
            return known
        if not isinstance(self.tile, int) and tiling.certainly_fits(pixels, self.max_memory):
            return tiling.UNKNOWN
        with self._turns.one():
            return self._known_needs.setdefault(runner, tiling.needs(self._selection.model, runner))

    def _whole_or_tiles(self, x: Tensor, runner: Runner, plan: tiling.Plan) -> Tensor:
        """Not clamped; float32 on the engine's device, or where x is if it was cut into tiles or parts of the batch."""
        height, width = x.shape[-2:]
        if plan.tile is None and x.shape[0] <= plan.pictures:
            return runner.run(x.to(self.device, torch.float32))
        out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        for window in tiling.windows(height, width, plan.tile or (height, width), plan.halo):
            for first in range(0, x.shape[0], plan.pictures):
                some = slice(first, first + plan.pictures)
                part = x[some, :, window.rows, window.columns].to(self.device, torch.float32).contiguous()
                kept = runner.run(part)[(..., *window.kept)]
                out[(some, slice(None), *window.place)] = kept.to(out.device)
        return out

    def _frame(self, frame: np.ndarray) -> np.ndarray:
        """Tile by tile from bytes to bytes, so that no large picture is held in floating point."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UnrainError(f"expected a uint8 RGB picture [H, W, 3], got {frame.dtype} of shape {list(frame.shape)}")
        height, width = frame.shape[:2]
        check_size(height, width)
        with limited_to(self.threads):
            runner, plan = self._runner_and_plan(1, height, width)
            with self._turn(runner):
                if plan.tile is None:
                    return self._bytes(runner, frame)
                out = np.empty(frame.shape, np.uint8)
                for window in tiling.windows(height, width, plan.tile, plan.halo):
                    out[window.place] = self._bytes(runner, frame[window.rows, window.columns])[window.kept]
                return out

    def _bytes(self, runner: Runner, frame: np.ndarray) -> np.ndarray:
        """A picture from bytes to bytes. They hold no NaN, which must not become a black pixel unseen."""
        x = frame_to_tensor(frame, device=self.device)
        derained = runner.run(x)
        if not derained.isfinite().all():
            raise UnrainError("the model gave values that are no numbers (NaN or infinite)")
        return tensor_to_frame(blended(x, derained, self.strength)).cpu().numpy()
