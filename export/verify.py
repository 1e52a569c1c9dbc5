"""`verify`: an exported file run on real pictures, against the PyTorch network in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.errors import UnrainError
from .fidelity import RULE, Fidelity, Run, as_frames, carried_reference, compare, reference
from .files import read_onnx
from .metadata import require_same_weights
from .onnx.export import describe_onnx
from .onnx.ranges import first_overflow
from .onnx.run import port_shape, session
from .pictures import clips

if TYPE_CHECKING:
    import onnx
    from torch import nn

# suffix: module here and its function (path, model or None, pictures) -> Fidelity
WAYS = {
    ".onnx": ("verify", "verify_onnx"),
    ".engine": ("tensorrt.engines", "verify_engine"),
    ".pt2": ("package", "verify_package"),
    ".unrain": ("program", "verify_program"),
    ".param": ("ncnn", "verify_ncnn"),
    ".tflite": ("litert", "verify_litert"),
}


def verify(path: str | Path, model: nn.Module | None, pictures: Sequence[np.ndarray]) -> Fidelity:
    """An exported file, or a server's folder, on float32 [1,3,H,W] pictures; without `model`, the shipped weights."""
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("**/1/model.onnx"))
        if len(found) != 1:
            raise UnrainError(f"{path} holds {len(found)} exported models; name one file to verify")
        path = found[0]
    if not path.is_file():
        raise UnrainError(f"{path} does not exist")
    if path.suffix not in WAYS:
        raise UnrainError(f"{path} is nothing that can be verified; give a file ending in {', '.join(WAYS)}")
    module, function = WAYS[path.suffix]
    return getattr(import_module(f".{module}", __package__), function)(path, model, pictures)


def verify_onnx(
    path: Path, model: nn.Module | None, pictures: Sequence[np.ndarray], threads: int | None = None
) -> Fidelity:
    """An exported ONNX file against `model`, or against the shipped weights of the network it names."""
    graph = read_onnx(path)
    description = describe_onnx(graph, path)
    if model is None:
        from ..engine.models import load

        model = load(description["model"])
    require_same_weights(description, model, str(path))
    if description.get("precision") not in RULE:
        raise UnrainError(f"{path} says its precision is {description.get('precision')!r}, which no rule is known for")
    carries = bool(description.get("state"))
    expected = (carried_reference if carries else reference)(model, description.get("stages"))
    takes_frames = graph.graph.input[0].name == "frame"
    size, batch = description.get("size"), description.get("batch") or 1
    fitting = [fitted(clip, size) for clip in (clips(pictures) if carries else pictures)]
    run = _onnx_run(graph, session(graph, threads), batch)
    precision = description["precision"]
    fidelity = compare(run, as_frames(expected) if takes_frames else expected, fitting, precision)
    if not description.get("fp32_islands"):
        return fidelity
    # A small part is enough here: a layer that overflows does so in most places of a picture.
    part = fitting[0][:1] if size else np.ascontiguousarray(fitting[0][:1, :, :64, :64])
    inputs = fresh_inputs(graph, np.repeat(part, batch, axis=0), state=0.0)
    return fidelity._replace(first_broken=first_overflow(graph, inputs))


def _onnx_run(graph: onnx.ModelProto, run: Any, batch: int) -> Run:
    """The file as a function of a picture or a clip, whatever its ports are; a state starts afresh for each."""
    takes_frames = graph.graph.input[0].name == "frame"
    after = [port.name for port in graph.graph.output[1:]]

    def call(clip: np.ndarray) -> np.ndarray:
        found, carried = [], {}
        for number in range(len(clip)):
            inputs = {**fresh_inputs(graph, np.repeat(clip[number : number + 1], batch, axis=0)), **carried}
            derained, *state = run.run(["derained", *after], inputs)
            found.append(derained[:1])
            if after:
                carried = {name.removesuffix("_out") + "_in": value for name, value in zip(after, state, strict=True)}
                carried["start"] = np.zeros((batch, 1), np.float32)
        frames = np.concatenate(found)
        return (frames.transpose(0, 3, 1, 2) / np.float32(255)) if takes_frames else frames

    return call


def fresh_inputs(graph: onnx.ModelProto, picture: np.ndarray, state: float = np.nan) -> dict[str, np.ndarray]:
    """The inputs of an exported file for the first picture of a sequence: any `state`, and "start" at 1."""
    from onnx import helper

    inputs = {}
    for port in graph.graph.input:
        if port.name == "frame":
            inputs["frame"] = np.rint(picture.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        elif port.name == "image":
            inputs["image"] = picture
        elif port.name == "start":
            inputs["start"] = np.ones((len(picture), 1), np.float32)
        else:
            dtype = helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
            inputs[port.name] = np.full(port_shape(port, picture.shape), state, dtype)
    return inputs


def fitted(picture: np.ndarray, size: Sequence[int] | None) -> np.ndarray:
    """The picture, or clip, at the one size the file takes: cut, or mirrored where it is too small."""
    if size is None:
        return picture
    height, width = size
    rows, columns = (
        np.resize(np.r_[0:side, side - 2 : 0 : -1], wanted)
        for side, wanted in zip(picture.shape[2:], (height, width), strict=True)
    )
    return np.ascontiguousarray(picture[:, :, rows][:, :, :, columns])
