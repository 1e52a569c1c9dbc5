"""Convolutions, and products of vectors."""

from __future__ import annotations

from torch import Tensor

from ..graph import VECTOR, Node
from ..translate import Translator, Unknown, Value, mapped, means, pair

CONV = {"shuffle": 0, "act1": "none", "act2": "none", "adds": False}


@means("conv2d")
def _conv(at: Translator, x: Node, weight: Value, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Node:
    mapped(x)
    if not isinstance(weight, Tensor) or isinstance(bias, Node):
        raise Unknown("its weights depend on the picture")
    kernel, stride, dilation = pair(weight.shape[2:], "kernel"), pair(stride, "stride"), pair(dilation, "dilation")
    if isinstance(padding, str):
        padding = dilation * (kernel - 1) // 2 if padding == "same" else 0
    padding = pair(padding, "padding")
    if x.down == VECTOR and kernel == 1 and groups == 1:
        return at.add(
            "dense", (x,), weight.shape[0], VECTOR, {"act1": "none"}, {"weight": weight.flatten(1), "bias": bias}
        )
    fits = padding == dilation * (kernel - 1) // 2 if kernel % 2 else (kernel == stride and padding == 0)
    if not fits or stride not in (1, 2) or kernel > 7:
        raise Unknown(f"a kernel of {kernel} with stride {stride} and padding {padding}")
    shape = {"kernel": kernel, "stride": stride, "dilation": dilation, "groups": groups, "form": 0}
    return at.add("conv", (x,), weight.shape[0], at.down, CONV | shape, {"weight": weight, "bias": bias})


@means("conv_transpose2d")
def _transposed(
    at: Translator, x: Node, weight: Value, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Node:
    mapped(x)
    if not isinstance(weight, Tensor) or isinstance(bias, Node):
        raise Unknown("its weights depend on the picture")
    given = (weight.shape[2], stride, padding, output_padding, dilation)
    kernel, stride, padding, extra, dilation = (pair(each, "shape") for each in given)
    if (kernel, padding, extra) not in ((3, 1, 1), (2, 0, 0), (4, 1, 0)) or (stride, dilation, groups) != (2, 1, 1):
        raise Unknown(f"transposed, with a kernel of {kernel}, stride {stride} and padding {padding}")
    shape = {"kernel": kernel, "stride": 2, "dilation": 1, "groups": 1, "form": 1}
    return at.add("conv", (x,), weight.shape[1], at.down, CONV | shape, {"weight": weight, "bias": bias})


@means("linear")
def _linear(at: Translator, x: Node, weight: Value, bias=None) -> Node:
    mapped(x)
    if x.down != VECTOR or not isinstance(weight, Tensor):
        raise Unknown("not of a vector")
    return at.add("dense", (x,), weight.shape[0], VECTOR, {"act1": "none"}, {"weight": weight, "bias": bias})


@means("matmul", "mm")
def _matmul(at: Translator, x: Node, matrix: Value) -> Node:
    mapped(x)
    if at.laid is None or not isinstance(matrix, Tensor) or matrix.dim() != 2:
        raise Unknown("of other than channels by constants")
    shape = {"kernel": 1, "stride": 1, "dilation": 1, "groups": 1, "form": 0}
    return at.add("conv", (x,), matrix.shape[1], x.down, CONV | shape, {"weight": matrix.T[:, :, None, None]})
