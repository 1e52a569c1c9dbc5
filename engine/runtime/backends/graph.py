"""A network as an ONNX graph: one file for every size, the recurrence unrolled, every node named after its layer.

The graph takes "image" [batch, 3, height, width], float32 in [0, 1], and gives "derained", not clamped. All three sizes
are open; height and width start at 8. `fixed` closes them. The weights are inside the graph.

SRN and BRN repeat one stage with the same weights: it is translated once and then repeated, node by node, which takes
a T-th of the time and gives the same graph. `stage_graph` is that one stage, with its state as further inputs and
outputs: field "h" of the state goes in as "h_in" and comes out as "h_out"; "image_out" is the stage's picture.

`carried_graph` is several stages like that, for video, or one frame of a network made for it; a map of its state that
is smaller than the frame has open sides of its own, "hidden_height" and "hidden_width".

A node is called "stage2/branch.f_res.0.conv1/Conv": stage, layer, operation. Its metadata say the same in parts
("layer", and "class", the Python class the operation is written in): precision is decided by them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import UnrainError
from ...models import is_for_video, repeats_one_stage

if TYPE_CHECKING:
    import onnx

OPSET = 20  # the newest that TensorRT 10.3 (JetPack 6) reads; later runtimes read it too
OPEN = ("batch", "height", "width")
HIDDEN = ("batch", "hidden_height", "hidden_width")  # of a state's map at a quarter of the picture
EXAMPLE = (2, 3, 24, 40)


def network_graph(model: nn.Module) -> onnx.ModelProto:
    """The whole network, all stages of a recurrent one."""
    model = _prepared(model)
    if repeats_one_stage(model):
        return _unrolled(model, stage_graph(model))
    return _translated(model, {"image": torch.rand(EXAMPLE)}, ["derained"])


def stage_graph(model: nn.Module) -> onnx.ModelProto:
    """One stage of SRN or BRN: "image" and the state in, the state out."""
    if not repeats_one_stage(model):
        raise UnrainError(f"{_name(model)} does not repeat one stage, so it has no state to carry from stage to stage.")
    model = _prepared(model)
    inputs, fields = _inputs_with_state(model)
    return _translated(_Stage(model), inputs, [f"{field}_out" for field in fields])


def carried_graph(model: Any) -> onnx.ModelProto:
    """SRN, BRN or a network made for video with the state as further inputs and outputs, its picture as "derained"."""
    if not is_for_video(model):
        return _carried(stage_graph(model), model.stages)
    model = _prepared(model)
    inputs, fields = _inputs_with_state(model)
    return _translated(_Frame(model), inputs, ["derained", *(f"{field}_out" for field in fields)])


def open_sides(height: int, width: int) -> dict[str, int]:
    """What the open sides of a graph's ports are for frames of this size."""
    from ...models.wiper import hidden_side

    return dict(zip((*OPEN[1:], *HIDDEN[1:]), (height, width, *map(hidden_side, (height, width))), strict=True))


def fixed(graph: onnx.ModelProto, batch: int | None = None, size: tuple[int, int] | None = None) -> onnx.ModelProto:
    """A copy of the graph for this batch and (height, width) alone; None leaves them open."""
    import onnx

    values = ({} if batch is None else {OPEN[0]: batch}) | ({} if size is None else open_sides(*size))
    graph = deepcopy(graph)
    for port in (*graph.graph.input, *graph.graph.output):
        for dim in port.type.tensor_type.shape.dim:
            if dim.dim_param in values:
                dim.dim_value = values[dim.dim_param]
    del graph.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(graph, data_prop=True)


