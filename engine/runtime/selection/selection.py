"""Which Runner an Engine uses: the one that was asked for, or where the choice is free, the fastest."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import UnrainError
from .. import fidelity
from ..backends import BACKENDS, PRECISIONS, Runner, backend
from ..identity import model_hash
from . import trial
from .candidates import Candidate, candidates
from .known import is_unbeaten
from .proven import Proven

log = logging.getLogger("unrain.runtime")

# What "auto" takes on a device: the precisions that keep 50 dB, the one that is faster on all we know first.
_AUTO = {"cpu": ("bf16", "fp32"), "cuda": ("fp16", "bf16", "fp32")}
# What is taken where a precision is not to be had, and the next one after that.
_MILDER = {"int8": "bf16", "bf16": "fp32", "fp16": "fp32"}


@dataclass
class Chosen:
    """A runner and what is known about it."""

    each: Candidate
    runner: Runner
    decibels: float | None
    milliseconds: float | None = None
    trial_pixels: int | None = None
    others: dict[str, str] = field(default_factory=dict)


class Selection:
    """`for_size` gives the runner for a picture size; a choice that is not free is made at once."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        precision: str,
        device: torch.device,
        threads: int | None,
        calibration: Path | str | None = None,
        trial_seconds: float | None = None,
    ) -> None:
        if name != "auto" and name not in BACKENDS:
            raise UnrainError(f"backend must be auto, {', '.join(BACKENDS)}; got {name!r}")
        if precision != "auto" and precision not in PRECISIONS:
            raise UnrainError(f"precision must be auto, {', '.join(PRECISIONS)}; got {precision!r}")
        # A copy: some backends prepare the weights at once and others read them later, and all must see the same ones.
        self.model, self.name, self.precision = deepcopy(model), name, precision
        self.device, self.threads, self.trial_seconds = device, threads, trial_seconds
        self.known = candidates(self.model, device)
        self.notes: list[str] = []
        self.others = {str(each): each.reason for each in self.known if each.reason is not None}
        self._runner = Proven(self.model, device, threads, calibration)
        self._chosen: dict[int, Chosen] = {}
        self.fixed = self._fixed()

    def for_size(self, height: int, width: int) -> Chosen:
        if self.fixed is not None:
            return self.fixed
        side = trial.bucket(height, width)
        if side not in self._chosen:
            self._chosen[side] = self._at_once() or self._raced(side)
            self._runner.keep(self._chosen[side].each)
        return self._chosen[side]

    def _fixed(self) -> Chosen | None:
        """The choice where only one way is left: a named backend and precision, or the reference."""
        if self.name == "auto":
            return None
        if self.precision == "auto" and self.name != "eager":
            if not any(each.reason is None for each in self._allowed()):
                raise UnrainError(f"the {self.name} backend cannot run this: {self._allowed()[0].reason}")
            return None
        each = self._find(self.name, "fp32" if self.precision == "auto" else self.precision)
        lower = self._milder(each.precision) if each.reason is None else None
        while isinstance(reason := self._runner(each), str):
            if lower is None:
                raise UnrainError(f"the {self.name} backend cannot run this in {each.precision}: {reason}")
            self.others[str(each)] = reason
            self._say(f"{each} was refused, {lower} is taken: {reason}")
            each, lower = self._find(self.name, lower), self._milder(lower)
        return self._taken(each)

    def _at_once(self) -> Chosen | None:
        """Our own path where nothing is known to beat it, in the lowest precision that it keeps."""
        if self.name != "auto" or not is_unbeaten(self.model, self.device, self.trial_seconds):
            return None
        wanted = self._free() if self.precision == "auto" else (self.precision,)
        for each in (self._find("fused", precision) for precision in wanted):
            reason = self._runner(each)
            if isinstance(reason, str):
                self.others[str(each)] = reason
                continue
            chosen = self._taken(each)
            rest = [str(other) for other in self._allowed() if other.reason is None and other != each]
            chosen.others = {**dict.fromkeys(rest, "not tried, nothing is known to be faster here"), **self.others}
            return chosen
        return None

    def _raced(self, side: int) -> Chosen:
        allowed = self._allowed()
        asked, threads = (self.name, self.precision), self.threads or torch.get_num_threads()
        key = trial.question(model_hash(self.model), side, self.device, threads, asked, allowed)
        result = trial.stored(key, allowed, self.trial_seconds)
        if result is None or isinstance(self._runner(_named(result.winner, allowed)), str):
            picture = fidelity.sample(side, side).to(self.device)
            wanted = self._free()[0] if self.precision == "auto" else self.precision
            result = trial.race(allowed, self._runner, self.model, picture, key, self.trial_seconds, wanted)
        if not result.winner:
            return self._raced_at_milder(side, result)
        each = _named(result.winner, allowed)
        chosen = self._taken(each)
        chosen.milliseconds = result.milliseconds.get(result.winner)
        chosen.trial_pixels = side if chosen.milliseconds is not None else None
        chosen.others = {**self.others, **result.notes}
        if self.precision == "int8" and each.precision != "int8":
            reasons = [f"{name}: {result.notes.get(name)}" for name in map(str, allowed) if name.endswith("int8")]
            self._say(f"{each.precision} is taken in place of int8 ({'; '.join(reasons)})")
        return chosen

    def _raced_at_milder(self, side: int, result: trial.Result) -> Chosen:
        """Nothing could run at the precision that was asked for: say so, and take the next milder one."""
        before, lower = self.precision, self._milder(self.precision)
        refused = [f"{name}: {reason}" for name, reason in result.notes.items() if name in self._runner.decibels]
        reasons = "; ".join(refused) or f"no backend here offers it on {self.device.type}"
        if lower is None:
            raise UnrainError(f"no backend can run this network in {before}: {reasons}")
        self._say(f"{before} is not to be had, {lower} is taken ({reasons})")
        self.others.update(result.notes)
        self.precision = lower
        return self._raced(side)

    def _taken(self, each: Candidate) -> Chosen:
        runner: Any = self._runner(each)  # which is no reason against it: it was asked before
        return Chosen(each, runner, self._runner.decibels.get(str(each)))

    def _free(self) -> tuple[str, ...]:
        return _AUTO.get(self.device.type, ("fp32",))

    def _allowed(self) -> list[Candidate]:
        """What may be raced. int8 is a permission: more precision is taken where it is faster all the same."""
        precisions = {"auto": self._free(), "int8": (*self._free(), "int8")}.get(self.precision, (self.precision,))
        return [
            each
            for each in self.known
            if each.precision in precisions and (self.name == "auto" or each.backend == self.name)
        ]

    def _find(self, name: str, precision: str) -> Candidate:
        for each in self.known:
            if (each.backend, each.precision) == (name, precision):
                return each
        offered = ", ".join(backend(name).PRECISIONS)
        return Candidate(name, precision, f"it computes in {offered}")

    def _milder(self, precision: str) -> str | None:
        """The next precision that there is."""
        lower = _MILDER.get(precision)
        if lower is None or self.name == "auto" or lower in backend(self.name).PRECISIONS:
            return lower
        return self._milder(lower)

    def _say(self, text: str) -> None:
        log.warning(text)
        self.notes.append(text)


def _named(name: str, among: list[Candidate]) -> Candidate:
    return next(each for each in among if str(each) == name)
