"""The compiled parts through ctypes: plain C libraries that know no Python and no torch, so one build serves them all.

The libraries say themselves what the structs of their functions look like (csrc/bindings.h): nothing here repeats them.
"""

from __future__ import annotations

import ctypes
import struct
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

MESSAGE_BYTES = 256

_text, _address, _size = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t


def aligned(size: int) -> torch.Tensor:
    """Memory from a multiple of 64 on."""
    block = torch.empty(size + 64, dtype=torch.uint8)
    start = -block.data_ptr() % 64
    return block[start : start + size]


class _Field(ctypes.Structure):
    _fields_ = (
        ("name", _text),
        ("offset", _size),
        ("count", _size),
        ("otherwise", ctypes.c_int),
        ("kind", ctypes.c_char),
    )


class _Function(ctypes.Structure):
    _fields_ = (
        ("name", _text),
        ("fields", ctypes.POINTER(_Field)),
        ("bytes", _size),
        ("call", ctypes.CFUNCTYPE(_text, _text, ctypes.c_int, _text, ctypes.POINTER(ctypes.c_ssize_t))),
    )


class Function:
    """One function of the library: it takes the fields of its struct by name, a field that is not given is zero."""

    def __init__(self, described: Any) -> None:
        self.name = described.name.decode()
        self._call = described.call
        # (name, count, otherwise) in the order in which they lie
        self._fields: list[tuple[str, int, int]] = []
        layout = "@"
        for field in sorted(_until_unnamed(described.fields), key=lambda field: field.offset):
            layout += f"{field.offset - struct.calcsize(layout)}x{field.count}{field.kind.decode()}"
            self._fields.append((field.name.decode(), field.count, field.otherwise))
        self._layout = struct.Struct(f"{layout}{described.bytes - struct.calcsize(layout)}x")

    def __call__(self, backward: bool = False, tier: str = "", **given: Any) -> int:
        values: list[Any] = []
        for name, count, otherwise in self._fields:
            value = given.pop(name, otherwise)
            if count == 1:
                values.append(0 if value is None else value)
                continue
            several = value or ()
            if len(several) > count:
                raise ValueError(f"{self.name}: {name}: at most {count}")
            values += several
            values += (0,) * (count - len(several))
        if given:
            raise TypeError(f"{self.name}: {', '.join(given)} is no field of its arguments")
        answer = ctypes.c_ssize_t()
        wrong = self._call(self._layout.pack(*values), backward, tier.encode() or None, ctypes.byref(answer))
        if wrong:
            raise ValueError(f"{self.name}: {wrong.decode()}")
        return answer.value


def _until_unnamed(table: Any) -> list[Any]:
    found: list[Any] = []
    while table[len(found)].name:
        found.append(table[len(found)])
    return found


class Native:
    """The CPU part: ops, convolutions and programs."""

    def __init__(self, file: Path) -> None:
        self.library = library = ctypes.CDLL(str(file))
        self.functions: dict[str, Function] = {}
        for table in (library.unrain_native_ops, library.unrain_native_convolution):
            table.restype = ctypes.POINTER(_Function)
            for described in _until_unnamed(table()):
                function = Function(described)
                self.functions[function.name] = function
        library.unrain_native_tier.restype = _text
        for name, (result, *arguments) in _PROGRAM_FUNCTIONS.items():
            function_of = getattr(library, f"unrain_native_{name}")
            function_of.restype, function_of.argtypes = result, arguments

    def tiers(self) -> list[str]:
        """The SIMD tiers this machine can run, the one taken by default first."""
        names: list[str] = []
        while name := self.library.unrain_native_tier(len(names)):
            names.append(name.decode())
        return names

    def multiplies_bf16(self) -> bool:
        """Whether convolutions can have products of bfloat16."""
        return bool(self.library.unrain_native_multiplies_bf16())

    def program(self, data: bytes) -> Program:
        return Program(self.library, data)


class _Facts(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("multiple", "in_channels", "out_channels", "instructions", "ports", "runs", "card_bytes")
        ),
        ("card", _address),
    )


class _Place(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("offset", "channels", "stored", "height", "width", "bfloat16"))


_uint32, _int, _ssize, _place = ctypes.c_uint32, ctypes.c_int, ctypes.c_ssize_t, ctypes.POINTER(_Place)
_PROGRAM_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "program": (_address, _text, _size, _text, _size),
    "program_end": (None, _address),
    "program_facts": (_Facts, _address),
    "program_marks": (ctypes.c_int64, _address, _uint32),
    "prepared": (_address, _address, _int, _int, _text, _text, _size),
    "prepared_end": (None, _address),
    "prepared_bytes": (_size, _address),
    "context_bytes": (_size, _address, _ssize, _ssize, _ssize, _int, _text, _size),
    "context": (_address, _address, _ssize, _ssize, _ssize, _int, _address, _text, _size),
    "context_end": (None, _address),
    "start": (_int, _address, _uint32, _address, _text, _size),
    "advance": (_int, _address, _uint32, _address, _text, _size),
    "advance_timed": (_size, _address, _uint32, _address, ctypes.POINTER(ctypes.c_int64), _size, _text, _size),
    "port": (_int, _address, _uint32, _place, _text, _size),
    "state": (_int, _address, _uint32, _uint32, _uint32, _place, _text, _size),
}


