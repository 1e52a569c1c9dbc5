"""Where no race is needed: networks for which nothing was faster than our own path on machines of this kind.

From runs of `unrain bench` in fp32 and in bf16; those on AVX2 are in benchmarks/results. A network or a machine that is
not here, and whoever asks for a trial, gets the race.
"""

from __future__ import annotations

import os

import torch
from torch import nn

from ....kernels import native

UNBEATEN = {
    "avx2": ("SRN", "BRN", "Stagewise", "MSPFN", "MLMCN", "Timelapse", "Wiper"),
    "avx512": ("SRN", "BRN", "Stagewise", "MSPFN", "MLMCN", "Timelapse"),
}


def is_unbeaten(model: nn.Module, device: torch.device, trial_seconds: float | None) -> bool:
    """Whether our own path may be taken without a trial."""
    asked = trial_seconds is not None or "UNRAIN_TRIAL_SECONDS" in os.environ
    if device.type != "cpu" or asked or type(model).__module__.partition(".")[0] != __name__.partition(".")[0]:
        return False
    return type(model).__name__ in UNBEATEN.get(next(iter(native.tiers()), ""), ())
