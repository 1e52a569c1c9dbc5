"""Our own path. On a CPU: the network's program (`engine/program`), run by the compiled core. On a GPU: SRN and BRN in
Triton kernels and one CUDA graph (`srn_brn_gpu.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ....kernels import native
from ...models.srn_brn import BRN, SRN
from ...program import Program
from ...program.explain import reach
from ...program.file import decoded
from ...program.runner import ProgramRunner
from ...program.runner import available as core
from .. import fidelity
from . import Runner, Step
from .recorded import program_of

PRECISIONS = ("fp32", "bf16", "fp16")
OUTDONE_BY: dict[str, str] = {}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Products of bfloat16 are a third faster than bfloat16 maps alone; they are taken where they do not cost the precision.
_CHECKED = 96  # pixels a side
_MARGIN = 3.0  # dB beyond what the precision has to keep


def available(device: torch.device) -> str | None:
    if device.type == "cpu":
        return core()
    return None if device.type == "cuda" else f"it runs on a CPU or on CUDA, not on {device.type}"


def can_run(model: nn.Module, precision: str, device: torch.device) -> str | None:
    """Whether a network can be recorded shows when it is made: that takes seconds."""
    if device.type == "cuda":
        return _on_a_gpu(model, precision)
    if precision not in ("fp32", "bf16"):
        return f"on a CPU it computes in fp32 or bf16, not in {precision}"
    return None


def _on_a_gpu(model: nn.Module, precision: str) -> str | None:
    if not isinstance(model, SRN | BRN):
        return f"on a GPU it runs SRN and BRN networks, not {type(model).__name__}"
    if model.config.cell != "lstm":
        return f"on a GPU it runs LSTM cells, not {model.config.cell.upper()}"
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no bf16 arithmetic"
    return None if precision in PRECISIONS else f"it computes in {', '.join(PRECISIONS)}, not in {precision}"


def build_seconds(model: nn.Module) -> float:
    return 1.0


def make(model: nn.Module, precision: str, device: torch.device, threads: int | None) -> Runner:
    if device.type == "cuda":
        from .srn_brn_gpu import RecordedRecurrence

        return RecordedRecurrence(model, _DTYPES[precision], device)
    data = program_of(model)
    if precision == "fp32":
        return FusedProgram(data, "float32", "float32")
    exact = FusedProgram(data, "bfloat16", "float32")
    if not _multiplies_bf16():
        return exact
    quick, picture = FusedProgram(data, "bfloat16", "bfloat16"), fidelity.sample(_CHECKED, _CHECKED)
    decibels = fidelity.decibels(quick.run(picture), exact.run(picture))
    return quick if decibels >= fidelity.LIMITS["bf16"] + _MARGIN else exact


def _multiplies_bf16() -> bool:
    loaded: Any = native.load()
    return loaded.multiplies_bf16()


class FusedProgram(Runner):
    """Any number of threads may call it: each call has a context of its own."""

    concurrent = True

    def __init__(self, data: bytes, maps: str, products: str) -> None:
        self._data = data
        self.core = ProgramRunner(data, maps, products)

    def run(self, x: Tensor) -> Tensor:
        return self.core.run(x)

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]:
        for stage in self.core.steps(x, state, image):
            yield Step(*stage)

    def bytes(self, height: int, width: int) -> int:
        return self.core.bytes(height, width)

    @cached_property
    def program(self) -> Program:
        return decoded(self._data)

    @cached_property
    def reach(self) -> int | None:
        return reach(self.program)

    @cached_property
    def summary(self) -> str:
        runs = self.program.runs
        operations = sum(each.text.count(" + ") + 1 for run in runs for each in run.instructions)
        instructions = sum(len(run.instructions) for run in runs)
        return f"its program: {operations} operations fused into {instructions} instructions"
