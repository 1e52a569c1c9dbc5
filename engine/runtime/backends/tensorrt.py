"""TensorRT: runs an engine file that was built for this network and this GPU."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ...errors import UnrainError
from . import Runner
from .packages import missing

PRECISIONS = ("fp32", "fp16", "int8")
OUTDONE_BY: dict[str, str] = {}


def available(device: torch.device) -> str | None:
    return missing("tensorrt", "tensorrt") or needs_gpu(device)


def can_run(model: nn.Module, precision: str, device: torch.device) -> str | None:
    return needs_engine_file("tensorrt", model, precision, device)


def build_seconds(model: nn.Module) -> float:
    """The engine file is there already."""
    return 5.0


def make(model: nn.Module, precision: str, device: torch.device, threads: int | None) -> Runner:
    import tensorrt

    from .tensorrt_runner import TensorRTRunner

    return TensorRTRunner(tensorrt, model, engine_file("tensorrt", model, precision, device), device)


def needs_gpu(device: torch.device) -> str | None:
    return None if device.type == "cuda" else f"it runs on an NVIDIA GPU, not on {device.type}"


def needs_engine_file(module: str, model: nn.Module, precision: str, device: torch.device) -> str | None:
    if precision not in PRECISIONS:
        return f"it computes in {', '.join(PRECISIONS)}, not in {precision}"
    try:
        path = engine_file(module, model, precision, device)
    except UnrainError as error:
        return str(error)
    return None if path.is_file() else f"no engine is built for this GPU yet: `unrain export` makes {path}"


def engine_file(module: str, model: nn.Module, precision: str, device: torch.device) -> Path:
    """Where the engine of a network lies: an engine belongs to one GPU and one version of the library."""
    from importlib.metadata import PackageNotFoundError, version

    from .. import cache
    from ..identity import model_hash

    versions = []
    for package in (module, f"{module}-cu13".replace("_", "-"), f"{module}-cu12".replace("_", "-")):
        try:
            versions.append(version(package))
        except PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    key = cache.key_of(model=model_hash(model), versions=versions, gpu=gpu, precision=precision)
    return cache.folder() / f"{module}-{key}.engine"