class _Stage(nn.Module):
    """One stage with the state as separate tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.state: Any = type(self.model.initial_state(torch.rand(EXAMPLE)))

    def forward(self, image: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.stage(image, self.state(*state))[1])


class _Frame(_Stage):
    """One frame of a network made for video: its picture, and the state after it as separate tensors."""

    def forward(self, image: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        picture, after = self.model.step(image, self.state(*state))
        return picture, *after


def _name(model: nn.Module) -> str:
    return getattr(model, "name", type(model).__name__)


def _prepared(model: nn.Module) -> nn.Module:
    return deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)


def _inputs_with_state(model: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """An example of every input, and the state's fields."""
    image = torch.rand(EXAMPLE)
    state = model.initial_state(image)
    return {"image": image} | {f"{name}_in": value.clone() for name, value in state._asdict().items()}, state._fields


def _translated(network: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> onnx.ModelProto:
    """PyTorch's translation to ONNX with open sizes, cleaned of everything that speaks of the machine it ran on."""
    from torch.export import Dim

    sizes = {0: Dim.DYNAMIC(min=1), 2: Dim.DYNAMIC(min=8), 3: Dim.DYNAMIC(min=8)}
    of_maps = {0: Dim.DYNAMIC(min=1), 2: Dim.DYNAMIC(), 3: Dim.DYNAMIC()}
    smaller = {name for name, value in inputs.items() if value.shape[2:] != EXAMPLE[2:]}
    shapes: Any = tuple(of_maps if name in smaller else sizes for name in inputs)
    if len(inputs) > 1:
        shapes = (sizes, shapes[1:])  # `forward(image, *state)`
    # Its progress and its remarks on what else could be installed are of no use to our callers.
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.eval(),
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=shapes,
                opset_version=OPSET,
                verbose=False,
            )
    except ImportError as error:
        raise UnrainError("ONNX needs the packages onnx and onnxscript: `pip install unrain[onnx]`") from error
    finally:
        quiet.setLevel(level)
    graph = program.model_proto
    _name_open_sizes(graph, smaller | {f"{name.removesuffix('_in')}_out" for name in smaller})
    _name_nodes(graph)
    return _cleaned(graph)


def _name_open_sizes(model: onnx.ModelProto, smaller: set[str]) -> None:
    first = model.graph.input[0].type.tensor_type.shape.dim
    names = {first[axis].dim_param: name for axis, name in zip((0, 2, 3), OPEN, strict=True)}
    for port in (*model.graph.input, *model.graph.output):
        dims = port.type.tensor_type.shape.dim
        for axis, name in zip((0, 2, 3), HIDDEN if port.name in smaller else OPEN, strict=True):
            if dims[axis].dim_param in names or not dims[axis].HasField("dim_value"):
                dims[axis].dim_param = name


def _name_nodes(model: onnx.ModelProto) -> None:
    """Names by layer and operation, numbered where a layer does the same more than once."""
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
        classes = ast.literal_eval(notes.get("pkg.torch.onnx.class_hierarchy", "[]"))
        layer = scopes[-2].removeprefix("model.") if len(scopes) > 1 else ""
        layer = "" if layer.startswith("_empty") or layer == "model" else layer
        name = f"{layer}/{node.op_type}".lstrip("/")
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}.{seen[name]}"
        del node.metadata_props[:]
        _note(node, layer=layer, **{"class": classes[-2].rsplit(".", 1)[-1] if len(classes) > 1 else ""})
        node.doc_string = ""


