"""What gathers or moves places of a map: pools, means, pixel shuffles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..graph import VECTOR, Node, ancestors
from ..translate import Translator, Unknown, Value, mapped, means, pair


@means("instance_norm")
def _instance_norm(
    at: Translator, x: Node, weight, bias, mean, variance, uses_input, momentum, eps, cudnn=False
) -> Node:
    mapped(x)
    if not uses_input or x.down == VECTOR:
        raise Unknown("by stored statistics")
    return at.add("instance_norm", (x,), *x.shape, {"eps": eps}, {"scale": weight, "offset": bias})


@means("pad")
def _pad(at: Translator, x: Node, amounts: Sequence[int], *rest: Value, **options: Value) -> Node:
    if any(amounts) or any(node.op == "conv" for node in ancestors([x])):
        raise Unknown("inside the network")
    return x  # the picture's own padding, which the program does for itself


def _pooled(kind: str) -> Callable[..., Node]:
    def pool(at: Translator, x: Node, kernel, stride=(), padding=0, *rest: Value, **options: Value) -> Node:
        mapped(x)
        kernel = pair(kernel, "kernel")
        apart = pair(stride or kernel, "stride") == kernel and pair(padding, "padding") == 0
        if not apart or (1 << (at.down - x.down)) != kernel:
            raise Unknown("that overlaps")
        return x if kernel == 1 else at.add("pool", (x,), x.channels, at.down, {"kind": kind, "k": kernel})

    return pool


means("avg_pool2d")(_pooled("average"))
means("max_pool2d")(_pooled("max"))


@means("mean")
def _mean(at: Translator, x: Node, dims: Sequence[int] | None = None, keepdim: bool = False, **options: Value) -> Node:
    mapped(x)
    if dims is not None and len(dims) == 1 and keepdim and at.is_channel(dims[0]):
        return at.add("channel_mean", (x,), 1, x.down)
    if dims is None or sorted(each % 4 for each in dims) != [2, 3] or not keepdim or x.down == VECTOR:
        raise Unknown("of other than the whole picture")
    return at.add("mean", (x,), x.channels, VECTOR)


@means("adaptive_avg_pool2d")
def _global(at: Translator, x: Node, size: Value) -> Node:
    mapped(x)
    if pair(size, "size") != 1 or x.down == VECTOR:
        raise Unknown("to more than one number")
    return at.add("mean", (x,), x.channels, VECTOR)


def _shuffled(op: str) -> Callable[..., Node]:
    def shuffle(at: Translator, x: Node, r: int) -> Node:
        mapped(x)
        return at.add(op, (x,), at._shape[1], at.down, {"r": r})

    return shuffle


means("pixel_shuffle")(_shuffled("shuffle"))
means("pixel_unshuffle")(_shuffled("unshuffle"))
