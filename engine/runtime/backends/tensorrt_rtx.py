"""TensorRT-RTX: the same as `tensorrt`, by the library for consumer GPUs."""

from __future__ import annotations

import torch
from torch import nn

from . import Runner
from .packages import missing
from .tensorrt import OUTDONE_BY, PRECISIONS, build_seconds, engine_file, needs_engine_file, needs_gpu

__all__ = ["OUTDONE_BY", "PRECISIONS", "available", "build_seconds", "can_run", "make"]


def available(device: torch.device) -> str | None:
    return missing("tensorrt-rtx", "tensorrt_rtx") or needs_gpu(device)


def can_run(model: nn.Module, precision: str, device: torch.device) -> str | None:
    return needs_engine_file("tensorrt_rtx", model, precision, device)


def make(model: nn.Module, precision: str, device: torch.device, threads: int | None) -> Runner:
    import tensorrt_rtx

    from .tensorrt_runner import TensorRTRunner

    return TensorRTRunner(tensorrt_rtx, model, engine_file("tensorrt_rtx", model, precision, device), device)
