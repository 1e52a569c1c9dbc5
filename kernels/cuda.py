"""The way to the CUDA kernels of csrc/cuda/kernels.cuh: compiled at install by nvcc, or on first use by CuPy.

Both ways launch the same kernels, by the same names, with the same arguments: the structs of csrc/ops.h, byte for byte.
Work is queued on PyTorch's current stream, so it is ordered with everything else and can be captured in a CUDA graph.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch

from . import native
from .compiled import NativeCuda
from .native import DTYPES, PACKAGE
from .registry import Call

NAMES = {torch.float32: "float", torch.bfloat16: "bf16", torch.float16: "f16", torch.uint8: "std::uint8_t"}
THREADS = 256
GRID_LIMIT = 65535  # of a grid's second and third dimension; the kernels go over the rest in strides

_pointer, _size, _int, _float = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_float
MOST_LEVELS = 16


class GaussianPyramid(ctypes.Structure):
    _fields_ = (
        ("x", _pointer),
        *((name, _size) for name in ("pictures", "height", "width", "channels")),
        ("kernel", _int),
        ("count", _int),
        ("factors", _int * MOST_LEVELS),
        ("dtype", _int),
        ("levels", _pointer * MOST_LEVELS),
        ("grad_levels", _pointer * MOST_LEVELS),
        ("grad_x", _pointer),
        ("threads", _int),
    )


class LevelGroup(ctypes.Structure):
    _fields_ = (("from_", _pointer), ("height", _size), ("width", _size), ("first", _int), ("count", _int))


class FrameToTensor(ctypes.Structure):
    _fields_ = (
        ("frame", _pointer),
        ("image", _pointer),
        *((name, _size) for name in ("batch", "height", "width", "padded_height", "padded_width")),
        *((name, _int) for name in ("bgr", "nv12", "channels_last")),
        *((name, _float) for name in ("black", "white", "chroma", "kr", "kb")),
        ("dtype", _int),
        ("threads", _int),
    )


class TensorToFrame(ctypes.Structure):
    _fields_ = (
        ("image", _pointer),
        ("residual", _pointer),
        ("frame", _pointer),
        *((name, _size) for name in ("batch", "image_height", "image_width", "height", "width")),
        *((name, _int) for name in ("bgr", "truncate", "channels_last")),
        ("dtype", _int),
        ("threads", _int),
    )


def available() -> str | None:
    if not torch.cuda.is_available():
        return "there is no CUDA GPU (torch.cuda.is_available() is False)"
    way = _way()
    return way if isinstance(way, str) else None


def can_run(call: Call) -> str | None:
    return None if call.device.type == "cuda" else f"it runs on a CUDA GPU, the tensors are on {call.device}"


def fill(struct: type[ctypes.Structure], fields: dict[str, Any]) -> ctypes.Structure:
    """The struct from the fields that the native implementation takes: tensors as addresses, dtypes as codes."""
    filled = struct()
    for name, value in fields.items():
        if isinstance(value, torch.Tensor):
            value = value.data_ptr()
        elif isinstance(value, torch.dtype):
            value = DTYPES[value]
        elif isinstance(value, list | tuple):
            value = type(getattr(filled, name))(*value)
        setattr(filled, name, value)
    return filled


def launch(kernel: str, grid: Sequence[int], block: Sequence[int], device: torch.device, *arguments: Any) -> None:
    """Queues `kernel` on the device's current stream. Arguments are ctypes values."""
    if 0 in grid:
        return
    values = [bytes(value) for value in arguments]
    index = device.index if device.index is not None else torch.cuda.current_device()
    stream = torch.cuda.current_stream(device).cuda_stream
    _way().launch(kernel, _three(grid), _three(block), index, stream, values)  # type: ignore[union-attr]


def launch_over(kernel: str, numbers: int, device: torch.device, *arguments: Any) -> None:
    """One thread per number; the count is the kernel's last argument."""
    count = ctypes.c_longlong(numbers)
    launch(kernel, (-(-numbers // THREADS),), (THREADS,), device, *arguments, count)


def launch_pixels(kernel: str, width: int, rows: int, device: torch.device, argument: ctypes.Structure) -> None:
    launch(kernel, (-(-width // 32), min(-(-rows // 8), GRID_LIMIT)), (32, 8), device, argument)


def _three(sizes: Sequence[int]) -> tuple[int, int, int]:
    return (*sizes, 1, 1)[:3]  # type: ignore[return-value]


@cache
def _way() -> NativeCuda | CuPy | str:
    """What launches: the compiled part, CuPy, or the reasons why neither can."""
    compiled = native.load_cuda()
    if not isinstance(compiled, str):
        return compiled
    try:
        return CuPy()
    except ImportError as error:
        return f"compiled part: {compiled}; CuPy, which could compile it now: {error}"


class CuPy:
    """Compiles the same source with NVRTC when a kernel is first asked for; CuPy keeps the result on disk."""

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        self.compiled: dict[tuple[str, int], Any] = {}

    def launch(self, kernel: str, grid, block, device: int, stream: int, arguments: list[bytes]) -> None:
        with self.cupy.cuda.Device(device), self.cupy.cuda.ExternalStream(stream, device):
            function = self.compiled.get((kernel, device))
            if function is None:
                function = self.compiled[kernel, device] = self._compile(kernel)
            # A structured numpy value of one element is passed by value, whatever its size.
            function(grid, block, tuple(np.frombuffer(each, np.dtype((np.void, len(each)))) for each in arguments))

    def _compile(self, kernel: str):
        name = qualified(kernel)
        with resources.as_file(resources.files(f"{PACKAGE}.csrc")) as folder:
            options = (*NVRTC_OPTIONS, f"-I{folder}")
            return self.cupy.RawModule(code=SOURCE, options=options, name_expressions=(name,)).get_function(name)


SOURCE = '#include "cuda/kernels.cuh"\n'
NVRTC_OPTIONS = ("-std=c++17", "-fmad=false", "-default-device")


def qualified(kernel: str) -> str:
    """The C++ name of a kernel: in namespace unrain::device, its types in unrain."""
    name, _, types = kernel.rstrip(">").partition("<")
    types = ", ".join(each if each in ("float", "std::uint8_t") else f"unrain::{each}" for each in types.split(", "))
    return f"unrain::device::{name}<{types}>"
