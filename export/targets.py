"""What `unrain export --to` takes: one row per target, and what a target is given and gives back.

A target's function is `(model, output, options) -> Outcome`; its module is imported on use, so that a missing package
matters to its own target alone. It writes to a temporary name, and answers with what is to be verified.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..engine.errors import UnrainError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


class Target(NamedTuple):
    module: str
    function: str
    suffix: str  # of the file it makes, "" for a folder
    precision: str  # when none is asked for
    summary: str


TARGETS = {
    "onnx": Target("targets_onnx", "to_onnx", ".onnx", "fp32", "one file for ONNX Runtime, OpenVINO, TensorRT"),
    "int8": Target("targets_onnx", "to_int8", ".onnx", "int8", "ONNX with explicit Q/DQ, calibrated on --images"),
    "server": Target("targets_onnx", "to_server", "", "fp16", "a model repository for NVIDIA's inference server"),
    "tensorrt": Target("tensorrt", "to_tensorrt", ".engine", "fp16", "an engine for this machine's GPU"),
    "tensorrt-rtx": Target("tensorrt", "to_tensorrt_rtx", ".engine", "fp16", "an engine for the GPUs of --target"),
    "kernels": Target("kernels", "to_kernels", "", "fp16", "the Triton kernels as cubins for --arch"),
    "package": Target("package", "to_package", ".pt2", "fp32", "an AOTInductor package for C++"),
}


@dataclass(frozen=True)
class Options:
    """Everything the command line can ask for; a target reads what concerns it."""

    precision: str
    stages: int | None = None
    size: tuple[int, int] | None = None  # height, width; None leaves them open
    smallest: tuple[int, int] | None = None  # of an engine's profile
    largest: tuple[int, int] | None = None
    batch: int | None = None
    frames: bool = False
    state: bool = False
    others: str = "fp16"
    name: str | None = None
    largest_batch: int = 8
    arch: tuple[str, ...] = ()
    target: str | None = None
    workspace: int | None = None  # bytes an engine may use beside its weights
    pictures: list[np.ndarray] | None = None  # uint8 RGB, for calibration and ranges; None: the bundled ones


@dataclass
class Outcome:
    """What a target made."""

    files: list[Path]
    notes: list[str] = field(default_factory=list)  # lines for people
    details: dict[str, Any] = field(default_factory=dict)  # the same for programs
    verify: Path | None = None  # None where this machine cannot run it, and a note says so


def target(name: str) -> Target:
    if name not in TARGETS:
        raise UnrainError(f"--to must be one of {', '.join(TARGETS)}; got {name!r}")
    return TARGETS[name]


def export(model: nn.Module | None, name: str, output: Path, options: Options) -> Outcome:
    """Export to that target."""
    found = target(name)
    return getattr(import_module(f".{found.module}", __package__), found.function)(model, output, options)


def reject(outcome: Outcome) -> list[Path]:
    """Take what failed its verification out of the way, under names that nobody loads by mistake."""
    moved = []
    for path in outcome.files:
        moved.append(path.replace(path.with_name(path.name + ".rejected")))
    return moved
