"""What happens to every number by itself, and what is done to two maps number by number."""

from __future__ import annotations

import torch
from torch import Tensor

from ..graph import VECTOR, Node
from ..translate import Translator, Unknown, Value, mapped, means


def _mapped_or_constant(*values: Value) -> None:
    mapped(*(each for each in values if not isinstance(each, Tensor | int | float)))


def affine(at: Translator, x: Node, act: str = "none", **constants: Tensor | None) -> Node:
    """act(scale * x[order] + offset)."""
    mapped(x)
    order = constants.get("order")
    return at.add("affine", (x,), x.channels if order is None else len(order), x.down, {"act1": act}, constants)


for _act in ("relu", "relu6", "sigmoid", "tanh", "silu"):
    means(_act)(lambda at, x, act=_act: affine(at, x, act))


@means("gelu")
def _gelu(at: Translator, x: Node, approximate: str = "none") -> Node:
    if approximate != "none":
        raise Unknown("GELU by tanh")
    return affine(at, x, "gelu")


@means("leaky_relu")
def _leaky(at: Translator, x: Node, slope: float = 0.01) -> Node:
    return affine(at, x, "slope", slope=torch.tensor([slope], dtype=torch.float32))


@means("prelu")
def _prelu(at: Translator, x: Node, slope: Tensor) -> Node:
    return affine(at, x, "slope", slope=slope.flatten())


@means("hardtanh", "clamp", "clip", "clamp_min")
def _clamp(at: Translator, x: Node, low: Value = None, high: Value = None) -> Node:
    mapped(x)
    if isinstance(low, Tensor | Node) or isinstance(high, Tensor | Node):
        raise Unknown("between maps")
    if (low, high) == (0, 6):
        return affine(at, x, "relu6")
    if (low, high) == (0, None):
        return affine(at, x, "relu")
    infinity = float("inf")
    bounds = {"low": -infinity if low is None else float(low), "high": infinity if high is None else float(high)}
    return at.add("clamp", (x,), x.channels, x.down, bounds)


@means(
    "alias",
    "detach",
    "contiguous",
    "to",
    "dropout",
    "dropout2d",
    "feature_dropout",
    "lift_fresh_copy",
    "_assert_tensor_metadata",
)
def _same(at: Translator, x: Node, *others: Value, **options: Value) -> Node:
    mapped(x)
    return x


@means("clone")
def _clone(at: Translator, x: Node, **options: Value) -> Node:
    return affine(at, x)


@means("add")
def _add(at: Translator, x: Value, y: Value, alpha: float = 1) -> Node:
    return _sum(at, "add", x, y, alpha)


@means("sub", "subtract")
def _sub(at: Translator, x: Value, y: Value, alpha: float = 1) -> Node:
    return _sum(at, "sub", x, y, -alpha)


@means("rsub")
def _rsub(at: Translator, x: Value, y: Value, alpha: float = 1) -> Node:
    return _sum(at, "sub", y, x, -alpha)


def _sum(at: Translator, op: str, x: Value, y: Value, sign: float) -> Node:
    """x + sign * y."""
    x, y = at.maps(x, y)
    _mapped_or_constant(x, y)
    for number, other, its_sign in ((x, y, sign), (y, x, 1)):
        if isinstance(number, int | float) and number == 0 and its_sign == 1:
            return other
    if isinstance(x, Node) and isinstance(y, Node):
        if abs(sign) != 1:
            y, sign = affine(at, y, scale=_each(y, abs(sign))), sign / abs(sign)
        return _two(at, "add" if sign > 0 else "sub", x, y)
    if isinstance(x, Node):
        return affine(at, x, offset=_each(x, y) * sign)
    return affine(at, y, scale=_each(y, sign), offset=_each(y, x))


def _two(at: Translator, op: str, x: Node, y: Node) -> Node:
    if x.down == VECTOR != y.down and op in ("add", "mul"):
        x, y = y, x
    if y.channels == 1 != x.channels and y.down == x.down:
        y = at.add("expand", (y,), *x.shape)
    if x.channels != y.channels or y.down not in (x.down, VECTOR):
        raise Unknown("of maps of different shapes")
    return at.add(op, (x, y), x.channels, x.down, {"act1": "none"})


@means("mul", "multiply")
def _mul(at: Translator, x: Value, y: Value) -> Node:
    x, y = at.maps(x, y)
    _mapped_or_constant(x, y)
    if isinstance(x, Node) and isinstance(y, Node):
        return _two(at, "mul", x, y)
    x, y = (x, y) if isinstance(x, Node) else (y, x)
    return affine(at, x, scale=_each(x, y))


@means("lerp")
def _lerp(at: Translator, a: Node, b: Node, t: Node) -> Node:
    mapped(a, b, t)
    if not a.shape == b.shape == t.shape:
        raise Unknown("of maps of different shapes")
    return at.add("lerp", (a, b, t), *a.shape)


@means("div", "true_divide")
def _div(at: Translator, x: Value, y: Value) -> Node:
    _mapped_or_constant(x, y)
    if isinstance(y, Node):
        if not isinstance(x, Node):
            raise Unknown("of a number by a map")
        return _two(at, "div", x, y)
    return affine(at, x, scale=1 / _each(x, y))


@means("neg")
def _neg(at: Translator, x: Node) -> Node:
    return affine(at, x, scale=_each(x, -1.0))


@means("pow")
def _pow(at: Translator, x: Node, power: Value) -> Node:
    if power != 2:
        raise Unknown("to another power than 2")
    return _two(at, "mul", x, x)


def _each(x: Node, value: Value) -> Tensor:
    """One number for each channel of x, in double."""
    if not isinstance(value, Tensor):
        return torch.full((x.channels,), float(value), dtype=torch.float64)
    if value.numel() != 1 and tuple(value.shape[-3:]) != (x.channels, 1, 1):
        raise Unknown("with constants that differ from place to place")
    return value.double().cpu().flatten().expand(x.channels)


@means("batch_norm", "_native_batch_norm_legit_no_training")
def _batch_norm(at: Translator, x: Node, weight, bias, mean, variance, training, momentum, eps, cudnn=False) -> Node:
    if training or mean is None:
        raise Unknown("by the statistics of this picture")
    scale = torch.rsqrt(variance.double() + eps) * (1 if weight is None else weight.double())
    return affine(at, x, scale=scale, offset=(0 if bias is None else bias.double()) - mean.double() * scale)


@means("sqrt")
def _root(at: Translator, x: Node) -> Node:
    mapped(x)
    return at.add("sqrt", (x,), *x.shape)
