"""Writing into a graph: new nodes with their fake results, in the place of a pattern."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import fx
from torch._guards import detect_fake_mode
from torch.fx.node import map_arg

from .trace import value

aten = torch.ops.aten


class Writer:
    """New nodes before one place of the graph; each takes over where that place comes from."""

    def __init__(self, before: fx.Node) -> None:
        self.graph, self.before = before.graph, before
        self._origin = {key: before.meta[key] for key in ("stack_trace", "nn_module_stack") if key in before.meta}

    def __call__(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> fx.Node:
        with self.graph.inserting_before(self.before):
            node = self.graph.call_function(function, args, keywords)
        node.meta.update(self._origin)
        values, named = map_arg((args, keywords), value)
        mode = detect_fake_mode([each for each in self._tensors(values)])
        with mode:  # type: ignore[union-attr]
            node.meta["val"] = function(*values, **named)
        return node

    @staticmethod
    def _tensors(values: Any) -> list[Any]:
        return torch.utils._pytree.tree_leaves(values)

    def parts(self, of: fx.Node, sizes: Sequence[int], axis: int = 0) -> list[fx.Node]:
        """`of` cut along an axis: its derivative is one concatenation."""
        if len(sizes) == 1:
            return [of]
        cut = self(aten.split_with_sizes.default, of, list(sizes), axis)
        return [self(operator.getitem, cut, number) for number in range(len(sizes))]

    def joined(self, parts: Sequence[fx.Node], axis: int) -> fx.Node:
        return parts[0] if len(parts) == 1 else self(aten.cat.default, list(parts), axis)

    def sum(self, parts: Sequence[fx.Node]) -> fx.Node:
        total = parts[0]
        for each in parts[1:]:
            total = self(aten.add.Tensor, total, each)
        return total

    def item(self, of: fx.Node, number: int) -> fx.Node:
        return self(operator.getitem, of, number)


def replace(old: fx.Node, new: fx.Node, inside: Collection[fx.Node] = ()) -> None:
    """`new` for whoever reads `old`; what is `inside` the pattern goes with it."""
    old.replace_all_uses_with(new, delete_user_cb=lambda user: user not in inside)
