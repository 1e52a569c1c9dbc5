"""A model repository for NVIDIA's inference server: FOLDER/NAME/config.pbtxt and FOLDER/NAME/1/model.onnx.

Without state the server batches requests of one size as they come. With it, every sequence (a camera) keeps its
recurrent state in the server: the client sends frames, marks the first, and never sees the state.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine.errors import UnrainError
from ...engine.files import write
from ..files import read_onnx
from ..onnx.export import Exported, export_onnx
from .schema import parse

if TYPE_CHECKING:
    import onnx
    from torch import nn

BATCH = 8  # requests in one batch at most
DELAY = 2_000  # microseconds a request may wait for others; a frame at 30 per second has 33,000
IDLE = 5_000_000  # microseconds without a frame after which a sequence is over


def export_server(
    model: nn.Module,
    folder: str | Path,
    name: str | None = None,
    largest_batch: int = BATCH,
    **options: Any,
) -> Exported:
    """Write the repository entry; `options` are those of `export_onnx`. The path in the answer is the ONNX file's."""
    name = name or getattr(model, "name", "unrain")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UnrainError(f"{name!r} cannot be the name of a model folder; use letters, digits, '.', '_' and '-'")
    if options.get("state") and options.get("size") is None:
        raise UnrainError("a server keeps states of one size: give it with --size HEIGHTxWIDTH")
    if options.get("batch") is not None:
        raise UnrainError("the server makes the batches: leave --batch out, --largest-batch is their limit")
    if largest_batch < 1:
        raise UnrainError(f"the largest batch must be at least 1, got {largest_batch}")
    entry = Path(folder) / name
    exported = export_onnx(model, entry / "1" / "model.onnx", **options)
    text = configuration(read_onnx(exported.path), name, largest_batch)
    check(text, read_onnx(exported.path), str(entry / "config.pbtxt"))
    write(entry / "config.pbtxt", text)
    return exported


def configuration(graph: onnx.ModelProto, name: str, largest_batch: int) -> str:
    """config.pbtxt for an exported graph."""
    picture, *rest = graph.graph.input
    states = [port for port in rest if port.name != "start"]
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        'default_model_filename: "model.onnx"',
        f"max_batch_size: {largest_batch}",
        f"input [ {{ {_tensor(picture)} }} ]",
        f"output [ {{ {_tensor(graph.graph.output[0])} }} ]",
        "instance_group [ { count: 1 kind: KIND_AUTO } ]",
    ]
    if not states:
        return "\n".join([*lines, f"dynamic_batching {{ max_queue_delay_microseconds: {DELAY} }}"]) + "\n"
    lines += [
        "sequence_batching {",
        f"  max_sequence_idle_microseconds: {IDLE}",
        f"  oldest {{ max_candidate_sequences: {4 * largest_batch} max_queue_delay_microseconds: {DELAY} }}",
        '  control_input [ { name: "start" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] } ]',
    ]
    for port in states:
        field = port.name.removesuffix("_in")
        shape = f"data_type: {_type(port)} dims: [ {', '.join(map(str, _dims(port)))} ]"
        lines.append(
            f'  state [ {{ input_name: "{field}_in" output_name: "{field}_out" {shape} '
            f'initial_state [ {{ name: "{field}" {shape} zero_data: true }} ] }} ]'
        )
    return "\n".join([*lines, "}"]) + "\n"


def check(text: str, graph: onnx.ModelProto, source: str) -> None:
    """Raise unless the configuration keeps to the published schema, and names the graph's ports as they are."""
    config = parse(text, source)
    inputs = {port.name: port for port in graph.graph.input}
    outputs = {port.name: port for port in graph.graph.output}
    said = [(inputs, item.name, item.data_type, item.dims) for item in config.input]
    said += [(outputs, item.name, item.data_type, item.dims) for item in config.output]
    for state in config.sequence_batching.state:
        said.append((inputs, state.input_name, state.data_type, state.dims))
        said.append((outputs, state.output_name, state.data_type, state.dims))
    for ports, name, kind, dims in said:
        if name not in ports:
            raise UnrainError(f"{source} speaks of {name!r}, which the graph does not have")
        known = config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[kind].name
        if (known, list(dims)) != (_type(ports[name]), _dims(ports[name])):
            raise UnrainError(
                f"{source} says {name!r} is {known} {list(dims)}, "
                f"the graph has {_type(ports[name])} {_dims(ports[name])}"
            )
    controls = {item.name for item in config.sequence_batching.control_input}
    missing = {*inputs, *outputs} - {name for _, name, _, _ in said} - controls
    if missing:
        raise UnrainError(f"{source} says nothing of {', '.join(sorted(missing))}")


def _tensor(port: onnx.ValueInfoProto) -> str:
    dims = _dims(port)
    order = "NHWC" if dims[-1] == 3 else "NCHW"
    layout = f" format: FORMAT_{order}" if port.name != "derained" else ""
    return f'name: "{port.name}" data_type: {_type(port)}{layout} dims: [ {", ".join(map(str, dims))} ]'


def _type(port: onnx.ValueInfoProto) -> str:
    from onnx import TensorProto

    names = {TensorProto.FLOAT: "TYPE_FP32", TensorProto.FLOAT16: "TYPE_FP16", TensorProto.UINT8: "TYPE_UINT8"}
    return names[port.type.tensor_type.elem_type]


def _dims(port: onnx.ValueInfoProto) -> list[int]:
    """Without the batch; open ones are -1."""
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in port.type.tensor_type.shape.dim][1:]
