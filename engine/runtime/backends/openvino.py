"""OpenVINO on the unrolled network, on a CPU: fp32, bf16 and, by NNCF's post-training quantisation, int8."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import Runner
from .graph_runner import GraphRunner, Session
from .packages import missing

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("fp32", "bf16", "int8")
OUTDONE_BY: dict[str, str] = {}
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}  # what the parts that are not quantised compute in
_SIZES = 4  # compiled for as many picture sizes at a time: fixed sizes run faster than open ones


def available(device: torch.device) -> str | None:
    if device.type != "cpu":
        return f"it runs on the CPU here, not on {device.type}"
    return missing("openvino", "openvino") or missing("onnx", "onnx", "onnxscript")


def can_run(model: nn.Module, precision: str, device: torch.device) -> str | None:
    if precision not in PRECISIONS:
        return f"on a CPU it computes in fp32, bf16 or int8, not in {precision}"
    if precision == "int8":
        return missing("openvino", "nncf")
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU has no bf16 arithmetic"
    return None


def build_seconds(model: nn.Module) -> float:
    return 5.0


def make(model: nn.Module, precision: str, device: torch.device, threads: int | None, pictures: Any = None) -> Runner:
    """`pictures`, [1,3,H,W] tensors, are what int8 learns its ranges from."""
    import openvino

    core = openvino.Core()
    hint = _HINTS[precision]
    if hint == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        hint = "f32"
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }

    def open_session(graph: onnx.ModelProto) -> Session:
        network = core.read_model(graph.SerializeToString())
        if precision == "int8" and len(network.inputs) == 1:
            from .quantise import quantised

            network = quantised(network, pictures)
        return _Compiled(core, network, options)

    return GraphRunner(model, open_session)


class _Compiled:
    """One network, compiled for the sizes it meets."""

    def __init__(self, core: Any, network: Any, options: dict[str, Any]) -> None:
        self.core, self.network, self.options = core, network, options
        self.names = [port.any_name for port in network.inputs]
        self.requests: OrderedDict[tuple, Any] = OrderedDict()

    def __call__(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        values = [inputs[name].float().contiguous().numpy() for name in self.names]
        shapes = tuple(value.shape for value in values)
        request = self.requests.get(shapes)
        if request is None:
            network = self.network.clone()
            network.reshape(dict(zip(self.names, (list(shape) for shape in shapes), strict=True)))
            request = self.core.compile_model(network, "CPU", self.options).create_infer_request()
            self.requests[shapes] = request
            if len(self.requests) > _SIZES:
                self.requests.popitem(last=False)
        self.requests.move_to_end(shapes)
        results = request.infer(values, share_inputs=True, share_outputs=len(self.names) == 1)
        return [torch.from_numpy(results[index]) for index in range(len(results))]
