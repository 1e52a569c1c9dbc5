"""From a run's nodes to the records of a file."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from . import file
from .graph import VECTOR, Node, Refused, Run, Uses, ancestors, rewritten
from .operations import ACTS
from .rules.shared import Contents

# The constants of each operation in the order of the file: those that always have a place, those that flags tell of.
CONSTANTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conv": (("weight",), ("bias", "slope1", "slope2")),
    "conv_lstm": (("weight",), ("bias",)),
    "dense": (("weight",), ("bias", "slope")),
    "affine": (("scale", "offset", "order"), ("slope",)),
    "memory_read": (("items",), ()),
    "fill": (("values",), ()),
    **dict.fromkeys(("instance_norm", "channel_norm"), (("scale", "offset"), ())),
    **dict.fromkeys(("add", "sub", "mul"), ((), ("slope",))),
}
PRECISE = ("instance_norm", "memory_read")  # read float32
CONVOLUTIONS = ("conv", "conv_lstm")  # read maps as the precision stores them


class Pool:
    """The constants of a program, each kept once, in fp16 where that is exact."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._places: dict[bytes, int] = {}
        self._contents = Contents()

    def __call__(self, value: Tensor) -> int:
        value = value.float().flatten().clone()  # the module may go on learning
        half = value.half()
        if torch.equal(half.float(), value):
            value = half
        return self._places.setdefault(self._contents(value), self._added(value))

    def _added(self, value: Tensor) -> int:
        if self._contents(value) not in self._places:
            self.tensors.append(value)
        return len(self.tensors) - 1


def lowered(runs: Sequence[Run], multiple: int, padding: int, card: dict) -> file.Program:
    pool = Pool()
    made = tuple(_Lowering(run, pool).run(carries=bool(number)) for number, run in enumerate(runs))
    if len(made) > 1:  # both list the same ports
        ports = tuple(port._replace(value=None) for port in made[1].ports)
        made = (made[0]._replace(ports=ports), made[1])
    return file.Program(made, tuple(pool.tensors), multiple, padding, card)


class _Lowering:
    def __init__(self, run: Run, pool: Pool) -> None:
        self.source, self.pool = with_copies(run), pool
        self.readers: dict[Node, list[Node]] = {}
        for node in self.source.nodes:
            for each in node.inputs:
                self.readers.setdefault(each, []).append(node)
        self.values: list[file.Value] = []
        self.places: dict[Node, int] = {}

    def run(self, carries: bool) -> file.Run:
        source = self.source
        for each in (source.picture, *source.ports):
            self._value(each)
        cells = {node.inputs[0]: node for node in source.nodes if node.op == "second"}
        needs = _marks_that_need(source)
        instructions: list[file.Instruction] = []
        done: dict[Node, int] = {}
        for node in source.nodes:
            if node.op != "second":
                instructions.append(self._instruction(node, cells.get(node), needs[node]))
            done[node] = len(instructions)
        marks, after = [], 0
        for mark in source.marks:
            after = max([after, *(done.get(each, 0) for each in mark.values)])
            states = tuple(self.places[each] for each in mark.states)
            marks.append(file.Mark(after, self.places[mark.picture], states))
        ports = tuple(
            file.Port(self.places[port], port.channels, port.down, self.values[self.places[port]].storage)
            for port in source.ports
        )
        return file.Run(tuple(self.values), tuple(instructions), tuple(marks), ports)

    def _value(self, node: Node) -> int:
        self.places[node] = len(self.values)
        kind = int(node.down == VECTOR)
        self.values.append(file.Value(kind, storage(node, self.source, self.readers), max(node.down, 0), node.channels))
        return self.places[node]

    def _as_large_as(self, node: Node) -> int:
        """Some map of this size."""
        sizes = [(0, node.down) == (value.kind, value.down) for value in self.values]
        if True not in sizes:
            raise Refused(f"{refusal(node)} (constants of a size that no map has before)")
        return sizes.index(True)

    def _instruction(self, node: Node, cell: Node | None, only_for_mark: int) -> file.Instruction:
        op = {"cat": "copy"}.get(node.op, node.op)
        if op not in file.OPS:
            raise Refused(refusal(node))
        operands: list[int | None] = [self.places[each] for each in node.inputs]
        if op == "lstm" and len(operands) == 3:
            operands = [operands[0], None, *operands[1:], None]
        if op == "fill":
            operands = [self._as_large_as(node)]
        always, flagged = CONSTANTS.get(op, ((), ()))
        held = node.constants
        names = (*always, *(name for name in flagged if name in held))
        slope = "slope1" if op == "conv" else "slope"
        flags = (
            file.BIAS * ("bias" in held)
            | file.SLOPE1 * (slope in held)
            | file.ADD * bool(node["adds"])
            | file.SLOPE2 * ("slope2" in held)
        )
        output = self._value(node)
        second = None
        if op in ("conv_lstm", "lstm"):
            second = self._value(cell or Node("second", (node,), *node.shape))
        return file.Instruction(
            op,
            ACTS.index(node["act1"] or "none"),
            ACTS.index(node["act2"] or "none"),
            flags,
            output,
            second,
            tuple(operands),
            tuple(self.pool(held[name]) if name in held else None for name in names),
            only_for_mark,
            text(node),
            attributes(op, node),
        )


