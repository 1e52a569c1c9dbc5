"""Writing what is exported, and reading what may be hostile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import UnrainError

if TYPE_CHECKING:
    import onnx

LARGEST_FILE = 2**31 - 1  # protobuf's own limit; the largest network here is under 100 MB


def read_onnx(path: Path) -> onnx.ModelProto:
    """The graph in a file that nobody vouches for: whole, valid, and with all its weights inside or beside it."""
    onnx = import_onnx()
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise UnrainError(f"{path} has {size:,} bytes, more than an ONNX file can have.")
        model = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise UnrainError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnrainError:
        raise
    except Exception as error:  # protobuf's error class has moved between its versions
        raise UnrainError(f"{path} is no ONNX file, or only a part of one; export it again.") from error
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _require_inside(path, tensor)
    try:
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
            onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker, its shape inference and the file system have nothing in common
        raise UnrainError(f"{path} is not a valid ONNX file: {_first_line(error)}") from error
    return model


def import_onnx() -> object:
    try:
        import onnx
    except ImportError as error:
        raise UnrainError("this needs the package onnx: `pip install unrain[onnx]`") from error
    return onnx


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that could point to another file, those of nested graphs and functions too."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes += graph.node
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            graphs += [attribute.g] if attribute.HasField("g") else []
            graphs += attribute.graphs


def _require_inside(path: Path, tensor: onnx.TensorProto) -> None:
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    folder = path.resolve().parent
    target = folder / location
    outside = not location or not target.resolve().is_relative_to(folder)
    if outside or any(part.is_symlink() for part in (target, *target.parents) if part.is_relative_to(folder)):
        raise UnrainError(
            f"{path} keeps the weights {tensor.name!r} in {location!r}, outside its folder; it is not read."
        )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
