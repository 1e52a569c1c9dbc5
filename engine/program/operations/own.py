"""What this project's own operations (`unrain.kernels`) mean in nodes, for networks made of its modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..graph import Node
from ..rules.cells import second
from ..translate import Laid, Translator, Unknown, Value, mapped, means
from .channels import piece
from .pointwise import affine


@means("conv_lstm")
def _conv_lstm(at: Translator, x: Node, h: Value, c: Value, weight: Tensor, bias: Value, packed: Value) -> list[Node]:
    mapped(x, *(each for each in (h, c) if each is not None))
    channels = weight.shape[0] // 4
    inputs, terms = (x, h, c), [weight] if bias is None else [weight, bias]
    if c is None:  # nothing to forget, and no h to see
        terms = [torch.cat((each[:channels], each[2 * channels :])) for each in terms]
        inputs, terms[0] = (x,), terms[0][:, : x.channels]
    attributes = {"kernel": 3, "gates": 3 if c is None else 4, "maps": 1 if c is None else 2}
    constants = dict(zip(("weight", "bias"), terms, strict=False))
    return _both(at, at.add("conv_lstm", inputs, channels, x.down, attributes, constants))


@means("lstm_gates")
def _lstm_gates(at: Translator, pre: Node, c: Value, peephole: Value) -> list[Node]:
    mapped(pre, *(() if c is None else (c,)))
    if peephole is not None:
        raise Unknown("with peepholes")
    count = 3 if c is None else 4
    channels = pre.channels // count
    gates = tuple(piece(at, pre, number * channels, channels) for number in range(count))
    return _both(at, at.add("lstm", gates if c is None else (*gates, c), channels, pre.down))


@means("gru_gates")
def _gru_gates(
    at: Translator, z: Node, candidate: Node, h: Value, r: Value, hidden: Value, z_keeps: bool, activation: str
) -> Node:
    maps = [each for each in (z, candidate, h, r, hidden) if each is not None]
    mapped(*maps)
    channels, down = z.shape
    if r is not None:
        product = at.add("mul", (affine(at, r, "sigmoid"), hidden), channels, down, {"act1": "none"})
        candidate = at.add("add", (candidate, product), channels, down, {"act1": "none"})
    if activation != "none":
        candidate = affine(at, candidate, activation)
    if h is not None:
        ends = (candidate, h) if z_keeps else (h, candidate)
        return at.add("lerp", (*ends, affine(at, z, "sigmoid")), channels, down)
    if z_keeps:
        z = affine(at, z, scale=torch.full((channels,), -1.0))
    return at.add("mul", (affine(at, z, "sigmoid"), candidate), channels, down, {"act1": "none"})


def _both(at: Translator, cell: Node) -> list[Node]:
    state = second(cell)
    at.nodes.append(state)
    return [cell, state]


@means("memory_read")
def _memory_read(at: Translator, query: Node, items: Value, want_weights: bool) -> list[Laid | None]:
    mapped(query)
    if want_weights or not isinstance(items, Tensor) or at.laid is None:
        raise Unknown("of other than the rows of a map and constant items, without weights")
    return [Laid(at.add("memory_read", (query,), *query.shape, {}, {"items": items})), None]


@means("gaussian_pyramid")
def _gaussian_pyramid(at: Translator, x: Node, factors: Sequence[int], kernel: str) -> list[Node]:
    mapped(x)
    if kernel != "box" or any(factor & (factor - 1) for factor in factors):
        raise Unknown(f"by a kernel that is {kernel}, or by other factors than 2, 4, 8")
    return [
        at.add("pool", (x,), x.channels, x.down + factor.bit_length() - 1, {"kind": "average", "k": factor})
        for factor in factors
    ]
