"""A graph from one picture to one picture, in inference on a CPU, as a program of the compiled core.

A program's convolutions have Winograd's error and its weights are packed, so it is only for who asked for that error;
and at every call the weights must be those that were packed: other ones, and the graph as it was captured runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..program import Refused, record
from ..program.runner import ProgramRunner, available
from .report import Entry, Report

log = logging.getLogger(__name__)
WHAT = "network"
NEAR = 1e-6  # of the mean square: 60 dB, as for every backend of the engine


class _Bound(nn.Module):
    """A captured graph as a function of its picture: weights as buffers, sizes from the picture."""

    def __init__(self, captured: fx.GraphModule, sources: Sequence[Any]) -> None:
        super().__init__()
        self._captured, self._sources = captured, sources
        for place, each in enumerate(sources):
            if isinstance(each, Tensor):
                self.register_buffer(f"input_{place}", each)

    def forward(self, x: Tensor) -> Tensor:
        given = []
        for place, each in enumerate(self._sources):
            if each is None:
                given.append(x)
            else:
                given.append(getattr(self, f"input_{place}") if isinstance(each, Tensor) else x.shape[each])
        (y,) = self._captured(*given)
        return y


def as_program(captured: fx.GraphModule, inputs: Sequence[Any], report: Report) -> Callable[..., Any] | None:
    """The graph run by the core, checked once against itself; None where it is no such graph, or is refused."""
    sources = _sources(captured, inputs)
    if sources is None or available() is not None:
        return None
    at = sources.index(None)
    picture = inputs[at]
    try:
        runner = ProgramRunner(record(_Bound(captured, sources).eval(), picture[:1]).data)
    except Refused as why:
        report.add(Entry("", "", WHAT, "", str(why)))
        return None
    except Exception as error:  # a graph of fixed sizes fails at the size of the recording, in its own words
        log.info("no program: %s", error)
        return None
    true, found = captured(*inputs)[0], runner.run(picture)
    if found.shape != true.shape or not bool((found - true).square().mean() <= NEAR * true.square().mean()):
        report.add(Entry("", "", WHAT, "", "its program computes something else"))
        return None
    report.add(Entry("", "", WHAT, "program"))
    packed = [(place, each, *_state(each)) for place, each in enumerate(sources) if isinstance(each, Tensor)]

    def run(*given: Any) -> Any:
        if any(given[place] is not each or _state(each) != (version, where) for place, each, version, where in packed):
            return captured(*given)
        result = runner.run(given[at])
        return (result if torch.is_inference_mode_enabled() else result.clone(),)

    return run


def _state(weight: Tensor) -> tuple[int, int]:
    return weight._version, weight.data_ptr()


def _sources(captured: fx.GraphModule, inputs: Sequence[Any]) -> list[Any] | None:
    """For each input its weight, which side of the picture it is, or None for the picture; None where it is not so."""
    nodes = [node for node in captured.graph.nodes if node.op == "placeholder"]
    weights = [_is_weight(node) for node in nodes]
    pictures = [k for k, each in enumerate(inputs) if isinstance(each, Tensor) and not weights[k]]
    (results,) = captured.graph.output_node().args
    if len(pictures) != 1 or len(results) != 1:  # type: ignore[arg-type]
        return None
    picture = inputs[pictures[0]]
    if picture.dim() != 4 or picture.dtype != torch.float32 or picture.device.type != "cpu":
        return None
    fake = nodes[pictures[0]].meta.get("example_value")
    sources: list[Any] = []
    for place, (node, each) in enumerate(zip(nodes, inputs, strict=True)):
        if isinstance(each, Tensor):
            sources.append(None if place == pictures[0] else each)
            continue
        sizes = [str(side) for side in fake.shape] if fake is not None else []
        name = str(node.meta.get("example_value"))
        if name not in sizes:
            return None
        sources.append(sizes.index(name))
    return sources


def _is_weight(node: fx.Node) -> bool:
    source = getattr(node, "_dynamo_source", None)
    name = source.name if source is not None else ""
    name = name() if callable(name) else name
    return "_parameters[" in name or "_buffers[" in name
