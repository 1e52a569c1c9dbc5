"""Reading a graph: which operation a node is, what it adds up, and whether a pattern may be replaced at all."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.experimental.symbolic_shapes import statically_known_true

from .trace import value

Term = Any  # a node or a number
END = 2**63 - 1


class NoMatch(Exception):
    """Why something that begins like a pattern is left alone."""


def op(node: Any) -> str:
    """The name of an aten operation, without its overload; "" for everything else."""
    if not isinstance(node, fx.Node) or not isinstance(node.target, OpOverload):
        return ""
    return node.target.overloadpacket.__name__ if node.target.namespace == "aten" else ""


def is_number(term: Any) -> bool:
    return isinstance(term, int | float) and not isinstance(term, bool)


def argument(node: fx.Node, name: str) -> Any:
    """An argument of an operation by its name in the schema, or its default."""
    for place, each in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if each.name == name:
            if not each.kwarg_only and place < len(node.args):
                return node.args[place]
            return node.kwargs.get(name, each.default_value)
    raise KeyError(name)


def two(node: Any, *names: str) -> tuple[Any, Any] | None:
    """The two operands of a binary operation of one of these names."""
    if op(node) not in names or len(node.args) < 2 or node.kwargs.get("rounding_mode"):
        return None
    return (node.args[0], node.args[1]) if node.kwargs.get("alpha", 1) == 1 and len(node.args) == 2 else None


def either(pair: tuple[Any, Any] | None) -> Iterator[tuple[Any, Any]]:
    """The operands of something commutative, both ways round."""
    if pair is not None:
        yield pair
        yield pair[1], pair[0]


def one(node: Any, name: str) -> Any:
    """The input of a function of one argument, or None."""
    return node.args[0] if op(node) == name and len(node.args) == 1 and not node.kwargs else None


def shape(term: Any) -> tuple[Any, ...] | None:
    found = value(term) if isinstance(term, fx.Node) else None
    return tuple(found.shape) if isinstance(found, Tensor) else None


def same_shape(*terms: Any) -> bool:
    shapes = [shape(each) for each in terms]
    first = shapes[0]
    return first is not None and all(
        each is not None and len(each) == len(first) and all(map(equal, each, first)) for each in shapes
    )


def equal(a: Any, b: Any) -> bool:
    return bool(statically_known_true(a == b))


def dtype(term: fx.Node) -> torch.dtype:
    return value(term).dtype


def only(node: fx.Node, *readers: fx.Node) -> bool:
    """Whether nobody else reads a node."""
    return all(user in readers for user in node.users)


@dataclass(frozen=True)
class Piece:
    """So many channels of a map, from one on."""

    source: fx.Node
    start: int
    count: int


def piece(node: fx.Node) -> Piece:
    """What part of which map a node is, looking through chunk, split and slices along the channels."""
    count = shape(node)[1]  # type: ignore[index]
    if node.target is operator.getitem:
        parent, number = node.args
        if op(parent) in ("chunk", "split", "split_with_sizes", "tensor_split") and _axis(parent) == 1:
            sizes = [each.shape[1] for each in value(parent)]
            inner = piece(parent.args[0])
            return Piece(inner.source, inner.start + sum(sizes[:number]), count)
    if op(node) in ("slice", "narrow"):
        source, axis = node.args[0], argument(node, "dim")
        if op(node) == "slice" and argument(node, "step") == 1 and same_shape(node, source):
            return piece(source)
        start = argument(node, "start") or 0
        if axis % 4 == 1 and isinstance(start, int) and (op(node) == "narrow" or argument(node, "step") == 1):
            inner = piece(source)
            return Piece(inner.source, inner.start + (start if start >= 0 else start + shape(source)[1]), count)
    return Piece(node, 0, count)


def _axis(node: fx.Node) -> int:
    axis = argument(node, "dim")
    return axis + len(shape(node.args[0]) or ()) if axis < 0 else axis


def readers(node: fx.Node) -> Iterator[fx.Node]:
    """Who reads a map, looking through what only takes pieces of it."""
    for user in node.users:
        if op(user) in ("chunk", "split", "split_with_sizes", "tensor_split"):
            for part in user.users:
                yield from readers(part) if piece(part).source is not part else [part]
        elif op(user) in ("slice", "narrow") and piece(user).source is not user:
            yield from readers(user)
        else:
            yield user


class Safety:
    """What in a graph is changed in place, and where grad mode or autocast changes: no pattern goes across either."""

    def __init__(self, graph: fx.Graph) -> None:
        self.place: dict[fx.Node, int] = {}
        self._region: dict[fx.Node, int] = {}
        self._root: dict[fx.Node, fx.Node] = {}
        self._changed: dict[fx.Node, int] = {}  # the last place where something of its storage is written
        region = 0
        for place, node in enumerate(graph.nodes):
            self.place[node] = place
            region += _switches_a_mode(node)
            self._region[node] = region
            self._note(node, place)

    def _note(self, node: fx.Node, place: int) -> None:
        if node.target is operator.getitem:
            self._root[node] = self.root(node.args[0])  # type: ignore[arg-type]
        if not isinstance(node.target, OpOverload):
            return
        schema = node.target._schema
        for each in schema.arguments:
            if each.alias_info is None:
                continue
            given = argument(node, each.name)
            for part in given if isinstance(given, list | tuple) else [given]:
                if isinstance(part, fx.Node):
                    if schema.returns and any(found.alias_info for found in schema.returns):
                        self._root[node] = self.root(part)
                    if each.alias_info.is_write:
                        self._changed[self.root(part)] = place

    def root(self, node: fx.Node) -> fx.Node:
        while node in self._root:
            node = self._root[node]
        return node

    def is_changed(self, node: fx.Node) -> bool:
        return self.root(node) in self._changed

    def check(self, nodes: Iterable[fx.Node], inputs: Iterable[fx.Node]) -> None:
        """Raises NoMatch unless these nodes may be computed together, from these inputs, where the last of them is."""
        inside = [node for node in nodes if node in self.place]
        first = min(self.place[node] for node in inside)
        if len({self._region[node] for node in inside}) > 1:
            raise NoMatch("grad mode or autocast changes in the middle of it")
        for node in (*inside, *inputs):
            if node in self.place and self._changed.get(self.root(node), -1) > first:
                raise NoMatch(f"{node.name} is changed in place")


def _switches_a_mode(node: fx.Node) -> bool:
    return (
        node.op == "call_function"
        and not isinstance(node.target, OpOverload)
        and node.target is not operator.getitem
        and getattr(node.target, "__module__", "") not in ("_operator", "math")
    )


def flat_sum(node: Any, readers_inside: Sequence[fx.Node] = ()) -> tuple[list[fx.Node], float, list[fx.Node]]:
    """A sum as its terms, its number, and the additions themselves; maps that others read too are terms."""
    numbers, terms, additions = 0.0, [], []
    waiting = [(node, list(readers_inside))]
    while waiting:
        each, inside = waiting.pop(0)
        if is_number(each):
            numbers += each
            continue
        pair = two(each, "add")
        shapes = pair and all(is_number(part) or same_shape(part, each) or _is_scaled(part, each) for part in pair)
        if pair and shapes and only(each, *inside):
            additions.append(each)
            waiting[:0] = [(part, [each]) for part in pair]
        else:
            terms.append(each)
    return terms, numbers, additions


def _is_scaled(part: Any, whole: fx.Node) -> bool:
    """A product with a broadcast weight, as large as the sum that it stands in."""
    return two(part, "mul") is not None and same_shape(part, whole)