def _note(node: onnx.NodeProto, **notes: str) -> None:
    for key, value in notes.items():
        node.metadata_props.add(key=key, value=value)


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without notes of the translation, with the type of every value worked out afresh."""
    import onnx

    model.producer_name = "unrain"
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for item in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "network"
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _unrolled(model: Any, stage: onnx.ModelProto) -> onnx.ModelProto:
    """The stage repeated from the initial state; the last picture is "derained"."""
    nodes, state = _initial_state(model)
    nodes, state = _repeated(stage, model.stages, nodes, state)
    return _assembled(stage, stage.graph.input[:1], nodes, {"derained": state["image"]}, {"derained": 3})


def _carried(stage: onnx.ModelProto, stages: int) -> onnx.ModelProto:
    """The stage repeated from the state that comes in; the last picture is "derained", and the state goes out."""
    fields = [port.name.removesuffix("_in") for port in stage.graph.input[1:]]
    nodes, state = _repeated(stage, stages, [], {field: f"{field}_in" for field in fields})
    channels = {port.name: port.type.tensor_type.shape.dim[1].dim_value for port in stage.graph.input}
    outputs = {"derained": state["image"]} | {f"{field}_out": state[field] for field in fields}
    widths = {"derained": 3} | {f"{field}_out": channels[f"{field}_in"] for field in fields}
    return _assembled(stage, stage.graph.input, nodes, outputs, widths)


def _repeated(
    stage: onnx.ModelProto, stages: int, nodes: list[onnx.NodeProto], state: dict[str, str]
) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    """`nodes` and `stages` copies of the stage, each fed the state of the one before; which value is which field."""
    weights = {tensor.name for tensor in stage.graph.initializer}
    for number in range(1, stages + 1):
        prefix = f"stage{number}/"
        names = {name: name for name in weights} | {"image": "image", "": ""}
        names |= {f"{field}_in": value for field, value in state.items()}
        for original in stage.graph.node:
            node = type(original)()
            node.CopyFrom(original)
            node.name = prefix + node.name
            names |= {output: prefix + output for output in node.output if output}
            node.input[:] = [names[name] for name in original.input]
            node.output[:] = [names[name] for name in original.output]
            nodes.append(node)
        state = {field: names[f"{field}_out"] for field in state}
    return nodes, state


def _assembled(
    stage: onnx.ModelProto,
    inputs: Sequence[onnx.ValueInfoProto],
    nodes: list[onnx.NodeProto],
    outputs: dict[str, str],
    channels: dict[str, int],
) -> onnx.ModelProto:
    """A graph of these nodes with the stage's weights; `outputs` gives each output the value it names."""
    from onnx import TensorProto, helper, shape_inference

    nodes = nodes + [helper.make_node("Identity", [value], [name], name) for name, value in outputs.items()]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [OPEN[0], channels[name], *OPEN[1:]]) for name in outputs
    ]
    graph = helper.make_graph(nodes, "network", inputs, ports, stage.graph.initializer)
    model = helper.make_model(graph, opset_imports=stage.opset_import, ir_version=stage.ir_version)
    model.producer_name = "unrain"
    return shape_inference.infer_shapes(_pruned(model), data_prop=True)


def _initial_state(model: nn.Module) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    """Nodes that make the initial state from "image", and which value is which field."""
    from onnx import helper, numpy_helper

    image = torch.rand(EXAMPLE)
    nodes: list[onnx.NodeProto] = []
    state = {}
    for field, value in model.initial_state(image)._asdict().items():
        if value is image:
            state[field] = "image"
            continue
        if value.any():
            raise UnrainError(f"{_name(model)}: {field} starts neither at zero nor at the picture.")
        state[field] = f"start/zeros{value.shape[1]}"
        if any(state[field] in node.output for node in nodes):
            continue
        channels = numpy_helper.from_array(torch.tensor([value.shape[1]]).numpy())
        name = state[field]
        parts = [f"{name}/{part}" for part in ("batch", "channels", "size")]
        nodes += [
            helper.make_node("Shape", ["image"], [f"{name}/batch"], f"{name}/batch", start=0, end=1),
            helper.make_node("Constant", [], [f"{name}/channels"], f"{name}/channels", value=channels),
            helper.make_node("Shape", ["image"], [f"{name}/size"], f"{name}/size", start=2, end=4),
            helper.make_node("Concat", parts, [f"{name}/shape"], f"{name}/shape", axis=0),
            helper.make_node("ConstantOfShape", [f"{name}/shape"], [name], name),
        ]
    return nodes, state


def _pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the nodes that nothing reads: of the last stage's state only the picture is wanted."""
    wanted = {port.name for port in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    return model
