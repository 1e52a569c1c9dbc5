"""Several box means of one picture become `gaussian_pyramid`, which reads it once."""

from __future__ import annotations

from torch import fx

from ....kernels import gaussian_pyramid
from ..edit import Writer, replace
from ..match import NoMatch, argument, dtype, op, shape
from . import Found, Setup


def find(graph: fx.Graph, setup: Setup) -> list[Found]:
    levels: dict[fx.Node, list[tuple[fx.Node, int]]] = {}
    for node in graph.nodes:
        factor = _factor(node)
        if factor is not None:
            levels.setdefault(node.args[0], []).append((node, factor))
    return [
        Found("Gaussian pyramid", found[0][0], lambda found=found: _rewrite(found, setup))
        for found in levels.values()
        if len({factor for _, factor in found}) > 1
    ]


def _factor(node: fx.Node) -> int | None:
    """K, for the mean of every K x K pixels of a picture that such windows cover."""
    if op(node) != "avg_pool2d" or len(shape(node) or ()) != 4:
        return None
    kernel, stride = ({*argument(node, name)} for name in ("kernel_size", "stride"))
    if len(kernel) != 1 or (stride and stride != kernel) or {*argument(node, "padding")} != {0}:
        return None
    (factor,) = kernel
    covers = argument(node, "ceil_mode") or all(
        isinstance(side, int) and side % factor == 0
        for side in shape(node.args[0])[2:]  # type: ignore[index]
    )
    return factor if factor > 1 and covers and argument(node, "divisor_override") is None else None


def _rewrite(found: list[tuple[fx.Node, int]], setup: Setup) -> str:
    picture = found[0][0].args[0]
    assert isinstance(picture, fx.Node)
    setup.safety.check([node for node, _ in found], [picture])
    if any(dtype(node) != dtype(picture) for node, _ in found):
        raise NoMatch("its levels are of another dtype than the picture")
    first = found[0][0]
    write = Writer(first)
    factors = sorted({factor for _, factor in found})
    levels = write(gaussian_pyramid, picture, factors, "box")
    for node, factor in found:
        replace(node, write.item(levels, factors.index(factor)))
    return "gaussian_pyramid"
