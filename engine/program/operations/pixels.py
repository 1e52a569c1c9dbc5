"""What is done across the channels of each pixel, whatever the layout. What of these no rule turns into an operation of
the program is refused."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import VECTOR, Node
from ..translate import Laid, Translator, Unknown, Value, mapped, means


@means("linalg_vector_norm")
def _length(at: Translator, x: Node, order: float = 2, dims: Sequence[int] = (), keepdim: bool = False) -> Node:
    mapped(x)
    if order != 2 or not keepdim or len(dims) != 1 or not at.is_channel(dims[0]):
        raise Unknown("of other than channels")
    return at.add("length", (x,), 1, x.down)


@means("expand_as")
def _expand_as(at: Translator, x: Node, like: Node) -> Node:
    mapped(x, like)
    if x.down != like.down or x.channels not in (1, like.channels):
        raise Unknown("to another shape")
    return x if x.channels == like.channels else at.add("expand", (x,), *like.shape)


@means("softmax")
def _softmax(at: Translator, x: Node, dim: int, *rest: Value) -> Node:
    mapped(x)
    if not at.is_channel(dim):
        raise Unknown("over other than channels")
    return at.add("softmax", (x,), *x.shape)


@means("layer_norm")
def _layer_norm(at: Translator, x: Node, over: Sequence[int], weight=None, bias=None, eps=1e-5, cudnn=True) -> Node:
    mapped(x)
    if at.laid is None or list(over) != [x.channels]:
        raise Unknown("over other than channels")
    return at.add("channel_norm", (x,), *x.shape, {"eps": eps, "kind": "mean"}, {"scale": weight, "offset": bias})


@means("movedim", "permute")
def _moved(at: Translator, x: Node, *how: Value) -> Value:
    mapped(x)
    if at.laid is None and how in ((1, -1), (1, 3), ([0, 2, 3, 1],)):
        return Laid(x)
    if at.laid is not None and how in ((-1, 1), (3, 1), ([0, 3, 1, 2],)) and at.down_of(at._shape) == x.down:
        return x
    raise Unknown("of other than channels")


@means("flatten", "reshape", "view")
def _reshaped(at: Translator, x: Node, *how: Value) -> Value:
    mapped(x)
    if at.laid is not None and at._shape[-1] == x.channels:
        return Laid(x)
    if at.laid is None and at._shape in ((1, x.channels), (1, x.channels, 1, 1)) and x.down == VECTOR:
        return x
    raise Unknown("to another shape")
