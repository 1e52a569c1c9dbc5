"""The `.unrain` file: records, weights and a card, little endian, in sections that begin at multiples of 64 bytes.

The C++ core reads the same records (csrc/program/format.h). Constants are kept as they were trained: in fp16 where that
holds them exactly, else in float32; packing belongs to the machine that runs it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UnrainError
from ..files import write
from .graph import THIN

MAGIC, VERSION, ALIGNMENT, ABSENT = b"\x89UNRAIN\n", 1, 64, 0xFFFFFFFF
HEADER = struct.Struct("<8sII32sQ10I13Q")
HEADER_BYTES = 256
RUN, VALUE, INSTRUCTION = struct.Struct("<8I"), struct.Struct("<4BI"), struct.Struct("<4H8I6i")
CONSTANT, MARK, PORT, NUMBER = struct.Struct("<QQII"), struct.Struct("<4I"), struct.Struct("<4I"), struct.Struct("<I")

OPS = dict(
    conv=1, conv_lstm=2, pool=3, shuffle=4, unshuffle=5, add=6, sub=7, mul=8, affine=9, clamp=10, lerp=11, lstm=12,
    mean=13, dense=14, instance_norm=15, channel_norm=16, memory_read=17, copy=18, fill=19, slice=20,
)  # fmt: skip
OP_NAMES = {number: name for name, number in OPS.items()}
BIAS, SLOPE1, ADD, SLOPE2 = 1, 2, 4, 8


class Value(NamedTuple):
    kind: int  # 0 map, 1 vector
    storage: int  # 0 as the precision asks, 1 float32
    down: int
    channels: int

    @property
    def thin(self) -> bool:
        return self.kind == 0 and self.channels <= THIN


class Instruction(NamedTuple):
    op: str
    act1: int
    act2: int
    flags: int
    output: int
    second: int | None
    operands: tuple[int | None, ...]
    constants: tuple[int | None, ...]
    only_for_mark: int  # counted from 1; 0: for all
    text: str
    attributes: tuple[int, ...]


class Mark(NamedTuple):
    after: int
    picture: int
    states: tuple[int, ...]


class Port(NamedTuple):
    value: int | None
    channels: int
    down: int
    storage: int


class Run(NamedTuple):
    """Value 0 is the picture."""

    values: tuple[Value, ...]
    instructions: tuple[Instruction, ...]
    marks: tuple[Mark, ...]
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class Program:
    """A network recorded once, to be run by the core or by `interpret`. Read-only; call it with [B, C, H, W]."""

    runs: tuple[Run, ...]
    constants: tuple[Tensor, ...]  # flat, float32 or float16
    multiple: int
    padding: int  # 0 reflected, 1 the edge repeated, 2 zeros
    card: dict[str, Any]

    def __call__(self, x: Tensor) -> Tensor:
        """The network's result: by the core where the compiled part is there, else by the interpreter."""
        return self._runner(x)

    @cached_property
    def _runner(self) -> Callable[[Tensor], Tensor]:
        from .interpret import Interpreter
        from .runner import ProgramRunner, available

        return Interpreter(self) if available() else ProgramRunner(self.data).run

    @cached_property
    def data(self) -> bytes:
        """The file."""
        return _encoded(self)

    def save(self, path: str | Path) -> None:
        """Write the file; it appears under its name only when it is complete."""
        write(Path(path), self.data)

    @staticmethod
    def load(path: str | Path) -> Program:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UnrainError(f"{path} cannot be read: {error.strerror}") from error
        return decoded(data, str(path))

    def describe(self) -> str:
        """A readable listing."""
        from .explain import listing

        return listing(self)


def _encoded(program: Program) -> bytes:
    values: list[bytes] = []
    instructions: list[bytes] = []
    operands: list[int] = []
    marks: list[bytes] = []
    ports: list[bytes] = []
    runs: list[bytes] = []
    text, places = bytearray(), {}
    for run in program.runs:
        counts = (len(values), len(run.values), len(instructions), len(run.instructions))
        runs.append(RUN.pack(*counts, len(marks), len(run.marks), len(ports), len(run.ports)))
        values += [VALUE.pack(kind, storage, down, 0, channels) for kind, storage, down, channels in run.values]
        for each in run.instructions:
            if each.text not in places:
                places[each.text] = len(text)
                text += each.text.encode() + b"\0"
            lists = (len(operands), len(each.operands), len(operands) + len(each.operands), len(each.constants))
            operands += [_number(one) for one in (*each.operands, *each.constants)]
            head = (OPS[each.op], each.act1, each.act2, each.flags, each.output, _number(each.second), *lists)
            tail = (each.only_for_mark, places[each.text], *each.attributes)
            instructions.append(INSTRUCTION.pack(*head, *tail))
        for mark in run.marks:
            marks.append(MARK.pack(mark.after, mark.picture, len(operands), 0))
            operands += mark.states
        ports += [PORT.pack(_number(port.value), *port[1:]) for port in run.ports]
    constants, data = [], bytearray()
    for each in program.constants:
        constants.append(CONSTANT.pack(len(data), each.numel(), int(each.dtype == torch.float16), 0))
        data += each.numpy().tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    card = json.dumps(program.card, sort_keys=True).encode()
    numbers = [NUMBER.pack(each) for each in operands]
    tables = [runs, values, instructions, numbers, constants, marks, ports]
    places_at, body = [], bytearray()
    for section in (*(b"".join(table) for table in tables), data, text, card):
        body += bytes(-len(body) % ALIGNMENT)
        places_at.append(HEADER_BYTES + len(body))
        body += section
    header = HEADER.pack(
        MAGIC,
        VERSION,
        program.multiple,
        hashlib.sha256(body).digest(),
        HEADER_BYTES + len(body),
        *map(len, tables),
        *_ends(program),
        program.padding,
        *places_at[:8],
        len(data),
        places_at[8],
        len(text),
        places_at[9],
        len(card),
    )
    return header.ljust(HEADER_BYTES, b"\0") + bytes(body)


