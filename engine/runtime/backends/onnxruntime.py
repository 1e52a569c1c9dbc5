"""ONNX Runtime on the unrolled network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import Runner
from .graph_runner import GraphRunner, Session
from .packages import missing

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("fp32",)
OUTDONE_BY: dict[str, str] = {}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def available(device: torch.device) -> str | None:
    reason = missing("onnx", "onnxruntime", "onnx", "onnxscript")
    if reason is not None:
        return reason
    import onnxruntime

    provider = _PROVIDERS.get(device.type)
    if provider not in onnxruntime.get_available_providers():
        return f"this ONNX Runtime has no provider for {device.type}"
    return None


def can_run(model: nn.Module, precision: str, device: torch.device) -> str | None:
    if precision not in PRECISIONS:
        return f"its CPU kernels have no {precision}" if device.type == "cpu" else f"it is fed fp32, not {precision}"
    return None


def build_seconds(model: nn.Module) -> float:
    return 10.0


def make(model: nn.Module, precision: str, device: torch.device, threads: int | None) -> Runner:
    import onnxruntime

    def open_session(graph: onnx.ModelProto) -> Session:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        # Threads that spin between calls take the processor from whatever the caller does there.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=[_PROVIDERS[device.type]])

        def call(inputs: dict[str, Tensor]) -> list[Tensor]:
            arrays = session.run(None, {name: value.cpu().numpy() for name, value in inputs.items()})
            return [torch.from_numpy(array).to(device) for array in arrays]

        return call

    return GraphRunner(model, open_session)
