"""3x3 convolutions with the ReLU, the sum and the ReLU after it become `conv3x3`, where its error was asked for.

In training the ReLUs and the sum stay outside: for what a ReLU let through, the convolution would be computed again.
"""

from __future__ import annotations

import torch
from torch import fx

from ....kernels import conv3x3
from ..columns import setting
from ..edit import Writer, replace
from ..match import NoMatch, argument, dtype, either, one, same_shape, shape, two
from . import Found, Setup

LEAST_TRAINED = 16  # channels


def find(graph: fx.Graph, setup: Setup) -> list[Found]:
    if not setup.winograd or setup.autocast:
        return []
    return [
        Found("3x3 convolution", node, lambda node=node: _rewrite(node, setup))
        for node in graph.nodes
        if (how := setting(node)) is not None
        and how.stride == (1, 1)
        and how.padding == how.dilation
        and how.dilation[0] == how.dilation[1]
        and shape(node.args[1])[2:] == (3, 3)  # type: ignore[index]
    ]


def _rewrite(node: fx.Node, setup: Setup) -> str:
    x, weight = node.args[:2]
    if dtype(node) != torch.float32:
        raise NoMatch(f"it is {dtype(node)}")
    if setup.gradients and min(shape(weight)[:2]) < LEAST_TRAINED:  # type: ignore[index]
        raise NoMatch(f"it has less than {LEAST_TRAINED} channels, for which PyTorch's gradients are faster")
    inside, last, added = [node], node, None
    relu = None if setup.gradients else _only_relu(last)
    if relu is not None:
        inside.append(relu)
        last = relu
    relu_first = relu is not None
    total = None if setup.gradients else _only_sum(last)
    if total is not None:
        last, added = total
        inside.append(last)
        relu = _only_relu(last)
        if relu is not None:
            inside.append(relu)
            last = relu
    relu_sum = added is not None and relu is not None
    setup.safety.check(inside, [x, weight, *([added] if added is not None else [])])  # type: ignore[list-item]
    how = setting(node)
    assert how is not None
    bias = argument(node, "bias")
    new = Writer(last)(conv3x3, x, weight, bias, added, how.dilation[0], relu_first, relu_sum)
    replace(last, new)
    return "conv3x3"


def _only_relu(node: fx.Node) -> fx.Node | None:
    (user,) = node.users if len(node.users) == 1 else (None,)
    return user if one(user, "relu") is node else None


def _only_sum(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    (user,) = node.users if len(node.users) == 1 else (None,)
    for mine, other in either(two(user, "add")):
        if (
            mine is node
            and isinstance(other, fx.Node)
            and same_shape(node, other, user)
            and dtype(other) == dtype(node)
        ):
            return user, other  # type: ignore[return-value]
    return None