def _asked(function: Callable[..., Any], *arguments: Any) -> Any:
    """Its answer; where that is zero, its message as a ValueError."""
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    answer = function(*arguments, message, MESSAGE_BYTES)
    if not answer:
        raise ValueError(message.value.decode(errors="replace"))
    return answer


class _Made:
    """What the library made, ended with this object."""

    def __init__(self, library: ctypes.CDLL, kind: str, *arguments: Any) -> None:
        self.library = library
        self.handle = _asked(getattr(library, f"unrain_native_{kind}"), *arguments)
        end = weakref.finalize(self, getattr(library, f"unrain_native_{kind}_end"), self.handle)
        end.atexit = False


class Program(_Made):
    """A program file that was found to be right."""

    def __init__(self, library: ctypes.CDLL, data: bytes) -> None:
        super().__init__(library, "program", data, len(data))
        facts = library.unrain_native_program_facts(self.handle)
        self.multiple: int = facts.multiple
        self.in_channels: int = facts.in_channels
        self.out_channels: int = facts.out_channels
        self.instructions: int = facts.instructions
        self.ports: int = facts.ports
        self.marks: list[int] = [library.unrain_native_program_marks(self.handle, run) for run in range(facts.runs)]
        self.card: bytes = ctypes.string_at(facts.card, facts.card_bytes) if facts.card_bytes else b""

    def prepared(self, maps: int, products: int, tier: str = "") -> Prepared:
        """Its weights packed for a precision: codes of dtypes, as in native.DTYPES."""
        return Prepared(self, maps, products, tier)


class Prepared(_Made):
    """The weights of a program, packed for a precision."""

    def __init__(self, program: Program, maps: int, products: int, tier: str) -> None:
        super().__init__(program.library, "prepared", program.handle, maps, products, tier.encode() or None)
        self.program = program  # which it is made of

    @property
    def bytes(self) -> int:
        return self.library.unrain_native_prepared_bytes(self.handle)

    def context_bytes(self, batch: int, height: int, width: int, threads: int) -> int:
        """What a context for pictures of this size takes."""
        return _asked(self.library.unrain_native_context_bytes, self.handle, batch, height, width, threads)


class Context(_Made):
    """One call in flight, for pictures of one size; in the memory of a former one that is over, where it fits."""

    def __init__(
        self, prepared: Prepared, batch: int, height: int, width: int, threads: int, former: Context | None = None
    ) -> None:
        size = prepared.context_bytes(batch, height, width, threads)
        if former is not None and former.room.numel() >= size:
            self.room = former.room
        else:
            try:
                self.room = aligned(size)
            except RuntimeError:  # what PyTorch says of it is of its own allocator
                raise ValueError(f"not enough memory: {size} bytes") from None
        self.memory = self.room[:size]
        place = self.memory.data_ptr()
        super().__init__(prepared.library, "context", prepared.handle, batch, height, width, threads, place)
        self.prepared = prepared  # which it is made of

    def start(self, run: int, pictures: int) -> None:
        _asked(self.library.unrain_native_start, self.handle, run, pictures)

    def advance(self, mark: int, pictures: int) -> None:
        _asked(self.library.unrain_native_advance, self.handle, mark, pictures)

    def advance_timed(self, mark: int, pictures: int) -> list[int]:
        """When each of its instructions began, and the end, in nanoseconds."""
        times = (ctypes.c_int64 * (self.prepared.program.instructions + 1))()
        return times[: _asked(self.library.unrain_native_advance_timed, self.handle, mark, pictures, times, len(times))]

    def port(self, number: int) -> dict[str, Any]:
        return self._place(self.library.unrain_native_port, number)

    def state(self, run: int, mark: int, number: int) -> dict[str, Any]:
        return self._place(self.library.unrain_native_state, run, mark, number)

    def _place(self, function: Callable[..., Any], *numbers: int) -> dict[str, Any]:
        place = _Place()
        _asked(function, self.handle, *numbers, ctypes.byref(place))
        described = {name: getattr(place, name) for name in ("offset", "channels", "stored", "height", "width")}
        return {**described, "dtype": torch.bfloat16 if place.bfloat16 else torch.float32}


class NativeCuda:
    """The CUDA part."""

    def __init__(self, file: Path) -> None:
        library = ctypes.CDLL(str(file))
        self._launch = library.unrain_native_cuda_launch
        self._launch.restype = _text
        self._launch.argtypes = (_text, _address, _address, _int, _address, _address, _address, _size)
        self._kernels = library.unrain_native_cuda_kernels
        self._kernels.restype = ctypes.POINTER(_text)

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        device: int,
        stream: int,
        arguments: Sequence[bytes],
    ) -> None:
        """Queues one kernel on a stream; every argument comes as the bytes of its value."""
        count = len(arguments)
        three, addresses, sizes = ctypes.c_uint * 3, _text * count, _size * count
        wrong = self._launch(
            kernel.encode(),
            three(*grid),
            three(*block),
            device,
            stream,
            addresses(*arguments),
            sizes(*map(len, arguments)),
            count,
        )
        if wrong:
            raise RuntimeError(f"{kernel}: {wrong.decode()}")

    def kernels(self) -> list[str]:
        """The names `launch` knows."""
        table, found = self._kernels(), []
        while name := table[len(found)]:
            found.append(name.decode())
        return found
