"""A network recorded once, rewritten by rules, and run anywhere: `record(module)`, `Program`."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any

from torch import Tensor, nn

from . import rules
from .file import Program
from .graph import Refused
from .lower import lowered
from .record import recorded

__all__ = ["Program", "Refused", "record"]


def record(module: nn.Module, example: Tensor | None = None) -> Program:
    """The program of a network: of its stages and states, where it has them. `example` says how many channels a picture
    has, three if it is not given; one recording serves every size."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    if example is not None and (not isinstance(example, Tensor) or example.dim() != 4):
        shape = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise TypeError(f"example must be a picture [B, C, H, W], got {shape}")
    found = recorded(module, 3 if example is None else example.shape[1])
    config: Any = getattr(module, "config", None)
    card = {
        "model": getattr(module, "name", type(module).__name__),
        "config": asdict(config) if is_dataclass(config) and not isinstance(config, type) else {},
        "stages": len(found.runs[0].marks),
        "state": list(found.state),
    }
    return lowered([rules.apply(run) for run in found.runs], found.multiple, found.padding, card)
