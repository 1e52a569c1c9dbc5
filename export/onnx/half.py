"""An fp32 ONNX graph to half precision, with named islands that stay in fp32. Ports keep their type where not said.

The precision is written into the graph: TensorRT 11 builds exactly what it finds, and older ones do when asked to.

What stays in fp32, and why
* the cell state: everything in a ConvLSTM behind its convolution. c adds up over all stages.
* softmax, norms and means over the whole picture: sums over many numbers, divided by what may be small.
* pictures: adding the rain to the picture, three channels, costs nothing and keeps eight bits exact.
* what `beyond` names: layers whose numbers do not fit into half precision (see `ranges.py`).
* what only moves or combines numbers that are in fp32 already.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx

LARGEST = 65504.0

SUMS_OVER_MANY = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "GlobalAveragePool")
NORMALISATIONS = ("Softmax", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "BatchNormalization")
NORMS = frozenset((*SUMS_OVER_MANY, *NORMALISATIONS))
HEAVY = frozenset(("Conv", "ConvTranspose", "AveragePool", "MaxPool", "Gemm"))  # half, whatever feeds them
PICTURE_SUMS = frozenset(("Add", "Sub"))
MAKERS = frozenset(("Constant", "ConstantOfShape"))  # given out in either precision, as asked for


class Islands(NamedTuple):
    """Names of the nodes that stay in fp32, by reason."""

    cell_state: list[str]
    norms: list[str]
    pictures: list[str]
    range: list[str]

    def all(self) -> list[str]:
        return [name for names in self for name in names]


def to_half(
    model: onnx.ModelProto, beyond: Collection[str] = (), half_ports: Collection[str] = ()
) -> tuple[onnx.ModelProto, Islands]:
    """The graph in half precision, and what stayed in fp32. `half_ports`: inputs and outputs that become half too."""
    import onnx

    islands = find_islands(model, beyond, half_ports)
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    _Halving(converted, set(islands.all()), set(half_ports)).run()
    return onnx.shape_inference.infer_shapes(converted, data_prop=True), islands


def find_islands(model: onnx.ModelProto, beyond: Collection[str], half_ports: Collection[str]) -> Islands:
    """Which nodes stay in fp32."""
    floats, channels = _float_values(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    too_large = {name for name, tensor in weights.items() if name in floats and _largest(tensor) > LARGEST}
    made = {name for node in model.graph.node if node.op_type in MAKERS for name in node.output}
    single = {port.name for port in model.graph.input if port.name in floats and port.name not in half_ports}
    pictures = {name for name in single if channels.get(name) == 3}
    islands = Islands([], [], [], [])
    reasons = {name: islands.cell_state for name in single}  # what comes in besides pictures is cell state
    for node in model.graph.node:
        inputs = [name for name in node.input if name in floats and name not in weights and name not in made]
        if node.op_type in MAKERS or not (inputs or floats.intersection(node.output)):
            continue
        narrow = all(channels.get(name, 99) == 3 for name in node.output)
        if node.name in beyond or too_large.intersection(node.input):
            reason = islands.range
        elif _class(node) == "ConvLSTM" and node.op_type not in (*HEAVY, "Concat"):
            reason = islands.cell_state
        elif node.op_type in NORMS:
            reason = islands.norms
        elif narrow and node.op_type in PICTURE_SUMS and pictures.intersection(inputs):
            reason = islands.pictures
        elif node.op_type not in HEAVY and inputs and single.issuperset(inputs):
            # Something the islands flow through: it belongs to what flows in.
            reason = islands.pictures if pictures.issuperset(inputs) else reasons[inputs[0]]
            if reason is islands.pictures and not narrow:
                continue
        else:
            continue
        reason.append(node.name)
        single.update(node.output)
        reasons |= {name: reason for name in node.output}
        if reason is islands.pictures:
            pictures.update(node.output)
    return islands


class _Halving:
    """The rewriting: every float value has a home precision, its maker's; casts are put where a reader wants the other.

    A value named v in the fp32 graph keeps that name in its home precision; the other one is "v/half" or "v/single".
    """

    def __init__(self, model: onnx.ModelProto, islands: set[str], half_ports: set[str]) -> None:
        self.model = model
        self.islands = islands
        self.floats, _ = _float_values(model)
        self.half_ports = half_ports
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in self.floats}
        self.is_half: dict[str, bool] = {name: False for name in self.weights}
        self.makers: dict[str, onnx.NodeProto] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.other: dict[str, str] = {}

    def run(self) -> None:
        from onnx import TensorProto

        graph = self.model.graph
        for port in graph.input:
            if port.name in self.floats:
                self._set_port(port)
                self.is_half[port.name] = port.name in self.half_ports
        for node in graph.node:
            self._add(node)
        for port in graph.output:
            if port.name in self.floats:
                self._set_port(port)
                self._finish(port.name, port.type.tensor_type.elem_type == TensorProto.FLOAT16)
        del graph.node[:]
        graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]

    def _set_port(self, port: onnx.ValueInfoProto) -> None:
        from onnx import TensorProto

        if port.name in self.half_ports:
            port.type.tensor_type.elem_type = TensorProto.FLOAT16

    def _add(self, original: onnx.NodeProto) -> None:
        from onnx import TensorProto

        node = type(original)()
        node.CopyFrom(original)
        half = node.name not in self.islands
        if node.op_type in MAKERS:
            self.makers |= {name: node for name in node.output if name in self.floats}
            half = False
        node.input[:] = [self._in(name, half) if name in self.floats else name for name in node.input]
        for name in node.output:
            if name in self.floats:
                self.is_half[name] = half
        if node.op_type == "Cast" and half:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
        self.nodes.append(node)

    def _in(self, name: str, half: bool) -> str:
        """The value in the precision asked for, made on first use."""
        from onnx import TensorProto, helper

        if self.is_half[name] == half:
            return name
        if name in self.other:
            return self.other[name]
        self.other[name] = other = f"{name}/{'half' if half else 'single'}"
        if name in self.weights:
            self.model.graph.initializer.append(_half_tensor(self.weights[name], other))
        elif name in self.makers:
            self.nodes.append(_half_maker(self.makers[name], other))
        else:
            kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self.nodes.append(helper.make_node("Cast", [name], [other], other, to=kind))
        return other

    def _finish(self, name: str, half: bool) -> None:
        """A graph output keeps its name: where its maker has the other precision, the maker's value is renamed."""
        from onnx import TensorProto, helper

        if self.is_half[name] == half:
            return
        inner = f"{name}/inner"
        for node in self.nodes:
            node.input[:] = [inner if value == name else value for value in node.input]
            node.output[:] = [inner if value == name else value for value in node.output]
        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.nodes.append(helper.make_node("Cast", [inner], [name], f"{name}/cast", to=kind))


