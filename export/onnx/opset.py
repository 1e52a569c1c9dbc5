"""An ONNX graph for tools that read no newer opset than this one.

The networks are translated at one opset (engine/runtime/backends/graph.py). Of the operations they are made of, what
changed since 17 is the number types alone, which are no matter here, but for reductions and Split. An operation whose
change is not known is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engine.errors import UnrainError
from ...engine.runtime.backends.graph import OPSET
from ..files import import_onnx

if TYPE_CHECKING:
    import onnx

OLDEST = 17
# Newer versions of these take more number types, or options that are not used unless they are written.
TYPES_ALONE = frozenset(
    {"AveragePool", "Cast", "CastLike", "Constant", "ConstantOfShape", "DequantizeLinear", "Equal", "Identity", "IsInf"}
    | {"IsNaN", "Pad", "QuantizeLinear", "Reshape", "Resize", "Shape", "Size"}
)
# From 18 on these take their axes as an input.
REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"})
# What 18 gave these in attributes: Split was told by its outputs how many there are, and reductions took no empty axes.
NEW_IN_18 = {"Split": "num_outputs", **dict.fromkeys(REDUCTIONS, "noop_with_empty_axes")}
IR_VERSION = {17: 8, 18: 8, 19: 9, 20: 9}  # of the ONNX release that brought the opset


def lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same graph at that opset."""
    onnx = import_onnx()
    if not OLDEST <= opset <= OPSET:
        raise UnrainError(f"--opset must be {OLDEST} to {OPSET}, got {opset}")
    if opset == OPSET:
        return model
    old = onnx.ModelProto()
    old.CopyFrom(model)
    for node in old.graph.node:
        _check(onnx, node, opset)
        if opset < 18 and node.op_type in NEW_IN_18:
            _without(node, NEW_IN_18[node.op_type])
            if node.op_type in REDUCTIONS and len(node.input) > 1:
                _axes_as_attribute(onnx, old.graph, node)
    for imported in old.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = opset
    old.ir_version = min(old.ir_version, IR_VERSION[opset])
    return old


def _check(onnx, node: onnx.NodeProto, opset: int) -> None:
    if node.domain not in ("", "ai.onnx") or node.op_type in TYPES_ALONE or node.op_type in NEW_IN_18:
        return
    now = onnx.defs.get_schema(node.op_type, OPSET).since_version
    if now > opset:
        raise UnrainError(f"{node.name}: {node.op_type} of opset {now} has no known counterpart in opset {opset}")


def _without(node: onnx.NodeProto, name: str) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _axes_as_attribute(onnx, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    name = node.input[1]
    constants = {each.name: each for each in graph.initializer}
    constants |= {each.output[0]: each.attribute[0].t for each in graph.node if each.op_type == "Constant"}
    if name not in constants:
        raise UnrainError(f"{node.name}: its axes are computed, which opset 17 does not have")
    axes = onnx.numpy_helper.to_array(constants[name]).reshape(-1).tolist()
    del node.input[1]
    node.attribute.append(onnx.helper.make_attribute("axes", axes))
