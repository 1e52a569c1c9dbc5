"""The plain PyTorch network as it stands: the reference every other backend is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ...models import is_for_video
from . import Runner, Step

PRECISIONS = ("fp32", "bf16", "fp16")
OUTDONE_BY: dict[str, str] = {}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def available(device: torch.device) -> str | None:
    return None


def can_run(model: nn.Module, precision: str, device: torch.device) -> str | None:
    if precision == "fp16" and device.type == "cpu":
        return "half precision convolutions are emulated on a CPU; take bf16"
    if precision == "bf16" and device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bf16 convolutions are emulated on this CPU; take fp32, or the fused path"
    return None


def build_seconds(model: nn.Module) -> float:
    return 1.0


def make(model: nn.Module, precision: str, device: torch.device, threads: int | None) -> Runner:
    return Eager(model, precision, device)


class Eager(Runner):
    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        self.dtype = _DTYPES[precision]
        self.model: Any = deepcopy(model).to(device, self.dtype).eval()

    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        return self.model(x.to(self.dtype)).float()

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]:
        stages = getattr(self.model, "stages", None)
        if stages is None:
            yield self._frame(x, state) if is_for_video(self.model) else Step(self.run(x), None)
            return
        # Inference mode is entered anew around each stage: a generator must not leave it on in its caller.
        with torch.inference_mode():
            x = x.to(self.dtype)
            state = self.model.initial_state(x) if state is None else state
            if image is not None:
                state = state._replace(image=image.to(self.dtype))
        for _ in range(stages):
            with torch.inference_mode():
                picture, state = self.model.stage(x, state)
                picture = picture.float()
            yield Step(picture, state)

    @torch.inference_mode()
    def _frame(self, x: Tensor, state: Any) -> Step:
        x = x.to(self.dtype)
        picture, state = self.model.step(x, self.model.initial_state(x) if state is None else state)
        return Step(picture.float(), state)
