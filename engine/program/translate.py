"""From recorded operations to nodes. What each means stands in `operations/`; what means nothing there becomes a raw
node, which a rule may know."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import Tensor, fx

from .graph import RAW, VECTOR, Node, Refused

Value = Any  # a Node, a Tensor that does not depend on the picture, or a number, list, ...
_TABLE: dict[str, Callable[..., Value]] = {}
_LAYING = ("movedim", "permute", "flatten", "reshape", "view", "memory_read")  # these say themselves what is laid


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


def pair(value: Any, what: str) -> int:
    numbers = {int(each) for each in value} if isinstance(value, list | tuple) else {int(value)}
    if len(numbers) != 1:
        raise Unknown(f"its {what} differs from side to side")
    return numbers.pop()