def refusal(node: Node) -> str:
    name = node["name"] or next(iter(node.made_of), node.op)
    reason = f" ({node['reason']})" if node["reason"] else ""
    return f"{name} at {node.where or 'forward'}: the program has no such operation{reason}"


def text(node: Node) -> str:
    words = " + ".join(each.removeprefix("aten.") for each in node.made_of)
    return f"{node.where or 'forward'}: {words}"


def attributes(op: str, node: Node) -> tuple[int, ...]:
    if op == "conv":
        numbers = [node[name] for name in ("kernel", "stride", "dilation", "groups", "form", "shuffle")]
    elif op == "conv_lstm":
        numbers = [node["kernel"], node["gates"]]
    elif op == "pool":
        numbers = [("average", "max").index(node["kind"]), node["k"]]
    elif op in ("shuffle", "unshuffle"):
        numbers = [node["r"]]
    elif op == "clamp":
        numbers = [_bits(node["low"]), _bits(node["high"])]
    elif op == "instance_norm":
        numbers = [_bits(node["eps"])]
    elif op == "channel_norm":
        numbers = [_bits(node["eps"]), ("mean", "length").index(node["kind"])]
    elif op == "memory_read":
        numbers = [len(node.constants["items"])]
    else:
        numbers = [node["first"]] if op == "slice" else []
    return tuple(numbers + [0] * (6 - len(numbers)))


def _bits(number: float) -> int:
    return struct.unpack("<i", struct.pack("<f", number))[0]


def storage(node: Node, run: Run, readers: dict[Node, list[Node]]) -> int:
    """1 where a value is float32 whatever the precision: pictures, vectors, cell states, what norms read."""
    if node.down == VECTOR or node.channels <= 4 or node.op in ("second", "memory_read"):
        return 1
    if node in run.ports:
        return storage(run.marks[-1].states[run.ports.index(node)], run, readers)
    return int(any(each.op in PRECISE or each["kind"] == "length" for each in readers.get(node, ())))


def with_copies(run: Run) -> Run:
    """Convolutions read wide float32 maps through a copy."""
    readers: dict[Node, list[Node]] = {}
    for node in run.nodes:
        for each in node.inputs:
            readers.setdefault(each, []).append(node)
    stored = {node: storage(node, run, readers) for node in (*run.ports, *run.nodes)}
    copies: dict[Node, Node] = {}

    def change(node: Node, uses: Uses) -> Node | None:
        stored.setdefault(node, 0)
        if node.op not in CONVOLUTIONS:
            return None
        count = node["maps"] or 1
        inputs = list(node.inputs)
        for at, each in enumerate(inputs[:count]):
            if stored.get(each) and each.channels > 4:
                inputs[at] = copies.setdefault(each, Node("copy", (each,), *each.shape, where=node.where))
        return node.but(inputs=tuple(inputs)) if tuple(inputs) != node.inputs else None

    return rewritten(run, change)


def _marks_that_need(run: Run) -> dict[Node, int]:
    """For each node the one mark that needs it, counted from 1, or 0."""
    needing: dict[Node, list[int]] = {}
    for number, mark in enumerate(run.marks, 1):
        for node in ancestors(mark.values):
            needing.setdefault(node, []).append(number)
    last = len(run.marks)
    return {node: found[0] if len(found) == 1 and found[0] != last else 0 for node, found in needing.items()}