def _number(value: int | None) -> int:
    return ABSENT if value is None else value


def decoded(data: bytes, name: str = "the program") -> Program:
    """The program in these bytes, which are not trusted."""
    try:
        return _decoded(data)
    except (struct.error, IndexError, KeyError, ValueError, OverflowError, RecursionError) as error:
        raise UnrainError(f"{name} is no program that this version can read: {error}") from None


def _decoded(data: bytes) -> Program:
    if data[:8] != MAGIC:
        raise ValueError("it does not begin like one")
    _, version, multiple, digest, size, *rest = HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"it has version {version}, this is for {VERSION}")
    if size != len(data) or hashlib.sha256(data[HEADER_BYTES:]).digest() != digest:
        raise ValueError("it is damaged or incomplete")
    (*counts, inputs, outputs, padding), places = rest[:10], rest[10:]
    if multiple not in (1, 2, 4, 8, 16, 32, 64) or padding > 2:
        raise ValueError("it asks for a padding that there is not")
    records = (RUN, VALUE, INSTRUCTION, NUMBER, CONSTANT, MARK, PORT)
    tables = [
        list(record.iter_unpack(_section(data, at, count * record.size)))
        for record, count, at in zip(records, counts, places, strict=False)
    ]
    runs, values, instructions, numbers, constants, marks, ports = tables
    block, text, card = (_section(data, *each) for each in zip(places[7::2], places[8::2], strict=True))
    operands = [each for (each,) in numbers]

    def instruction(fields: Sequence[int]) -> Instruction:
        op, act1, act2, flags, output, second, *lists, only, place = fields[:12]
        taken = [
            tuple(_absent(one) for one in _part(operands, first, count))
            for first, count in zip(lists[::2], lists[1::2], strict=True)
        ]
        words = text[place : text.index(b"\0", place)].decode()
        return Instruction(
            OP_NAMES[op], act1, act2, flags, output, _absent(second), *taken, only, words, tuple(fields[12:])
        )

    def run(fields: Sequence[int]) -> Run:
        mine = [
            _part(table, first, count)
            for table, first, count in zip((values, instructions, marks, ports), fields[::2], fields[1::2], strict=True)
        ]
        return Run(
            tuple(Value(kind, storage, down, channels) for kind, storage, down, _, channels in mine[0]),
            tuple(instruction(each) for each in mine[1]),
            tuple(Mark(after, picture, tuple(_part(operands, at, len(mine[3])))) for after, picture, at, _ in mine[2]),
            tuple(Port(_absent(value), *others) for value, *others in mine[3]),
        )

    tensors = tuple(_constant(block, *each) for each in constants)
    program = Program(tuple(run(each) for each in runs), tensors, multiple, padding, json.loads(card))
    if _ends(program) != (inputs, outputs):
        raise ValueError("its pictures have other channels than it says")
    return program


def _ends(program: Program) -> tuple[int, int]:
    """The channels of the pictures that go in and come out."""
    run = program.runs[0]
    return run.values[0].channels, run.values[run.marks[-1].picture].channels


def _section(data: bytes, at: int, size: int) -> bytes:
    if at < HEADER_BYTES or at % ALIGNMENT or at + size > len(data):
        raise ValueError("a section lies outside the file")
    return data[at : at + size]


def _absent(number: int) -> int | None:
    return None if number == ABSENT else number


def _part(table: Sequence, first: int, count: int) -> Sequence:
    if first + count > len(table):
        raise ValueError("a list ends outside its table")
    return table[first : first + count]


def _constant(block: bytes, offset: int, count: int, dtype: int, _: int) -> Tensor:
    kind = (torch.float32, torch.float16)[dtype]
    if offset + count * kind.itemsize > len(block):
        raise ValueError("a constant lies outside the file")
    return (
        torch.frombuffer(bytearray(block[offset : offset + count * kind.itemsize]), dtype=kind)
        if count
        else torch.empty(0)
    )
