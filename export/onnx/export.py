"""`export_onnx`: a network to one ONNX file that says what it is.

One file serves every height and width from 8 on: padding to what the network's strides need, and cropping back, are in
the graph. The recurrence is unrolled, there is no Loop, Scan or If. Half precision is in the graph too, with what stays
in fp32 listed in the file's metadata (key "unrain", JSON).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...engine.errors import UnrainError
from ...engine.files import write
from ...engine.runtime.backends.graph import OPSET
from ...engine.runtime.calibration import batches, calibration
from .. import metadata
from ..files import import_onnx
from ..pictures import bundled, clips
from .half import Islands, to_half
from .opset import lowered
from .ports import clamp_picture, start_sequences, take_frames
from .quantise import biases_apart
from .quantise_search import Quantised, quantise
from .ranges import Range, layers_beyond

if TYPE_CHECKING:
    import onnx
    from torch import nn

PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_SIDE = 96  # statistics of a layer settle long before its cost


class Exported(NamedTuple):
    path: Path
    description: dict  # what the file's metadata say
    islands: Islands | None  # what stayed in fp32, of a half-precision graph
    beyond: list[Range]  # layers whose numbers do not fit into half precision, with the largest met
    int8: Quantised | None  # which layers are INT8, and which could not be


def export_onnx(
    model: nn.Module,
    path: str | Path,
    precision: str = "fp32",
    stages: int | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    frames: bool = False,
    state: bool = False,
    pictures: Sequence[np.ndarray] | None = None,
    others: str = "fp16",
    opset: int = OPSET,
) -> Exported:
    """Write the network as ONNX, checked.

    precision  "fp32", "fp16" or "int8"
    stages     how often a recurrent network runs; its own number when left out
    size       (height, width) to fix; any from 8 x 8 on when left out
    batch      to fix; any when left out
    frames     uint8 [B,H,W,3] in and out in place of float32 [B,3,H,W]
    state      the recurrent state as inputs and outputs, for video
    pictures   uint8 RGB pictures [H,W,3] that show what fp16 and int8 must hold; the bundled ones when left out
    others     what an int8 graph computes everything else in: "fp16" (for TensorRT) or "fp32" (for CPU runtimes)
    opset      17 to 20, for tools that read no newer one
    """
    path = Path(path)
    graph, exported = build_onnx(model, precision, stages, size, batch, frames, state, pictures, others)
    graph = lowered(graph, opset)
    import_onnx().checker.check_model(graph, full_check=True)
    write(path, graph.SerializeToString())
    return exported._replace(path=path)


def build_onnx(
    model: nn.Module,
    precision: str,
    stages: int | None,
    size: tuple[int, int] | None,
    batch: int | None,
    frames: bool,
    state: bool,
    pictures: Sequence[np.ndarray] | None,
    others: str,
) -> tuple[onnx.ModelProto, Exported]:
    """The graph that `export_onnx` writes, and what there is to say about it."""
    from ...engine.models import with_stages
    from ...engine.runtime.backends.graph import carried_graph, fixed, network_graph

    _check(precision, others, size, batch)
    import_onnx()
    network = with_stages(model, stages)
    graph = (carried_graph if state else network_graph)(network)
    fields = [port.name.removesuffix("_in") for port in graph.graph.input[1:]]
    islands, beyond, int8 = None, [], None
    half = precision == "fp16" or (precision == "int8" and others == "fp16")
    if half:
        seen = batches(bundled() if pictures is None else pictures)
        beyond = layers_beyond(graph, clips(seen) if state else seen)
    forced = [layer.node for layer in beyond]
    if precision == "int8":
        seen = batches(calibration(pictures), CALIBRATION_SIDE)
        int8 = quantise(graph, clips(seen) if state else seen, forced)
        graph = int8.graph
        if half:
            biases_apart(graph)
    if half:
        # The hidden state goes into convolutions only; the cell state and the pictures keep fp32 between frames too.
        half_ports = [f"{field}_{end}" for field in fields if field[0] == "h" for end in ("in", "out")]
        graph, islands = to_half(graph, forced, half_ports)
    if state:
        start_sequences(graph)
    clamp_picture(graph)
    if frames:
        take_frames(graph)
    graph = fixed(graph, batch, size)
    description = metadata.describe(
        model,
        target="onnx",
        precision=precision,
        stages=getattr(network, "stages", None),
        layout="uint8 [batch, height, width, 3]" if frames else "float32 [batch, 3, height, width] in [0, 1]",
        size=list(size) if size else None,
        batch=batch,
        state=fields,
        fp32_islands=islands._asdict() if islands else {},
        int8_layers=int8.int8 if int8 else [],
        kept_from_int8=sorted(int8.kept) if int8 else [],
    )
    note(graph, description)
    return graph, Exported(Path(), description, islands, beyond, int8)


def note(graph: onnx.ModelProto, description: dict) -> None:
    """Put the description into the file's metadata, with the words an engineer looks for first."""
    from ... import __version__

    graph.producer_name, graph.producer_version = "unrain", __version__
    graph.graph.name = description["model"] or "network"
    shown = {name: str(description[name]) for name in ("model", "precision", "colour", "licence", "layout")}
    del graph.metadata_props[:]
    for key, value in {metadata.KEY: metadata.to_text(description), **shown}.items():
        graph.metadata_props.add(key=key, value=value)


def describe_onnx(graph: onnx.ModelProto, source: str | Path) -> dict:
    """The description inside a graph."""
    text = next((note.value for note in graph.metadata_props if note.key == metadata.KEY), "")
    return metadata.from_text(text, str(source))


def _check(precision: str, others: str, size: tuple[int, int] | None, batch: int | None) -> None:
    if precision not in PRECISIONS:
        raise UnrainError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if others not in ("fp16", "fp32"):
        raise UnrainError(f"the layers that are not int8 compute in fp16 or fp32, not in {others!r}")
    if others != "fp16" and precision != "int8":
        raise UnrainError(f"--others is for what an int8 graph has besides int8, this one is all {precision}")
    if size is not None and (len(size) != 2 or min(size) < 8):
        raise UnrainError(f"size must be height and width of at least 8 each, got {size}")
    if batch is not None and batch < 1:
        raise UnrainError(f"batch must be at least 1, got {batch}")
