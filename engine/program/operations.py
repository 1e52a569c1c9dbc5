"""What each recorded operation means in nodes. What has no entry here becomes a raw node, which a rule may know."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, fx

from .graph import RAW, VECTOR, Node, Refused, ancestors

Value = Any  # a Node, a Tensor that does not depend on the picture, or a number, list, ...
_TABLE: dict[str, Callable[..., Value]] = {}
ACTS = ("none", "relu", "relu6", "slope", "sigmoid", "tanh", "silu", "gelu")


class Unknown(Exception):
    """The operation stays raw."""


@dataclass(frozen=True, eq=False)
class Laid:
    """A map with its channels last, or its pixels as the rows of a matrix: what it means for each pixel is the same."""

    node: Node


def means(*names: str) -> Callable:
    def keep(function: Callable) -> Callable:
        _TABLE.update(dict.fromkeys(names, function))
        return function

    return keep


class Translator:
    """Turns recordings into nodes; `nodes` are all it made, in order."""

    def __init__(self, sides: tuple[int, int]) -> None:
        self.sides = sides
        self.nodes: list[Node] = []
        self.laid: Node | None = None  # the map, where what comes in is laid out anew
        self._where, self._name, self._shape = "", "", ()

    def __call__(self, program: Any, inputs: Sequence[Node]) -> list[Node]:
        """The recording's results, as nodes, for these inputs."""
        known, waiting = self._constants(program), list(inputs)
        for each in program.graph.nodes:
            if each.op == "placeholder":
                if each not in known:
                    known[each] = waiting.pop(0)
            elif each.op == "call_function":
                known[each] = self._result(each, known)
            elif each.op == "output":
                return [self._result_map(known[result]) for result in each.args[0]]
        raise AssertionError("a recording ends with its output")

    def _result_map(self, value: Value) -> Node:
        try:
            return self._as_node(value)
        except Unknown as reason:
            raise Refused(f"the network's result is no picture: {reason}") from None

    def _constants(self, program: Any) -> dict[fx.Node, Value]:
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        names.update(signature.inputs_to_lifted_tensor_constants)
        held = {**program.constants, **program.state_dict}
        return {each: held[names[each.name]].detach() for each in program.graph.nodes if each.name in names}

    def _result(self, each: fx.Node, known: dict[fx.Node, Value]) -> Value:
        args = fx.node.map_arg(each.args, lambda given: known[given])
        kwargs = fx.node.map_arg(each.kwargs, lambda given: known[given])
        if each.target is operator.getitem:
            return args[0] if isinstance(args[0], Node) else args[0][args[1]]  # a node where it is raw
        flat = [one for arg in (*args, *kwargs.values()) for one in (arg if isinstance(arg, list | tuple) else [arg])]
        if not any(isinstance(one, Node | Laid) for one in flat):
            return each.target(*args, **kwargs)
        packet = each.target.overloadpacket.__name__
        shape = getattr(each.meta.get("val"), "shape", ())
        self._shape = tuple(shape)
        self._where, self._name = _path(each), f"{each.target.namespace}.{packet}"
        self.laid = next((one.node for one in flat if isinstance(one, Laid)), None)
        args = fx.node.map_aggregate(args, lambda given: given.node if isinstance(given, Laid) else given)
        result = self._meaning(packet.removesuffix("_"), args, kwargs)
        if self.laid is not None and packet not in _LAYING:
            result = Laid(result)
        if packet.endswith("_") and not packet.endswith("__"):
            self._overwrite(known, args[0], result)
        return result

    def _meaning(self, name: str, args: tuple, kwargs: dict) -> Value:
        try:
            meaning = _TABLE[name]
            signature(meaning).bind(self, *args, **kwargs)
        except (KeyError, TypeError):
            return self._raw(args, kwargs, "")
        try:
            return meaning(self, *args, **kwargs)
        except Unknown as reason:
            return self._raw(args, kwargs, str(reason))

    def _raw(self, args: tuple, kwargs: dict, reason: str) -> Node:
        """An operation that the program has no word for; `reason` is said with the refusal."""
        flat = [one for arg in (*args, *kwargs.values()) for one in (arg if isinstance(arg, list | tuple) else [arg])]
        nodes = tuple(one for one in flat if isinstance(one, Node))
        return self.add("raw", nodes, 0, RAW, {"name": self._name, "reason": reason})

    def _overwrite(self, known: dict[fx.Node, Value], old: Value, new: Value) -> None:
        if not isinstance(old, Node) or old.op in ("input", "slice"):
            raise Refused(f"{self._name} at {self._where or 'forward'}: it writes where others may read")
        for each, value in known.items():
            if value is old:
                known[each] = new

    def add(
        self,
        op: str,
        inputs: tuple[Node, ...],
        channels: int,
        down: int,
        attributes: dict | None = None,
        constants: dict | None = None,
    ) -> Node:
        kept = {name: value.detach().cpu() for name, value in (constants or {}).items() if value is not None}
        node = Node(op, inputs, channels, down, attributes or {}, kept, self._where, (self._name,))
        self.nodes.append(node)
        return node

    def down_of(self, shape: Sequence[int]) -> int:
        """log2 of how much smaller than the picture this is."""
        height, width = shape[-2:]
        if (height, width) == (1, 1):
            return VECTOR
        for down in range(7):
            if (height << down, width << down) == self.sides:
                return down
        raise Unknown("its size is no half, quarter, ... of the picture's")

    def is_channel(self, dim: int) -> bool:
        """Whether this is the dimension of the channels."""
        rank = len(self._shape)
        return dim % rank == (rank - 1 if self.laid is not None else 1)

    @property
    def down(self) -> int:
        if self.laid is not None:
            return self.laid.down
        if len(self._shape) != 4 or self._shape[0] != 1:
            raise Unknown("it is no picture or map")
        return self.down_of(self._shape)

    def maps(self, *values: Value) -> list[Value]:
        """Constants as large as a map are maps."""
        wide = [isinstance(each, Tensor) and each.dim() == 4 and each.shape[-2:].numel() > 1 for each in values]
        return [self._as_node(each) if map_like else each for each, map_like in zip(values, wide, strict=True)]

    def _as_node(self, value: Value) -> Node:
        """A map that does not depend on the picture is the same everywhere."""
        if isinstance(value, Node):
            return value
        if not isinstance(value, Tensor) or value.dim() != 4 or value.shape[0] != 1:
            raise Unknown("it is no map")
        return self.fill(value[0].float())

    def fill(self, value: Tensor) -> Node:
        """A map of [C,H,W] whose channels have one value each."""
        values = value.flatten(1)[:, :1]
        if not bool((value.flatten(1) == values).all()):
            raise Unknown("a map of constants that differ from place to place")
        return self.add("fill", (), value.shape[0], self.down_of(value.shape), {}, {"values": values.flatten()})


