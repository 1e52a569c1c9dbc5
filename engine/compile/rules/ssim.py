"""The mean structural similarity of two pictures, however its formula is written, becomes `ssim`.

Recognised are the five windowed means, by their convolutions with the 11-tap Gaussian window of sigma 1.5. What is made
of them up to the mean may only add, multiply and divide; that it is the formula is shown by its value at random places,
which two different rational functions do not share.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from ....kernels import ssim
from ....kernels.ssim import reference
from ..edit import Writer, aten, replace
from ..match import NoMatch, argument, dtype, is_number, op, same_shape, shape, two
from . import Found, Setup

WHAT = "structural similarity"
SAME_FORMULA = 1e-9  # of float64 numbers near one
SAME_NUMBERS = ("flatten", "view", "reshape")
SAME_WINDOW = 1e-6  # of weights made in float32
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": operator.pow,
    "neg": operator.neg,
    "square": lambda a: a * a,
    "rsub": lambda a, b: b - a,
    "reciprocal": lambda a: 1 / a,
}


def find(graph: fx.Graph, setup: Setup) -> list[Found]:
    return [
        Found(WHAT, node, lambda node=node, every=every: _rewrite(node, every, setup))
        for node in graph.nodes
        if op(node) == "mean" and len(node.args) == 1 and (every := _every_place(node)) is not None
    ]


def _every_place(node: fx.Node) -> fx.Node | None:
    """The map whose mean this is, if windowed means go into it; means of equally many means are one mean."""
    inside = node.args[0]
    while op(inside) in SAME_NUMBERS or (op(inside) == "mean" and argument(inside, "dtype") is None):  # type: ignore[arg-type]
        inside = inside.args[0]  # type: ignore[union-attr]
    if op(inside) not in ARITHMETIC:
        return None
    leaves = _leaves(inside)
    return inside if sum(_windowed(each) is not None for each in leaves) >= 5 else None  # type: ignore[return-value]


def _leaves(node: Any) -> list[fx.Node]:
    """What goes into an expression."""
    found: dict[fx.Node, None] = {}
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if not isinstance(each, fx.Node) or each in seen:
            continue
        seen.add(each)
        if op(each) in ARITHMETIC:
            waiting += list(each.all_input_nodes)
        else:
            found[each] = None
    return list(found)


def _windowed(node: fx.Node) -> tuple[fx.Node, list[fx.Node]] | None:
    """What a windowed mean is taken of, and its one or two convolutions."""
    convolutions: list[fx.Node] = []
    while op(node) == "conv2d" and len(convolutions) < 2 and _is_depthwise(node):
        convolutions.append(node)
        if tuple(shape(node.args[1])[2:]) == (reference.TAPS,) * 2:  # type: ignore[index]
            return (node.args[0], convolutions) if len(convolutions) == 1 else None  # type: ignore[return-value]
        node = node.args[0]  # type: ignore[assignment]
    return (node, convolutions) if len(convolutions) == 2 else None


def _is_depthwise(node: fx.Node) -> bool:
    weight = shape(node.args[1])
    return (
        weight is not None
        and weight[0] == argument(node, "groups") == shape(node)[-3]  # type: ignore[index]
        and weight[1] == 1
        and argument(node, "bias") is None
        and set(argument(node, "stride")) == set(argument(node, "dilation")) == {1}
    )


def _rewrite(root: fx.Node, every: fx.Node, setup: Setup) -> str:
    leaves = _leaves(every)
    taken = {each: _windowed(each) for each in leaves}
    if len(leaves) != 5 or None in taken.values():
        raise NoMatch("it is made of more than the five windowed means")
    sources: dict[fx.Node, fx.Node] = {each: found[0] for each, found in taken.items() if found is not None}
    x, y, roles = _roles(sources)
    inside = _between(root, set(leaves)) | {each for found in taken.values() if found for each in found[1]}
    if {dtype(each) for each in (*inside, x, y)} != {dtype(x)}:
        raise NoMatch("it is computed in several dtypes")
    if len(shape(x) or ()) not in (3, 4):
        raise NoMatch("its pictures are neither [B, C, H, W] nor [C, H, W]")
    setup.safety.check(inside, [x, y])
    data_range = _data_range(every, roles)
    kinds = {_window(found[1], setup) for found in taken.values() if found is not None}
    if len(kinds) > 1:
        raise NoMatch("its means are taken over different windows")
    write = Writer(root)
    if len(shape(x)) == 3:  # type: ignore[arg-type]
        x, y = (write(aten.unsqueeze.default, each, 0) for each in (x, y))
    replace(root, write(ssim, x, y, kinds.pop(), data_range))
    return "ssim"


def _roles(sources: dict[fx.Node, fx.Node]) -> tuple[fx.Node, fx.Node, list[fx.Node]]:
    """The two pictures, and the means of x, y, x^2, y^2, xy in this order."""
    products = {each: _factors(source) for each, source in sources.items()}
    plain = [each for each, factors in products.items() if factors is None]
    if len(plain) != 2:
        raise NoMatch("its means are not those of two pictures, their squares and their product")
    x, y = (sources[each] for each in plain)
    wanted = [{x}, {y}, {x, y}]
    rest = [next((each for each, factors in products.items() if factors == want), None) for want in wanted]
    if None in rest or not same_shape(x, y):
        raise NoMatch("its means are not those of two pictures, their squares and their product")
    return x, y, [*plain, *rest]  # type: ignore[list-item]


def _factors(node: fx.Node) -> set[fx.Node] | None:
    pair = two(node, "mul", "pow")
    if pair is None:
        return None
    if op(node) == "pow":
        return {pair[0]} if pair[1] == 2 else None
    return set(pair) if all(isinstance(each, fx.Node) for each in pair) else None


def _between(root: fx.Node, leaves: set[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            if each not in leaves:
                waiting += list(each.all_input_nodes)
    return found


def _data_range(every: fx.Node, roles: list[fx.Node]) -> float:
    """The distance of black and white that makes this expression the formula."""

    def formula(*moments: Any) -> Any:
        return _evaluated(every, dict(zip(roles, moments, strict=True)))

    # with every mean zero but the covariance t, the formula is 1 + 2 t / C2
    zero = torch.zeros((), dtype=torch.float64)
    slope = float(formula(zero, zero, zero, zero, zero + 0.5)) - 1
    if not 0 < slope < math.inf:
        raise NoMatch("its formula is another")
    data_range = float(f"{math.sqrt(1 / slope) / 0.03:.9g}")
    moments = torch.rand(5, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * data_range**2
    (top1, top2), (bottom1, bottom2) = reference._parts(moments, data_range)
    true, found = top1 * top2 / (bottom1 * bottom2), formula(*moments)
    if not bool(((found - true).abs() <= SAME_FORMULA * (1 + true.abs())).all()):
        raise NoMatch("its formula is another")
    return data_range


def _evaluated(node: Any, values: dict[fx.Node, Tensor]) -> Any:
    if is_number(node) or not isinstance(node, fx.Node):
        return node
    if node not in values:
        if argument_of(node, "alpha") != 1 or argument_of(node, "rounding_mode") is not None:
            raise NoMatch("its formula is another")
        values[node] = ARITHMETIC[op(node)](*(_evaluated(each, values) for each in node.args))
    return values[node]


def argument_of(node: fx.Node, name: str) -> Any:
    return node.kwargs.get(name, 1 if name == "alpha" else None)


def _window(convolutions: list[fx.Node], setup: Setup) -> str:
    """Whether zeros are put around the picture, once the weights are known to be the Gaussian."""
    line = torch.tensor(reference.taps(), dtype=torch.float64)
    total = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    padding = [0, 0]
    for each in convolutions:
        weight = setup.known(each.args[1])
        if weight is None:
            raise NoMatch("its window is not known before it runs")
        weight = weight.to("cpu", torch.float64)
        if not bool((weight == weight[:1]).all()):
            raise NoMatch("its windows differ from channel to channel")
        total = torch.einsum("abij,abkl->abikjl", total, weight[:1]).reshape(1, 1, total.shape[2] * weight.shape[2], -1)
        given = argument(each, "padding")
        if isinstance(given, str):
            raise NoMatch("its border is of another kind")
        padding = [a + b for a, b in zip(padding, list(given) * (2 // len(given)), strict=True)]
    if total.shape[2:] != (reference.TAPS,) * 2 or not bool(
        ((total[0, 0] - line[:, None] * line).abs() <= SAME_WINDOW * line.max() ** 2).all()
    ):
        raise NoMatch("its window is another than the Gaussian of 11 taps and sigma 1.5")
    if padding not in ([0, 0], [reference.TAPS // 2] * 2):
        raise NoMatch("its border is of another kind")
    return "valid" if padding == [0, 0] else "same"
