"""A network as a list of nodes: what the recorder makes and the rules rewrite.

A node is one operation with its inputs, its constants and the module it stands in. Nodes never change; a rule puts new
ones in their place. What a node yields is a map at 1/2**down of the (padded) picture's size, or a vector of one number
for each channel (down is VECTOR), or something the program has no word for (down is RAW), which a rule may still know
how to replace; what is left of those is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..errors import UnrainError

VECTOR, RAW = -1, -2
THIN = 4  # the most channels of a map that is stored as a picture is: float32, four to a pixel
ACTS = ("none", "relu", "relu6", "slope", "sigmoid", "tanh", "silu", "gelu")


class Refused(UnrainError):
    """The program has no such operation: another backend may run the network."""


@dataclass(frozen=True, eq=False)
class Node:
    op: str
    inputs: tuple[Node, ...]
    channels: int
    down: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    where: str = ""  # path of the module
    made_of: tuple[str, ...] = ()  # the recorded operations that came together in it

    def __getitem__(self, name: str) -> Any:
        return self.attributes.get(name)

    @property
    def shape(self) -> tuple[int, int]:
        return self.channels, self.down

    def but(
        self, *, attributes: Mapping = {}, constants: Mapping = {}, absorbed: Sequence[Node] = (), **fields: Any
    ) -> Node:
        """The same with some things changed; `absorbed` are the nodes whose work it now does too."""
        made_of = self.made_of + tuple(each for node in absorbed for each in node.made_of)
        merged = {name: value for name, value in {**self.constants, **constants}.items() if value is not None}
        return replace(self, attributes={**self.attributes, **attributes}, constants=merged, made_of=made_of, **fields)


@dataclass(frozen=True)
class Mark:
    """Where a stage ends: its picture, and the states after it."""

    picture: Node
    states: tuple[Node, ...] = ()

    @property
    def values(self) -> tuple[Node, ...]:
        return (self.picture, *self.states)


@dataclass(frozen=True)
class Run:
    """All stages one after the other; `ports` are the states that come in."""

    picture: Node
    ports: tuple[Node, ...]
    nodes: tuple[Node, ...]
    marks: tuple[Mark, ...]


class Uses:
    """How often each node of a list that is being rewritten is read; a mark reads too."""

    def __init__(self) -> None:
        self._counts: dict[Node, int] = {}
        self._before: dict[Node, Node] = {}

    def __call__(self, node: Node) -> int:
        return self._counts.get(node, 1)

    def before(self, node: Node) -> Node:
        """The node of the list as it was in whose place this one stands."""
        return self._before.get(node, node)

    def stands(self, node: Node, for_node: Node, count: int) -> None:
        self._counts[node] = self._counts.get(node, 0) + count
        self._before[node] = for_node


Rule = Callable[[Run], Run]
Change = Callable[[Node, Uses], "Node | None"]


def rewritten(run: Run, change: Change) -> Run:
    """Each node in turn, its inputs already rewritten, given to `change(node, uses)`: what it returns stands in the
    node's place, with whatever new nodes that needs; None leaves the node. Nodes that nobody reads afterwards go."""
    counts, uses = _counts(run), Uses()
    made: dict[Node, Node] = {each: each for each in (run.picture, *run.ports)}
    for each in made:
        uses.stands(each, each, counts[each])
    for node in run.nodes:
        inputs = tuple(made[each] for each in node.inputs)
        same = node if inputs == node.inputs else replace(node, inputs=inputs)
        uses.stands(same, node, counts[node])
        made[node] = change(same, uses) or same
        if made[node] is not same:
            uses.stands(made[node], node, counts[node])
    marks = tuple(Mark(made[mark.picture], tuple(made[each] for each in mark.states)) for mark in run.marks)
    return Run(run.picture, run.ports, listed([made[node] for node in run.nodes], marks), marks)


def _counts(run: Run) -> dict[Node, int]:
    counts = dict.fromkeys((run.picture, *run.ports, *run.nodes), 0)
    for node in run.nodes:
        for each in node.inputs:
            counts[each] += 1
    for mark in run.marks:
        for each in mark.values:
            counts[each] += 1
    return counts


def listed(order: Sequence[Node], marks: Sequence[Mark]) -> tuple[Node, ...]:
    """What the marks need, in this order as far as inputs allow."""
    needed = ancestors([each for mark in marks for each in mark.values])
    found: dict[Node, None] = {}

    def place(node: Node) -> None:
        if node in found or node.op == "input":
            return
        for each in node.inputs:
            place(each)
        found[node] = None

    for node in order:
        if node in needed:
            place(node)
    return tuple(found)


def ancestors(nodes: Sequence[Node]) -> set[Node]:
    """These and all they are computed from."""
    found: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.inputs)
    return found
