"""Running an ONNX graph on the CPU by ONNX Runtime, on pictures or, where it has a state, on the frames of clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engine.errors import UnrainError
from .ports import AT_THE_PICTURE

if TYPE_CHECKING:
    import onnx


def session(model: onnx.ModelProto | bytes, threads: int | None = None, optimise: bool = True) -> Any:
    """An inference session; `optimise=False` runs the nodes as they are written."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UnrainError("this needs the package onnxruntime: `pip install unrain[onnx]`") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # A spinning pool takes the cores from whatever else the process does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads or 0
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes are not public
        raise UnrainError(f"ONNX Runtime cannot load this graph: {' '.join(str(error).split())[:200]}") from error


def walk(
    model: onnx.ModelProto, run: Any, names: Sequence[str], clip: np.ndarray
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The inputs of an fp32 graph for each frame of a clip [T,3,H,W], and the values of these names.

    A state begins as the network lets it, and goes on from what the frame before left; without one every frame is a
    picture of its own.
    """
    fields = [port.name.removesuffix("_in") for port in model.graph.input[1:]]
    wanted = list(dict.fromkeys([*names, *(f"{field}_out" for field in fields)]))
    state = initial_state(model, clip[:1])
    for number in range(len(clip)):
        inputs = {"image": clip[number : number + 1], **state}
        values = dict(zip(wanted, run.run(wanted, inputs), strict=True))
        yield inputs, {name: values[name] for name in names}
        state = {f"{field}_in": values[f"{field}_out"] for field in fields}


def initial_state(model: onnx.ModelProto, picture: np.ndarray) -> dict[str, np.ndarray]:
    """A state that has just begun, by input: some pictures at the picture, all else at zero."""
    return {
        port.name: picture
        if port.name.removesuffix("_in") in AT_THE_PICTURE
        else np.zeros(port_shape(port, picture.shape), np.float32)
        for port in model.graph.input[1:]
    }


def port_shape(port: onnx.ValueInfoProto, picture: Sequence[int]) -> tuple[int, ...]:
    """What a port [B,C,h,w] is for pictures of this shape."""
    from ...engine.runtime.backends.graph import open_sides

    batch, _, height, width = picture
    sides = {"batch": batch, **open_sides(height, width)}
    return tuple(dim.dim_value or sides[dim.dim_param] for dim in port.type.tensor_type.shape.dim)
