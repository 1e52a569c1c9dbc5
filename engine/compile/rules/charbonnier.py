"""sqrt((x - y)^2 + eps), and its mean or sum, become `charbonnier`."""

from __future__ import annotations

import math

import torch
from torch import fx

from ....kernels import charbonnier
from ..edit import Writer, replace
from ..match import NoMatch, argument, dtype, either, is_number, one, only, op, same_shape, two
from . import Found, Setup

WHAT = "Charbonnier loss"
HALF = (torch.float16, torch.bfloat16)


def find(graph: fx.Graph, setup: Setup) -> list[Found]:
    return [
        Found(WHAT, node, lambda node=node, parts=parts: _rewrite(node, *parts, setup))
        for node in graph.nodes
        if (parts := _penalty(node)) is not None
    ]


def _penalty(node: fx.Node) -> tuple[fx.Node, float, set[fx.Node]] | None:
    """The difference, the number below the root, and what lies between."""
    inside = one(node, "sqrt")
    if inside is None and op(node) == "pow" and len(node.args) == 2 and node.args[1] == 0.5:
        inside = node.args[0]
    for square, number in either(two(inside, "add")):
        if is_number(number) and isinstance(square, fx.Node) and (difference := _squared(square)) is not None:
            return difference, number, {node, inside, square}
    return None


def _squared(node: fx.Node) -> fx.Node | None:
    pair = two(node, "mul", "pow")
    if op(node) == "square":
        return node.args[0]  # type: ignore[return-value]
    if pair is None or not isinstance(pair[0], fx.Node):
        return None
    same = pair[0] is pair[1] if op(node) == "mul" else is_number(pair[1]) and pair[1] == 2
    return pair[0] if same else None


def _operands(difference: fx.Node) -> tuple[fx.Node, fx.Node]:
    pair = two(difference, "sub")
    if pair is None:
        for first, second in either(two(difference, "add")):
            if one(second, "neg") is not None:
                pair = first, one(second, "neg")
    if pair is None or not all(isinstance(each, fx.Node) for each in pair) or not same_shape(*pair):
        raise NoMatch("it is not taken of the difference of two of the same shape")
    return pair


def _rewrite(root: fx.Node, difference: fx.Node, number: float, inside: set[fx.Node], setup: Setup) -> str:
    if setup.fused_anyway:  # measured: alike in the forward pass, and quicker where both want a gradient
        raise NoMatch("Inductor fuses it as well")
    if not 0 < number < math.inf:
        raise NoMatch("nothing positive is added below the root")
    x, y = _operands(difference)
    if {dtype(each) for each in inside} != {dtype(x)} or dtype(y) != dtype(x):
        raise NoMatch("it is computed in several dtypes")
    if setup.autocast and dtype(x) in HALF:
        raise NoMatch("autocast makes it half precision")
    if not all(only(each, *inside) for each in inside - {root}):
        raise NoMatch("a part of it is read by something else too")
    whole, reduction = root, "none"
    if len(root.users) == 1:
        (user,) = root.users
        if op(user) in ("mean", "sum") and _of_everything(user) and dtype(user) == dtype(x):
            whole, reduction = user, op(user)
    setup.safety.check(inside | {whole, difference}, [x, y])
    new = Writer(whole)(charbonnier, x, y, math.sqrt(number), reduction)
    replace(whole, new)
    return "charbonnier"


def _of_everything(node: fx.Node) -> bool:
    return len(node.args) == 1 and not node.kwargs and argument(node, "dtype") is None
