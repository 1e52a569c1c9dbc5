"""torch.compile on channels-last weights: of the stage where there are stages, for the whole loop takes too long."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ...models import is_for_video, repeats_one_stage
from . import Runner, Step

PRECISIONS = ("fp32", "bf16", "fp16")
OUTDONE_BY = {"fused": "the fused path is the same convolutions with less between them"}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SPARE = 8  # what PyTorch allows anything


def available(device: torch.device) -> str | None:
    if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        return "torch.compile needs a C++ compiler, and there is none on the path"
    if device.type == "cuda":
        from importlib.util import find_spec

        if find_spec("triton") is None:
            return "torch.compile needs triton on a GPU: pip install 'unrain[triton]'"
    return None


def can_run(model: nn.Module, precision: str, device: torch.device) -> str | None:
    if precision not in PRECISIONS:
        return f"it computes in fp32, bf16 or fp16, not in {precision}"
    if device.type == "cpu" and precision == "fp16":
        return "half precision convolutions are emulated on a CPU; take bf16"
    if device.type == "cpu" and precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU has no bf16 arithmetic"
    return None


def build_seconds(model: nn.Module) -> float:
    """Stages with weights of their own are a program each."""
    return 10.0 if getattr(model, "stages", None) is None else 5.0 * _programs(model)


def make(model: nn.Module, precision: str, device: torch.device, threads: int | None) -> Runner:
    return Compiled(model, precision, device)


def _programs(model: Any) -> int:
    """How many stages there are to compile; a network whose stages share all weights has two: a first and a later."""
    stages = getattr(model, "stages", None)
    return 2 if stages is None or repeats_one_stage(model) else stages


class Compiled(Runner):
    """Compiled on first use, again for a second size (then with open sizes)."""

    programs = _SPARE  # of all that were made in this process

    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        self.dtype = _DTYPES[precision]
        own: Any = deepcopy(model).to(device, self.dtype).eval().requires_grad_(False)
        self.model = own.to(memory_format=torch.channels_last)
        self.recurrent = getattr(model, "stages", None) is not None
        self.for_video = is_for_video(model)
        # Each may be compiled again for a second size. PyTorch counts by the function, which all networks of a kind
        # share; beyond its limit it would run the rest uncompiled, with a warning.
        Compiled.programs += 2 * _programs(model)
        # Frozen weights are packed once, at compile time.
        options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
        part = self.model.stage if self.recurrent else self.model.step if self.for_video else self.model
        self._compiled = torch.compile(part, options=options)

    def stage(self, *inputs: Any) -> Any:
        limit = Compiled.programs
        with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=max(256, limit)):
            return self._compiled(*inputs)

    def _prepared(self, picture: Tensor) -> Tensor:
        return picture.to(self.dtype).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def run(self, x: Tensor) -> Tensor:
        if self.for_video:
            return self._frame(x, None).image
        if not self.recurrent:
            return self.stage(self._prepared(x)).float()
        x = self._prepared(x)
        image, state = x, self.model.initial_state(x)
        for _ in range(self.model.stages):
            image, state = self.stage(x, state)
        return image.float()

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]:
        if not self.recurrent:
            yield self._frame(x, state) if self.for_video else Step(self.run(x), None)
            return
        with torch.no_grad():
            x = self._prepared(x)
            state = self.model.initial_state(x) if state is None else state
            if image is not None:
                state = state._replace(image=self._prepared(image))
        for _ in range(self.model.stages):
            with torch.no_grad():
                picture, state = self.stage(x, state)
                picture = picture.float()
            yield Step(picture, state)

    @torch.no_grad()
    def _frame(self, x: Tensor, state: Any) -> Step:
        x = self._prepared(x)
        state = self.model.initial_state(x) if state is None else state
        # All in one layout, or the second frame would be compiled anew.
        picture, state = self.stage(x, type(state)(*map(self._prepared, state)))
        return Step(picture.float(), state)
