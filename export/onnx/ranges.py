"""Which layers do not fit into half precision: the fp32 graph run on real pictures, every value's largest magnitude.

A graph with a state is run on clips, and the state goes from frame to frame.

A layer is beyond when what it reads or gives is larger than a half of what half precision holds (65,504), so that a
picture of twice the contrast still fits, or is not finite at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...engine.errors import UnrainError
from .half import LARGEST
from .run import session, walk

if TYPE_CHECKING:
    import onnx

LIMIT = LARGEST / 2


class Range(NamedTuple):
    """The largest magnitude a layer met."""

    node: str
    largest: float  # infinite where a value was not finite


def layers_beyond(model: onnx.ModelProto, clips: Sequence[np.ndarray]) -> list[Range]:
    """The nodes that half precision cannot hold on these clips (float32 [T,3,H,W]), in the graph's order."""
    largest = magnitudes(model, clips)
    found = []
    for node in model.graph.node:
        met = max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
        if met > LIMIT:
            found.append(Range(node.name, met))
    return found


def magnitudes(model: onnx.ModelProto, clips: Sequence[np.ndarray]) -> dict[str, float]:
    """The largest magnitude of every float value over the clips; infinite where one was not finite."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    named = {port.name for port in watched.graph.output}
    values = [
        value
        for value in model.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in named
    ]
    watched.graph.output.extend(values)
    largest: dict[str, float] = {}
    # Unoptimised: a value that fusion would swallow is one that half precision may still have to hold.
    run = session(watched, optimise=False)
    names = [port.name for port in run.get_outputs()]
    for clip in clips:
        for _, values in walk(model, run, names, clip):
            for name, value in values.items():
                with np.errstate(invalid="ignore"):
                    magnitude = float(np.abs(value).max(initial=0.0))
                largest[name] = max(largest.get(name, 0.0), magnitude if np.isfinite(magnitude) else np.inf)
    if not all(np.isfinite(largest[port.name]) for port in model.graph.output):
        first = next(node.name for node in model.graph.node if any(largest.get(o) == np.inf for o in node.output))
        raise UnrainError(f"the network is not finite in fp32 either, from {first} on; its weights are broken.")
    return largest


def first_overflow(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> str | None:
    """The first node of a half-precision graph that gives a half value which is not finite.

    ONNX Runtime's CPU computes half precision in fp32 and rounds only what somebody reads: here every value is read.
    """
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    half = [value for value in model.graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16]
    watched.graph.output.extend(half)
    names = [value.name for value in half]
    values = session(watched, optimise=False).run(names, inputs)
    broken = {name for name, value in zip(names, values, strict=True) if not np.isfinite(value).all()}
    return next((node.name for node in model.graph.node if broken.intersection(node.output)), None)
