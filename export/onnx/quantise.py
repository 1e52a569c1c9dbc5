"""Explicit INT8: QuantizeLinear and DequantizeLinear around convolutions, with scales from real pictures.

Activations: symmetric, one scale per tensor, the one with the least squared error over a histogram of magnitudes.
Weights: symmetric, one scale per output channel, stored as int8. Biases and everything that is no convolution stay in
higher precision. This is the form TensorRT builds INT8 layers from, and CPU runtimes fuse.

Every stage of an unrolled recurrence has scales of its own for what flows through it, and shares its weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .run import session, walk

if TYPE_CHECKING:
    import onnx

BINS = 2048
STEPS = 127  # -127 to 127: symmetric, so that a weight and its negative are equally far from zero
SMALLEST_SCALE = float(np.finfo(np.float16).tiny)  # a scale below is not exact in half precision
AT_ONCE = 32  # values watched in one run, so that memory stays bounded

Scales = dict[str, float]  # of each value that a convolution reads


def layer_of(node: onnx.NodeProto) -> str:
    """The layer a node belongs to, the same in every stage."""
    return next((note.value for note in node.metadata_props if note.key == "layer" and note.value), node.name)


def convolutions(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The convolutions with constant weights, by layer."""
    weights = {tensor.name for tensor in model.graph.initializer}
    layers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in weights:
            layers.setdefault(layer_of(node), []).append(node)
    return layers


def calibrate(model: onnx.ModelProto, clips: Sequence[np.ndarray]) -> Scales:
    """The scale of every value that a convolution reads, from the fp32 graph on pictures, clips of one frame, or, with
    its state, on clips float32 [T,3,H,W]."""
    names = sorted({node.input[0] for nodes in convolutions(model).values() for node in nodes})
    scales = {}
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        largest = dict.fromkeys(some, 0.0)
        for name, value in _values(model, some, clips):
            largest[name] = max(largest[name], float(np.abs(value).max(initial=0.0)))
        counts = {name: np.zeros(BINS, np.int64) for name in some}
        for name, value in _values(model, some, clips):
            counts[name] += np.histogram(np.abs(value), BINS, (0.0, largest[name] or 1.0))[0]
        scales |= {name: best_scale(counts[name], largest[name]) for name in some}
    return scales


def best_scale(counts: np.ndarray, largest: float) -> float:
    """The scale with the least squared error: steps too wide against values cut off."""
    if largest == 0:
        return 1.0
    middles = (np.arange(BINS) + 0.5) * (largest / BINS)
    limits = largest * np.linspace(0.2, 1.0, 81)
    errors = []
    for limit in limits:
        scale = limit / STEPS
        rounded = np.minimum(np.rint(middles / scale), STEPS) * scale
        errors.append(float((counts * (middles - rounded) ** 2).sum()))
    return float(limits[int(np.argmin(errors))] / STEPS)


def quantised(model: onnx.ModelProto, scales: Scales, layers: Collection[str]) -> onnx.ModelProto:
    """A copy of the fp32 graph with the convolutions of these layers in INT8."""
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    wanted = {node.name for layer, nodes in convolutions(model).items() if layer in layers for node in nodes}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    added = _Added(graph)
    nodes = []
    for node in graph.node:
        if node.name in wanted:
            value, weight = node.input[:2]
            node.input[0] = added.activation(value, scales[value], nodes)
            node.input[1] = added.weight(weights[weight], nodes)
        nodes.append(node)
    # A copy first: the repeated field owns its messages.
    nodes = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [_copy(tensor) for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(result, data_prop=True)


def biases_apart(model: onnx.ModelProto) -> None:
    """Add the biases of INT8 convolutions behind them, in place.

    ONNX Runtime turns the bias of such a convolution into int32 steps of activation scale times weight scale; in half
    precision that product is 0 or nearly so, and the result is wrong by tens of codes.
    """
    from onnx import helper, numpy_helper

    biases = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "Conv" or not node.input[1].endswith("/int8/back") or len(node.input) < 3:
            continue
        bias, output, apart = node.input[2], node.output[0], f"{node.input[2]}/apart"
        if apart not in biases:
            wide = numpy_helper.to_array(biases[bias]).reshape(1, -1, 1, 1)
            biases[apart] = numpy_helper.from_array(wide, apart)
            model.graph.initializer.append(biases[apart])
        del node.input[2]
        node.output[0] = f"{output}/before bias"
        nodes.append(helper.make_node("Add", [node.output[0], apart], [output], f"{node.name}/bias"))
    nodes = [_copy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [_copy(tensor) for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.CopyFrom(_with_types(model))


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def in_half(scale: np.ndarray) -> np.ndarray:
    """Scales that half precision holds exactly, so that a graph in half precision quantises to the same steps."""
    return np.maximum(scale, SMALLEST_SCALE).astype(np.float16).astype(np.float32)


class _Added:
    """The quantisation steps made so far: values read twice are quantised once."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.done: set[str] = set()

    def activation(self, value: str, scale: float, nodes: list[onnx.NodeProto]) -> str:
        from onnx import helper

        result = f"{value}/int8/back"
        if result not in self.done:
            self.done.add(result)
            self._constant(f"{value}/scale", in_half(np.float32(scale)))
            self._constant("int8/zero", np.zeros((), np.int8))
            ends = [f"{value}/scale", "int8/zero"]
            nodes.append(helper.make_node("QuantizeLinear", [value, *ends], [f"{value}/int8"], f"{value}/int8"))
            nodes.append(helper.make_node("DequantizeLinear", [f"{value}/int8", *ends], [result], result))
        return result

    def weight(self, tensor: onnx.TensorProto, nodes: list[onnx.NodeProto]) -> str:
        from onnx import helper, numpy_helper

        result = f"{tensor.name}/int8/back"
        if result not in self.done:
            self.done.add(result)
            weight = numpy_helper.to_array(tensor)  # [out, in, kh, kw]
            scale = in_half(np.abs(weight).max(axis=(1, 2, 3)) / STEPS)
            codes = np.clip(np.rint(weight / scale[:, None, None, None]), -STEPS, STEPS).astype(np.int8)
            self._constant(f"{tensor.name}/int8", codes)
            self._constant(f"{tensor.name}/scale", scale)
            self._constant(f"{tensor.name}/zero", np.zeros(len(scale), np.int8))
            inputs = [f"{tensor.name}/{part}" for part in ("int8", "scale", "zero")]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [result], result, axis=0))
        return result

    def _constant(self, name: str, value: np.ndarray) -> None:
        from onnx import numpy_helper

        if name not in self.done:
            self.done.add(name)
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _values(
    model: onnx.ModelProto, names: Sequence[str], clips: Sequence[np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Each of these values on each frame of the clips."""
    watched = _copy(model)
    ports = {port.name for port in (*watched.graph.input, *watched.graph.output)}
    watched.graph.output.extend(value for value in model.graph.value_info if value.name in names)
    inner = [name for name in names if name not in ports]
    run = session(watched)
    for clip in clips:
        for inputs, values in walk(model, run, inner, clip):
            yield from ((name, inputs[name]) for name in names if name in inputs)
            yield from values.items()


def _copy(message: onnx.ModelProto) -> onnx.ModelProto:
    fresh = type(message)()
    fresh.CopyFrom(message)
    return fresh
