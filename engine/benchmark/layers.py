"""What our own path spends on each instruction of a network's program, as the core runs it."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..errors import UnrainError
from ..program.explain import macs
from ..program.runner import available
from ..runtime.backends import fused


class Layer(NamedTuple):
    """`operations` are multiplications and additions as written. Winograd's form of a 3x3 convolution does a quarter
    of them, so such a row may be beyond what the machine can do."""

    op: str
    module: str
    operations: float
    milliseconds: float


def layers(model: nn.Module, x: Tensor, precision: str, rounds: int) -> list[Layer]:
    """Medians over the rounds. A network with a state from frame to frame is timed on a frame that goes on from one."""
    if reason := available() or fused.can_run(model, precision, x.device):
        raise UnrainError(f"its layers cannot be timed: {reason}")
    path: Any = fused.make(model, precision, x.device, None)
    state = next(iter(path.steps(x))).state if path.core.stages == 1 else None
    if state is not None:  # in memory of its own: every round would write over one that lies in the core's
        state = type(state)(*(each.clone() for each in state))
    run = path.program.runs[0 if state is None else 1]
    last = len(run.marks)
    done = [each for each in run.instructions[: run.marks[-1].after] if each.only_for_mark in (0, last)]
    taken = [median(each) / 1e6 for each in zip(*(path.core.times(x, state) for _ in range(rounds)), strict=True)]
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    rows = [
        Layer(each.op, each.text, 2 * macs(each, run.values, path.program.constants) * pixels, spent)
        for each, spent in zip(done, taken[1:-1], strict=True)
    ]
    return [Layer("picture in", "", 0.0, taken[0]), *rows, Layer("picture out", "", 0.0, taken[-1])]
