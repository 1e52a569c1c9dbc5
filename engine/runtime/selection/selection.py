"""Which Runner an Engine uses: makes them, proves them faithful, and races them where the choice is free."""

from __future__ import annotations

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import UnrainError
from .. import calibration, fidelity
from ..backends import BACKENDS, PRECISIONS, Runner, backend, eager
from ..identity import model_hash
from . import trial
from .candidates import Candidate, candidates
from .known import is_unbeaten

log = logging.getLogger("unrain.runtime")

_CHECKED = 128  # pixels a side of the picture that fidelity is checked on
_AUTO = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}  # the precisions that keep 50 dB


class Chosen:
    """A runner and what is known about it."""

    def __init__(self, each: Candidate, runner: Runner, decibels: float | None) -> None:
        self.backend, self.precision, self.runner, self.decibels = each.backend, each.precision, runner, decibels
        self.milliseconds: float | None = None
        self.trial_pixels: int | None = None
        self.others: dict[str, str] = {}
        self.notes: list[str] = []


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
        self.device, self.threads, self.calibration = device, threads, calibration
        self.trial_seconds = trial_seconds
        self.known = candidates(self.model, device)
        self.notes: list[str] = []
        self.others = {str(each): each.reason for each in self.known if each.reason is not None}
        self._made: dict[str, Runner | str] = {}
        self._decibels: dict[str, float] = {}
        self._chosen: dict[int, Chosen] = {}
        self._reference: torch.Tensor | None = None
        self.fixed = self._fixed()

    def for_size(self, height: int, width: int) -> Chosen:
        if self.fixed is not None:
            return self.fixed
        side = trial.bucket(height, width)
        if side not in self._chosen:
            self._chosen[side] = self._at_once() or self._raced(side)
            taken = f"{self._chosen[side].backend} {self._chosen[side].precision}"
            self._made = {name: made for name, made in self._made.items() if isinstance(made, str) or name == taken}
        return self._chosen[side]

    def _fixed(self) -> Chosen | None:
        """The choice where only one way is left: a named backend and precision, or the reference."""
        if self.name == "auto":
            return None
        wanted = ("fp32",) if self.precision == "auto" and self.name == "eager" else (self.precision,)
        if wanted == ("auto",):
            if not any(each.reason is None for each in self._allowed()):
                raise UnrainError(f"the {self.name} backend cannot run this: {self._allowed()[0].reason}")
            return None
        each = self._find(self.name, wanted[0])
        if each.reason is not None:
            raise UnrainError(f"the {self.name} backend cannot run this in {each.precision}: {each.reason}")
        runner = self._make(each)
        for lower in self._milder(each.precision):
            if not isinstance(runner, str):
                break
            self._fall_back(each, runner, lower)
            each = self._find(self.name, lower)
            runner = each.reason if each.reason is not None else self._make(each)
        if isinstance(runner, str):
            raise UnrainError(f"the {self.name} backend cannot run this in {each.precision}: {runner}")
        return Chosen(each, runner, self._decibels.get(str(each)))

    def _at_once(self) -> Chosen | None:
        """Our own path where nothing is known to beat it, in the lowest precision that it keeps."""
        if self.name != "auto" or not is_unbeaten(self.model, self.device, self.trial_seconds):
            return None
        wanted = (self._untimed(), "fp32") if self.precision == "auto" else (self.precision,)
        for each in (self._find("fused", precision) for precision in dict.fromkeys(wanted)):
            runner = each.reason if each.reason is not None else self._make(each)
            if isinstance(runner, str):
                self.others[str(each)] = runner
                continue
            chosen = Chosen(each, runner, self._decibels.get(str(each)))
            rest = [str(other) for other in self._allowed() if other.reason is None and other != each]
            chosen.others = {**dict.fromkeys(rest, "not tried, nothing is known to be faster here"), **self.others}
            return chosen
        return None

    def _raced(self, side: int) -> Chosen:
        allowed = self._allowed()
        asked = self.name, self.precision
        key = trial.question(model_hash(self.model), side, self.device, self._threads(), asked, allowed)
        result = trial.stored(key, allowed, self.trial_seconds)
        runner: Any = None
        if result is not None:
            runner = self._make(next(each for each in allowed if str(each) == result.winner))
        if result is None or isinstance(runner, str):
            picture = fidelity.sample(side, side).to(self.device)
            wanted = self._untimed() if self.precision == "auto" else self.precision
            result, runner = trial.race(
                allowed, self._make, self._build_seconds, picture, key, self.trial_seconds, wanted
            )
        if not result.winner:
            return self._raced_at_milder(side, result)
        chosen = Chosen(next(each for each in allowed if str(each) == result.winner), runner, None)
        chosen.decibels = self._decibels.get(result.winner)
        chosen.milliseconds = result.milliseconds.get(result.winner)
        chosen.trial_pixels = side if chosen.milliseconds is not None else None
        chosen.others = {**self.others, **result.notes}
        if self.precision == "int8" and chosen.precision != "int8":
            reasons = [f"{name}: {result.notes.get(name)}" for name in map(str, allowed) if name.endswith("int8")]
            self._say(f"{chosen.precision} is taken in place of int8 ({'; '.join(reasons)})")
        return chosen

    def _raced_at_milder(self, side: int, result: trial.Result) -> Chosen:
        """Nothing could run at the precision that was asked for: say so, and take the next milder one."""
        before = self.precision
        refused = [f"{name}: {reason}" for name, reason in result.notes.items() if name in self._decibels]
        reasons = "; ".join(refused) or f"no backend here offers it on {self.device.type}"
        milder = {"bf16": "fp32", "fp16": "fp32"}.get(before)
        if milder is None:
            raise UnrainError(f"no backend can run this network in {before}: {reasons}")
        self._say(f"{before} is not to be had, {milder} is taken ({reasons})")
        self.others.update(result.notes)
        self.precision = milder
        return self._raced(side)

    def _untimed(self) -> str:
        """The precision that is tried first where nothing is timed: the lower one is faster on all we know."""
        return {"cuda": "fp16", "cpu": "bf16"}.get(self.device.type, "fp32")

    def _allowed(self) -> list[Candidate]:
        """What may be raced. int8 is a permission: more precision is taken where it is faster all the same."""
        precisions: tuple[str, ...] = (self.precision,)
        if self.precision in ("auto", "int8"):
            precisions = _AUTO.get(self.device.type, ("fp32",)) + (("int8",) if self.precision == "int8" else ())
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

    def _milder(self, precision: str) -> tuple[str, ...]:
        offered = backend(self.name).PRECISIONS
        order = {"int8": ("bf16", "fp32"), "bf16": ("fp32",), "fp16": ("fp32",)}.get(precision, ())
        return tuple(each for each in order if each in offered)

    def _fall_back(self, each: Candidate, reason: str, lower: str) -> None:
        self.others[str(each)] = reason
        self._say(f"{each} was refused, {lower} is taken: {reason}")

    def _say(self, text: str) -> None:
        log.warning(text)
        self.notes.append(text)

    def _build_seconds(self, each: Candidate) -> float:
        return backend(each.backend).build_seconds(self.model)

    def _make(self, each: Candidate) -> Runner | str:
        """The runner if its output is close enough to the reference, else the reason why not."""
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

    def _proved(self, each: Candidate) -> Runner | str:
        extra = {}
        if each.precision == "int8":
            extra["pictures"] = calibration.tensors(self.calibration)
        runner = backend(each.backend).make(self.model, each.precision, self.device, self.threads, **extra)
        if (each.backend, each.precision) == ("eager", "fp32"):
            return runner
        picture = fidelity.sample(_CHECKED, _CHECKED).to(self.device)
        if self._reference is None:
            reference = eager.make(self.model, "fp32", self.device, self.threads)
            self._reference = reference.run(picture).clone()
        decibels = self._decibels[str(each)] = fidelity.decibels(runner.run(picture), self._reference)
        limit = fidelity.LIMITS[each.precision]
        if decibels < limit:
            return f"{decibels:.1f} dB to the fp32 reference, {limit:g} are needed"
        return runner

    def _threads(self) -> int:
        return self.threads or torch.get_num_threads()
