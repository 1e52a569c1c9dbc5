"""Running an ONNX graph on the CPU by ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.errors import UnrainError

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
