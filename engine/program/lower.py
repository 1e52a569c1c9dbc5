"""From a run's nodes to the records of a file."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from . import file
from .graph import ACTS, VECTOR, Node, Refused, Run, ancestors
from .rules.joined import MOST
from .rules.shared import Contents

THIN = 4  # channels of a map that is stored in float32, four numbers a pixel

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
CONVOLUTIONS = ("conv", "conv_lstm")  # read wide maps as the precision stores them


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
    pool, precise = Pool(), precise_nodes(runs)
    made = tuple(_Lowering(run, pool, precise).run() for run in runs)
    if len(made) > 1:  # both list the same ports
        ports = tuple(port._replace(value=None) for port in made[1].ports)
        made = (made[0]._replace(ports=ports), made[1])
    return file.Program(made, tuple(pool.tensors), multiple, padding, card)


def precise_nodes(runs: Sequence[Run]) -> set[Node]:
    """What is float32 whatever the precision: pictures, vectors, cell states, what norms and memories read.

    A state is so before every stage and after it, in both runs, if it is so anywhere.
    """
    found: set[Node] = set()
    for run in runs:
        for node in (run.picture, *run.ports, *run.nodes):
            if node.down == VECTOR or node.channels <= THIN or node.op in ("second", "memory_read"):
                found.add(node)
            if node.op in PRECISE or node["kind"] == "length":
                found.update(node.inputs)
            if node["gates"] == 4 or (node.op == "lstm" and len(node.inputs) == 5):
                found.add(node.inputs[-1])
    marks = [mark.states for run in runs for mark in run.marks]
    for state in zip(*marks, *(run.ports for run in runs if run.ports), strict=True):
        if not found.isdisjoint(state):
            found.update(state)
    return found


class _Lowering:
    """One run; what it computes in the order of its instructions, with a copy where an operation needs one."""

    def __init__(self, run: Run, pool: Pool, precise: set[Node]) -> None:
        self.source, self.pool, self.precise = run, pool, precise
        self.values: list[file.Value] = []
        self.instructions: list[file.Instruction] = []
        self.places: dict[Node, int] = {}
        self.copies: dict[Node, int] = {}  # of float32 maps, for convolutions
        self.needs = _marks_that_need(run)
        self.cells = {node.inputs[0]: node for node in run.nodes if node.op == "second"}

    def run(self) -> file.Run:
        source = self.source
        for each in (source.picture, *source.ports):
            self.places[each] = self._value(each)
        done: dict[Node, int] = {}
        for node in source.nodes:
            if node.op != "second":
                self._instruction(node)
            done[node] = len(self.instructions)
        marks, after = [], 0
        for mark in source.marks:
            after = max([after, *(done.get(each, 0) for each in mark.values)])
            states = tuple(self.places[each] for each in mark.states)
            marks.append(file.Mark(after, self.places[mark.picture], states))
        ports = tuple(
            file.Port(self.places[port], port.channels, port.down, self.values[self.places[port]].storage)
            for port in source.ports
        )
        return file.Run(tuple(self.values), tuple(self.instructions), tuple(marks), ports)

    def _value(self, node: Node, precise: bool | None = None) -> int:
        storage = node in self.precise if precise is None else precise
        self.values.append(file.Value(int(node.down == VECTOR), int(storage), max(node.down, 0), node.channels))
        return len(self.values) - 1

    def _as_large_as(self, node: Node) -> int:
        """Some map of this size."""
        sizes = [(0, node.down) == (value.kind, value.down) for value in self.values]
        if True not in sizes:
            raise Refused(f"{refusal(node)} (constants of a size that no map has before)")
        return sizes.index(True)

    def _copied(self, parts: Sequence[int], like: Node, channels: int, needs: int) -> int:
        """A new map of these side by side."""
        output = self._value(replace(like, channels=channels), precise=False)
        words = f"{like.where or 'forward'}: copy"
        self.instructions.append(
            file.Instruction("copy", 0, 0, 0, output, None, tuple(parts), (), needs, words, (0,) * 6)
        )
        return output

    def _operands(self, node: Node) -> list[int | None]:
        operands: list[int | None] = [self.places[each] for each in node.inputs]
        if node.op == "lstm" and len(operands) == 3:
            return [operands[0], None, *operands[1:], None]
        if node.op == "fill":
            return [self._as_large_as(node)]
        if node.op in CONVOLUTIONS:
            for at, each in enumerate(node.inputs[: node["maps"] or 1]):
                if each in self.precise and each.channels > THIN:
                    if each not in self.copies:
                        place, needs = self.places[each], self.needs.get(each, 0)
                        self.copies[each] = self._copied([place], each, each.channels, needs)
                    operands[at] = self.copies[each]
        while node.op == "cat" and len(operands) > MOST:
            channels = sum(self.values[each].channels for each in operands[:MOST])
            operands = [self._copied(operands[:MOST], node, channels, self.needs[node]), *operands[MOST:]]
        return operands

    def _instruction(self, node: Node) -> None:
        op = {"cat": "copy"}.get(node.op, node.op)
        if op not in file.OPS:
            raise Refused(refusal(node))
        operands = self._operands(node)
        always, flagged = CONSTANTS.get(op, ((), ()))
        held = node.constants
        names = (*always, *(name for name in flagged if name in held))
        flags = (
            file.BIAS * ("bias" in held)
            | file.SLOPE1 * (("slope1" if op == "conv" else "slope") in held)
            | file.ADD * bool(node["adds"])
            | file.SLOPE2 * ("slope2" in held)
        )
        output, second = self._value(node), None
        self.places[node] = output
        if op in ("conv_lstm", "lstm"):
            second = self._value(node, precise=True)
            if node in self.cells:
                self.places[self.cells[node]] = second
        self.instructions.append(
            file.Instruction(
                op,
                ACTS.index(node["act1"] or "none"),
                ACTS.index(node["act2"] or "none"),
                flags,
                output,
                second,
                tuple(operands),
                tuple(self.pool(held[name]) if name in held else None for name in names),
                self.needs[node],
                text(node),
                attributes(op, node),
            )
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


def _marks_that_need(run: Run) -> dict[Node, int]:
    """For each node the one mark that needs it, counted from 1, or 0."""
    needing: dict[Node, list[int]] = {}
    for number, mark in enumerate(run.marks, 1):
        for node in ancestors(mark.values):
            needing.setdefault(node, []).append(number)
    last = len(run.marks)
    return {node: found[0] if len(found) == 1 and found[0] != last else 0 for node, found in needing.items()}
