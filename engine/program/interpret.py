"""What the operations of a program mean, in plain PyTorch: the check of a program, and of the core that runs it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UnrainError
from ..models.sizing import pad_to_multiple
from .file import ADD, BIAS, SLOPE1, SLOPE2, Instruction, Program, Value
from .graph import THIN

ACTS: tuple[Callable[[Tensor, Tensor | None], Tensor], ...] = (
    lambda x, slope: x,
    lambda x, slope: x.relu(),
    lambda x, slope: F.relu6(x),
    lambda x, slope: torch.where(x < 0, x * _over(slope, x), x),
    lambda x, slope: x.sigmoid(),
    lambda x, slope: x.tanh(),
    lambda x, slope: F.silu(x),
    lambda x, slope: F.gelu(x),
)


def _over(values: Tensor | None, x: Tensor) -> Tensor:
    assert values is not None
    return values.view(1, -1, 1, 1)


class Interpreter:
    """One call in flight; vectors are maps of one pixel."""

    def __init__(self, program: Program, dtype: torch.dtype = torch.float32) -> None:
        self.program, self.dtype = program, dtype
        self.constants = [each.to(dtype) for each in program.constants]

    @torch.inference_mode()
    def __call__(self, x: Tensor, run: int = 0, states: Sequence[Tensor] = (), mark: int | None = None) -> Tensor:
        return self.marks(x, run, states, mark)[-1][0]

    @torch.inference_mode()
    def marks(
        self, x: Tensor, run: int = 0, states: Sequence[Tensor] = (), mark: int | None = None
    ) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        """The picture and the states of each mark, or of this one only (counted from 1)."""
        source = self.program.runs[run]
        channels = source.values[0].channels
        if x.dim() != 4 or x.shape[1] != channels:
            raise UnrainError(f"expected pictures of shape [B, {channels}, H, W], got {list(x.shape)}")
        padded, crop = padded_as(x, self.program)
        values: dict[int, Tensor] = {0: padded.to(self.dtype)}
        for port, state in zip(source.ports if run else (), states, strict=True):
            values[port.value] = self._padded(state, x).to(self.dtype)
        found, done = [], 0
        for number, each in enumerate(source.marks, 1):
            for instruction in source.instructions[done : each.after]:
                if mark is None or instruction.only_for_mark in (0, mark):
                    self._do(instruction, source.values, values)
            done = each.after
            if mark in (None, number):
                found.append(
                    (
                        crop(values[each.picture]).float(),
                        tuple(self._cropped(values[state], x) for state in each.states),
                    )
                )
            if mark == number:
                break
        return found

    def _padded(self, state: Tensor, x: Tensor) -> Tensor:
        """A state that is a picture is padded as the picture is."""
        return padded_as(state, self.program)[0] if state.shape[-2:] == x.shape[-2:] else state

    def _cropped(self, state: Tensor, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return state[..., :height, :width] if state.shape[1] <= THIN and state.shape[-2] >= height else state

    def _do(self, each: Instruction, kinds: Sequence[Value], values: dict[int, Tensor]) -> None:
        operands = [None if one is None else values[one] for one in each.operands]
        constants = [None if one is None else self.constants[one] for one in each.constants]
        first, flags = FLAGGED.get(each.op, (0, ()))
        for place, flag in enumerate(flags, first):
            if not each.flags & flag:
                constants.insert(place, None)
        result = OPERATIONS[each.op](each, operands, constants, kinds[each.output])
        if each.second is None:
            values[each.output] = result
        else:
            values[each.output], values[each.second] = result


def padded_as(x: Tensor, program: Program) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The picture at a size the program takes, and the function that crops back."""
    height, width = x.shape[-2:]
    if program.padding == 0:
        return pad_to_multiple(x, program.multiple)
    grown = (0, -width % program.multiple, 0, -height % program.multiple)
    mode = "replicate" if program.padding == 1 else "constant"
    return F.pad(x, grown, mode), lambda y: y[..., :height, :width]


