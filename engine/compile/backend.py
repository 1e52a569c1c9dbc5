"""`torch.compile(model, backend="unrain")`: patterns become this project's operations, the rest goes to Inductor."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._guards import tracing
from torch.autograd import forward_ad

from ..errors import UnrainError
from . import rules
from .known import Known
from .match import Safety
from .program import as_program
from .report import Entry, Report
from .trace import LeftAsItWas, autocast, levelled, wants_gradients

log = logging.getLogger(__name__)
RESTS = ("inductor", "eager")


def backend(
    graph: fx.GraphModule,
    inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    report: Report | None = None,
) -> Callable[..., Any]:
    """The backend as torch.compile calls it. `mode`, and what `options` say beside "rest", are Inductor's.

    options["rest"]      what runs that no rule knows: "inductor", the default where its compiler is there, or "eager"
    options["winograd"]  True lets 3x3 convolutions in inference have the error of Winograd's form
    """
    options = dict(options or {})
    rest = _rest(options.pop("rest", None), graph)
    winograd = bool(options.pop("winograd", False))
    report = Report() if report is None else report
    report.graphs += 1
    if _transformed():  # of torch.func and forward mode: Dynamo's graph has them all
        return graph.forward
    gradients = wants_gradients(inputs)
    if winograd and not gradients and not autocast() and (program := as_program(graph, inputs, report)) is not None:
        return program
    fused_anyway = rest is _inductor and _on_a_cpu(inputs)
    with tracing(None):  # torch 2.8 has another fake mode in its context by now than that of the graph's values
        rewritten = _rewritten(graph, inputs, gradients, winograd, fused_anyway, report)
    if rewritten is None:
        return rest(graph, inputs, mode, options)
    traced, known = rewritten
    return known.guarded(rest(traced, inputs, mode, options), graph.forward)


def _rewritten(
    graph: fx.GraphModule, inputs: Sequence[Any], gradients: bool, winograd: bool, fused_anyway: bool, report: Report
) -> tuple[fx.GraphModule, Known] | None:
    """The graph with what the rules put into it, and what they took as known; None where they found nothing."""
    try:
        traced = levelled(graph, inputs)
    except LeftAsItWas as why:
        log.info("a graph is left as it was: %s", why)
        report.add(Entry("", "", "graph", "", str(why)))
        return None
    known = Known(traced, inputs)
    setup = rules.Setup(Safety(traced.graph), gradients, autocast(), winograd, fused_anyway, known)
    try:
        count = rules.apply(traced.graph, setup, report)
        traced.graph.lint()
    except Exception as error:  # a rule that fails must not take the model with it: the graph as captured still runs
        log.warning("a graph is left as it was: a rule failed", exc_info=True)
        report.add(Entry("", "", "graph", "", f"a rule failed: {type(error).__name__}: {error}"))
        return None
    traced.recompile()
    return (traced, known) if count else None


def _transformed() -> bool:
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def _rest(name: str | None, graph: fx.GraphModule) -> Callable[..., Any]:
    if name not in (*RESTS, None):
        raise UnrainError(f'options["rest"] must be one of {", ".join(RESTS)}; got {name!r}')
    if name is None:
        name = "inductor" if _can_compile(_devices(graph)) else "eager"
    return {"inductor": _inductor, "eager": _eager}[name]


def _devices(graph: fx.GraphModule) -> set[str]:
    values = [node.meta.get("example_value") for node in graph.graph.nodes]
    return {each.device.type for each in values if isinstance(each, torch.Tensor)}


def _can_compile(devices: set[str]) -> bool:
    return all(_has_triton() if device != "cpu" else _has_cpp() for device in devices or {"cpu"})


@functools.cache
def _has_cpp() -> bool:
    from torch._inductor import config

    compilers = config.cpp.cxx if isinstance(config.cpp.cxx, tuple | list) else [config.cpp.cxx]
    return any(shutil.which(each) for each in compilers if each)


@functools.cache
def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return has_triton()


def _eager(graph: fx.GraphModule, inputs: Sequence[Any], mode: str | None, options: dict[str, Any]) -> Any:
    return graph.forward


def _inductor(graph: fx.GraphModule, inputs: Sequence[Any], mode: str | None, options: dict[str, Any]) -> Any:
    from torch._inductor import list_mode_options
    from torch._inductor.compile_fx import compile_fx

    # on a CPU Inductor brings every convolution to channels-last, which costs up to twice the time of a training step
    usual = {"layout_optimization": False} if _on_a_cpu(inputs) else {}
    patches = {**usual, **(list_mode_options(mode) if mode else {}), **options}
    return compile_fx(graph, list(inputs), config_patches=patches)


def _on_a_cpu(inputs: Sequence[Any]) -> bool:
    return all(each.device.type == "cpu" for each in inputs if isinstance(each, torch.Tensor))