def _path(each: fx.Node) -> str:
    stack = list((each.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return path.removeprefix("module").removeprefix(".")


def mapped(*values: Value) -> None:
    """Only maps and vectors."""
    for value in values:
        if not isinstance(value, Node) or value.down == RAW:
            raise Unknown("of what is no map")


def _mapped_or_constant(*values: Value) -> None:
    mapped(*(each for each in values if not isinstance(each, Tensor | int | float)))


def _pair(value: Any, what: str) -> int:
    numbers = {int(each) for each in value} if isinstance(value, list | tuple) else {int(value)}
    if len(numbers) != 1:
        raise Unknown(f"its {what} differs from side to side")
    return numbers.pop()


@means("conv2d")
def _conv(at: Translator, x: Node, weight: Value, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Node:
    mapped(x)
    if not isinstance(weight, Tensor) or isinstance(bias, Node):
        raise Unknown("its weights depend on the picture")
    kernel, stride, dilation = _pair(weight.shape[2:], "kernel"), _pair(stride, "stride"), _pair(dilation, "dilation")
    if isinstance(padding, str):
        padding = dilation * (kernel - 1) // 2 if padding == "same" else 0
    padding = _pair(padding, "padding")
    if x.down == VECTOR and kernel == 1 and groups == 1:
        return at.add(
            "dense", (x,), weight.shape[0], VECTOR, {"act1": "none"}, {"weight": weight.flatten(1), "bias": bias}
        )
    fits = padding == dilation * (kernel - 1) // 2 if kernel % 2 else (kernel == stride and padding == 0)
    if not fits or stride not in (1, 2) or kernel > 7:
        raise Unknown(f"a kernel of {kernel} with stride {stride} and padding {padding}")
    shape = {"kernel": kernel, "stride": stride, "dilation": dilation, "groups": groups, "form": 0}
    return at.add("conv", (x,), weight.shape[0], at.down, CONV | shape, {"weight": weight, "bias": bias})


CONV = {"shuffle": 0, "act1": "none", "act2": "none", "adds": False}


@means("conv_transpose2d")
def _transposed(
    at: Translator, x: Node, weight: Value, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Node:
    mapped(x)
    if not isinstance(weight, Tensor) or isinstance(bias, Node):
        raise Unknown("its weights depend on the picture")
    given = (weight.shape[2], stride, padding, output_padding, dilation)
    kernel, stride, padding, extra, dilation = (_pair(each, "shape") for each in given)
    if (kernel, padding, extra) not in ((3, 1, 1), (2, 0, 0), (4, 1, 0)) or (stride, dilation, groups) != (2, 1, 1):
        raise Unknown(f"transposed, with a kernel of {kernel}, stride {stride} and padding {padding}")
    shape = {"kernel": kernel, "stride": 2, "dilation": 1, "groups": 1, "form": 1}
    return at.add("conv", (x,), weight.shape[1], at.down, CONV | shape, {"weight": weight, "bias": bias})


def affine(at: Translator, x: Node, act: str = "none", **constants: Tensor | None) -> Node:
    """act(scale * x[order] + offset)."""
    mapped(x)
    order = constants.get("order")
    return at.add("affine", (x,), x.channels if order is None else len(order), x.down, {"act1": act}, constants)


@means("linear")
def _linear(at: Translator, x: Node, weight: Value, bias=None) -> Node:
    mapped(x)
    if x.down != VECTOR or not isinstance(weight, Tensor):
        raise Unknown("not of a vector")
    return at.add("dense", (x,), weight.shape[0], VECTOR, {"act1": "none"}, {"weight": weight, "bias": bias})


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


@means("instance_norm")
def _instance_norm(
    at: Translator, x: Node, weight, bias, mean, variance, uses_input, momentum, eps, cudnn=False
) -> Node:
    mapped(x)
    if not uses_input or x.down == VECTOR:
        raise Unknown("by stored statistics")
    return at.add("instance_norm", (x,), *x.shape, {"eps": eps}, {"scale": weight, "offset": bias})


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


@means("pad")
def _pad(at: Translator, x: Node, amounts: Sequence[int], *rest: Value, **options: Value) -> Node:
    if any(amounts) or any(node.op == "conv" for node in ancestors([x])):
        raise Unknown("inside the network")
    return x  # the picture's own padding, which the program does for itself


def _pooled(kind: str) -> Callable[..., Node]:
    def pool(at: Translator, x: Node, kernel, stride=(), padding=0, *rest: Value, **options: Value) -> Node:
        mapped(x)
        kernel = _pair(kernel, "kernel")
        apart = _pair(stride or kernel, "stride") == kernel and _pair(padding, "padding") == 0
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
    if _pair(size, "size") != 1 or x.down == VECTOR:
        raise Unknown("to more than one number")
    return at.add("mean", (x,), x.channels, VECTOR)


def _shuffled(op: str) -> Callable[..., Node]:
    def shuffle(at: Translator, x: Node, r: int) -> Node:
        mapped(x)
        return at.add(op, (x,), at._shape[1], at.down, {"r": r})

    return shuffle


means("pixel_shuffle")(_shuffled("shuffle"))
means("pixel_unshuffle")(_shuffled("unshuffle"))


# Per pixel, whatever the layout; what of these no rule turns into an operation of the program is refused.


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


@means("sqrt")
def _root(at: Translator, x: Node) -> Node:
    mapped(x)
    return at.add("sqrt", (x,), *x.shape)


@means("softmax")
def _softmax(at: Translator, x: Node, dim: int, *rest: Value) -> Node:
    mapped(x)
    if not at.is_channel(dim):
        raise Unknown("over other than channels")
    return at.add("softmax", (x,), *x.shape)


@means("matmul", "mm")
def _matmul(at: Translator, x: Node, matrix: Value) -> Node:
    mapped(x)
    if at.laid is None or not isinstance(matrix, Tensor) or matrix.dim() != 2:
        raise Unknown("of other than channels by constants")
    shape = {"kernel": 1, "stride": 1, "dilation": 1, "groups": 1, "form": 0}
    return at.add("conv", (x,), matrix.shape[1], x.down, CONV | shape, {"weight": matrix.T[:, :, None, None]})


@means("layer_norm")
def _layer_norm(at: Translator, x: Node, over: Sequence[int], weight=None, bias=None, eps=1e-5, cudnn=True) -> Node:
    mapped(x)
    if at.laid is None or list(over) != [x.channels]:
        raise Unknown("over other than channels")
    return at.add("channel_norm", (x,), *x.shape, {"eps": eps, "kind": "mean"}, {"scale": weight, "offset": bias})


_LAYING = ("movedim", "permute", "flatten", "reshape", "view", "memory_read")  # these say themselves what is laid


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