def _half_tensor(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


def _half_maker(maker: onnx.NodeProto, name: str) -> onnx.NodeProto:
    from onnx import TensorProto, helper, numpy_helper

    value = next((item.t for item in maker.attribute if item.name == "value"), None)
    array = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    half = helper.make_node(maker.op_type, list(maker.input), [name], name)
    half.attribute.append(helper.make_attribute("value", numpy_helper.from_array(array.astype(np.float16))))
    assert half.attribute[0].t.data_type == TensorProto.FLOAT16
    return half


def _float_values(model: onnx.ModelProto) -> tuple[set[str], dict[str, int]]:
    """The names of all fp32 values, and the number of channels of those with four dimensions."""
    from onnx import TensorProto

    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    channels = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kind = value.type.tensor_type
        if kind.elem_type != TensorProto.FLOAT:
            continue
        floats.add(value.name)
        if len(kind.shape.dim) == 4 and kind.shape.dim[1].HasField("dim_value"):
            channels[value.name] = kind.shape.dim[1].dim_value
    return floats, channels


def _largest(tensor: onnx.TensorProto) -> float:
    from onnx import numpy_helper

    return float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))


def _class(node: onnx.NodeProto) -> str:
    return next((note.value for note in node.metadata_props if note.key == "class"), "")
