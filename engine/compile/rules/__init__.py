"""The rules, one file each: what a pattern is, and what stands in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor, fx

from ..match import NoMatch, Safety
from ..report import Entry, Report, place_of
from .canonical import gates_after_cuts, without_changes_in_place

# Larger patterns before those that are a part of them.
ORDER = ("lstm", "gru", "ssim", "charbonnier", "memory", "pyramid", "convolution")


@dataclass
class Setup:
    """What a rule may depend on beside the graph."""

    safety: Safety
    gradients: bool  # whether anything will be differentiated
    autocast: bool
    winograd: bool  # whether convolutions may have Winograd's error
    fused_anyway: bool  # whether the rest goes to one that fuses sums, roots and means as well as we do
    known: Callable[[Any], Tensor | None]  # the value of a node, where it is the same in every call


@dataclass
class Found:
    """Something that begins like a pattern. `rewrite` names the operations that it became, or raises NoMatch before it
    has changed anything."""

    what: str
    node: fx.Node  # where it is
    rewrite: Callable[[], str]


def apply(graph: fx.Graph, setup: Setup, report: Report) -> int:
    """Rewrites what the rules know; how many places that were."""
    without_changes_in_place(graph)
    gates_after_cuts(graph)
    setup.safety = Safety(graph)
    count = 0
    for name in ORDER:
        rule: Any = import_module(f".{name}", __name__)
        refused: set[fx.Node] = set()
        while found := next((each for each in rule.find(graph, setup) if each.node not in refused), None):
            where, line = place_of(found.node)
            try:
                op = found.rewrite()
            except NoMatch as why:
                refused.add(found.node)
                report.add(Entry(where, line, found.what, "", str(why)))
                continue
            count += 1
            report.add(Entry(where, line, found.what, op))
            graph.eliminate_dead_code()
            setup.safety = Safety(graph)
    return count
