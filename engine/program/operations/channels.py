"""Channels put together, taken apart and in another order; channels of one value each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..graph import VECTOR, Node
from ..translate import Translator, Unknown, Value, mapped, means
from .pointwise import affine


@means("cat", "concat", "concatenate")
def _cat(at: Translator, parts: Sequence[Value], dim: int = 0) -> Node:
    if dim % len(at._shape) != 1:
        raise Unknown("of other than channels")
    nodes = [at._as_node(each) for each in parts if not isinstance(each, Tensor) or each.numel()]
    mapped(*nodes)
    nodes = [each for each in nodes if each.channels]
    return nodes[0] if len(nodes) == 1 else at.add("cat", tuple(nodes), sum(each.channels for each in nodes), at.down)


@means("repeat", "expand")
def _repeat(at: Translator, x: Node, times: Sequence[int], **options: Value) -> Node:
    mapped(x)
    if at._name == "aten.expand":
        if tuple(at._shape[1:]) == (x.channels, 1, 1) or (at.down == x.down and at._shape[1] == x.channels):
            return x
        raise Unknown("to another shape")
    if len(times) != 4 or list(times[2:]) != [1, 1] or times[0] != 1:
        raise Unknown("of other than channels")
    return at.add("cat", (x,) * times[1], x.channels * times[1], x.down)


def piece(at: Translator, x: Node, first: int, channels: int) -> Node:
    return at.add("slice", (x,), channels, x.down, {"first": first})


@means("chunk")
def _chunk(at: Translator, x: Node, count: int, dim: int = 0) -> list[Node]:
    mapped(x)
    return _split(at, x, -(-x.channels // count), dim)


@means("split", "split_with_sizes")
def _split(at: Translator, x: Node, size: int | Sequence[int], dim: int = 0) -> list[Node]:
    mapped(x)
    if dim not in (1, -3):
        raise Unknown("of other than channels")
    sizes = (
        list(size)
        if isinstance(size, list | tuple)
        else [min(size, x.channels - first) for first in range(0, x.channels, size)]
    )
    return [piece(at, x, sum(sizes[:number]), each) for number, each in enumerate(sizes)]


@means("slice")
def _slice(
    at: Translator, x: Node, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Node:
    mapped(x)
    if (x.down == VECTOR or dim in (0, 2, 3)) and at._shape[dim] == (
        1,
        x.channels,
        *(side >> x.down for side in at.sides),
    )[dim]:
        return x
    if dim != 1 or step != 1:
        raise Unknown("of other than channels")
    first, last, _ = slice(start, end).indices(x.channels)
    return x if last - first == x.channels else piece(at, x, first, last - first)


@means("flip")
def _flip(at: Translator, x: Node, dims: Sequence[int]) -> Node:
    if list(dims) not in ([1], [-3]):
        raise Unknown("of other than channels")
    return affine(at, x, order=torch.arange(x.channels - 1, -1, -1, dtype=torch.float32))


@means("index_select")
def _select(at: Translator, x: Node, dim: int, index: Value) -> Node:
    if dim not in (1, -3) or not isinstance(index, Tensor):
        raise Unknown("of other than channels")
    return affine(at, x, order=index.float())


def _filled(value: float) -> Callable[..., Node]:
    def fill(at: Translator, *args: Value, **options: Value) -> Node:
        channels = at._shape[1] if len(at._shape) == 4 else 0
        values = torch.full((channels,), value)
        return at.add("fill", (), channels, at.down, {}, {"values": values})

    return fill


means("new_zeros", "zeros_like")(_filled(0.0))
means("new_ones", "ones_like")(_filled(1.0))


@means("new_full", "full_like")
def _full(at: Translator, x: Node, *rest: Value, **options: Value) -> Node:
    return _filled(float(rest[-1]))(at)
