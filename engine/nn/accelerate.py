"""`unrain.accelerate`: fused ConvLSTM cells and losses inside a model that knows nothing of unrain."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from . import accelerate_cells, accelerate_losses
from .accelerate_probe import Unproven
from .accelerate_swap import is_swapped, swap


@dataclass(frozen=True)
class Entry:
    """What became of one module."""

    name: str  # as in named_modules(); "" is the model itself
    kind: str  # its class
    swapped: bool
    reason: str  # what it was recognised as, or why it was left alone

    def __str__(self) -> str:
        state = "swapped" if self.swapped else "left alone"
        return f"{self.name or '(model)':40} {self.kind:24} {state:12} {self.reason}"


@dataclass
class Report:
    """Every module of the model, in the order of named_modules()."""

    entries: list[Entry] = field(default_factory=list)

    @property
    def swapped(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.swapped]

    @property
    def left_alone(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.swapped]

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))


def accelerate(module: nn.Module) -> nn.Module:
    """Gives the ConvLSTM cells and the losses that it recognises in `module` a fused forward; returns the same module.

    In place: the modules stay the same objects with the same state dict, attributes, hooks and call signature. Nothing
    is swapped on looks: original and fused form first run against each other on random inputs, forward and backward,
    and what differs is left alone. A later call of another kind than was proven (other arguments, a changed setting, a
    hook on the convolution) runs the original forward.

    `accelerate(module).report` lists every module with what it was recognised as, or why it was left alone. (A model
    whose class has a `report` of its own keeps it.)
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    report = Report()
    owner: str | None = None  # the swapped module whose parts are passing by
    devices = sorted({p.device.index for p in module.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices):  # a model's own random numbers are not used up
        for name, part in list(module.named_modules()):
            if owner is not None and (not owner or name.startswith(f"{owner}.")):
                swapped, reason = False, f"runs inside {owner or 'the model'}"
            else:
                swapped, reason = _try(part)
                owner = name if swapped else None
            report.entries.append(Entry(name, type(part).__name__, swapped, reason))
    if not hasattr(type(module), "report"):
        module.report = report
    return module


def _try(module: nn.Module) -> tuple[bool, str]:
    kind = type(module)
    if is_swapped(module):
        return True, f"{module._fused.describe()} (swapped before)"
    if kind.__module__.startswith(f"{__package__}."):
        return False, "runs on unrain's kernels already"
    if kind.__module__.startswith("torch."):
        return False, "nothing to fuse here"
    if "forward" in module.__dict__:
        return False, "its forward was replaced on the object itself"
    try:
        recipe = accelerate_cells.recognise(module) or accelerate_losses.recognise(module)
    except Unproven as why:
        return False, str(why)
    if recipe is None:
        return False, "neither a ConvLSTM cell nor a loss that is known"
    swap(module, recipe)
    return True, recipe.describe()
