"""Modules of other projects at their sizes, compiled by this project's backend and by Inductor: `-k test_compile`.

A step is the forward pass in inference, or forward and backward in training. Before a race every contender runs once,
which compiles it; what that took is in its row as first_call_ms. Steps run on one thread, and all is measured in CPU
time, the compiler's with it, which other work on the machine changes little.
"""

import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._inductor.config
from case import Case, Contender, race
from layouts import (
    Charbonnier,
    MattingGRU,
    OptionalStateCell,
    PeepholeCell,
    RadarGRU,
    RaftGRU,
    RaftSeparableGRU,
    RecurrentDerain,
    SpatioTemporalCell,
    StackedCell,
    TwoSumsCell,
    splatting_ssim,
)
from torch._inductor.utils import fresh_cache

Tensor = torch.Tensor


class SplattingSSIM(torch.nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return splatting_ssim(x, y)


def maps(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.randn(shape) for shape in shapes)


def alike(picture: Tensor) -> tuple[Tensor, Tensor]:
    """A rendering and its photograph: of two that have nothing in common SSIM is 0, and its relative error is noise."""
    return picture, (picture + 0.1 * torch.randn(picture.shape)).clamp(0, 1)


# project and size -> the module, its inputs: batch, channels, height, width
PROJECTS: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[], Any]]] = {
    "ndrplz ConvLSTM, 64 of 64x64": (
        lambda: StackedCell(64, 64),
        lambda: ((x := maps(*[(1, 64, 64, 64)] * 3))[0], (x[1], x[2])),
    ),
    "automan000 ConvLSTM, 64 of 64x64": (
        lambda: PeepholeCell(64, 64, (64, 64)),
        lambda: maps(*[(1, 64, 64, 64)] * 3),
    ),
    "rpg_e2vid ConvLSTM, 64 of 90x120": (
        lambda: OptionalStateCell(64, 64),
        lambda: ((x := maps(*[(1, 64, 90, 120)] * 3))[0], (x[1], x[2])),
    ),
    "OpenSTL ConvLSTM, 128 of 16x16, batch 4": (
        lambda: TwoSumsCell(128, 128),
        lambda: maps(*[(4, 128, 16, 16)] * 3),
    ),
    "PredRNN cell, 128 of 16x16, batch 4": (
        lambda: SpatioTemporalCell(128, 128),
        lambda: maps(*[(4, 128, 16, 16)] * 4),
    ),
    "RAFT SepConvGRU, 128 of 46x62": (
        lambda: RaftSeparableGRU(128, 256),
        lambda: maps((1, 128, 46, 62), (1, 256, 46, 62)),
    ),
    "RAFT ConvGRU, 96 of 46x62": (lambda: RaftGRU(96, 146), lambda: maps((1, 96, 46, 62), (1, 146, 46, 62))),
    "DGMR ConvGRU, 384 of 8x8, batch 4": (
        lambda: RadarGRU(768, 384).eval(),
        lambda: maps((4, 768, 8, 8), (4, 384, 8, 8)),
    ),
    "RVM ConvGRU, 20 of 135x240": (lambda: MattingGRU(20), lambda: maps(*[(1, 20, 135, 240)] * 2)),
    "PReNet, 2 stages, 100x100": (lambda: RecurrentDerain(2, 32), lambda: maps((1, 3, 100, 100))),
    "gaussian-splatting ssim, 3x540x960": (SplattingSSIM, lambda: alike(torch.rand(3, 540, 960))),
    "MPRNet Charbonnier, 3x256x256, batch 8": (Charbonnier, lambda: maps(*[(8, 3, 256, 256)] * 2)),
}
CONTENDERS = ("unrain", "eager", "torch.compile")
BACKENDS = {"unrain": "unrain", "torch.compile": "inductor"}


def _step(name: str, module: torch.nn.Module, inputs: Any, training: bool, dtype: torch.dtype) -> Contender:
    """One call of the module, compiled as `name` says; the training step gives the gradients too."""
    own = deepcopy(module).to(dtype)
    call = torch.compile(own, backend=BACKENDS[name]) if name in BACKENDS else own
    given = torch.utils._pytree.tree_map(lambda each: each.to(dtype).requires_grad_(training), inputs)
    leaves = [*torch.utils._pytree.tree_leaves(given), *own.parameters()]

    def step() -> list[Tensor]:
        with torch.set_grad_enabled(training):
            out = torch.utils._pytree.tree_leaves(call(*given))
            if not training:
                return out
            return [*out, *torch.autograd.grad(sum(each.sum() for each in out), leaves, allow_unused=True)]

    return step


def case(project: str, training: bool) -> Case:
    torch.manual_seed(0)
    torch._dynamo.reset()
    make, inputs = PROJECTS[project]
    module, given = make(), inputs()
    steps = {name: _step(name, module, given, training, torch.float32) for name in CONTENDERS}
    return Case(
        f"{project}, {'training' if training else 'inference'}",
        steps,
        _step("eager", module, given, training, torch.float64),
        0,
        plain=steps["eager"],
        rounds=15,
    )


@pytest.fixture(scope="module", autouse=True)
def anew():
    """Inductor has started and its headers are compiled; of what it compiled before, nothing is there."""
    with fresh_cache(), torch._inductor.config.patch(compile_threads=1):
        torch.compile(torch.sin)(torch.ones(2))
        yield


@pytest.mark.parametrize(
    ("name", "contender"),
    [
        (f"{project}, {mode}", contender)
        for project in PROJECTS
        for mode in ("inference", "training")
        for contender in CONTENDERS
    ],
)
def test_compile(name, contender, compete, request):
    rounds = request.config.getoption("--rounds")

    def run_race(names):
        project, mode = name.rsplit(", ", 1)
        made = case(project, mode == "training")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            first = {each: first_call(step) for each, step in made.contenders.items() if each in names}
            outcomes = race(replace(made, rounds=rounds) if rounds else made, names, cpu_milliseconds)
        finally:
            torch.set_num_threads(threads)
        for each, outcome in outcomes.items():
            outcome.extra["first_call_ms"] = first[each]
        return outcomes

    compete("compile", name, contender, run_race)


def cpu_milliseconds(step: Contender) -> float:
    begin = time.process_time()
    step()
    return (time.process_time() - begin) * 1e3


def first_call(step: Contender) -> float:
    before = os.times()
    step()
    return sum(after - begin for after, begin in zip(os.times()[:4], before[:4], strict=True)) * 1e3
