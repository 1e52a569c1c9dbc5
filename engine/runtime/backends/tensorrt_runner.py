"""One engine file in one execution context, on PyTorch's stream and PyTorch's memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UnrainError
from . import Runner, Step, eager
from .sidecar import read_engine


class TensorRTRunner(Runner):
    """`library` is tensorrt or tensorrt_rtx: what is used of them is the same. Steps run in plain PyTorch at fp32."""

    def __init__(self, library: ModuleType, model: nn.Module, path: Path, device: torch.device) -> None:
        self.device, self.model = device, model
        self._library = library
        self._runtime = library.Runtime(library.Logger(library.Logger.WARNING))
        here = "SM{}{}".format(*torch.cuda.get_device_capability(device))
        data = read_engine(path, library=library.__name__, version=library.__version__, target=here)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise UnrainError(f"{path} is not an engine for this GPU and this version: export it again on this machine")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == library.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or len(outputs) != 1:
            raise UnrainError(f"{path} must have one input and one output, it has {', '.join(names)}")
        self._input, self._output = inputs[0], outputs[0]
        self._types = {
            name: torch.float16 if self._engine.get_tensor_dtype(name) == library.float16 else torch.float32
            for name in names
        }
        self._plain: Runner | None = None

    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        x = x.to(self._types[self._input]).contiguous()
        if not self._context.set_input_shape(self._input, tuple(x.shape)):
            raise UnrainError(f"the engine was not built for pictures of {list(x.shape)}: export it for that size")
        shape = tuple(self._context.get_tensor_shape(self._output))
        out = torch.empty(shape, dtype=self._types[self._output], device=self.device)
        self._context.set_tensor_address(self._input, x.data_ptr())
        self._context.set_tensor_address(self._output, out.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream(self.device).cuda_stream):
            raise RuntimeError("TensorRT could not run its engine")
        return out.float()

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]:
        if getattr(self.model, "stages", None) is None:
            yield Step(self.run(x), None)
            return
        self._plain = self._plain or eager.make(self.model, "fp32", self.device, None)
        yield from self._plain.steps(x, state, image)
