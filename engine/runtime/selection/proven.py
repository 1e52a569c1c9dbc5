"""Runners that keep to the reference: made when they are asked for, and proved once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UnrainError
from .. import calibration, fidelity
from ..backends import Runner, backend, eager
from .candidates import Candidate

log = logging.getLogger("unrain.runtime")

_CHECKED = 128  # pixels a side of the picture that fidelity is checked on


class Proven:
    """`runners(candidate)` is the runner, or why there is none; `decibels` are those of all that were proved."""

    def __init__(
        self, model: nn.Module, device: torch.device, threads: int | None, calibration: Path | str | None
    ) -> None:
        self.model, self.device, self.threads, self.calibration = model, device, threads, calibration
        self.decibels: dict[str, float] = {}
        self._made: dict[str, Runner | str] = {}
        self._reference: Tensor | None = None

    def __call__(self, each: Candidate) -> Runner | str:
        if each.reason is not None:
            return each.reason
        name = str(each)
        if name not in self._made:
            try:
                self._made[name] = self._proved(each)
            except UnrainError as error:
                self._made[name] = str(error)
            except Exception as error:  # a backend's own failure must leave the others to run
                log.debug("%s failed", name, exc_info=True)
                self._made[name] = f"it failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return self._made[name]

    def keep(self, one: Candidate) -> None:
        """Of the runners that one alone; what failed stays known."""
        self._made = {name: made for name, made in self._made.items() if isinstance(made, str) or name == str(one)}

    def _proved(self, each: Candidate) -> Runner | str:
        extra: dict[str, Any] = {}
        if each.precision == "int8":
            extra["pictures"] = calibration.tensors(self.calibration)
        runner = backend(each.backend).make(self.model, each.precision, self.device, self.threads, **extra)
        if (each.backend, each.precision) == ("eager", "fp32") or str(each) in self.decibels:
            return runner
        picture = fidelity.sample(_CHECKED, _CHECKED).to(self.device)
        if self._reference is None:
            reference = eager.make(self.model, "fp32", self.device, self.threads)
            self._reference = reference.run(picture).clone()
        decibels = self.decibels[str(each)] = fidelity.decibels(runner.run(picture), self._reference)
        limit = fidelity.LIMITS[each.precision]
        return runner if decibels >= limit else f"{decibels:.1f} dB to the fp32 reference, {limit:g} are needed"
