"""What differs between TensorRT and TensorRT-RTX, whose Python bindings are alike in all else."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..engine.errors import UnrainError
from ..engine.runtime.backends.packages import missing


@dataclass(frozen=True)
class Adapter:
    """
    target_free   it builds on any machine for GPUs that are named; otherwise for the GPU it runs on alone
    timing_cache  it times kernels while it builds, and keeps what it measured
    """

    name: str
    title: str
    module: str
    target_free: bool
    timing_cache: bool

    def library(self) -> ModuleType:
        reason = missing(self.name, self.module)
        if reason is not None:
            raise UnrainError(f"{self.title} cannot build here: {reason}")
        return importlib.import_module(self.module)

    def targets(self, asked: str | None) -> list[str]:
        """The GPUs to build for, such as ["SM89"]: those asked for, else the one of this machine."""
        here = gpu_here()
        if not self.target_free:
            if here is None:
                raise UnrainError(f"{self.title} builds on the GPU that will run the engine, and there is none here")
            if asked not in (None, here):
                raise UnrainError(
                    f"{self.title} builds for the GPU of this machine, {here}; leave out --target {asked}"
                )
            return [here]
        members = self.library().ComputeCapability.__members__
        known = sorted((name for name in members if name.startswith("SM")), key=lambda name: int(name[2:]))
        named = asked.upper().replace("_", "").split(",") if asked else [here] if here else []
        if not named:
            raise UnrainError(f"name the GPUs to build for, there is none here: --target with {', '.join(known)}")
        for name in named:
            if name not in known:
                raise UnrainError(
                    f"{self.title} {self.library().__version__} builds for {', '.join(known)}; not {name}"
                )
        return list(dict.fromkeys(named))

    def aim(self, config: Any, targets: Sequence[str]) -> None:
        if not self.target_free:
            return
        capability = self.library().ComputeCapability
        config.num_compute_capabilities = len(targets)
        for index, name in enumerate(targets):
            config.set_compute_capability(getattr(capability, name), index)


TENSORRT = Adapter("tensorrt", "TensorRT", "tensorrt", target_free=False, timing_cache=True)
TENSORRT_RTX = Adapter("tensorrt-rtx", "TensorRT-RTX", "tensorrt_rtx", target_free=True, timing_cache=False)
ADAPTERS = {each.module: each for each in (TENSORRT, TENSORRT_RTX)}


def gpu_here() -> str | None:
    """The compute capability of the first GPU, as "SM89"."""
    import torch

    if not torch.cuda.is_available():
        return None
    return "SM{}{}".format(*torch.cuda.get_device_capability(0))
