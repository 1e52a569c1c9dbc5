"""The ends of an exported graph: clamped pictures, 8-bit frames, and the start of a sequence. All of it in fp32.

picture   "image" float32 [B,3,H,W] in [0,1]  ->  "derained" the same, clamped
frame     "frame" uint8 [B,H,W,3]             ->  "derained" the same, rounded to the nearest code
state     "h_in", "c_in", ... and "start" float32 [B,1]: where it is 1 the state that comes in is not looked at, and the
          sequence begins afresh; 0 carries on. "h_out", "c_out", ... are for the next frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

CODES = 255.0
AT_THE_PICTURE = ("image", "rain")  # fields of a state that begin at the first picture; all others begin at zero


def clamp_picture(model: onnx.ModelProto) -> None:
    """Values of "derained" between 0 and 1."""
    from onnx import helper

    _rename(model, "derained", "derained/raw")
    low, high = _constant(model, "ends/zero", 0.0), _constant(model, "ends/one", 1.0)
    model.graph.node.append(helper.make_node("Clip", ["derained/raw", low, high], ["derained"], "ends/Clip"))


def take_frames(model: onnx.ModelProto) -> None:
    """8-bit frames in and out, in the order cameras give them; call it after `clamp_picture`."""
    from onnx import TensorProto, helper

    graph = model.graph
    codes = _constant(model, "ends/codes", CODES)
    batch, _, height, width = graph.input[0].type.tensor_type.shape.dim
    shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in (batch, height, width)] + [3]
    _rename(model, "derained", "derained/picture")
    before = [
        helper.make_node("Cast", ["frame"], ["frame/float"], "ends/Cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["frame/float", codes], ["frame/unit"], "ends/Div"),
        helper.make_node("Transpose", ["frame/unit"], ["image"], "ends/Transpose", perm=[0, 3, 1, 2]),
    ]
    after = [
        helper.make_node("Transpose", ["derained/picture"], ["derained/rows"], "ends/Transpose.2", perm=[0, 2, 3, 1]),
        helper.make_node("Mul", ["derained/rows", codes], ["derained/scaled"], "ends/Mul"),
        helper.make_node("Round", ["derained/scaled"], ["derained/rounded"], "ends/Round"),
        helper.make_node("Cast", ["derained/rounded"], ["derained"], "ends/Cast.2", to=TensorProto.UINT8),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input[0].CopyFrom(helper.make_tensor_value_info("frame", TensorProto.UINT8, shape))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("derained", TensorProto.UINT8, shape))


def start_sequences(model: onnx.ModelProto) -> None:
    """An input "start" that makes the state begin afresh."""
    from onnx import TensorProto, helper

    graph = model.graph
    nodes = []
    half = _constant(model, "start/half", 0.5)
    axes = _constant(model, "start/axes", np.array([2, 3], np.int64))
    nodes.append(helper.make_node("Greater", ["start", half], ["start/now"], "start/Greater"))
    nodes.append(helper.make_node("Unsqueeze", ["start/now", axes], ["start/here"], "start/Unsqueeze"))
    for port in graph.input[1:]:
        field = port.name.removesuffix("_in")
        begin = "image"
        if field not in AT_THE_PICTURE:
            kind = helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
            begin = _constant(model, f"start/zero/{kind}", np.zeros((), kind))
        for node in graph.node:
            node.input[:] = [f"start/{field}" if name == port.name else name for name in node.input]
        nodes.append(helper.make_node("Where", ["start/here", begin, port.name], [f"start/{field}"], f"start/{field}"))
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    shape = [batch.dim_value if batch.HasField("dim_value") else batch.dim_param, 1]
    graph.input.append(helper.make_tensor_value_info("start", TensorProto.FLOAT, shape))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def _constant(model: onnx.ModelProto, name: str, value: float | np.ndarray) -> str:
    from onnx import numpy_helper

    if name not in {tensor.name for tensor in model.graph.initializer}:
        array = np.asarray(value, np.float32) if isinstance(value, float) else value
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name