def _conv(each: Instruction, operands: list, constants: list, out: Value) -> Tensor:
    kernel, stride, dilation, groups, form, shuffle = each.attributes
    weight, bias, slope1, slope2 = constants
    maps = operands[:-1] if each.flags & ADD else operands
    x, outputs = torch.cat(maps, 1), out.channels * (shuffle or 1) ** 2
    if form:
        extra = {3: (1, 1), 2: (0, 0), 4: (1, 0)}[kernel]
        y = F.conv_transpose2d(x, weight.view(-1, outputs, kernel, kernel), bias, 2, *extra)
    else:
        weight = weight.view(outputs, -1, kernel, kernel)
        y = F.conv2d(x, weight, bias, stride, dilation * (kernel - 1) // 2 if kernel % 2 else 0, dilation, groups)
    y = ACTS[each.act1](y, slope1)
    if shuffle:
        y = F.pixel_shuffle(y, shuffle)
    if each.flags & ADD:
        y = y + operands[-1]
    return ACTS[each.act2](y, slope2)


def _conv_lstm(each: Instruction, operands: list, constants: list, out: Value) -> tuple[Tensor, Tensor]:
    kernel, gates = each.attributes[:2]
    weight, bias = constants
    maps, c = (operands[:-1], operands[-1]) if gates == 4 else (operands, None)
    pre = F.conv2d(torch.cat(maps, 1), weight.view(gates * out.channels, -1, kernel, kernel), bias, 1, kernel // 2)
    parts = list(pre.chunk(gates, 1))
    return _cell(*(parts if gates == 4 else (parts[0], None, *parts[1:])), c)


def _cell(i: Tensor, f: Tensor | None, g: Tensor, o: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    new = i.sigmoid() * g.tanh()
    if f is not None:
        new = f.sigmoid() * c + new
    return o.sigmoid() * new.tanh(), new


def _affine(each: Instruction, operands: list, constants: list, out: Value) -> Tensor:
    scale, offset, order, slope = constants
    y = operands[0] if order is None else operands[0][:, order.long()]
    y = y if scale is None else y * _over(scale, y)
    y = y if offset is None else y + _over(offset, y)
    return ACTS[each.act1](y, slope)


def _pool(each: Instruction, operands: list, constants: list, out: Value) -> Tensor:
    return (F.avg_pool2d, F.max_pool2d)[each.attributes[0]](operands[0], each.attributes[1])


def _dense(each: Instruction, operands: list, constants: list, out: Value) -> Tensor:
    weight, bias, slope = constants
    return ACTS[each.act1](F.conv2d(operands[0], weight.view(out.channels, -1, 1, 1), bias), slope)


def _scaled(y: Tensor, constants: list) -> Tensor:
    scale, offset = constants
    y = y if scale is None else y * _over(scale, y)
    return y if offset is None else y + _over(offset, y)


def _channel_norm(each: Instruction, operands: list, constants: list, out: Value) -> Tensor:
    x, eps = operands[0], _float(each.attributes[0])
    if each.attributes[1]:
        return _scaled(x / x.norm(dim=1, keepdim=True).clamp_min(eps), constants)
    return _scaled((x - x.mean(1, True)) / (x.var(1, unbiased=False, keepdim=True) + eps).sqrt(), constants)


def _memory_read(each: Instruction, operands: list, constants: list, out: Value) -> Tensor:
    x, items = operands[0].movedim(1, -1), constants[0].view(each.attributes[0], -1)
    scores = F.normalize(x, dim=-1) @ F.normalize(items, dim=1).T
    return (scores.softmax(-1) @ items).movedim(-1, 1)


def _fill(each: Instruction, operands: list, constants: list, out: Value) -> Tensor:
    batch, _, height, width = operands[0].shape
    return constants[0].view(1, -1, 1, 1).expand(batch, -1, height, width)


def _float(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<i", bits))[0]


def _two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda each, operands, constants, out: ACTS[each.act1](function(*operands), constants[0])


# The number of constants that always have a place, and the flags that tell of the others.
FLAGGED = {
    "conv": (1, (BIAS, SLOPE1, SLOPE2)),
    "conv_lstm": (1, (BIAS,)),
    "dense": (1, (BIAS, SLOPE1)),
    "affine": (3, (SLOPE1,)),
    **dict.fromkeys(("add", "sub", "mul"), (0, (SLOPE1,))),
}

OPERATIONS: dict[str, Callable] = {
    "conv": _conv,
    "conv_lstm": _conv_lstm,
    "pool": _pool,
    "shuffle": lambda each, operands, constants, out: F.pixel_shuffle(operands[0], each.attributes[0]),
    "unshuffle": lambda each, operands, constants, out: F.pixel_unshuffle(operands[0], each.attributes[0]),
    "add": _two(torch.add),
    "sub": _two(torch.sub),
    "mul": _two(torch.mul),
    "affine": _affine,
    "clamp": lambda each, operands, constants, out: operands[0].clamp(*map(_float, each.attributes[:2])),
    "lerp": lambda each, operands, constants, out: operands[0] + operands[2] * (operands[1] - operands[0]),
    "lstm": lambda each, operands, constants, out: _cell(*operands),
    "mean": lambda each, operands, constants, out: operands[0].mean((2, 3), keepdim=True),
    "dense": _dense,
    "instance_norm": lambda each, operands, constants, out: _scaled(
        F.instance_norm(operands[0], eps=_float(each.attributes[0])), constants
    ),
    "channel_norm": _channel_norm,
    "memory_read": _memory_read,
    "copy": lambda each, operands, constants, out: torch.cat(operands, 1),
    "fill": _fill,
    "slice": lambda each, operands, constants, out: operands[0][:, each.attributes[0] :][:, : out.channels],
}
