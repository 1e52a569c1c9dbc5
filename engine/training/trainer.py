"""The training loop. The same command gives the same weights, killed and resumed or not."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels.kept import replacing
from ..errors import UnrainError
from ..models import build
from ..models.checkpoint import load_file, save
from ..models.wiper import Wiper
from .convolutions import fast_convolutions
from .data import Source, loader
from .distributed import Group
from .grow import grow
from .muon import optimiser_of
from .objectives import Objective
from .pool import batches_of
from .progress import HeldOut, Log
from .recipes import Recipe, rate_at

FORMAT = 1


@dataclass
class Run:
    """Everything a run is made of. `out` gets last.pt to resume from, last.safetensors and best.safetensors to use."""

    model: str
    recipe: Recipe
    source: Source
    held_out: HeldOut
    out: Path
    seed: int = 0
    minutes: float | None = None
    measure_every: int = 500
    workers: int = 0
    precision: str = "auto"
    overrides: dict[str, Any] = field(default_factory=dict)  # fields of the network's configuration
    vgg: Path | None = None
    init: Path | None = None  # a weights file to begin from, in place of fresh weights
    tell: Callable[[dict[str, Any]], None] = lambda row: None


class Trainer:
    def __init__(self, run: Run, group: Group | None = None) -> None:
        self.run, self.group = run, group or Group()
        self.device = self.group.device
        self.precision = choose_precision(run.precision, self.device)
        torch.manual_seed(run.seed)
        self.model = build(run.model, **run.overrides).to(self.device, memory_format=torch.channels_last).train()
        if run.init is not None:
            begin_from(self.model, run.init, run.model)
        else:
            begin_timidly(self.model, run.recipe.timid)
        self.average = average_of(self.model) if run.recipe.ema else None
        self.objective = self.group.wrap(Objective(self.model, run.recipe, run.vgg).to(self.device))
        self.optimiser = optimiser_of(self.model, run.recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.step, self.best, self.spent = 0, float("-inf"), 0.0

    def train(self) -> dict[str, Any]:
        """Go on from `step` to the recipe's end or until the minutes are up; returns the last measurement."""
        run, started, before = self.run, time.monotonic(), self.spent
        batches = batches_of(run.source, run.recipe, run.seed, self.group.rank)
        log = Log(run.out, self.step) if self.group.first else None
        row: dict[str, Any] = {}
        losses = torch.zeros((), device=self.device)
        count = 0
        for first, second in loader(batches, self.step, run.recipe.steps, run.workers):
            losses += self.update(first, second)
            count += 1
            self.step += 1
            self.spent = before + (time.monotonic() - started) / 60
            out_of_time = self.group.agree(run.minutes is not None and self.spent >= run.minutes)
            if self.step % run.measure_every and self.step < run.recipe.steps and not out_of_time:
                continue
            row = self.measure(float(losses) / count)
            losses.zero_()
            count = 0
            if log is not None:
                log.write(row)
                self.keep(row)
                run.tell(row)
            if out_of_time:
                break
        return row

    def update(self, first: Tensor, second: Tensor) -> Tensor:
        """One step; returns its loss."""
        recipe = self.run.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(self.step)
        first, second = (_placed(view, self.device) for view in (first, second))
        self.model.train()
        with fast_convolutions(self.device):
            loss = self.objective(first, second, recipe.stages_at(self.step), self.precision)
        if not torch.isfinite(loss.detach()):
            raise UnrainError(
                f"the loss is {loss.item():g} at step {self.step}; a lower --rate may help, "
                f"with --resume from the last good state in {self.run.out}, if one was saved."
            )
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        if recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            follow(self.average, self.model, recipe.ema, self.step)
        return loss.detach()

    def rate(self, step: int) -> float:
        return rate_at(self.run.recipe, step, self.spent / self.run.minutes if self.run.minutes else 0.0)

    def measure(self, loss: float) -> dict[str, Any]:
        found = self.run.held_out.measure(self.weights(), self.device, self.precision)
        rounded = {name: round(value, 3) for name, value in found.items()}
        rate = self.rate(self.step - 1)
        return {
            "step": self.step,
            "loss": f"{loss:.6g}",
            "rate": f"{rate:.3g}",
            **rounded,
            "minutes": round(self.spent, 2),
        }

    def weights(self) -> nn.Module:
        """The network to use: the average where there is one."""
        return self.model if self.average is None else self.average

    def keep(self, row: dict[str, Any]) -> None:
        card = {"step": self.step, "held_out_psnr": row["psnr"], "recipe": self.run.recipe.objective}
        if row["psnr"] > self.best:
            self.best = row["psnr"]
            save(self.weights(), self.run.out / "best.safetensors", **card)
        save(self.weights(), self.run.out / "last.safetensors", **card)
        self.save_state(self.run.out / "last.pt")

    def save_state(self, path: Path) -> None:
        """Everything a resumed run needs, under its name only when complete."""
        state = {
            "format": FORMAT,
            "model": self.run.model,
            "overrides": self.run.overrides,
            "recipe": _plain(asdict(self.run.recipe)),
            "seed": self.run.seed,
            "step": self.step,
            "best": self.best,
            "minutes": self.spent,
            "weights": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        with replacing(path) as part:
            torch.save(state, part)

    def resume(self, path: Path) -> None:
        """Take up the state of a run of the same network and seed; the recipe may be another, say a longer one."""
        state = read_state(path)
        for name, mine in (("model", self.run.model), ("seed", self.run.seed), ("overrides", self.run.overrides)):
            if state[name] != mine:
                raise UnrainError(
                    f"{path} was trained with {name} {state[name]!r}, not {mine!r}; give the same to resume it."
                )
        self.model.load_state_dict(state["weights"])
        if self.average is not None:
            self.average.load_state_dict(state["average"] or state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)
        self.step, self.best, self.spent = state["step"], state["best"], state["minutes"]


def _placed(view: Tensor, device: torch.device) -> Tensor:
    """On the device; pictures channels-last (clips are made so frame by frame)."""
    return view.to(device, memory_format=torch.channels_last) if view.dim() == 4 else view.to(device)


def read_state(path: Path) -> dict[str, Any]:
    """A last.pt, checked."""
    try:
        state = torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise UnrainError(f"{path} is not there, so there is nothing to resume; leave --resume out to begin.") from None
    except Exception as error:
        raise UnrainError(f"{path} cannot be read as the state of a run ({type(error).__name__}).") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UnrainError(f"{path} is not the state of a training run of this version.")
    return state


def recipe_of(state: dict[str, Any], **changes: Any) -> Recipe:
    """The recipe a run was saved with, with changes."""
    from .recipes import Schedule

    stored = _tuples(state["recipe"])
    recipe = Recipe(**{**stored, "schedule": Schedule(**stored["schedule"])})
    return replace(recipe, **changes)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def begin_from(model: nn.Module, path: Path, name: str) -> None:
    """Copy the weights of a file of the same network into `model`, or grow a smaller wiper."""
    given = load_file(path)
    if isinstance(model, Wiper) and isinstance(given, Wiper) and given.config != model.config:
        return grow(model, given)
    if given.name != name:
        raise UnrainError(f"{path} holds weights of {given.name}, not of {name}; --init wants the same network.")
    try:
        model.load_state_dict(given.state_dict())
    except RuntimeError as error:
        raise UnrainError(f"{path} holds weights of another shape than this {name} has.") from error


@torch.no_grad()
def begin_timidly(model: nn.Module, factor: float) -> None:
    """Scale the weights of the layers that write pictures: what they add to the input is little at first."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.out_channels == 3:
            layer.weight.mul_(factor)


def average_of(model: nn.Module) -> nn.Module:
    """A copy of the network that will follow it as the moving average of its weights."""
    from copy import deepcopy

    return deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the average a little; faster in the first steps, when the start is still in it. Buffers are copied."""
    decay = min(decay, (1 + step) / (10 + step))
    mine = [p.detach() for p in model.parameters()]
    torch._foreach_lerp_(list(average.parameters()), mine, 1 - decay)
    for slow, fast in zip(average.buffers(), model.buffers(), strict=True):
        slow.copy_(fast)


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """bf16 where the machine computes in it, else fp16 on a GPU and fp32 on a processor."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wanted in named:
        return named[wanted]
    if wanted != "auto":
        raise UnrainError(f"no precision is called {wanted!r}; choose auto, {', '.join(named)}.")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    fast = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        or torch.backends.cpu.get_cpu_capability() == "AMX"
    )
    return torch.bfloat16 if fast else torch.float32
