"""The ways a network can run here, and why the others cannot."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from ..backends import BACKENDS, PRECISIONS, backend

# What a trial meets first is what it falls back to when its time is up: no build, then a short one, then a long one.
TRIAL_ORDER = ("fused", "eager", "tensorrt", "tensorrt-rtx", "openvino", "onnxruntime", "compile")
UNBUILT = ("fused", "eager")  # what runs at once: nothing is translated or compiled


class Candidate(NamedTuple):
    """One way to run a network. `reason` says why it cannot be taken; None: it can."""

    backend: str
    precision: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


def candidates(model: nn.Module, device: torch.device | str = "cpu") -> list[Candidate]:
    """Every backend at every precision it has, in the order of `BACKENDS`, with the reason where it cannot run."""
    device = torch.device(device)
    found = []
    for name in BACKENDS:
        module = backend(name)
        missing = module.available(device)
        for precision in PRECISIONS:
            if precision in module.PRECISIONS:
                found.append(Candidate(name, precision, missing or module.can_run(model, precision, device)))
    return found
