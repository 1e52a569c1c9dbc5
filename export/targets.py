"""What `unrain export --to` takes: one row per target, and what a target is given and gives back.

A target's function is `(model, output, options) -> Outcome`; its module is imported on use, so that a missing package
matters to its own target alone. It answers with what is to be verified.

The command line lets a target write to a folder of its own, `staging`, and moves what was made to its place when it is
verified: what stood there before stays until then, and a run that breaks off leaves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
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
    reads: frozenset[str]  # which of Options it heeds, besides `precision` and `pictures`
    summary: str


_GRAPH = frozenset({"stages", "size", "batch", "frames", "state", "others", "opset"})
_SERVER = _GRAPH | {"name", "largest_batch"}
_ENGINE = _GRAPH - {"opset"} | {"smallest", "largest", "target", "workspace"}
_PACKAGE = frozenset({"stages", "size", "batch", "target"})

TARGETS = {
    "onnx": Target("onnx.targets", "to_onnx", ".onnx", "fp32", _GRAPH, "one file for ONNX Runtime, OpenVINO, TensorRT"),
    "int8": Target("onnx.targets", "to_int8", ".onnx", "int8", _GRAPH, "ONNX with Q/DQ, calibrated on --images"),
    "server": Target("onnx.targets", "to_server", "", "fp16", _SERVER, "a repository for NVIDIA's inference server"),
    "tensorrt": Target("tensorrt.engines", "to_tensorrt", ".engine", "fp16", _ENGINE, "an engine for the GPU here"),
    "tensorrt-rtx": Target(
        "tensorrt.engines", "to_tensorrt_rtx", ".engine", "fp16", _ENGINE, "for the GPUs of --target"
    ),
    "program": Target("program", "to_program", ".unrain", "fp32", frozenset({"stages"}), "what our own core runs"),
    "kernels": Target("kernels.cubins", "to_kernels", "", "fp16", frozenset({"arch"}), "the Triton kernels as cubins"),
    "ncnn": Target("ncnn", "to_ncnn", ".param", "fp32", frozenset({"stages", "size"}), "files for phones and boards"),
    "litert": Target("litert", "to_litert", ".tflite", "fp32", frozenset({"stages", "size"}), "what LiteRT reads"),
    "hub-kernels": Target("kernels.hub", "to_hub_kernels", "", "fp32", frozenset(), "the Triton ops for `kernels`"),
    "package": Target("package", "to_package", ".pt2", "fp32", _PACKAGE, "an AOTInductor package for C++"),
}
# What an option is called on the command line, where that is not its own name.
FLAGS = {"smallest": "--min-size", "largest": "--max-size", "largest_batch": "--largest-batch"}


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
    opset: int = 20  # of engine/runtime/backends/graph.py, which is imported on use
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


def named(output: Path, name: str) -> Path:
    """`output`, if it is a name for what this target makes."""
    suffix = target(name).suffix
    if suffix and output.suffix != suffix:
        others = [f"--to {other}" for other, row in TARGETS.items() if row.suffix and row.suffix == output.suffix]
        instead = f", or say {' or '.join(others)}" if others else ""
        raise UnrainError(f"{output} must end in {suffix}{instead}")
    return output


def export(model: nn.Module | None, name: str, output: Path, options: Options) -> Outcome:
    """Export to that target."""
    found = target(name)
    unread = [
        FLAGS.get(each.name, f"--{each.name}")
        for each in fields(options)
        if each.name not in {"precision", "pictures", *found.reads} and getattr(options, each.name) != each.default
    ]
    if unread:
        raise UnrainError(f"--to {name} has no use for {', '.join(unread)}; leave that out")
    return getattr(import_module(f".{found.module}", __package__), found.function)(model, output, options)


@contextmanager
def staging(output: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """A folder that vanishes in the end, and where in it to write what is meant for `output`."""
    folder = output.parent if target(name).suffix else output
    with TemporaryDirectory(dir=folder, prefix=".unrain-") as inside:
        yield Path(inside), Path(inside, output.name) if target(name).suffix else Path(inside)


def settle(outcome: Outcome, staged: Path, folder: Path, passed: bool) -> list[Path]:
    """Move what was made in `staged` to `folder`, or, where it did not pass, to names that nobody loads by mistake."""
    ending = "" if passed else ".rejected"
    # The file that is loaded comes last: until then, what lies beside it does not fit it, and nothing is loaded.
    rest = [path for path in staged.rglob("*") if path.is_file() and path not in outcome.files]
    places = {}
    for path in (*rest, *reversed(outcome.files)):
        place = folder / path.relative_to(staged)
        places[path] = place.with_name(place.name + ending)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, places[path])
    return [places[path] for path in outcome.files]
