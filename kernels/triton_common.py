"""What the Triton kernels share: activations, the exact dot, tiles of images, the second pass of every reduction, and
the refusals.

Imports triton at its top, so only kernels/<op>/triton*.py may import it. Loops whose length is known only at run time
are written with `while`: the interpreter of triton 3.6 cannot take `range` of an argument with numpy 2.4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
import triton
import triton.language as tl

from .registry import Call
from .triton_aot import Grid, KernelSpec

# Read once: triton decides at decoration time whether a kernel is compiled or interpreted.
INTERPRETED: bool = triton.knobs.runtime.interpret
_INTERPRETED = tl.constexpr(INTERPRETED)

NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
OLDEST = (8, 0)


def available() -> str | None:
    """Why no Triton kernel can run on this machine, or None."""
    if INTERPRETED or torch.cuda.is_available():
        return None
    return "there is no CUDA GPU (TRITON_INTERPRET=1, set before the start, runs the kernels on the CPU)"


def refuse(call: Call) -> str | None:
    """What every kernel asks for: a device it runs on, and a dtype it stores."""
    if call.device.type != "cuda" and not INTERPRETED:
        return f"the tensors are on {call.device}, not on a CUDA GPU"
    if call.device.type == "cuda" and torch.cuda.get_device_capability(call.device) < OLDEST:
        return f"the GPU is older than compute capability {OLDEST[0]}.{OLDEST[1]}"
    if call.dtype not in NAMES:
        return f"no kernel for {call.dtype}, only for float32, float16 and bfloat16"
    return None


def on_its_device(step: Callable[..., None]) -> Callable[..., None]:
    """A forward or backward that launches on the GPU of its outputs, whichever one is current."""

    @wraps(step)
    def guarded(out, *args) -> None:
        first = next((each for each in out if each is not None), None)
        if first is None or not first.is_cuda:
            return step(out, *args)
        with torch.cuda.device(first.device):
            return step(out, *args)

    return guarded


@triton.jit
def exp(x):
    """exp to 0.7 ulp, for a dozen multiply-adds; `tl.exp` is one instruction of the GPU, good to 2 ulp and more."""
    n = tl.floor(x * 1.4426950408889634 + 0.5)
    r = x - n * 0.693359375 + n * 2.12194440e-4  # minus n log(2), whose first part times n is exact
    p = 0.001381447073072195 * r + 0.008368780836462975
    p = p * r + 0.04166839271783829
    p = p * r + 0.1666651964187622
    p = p * r + 0.4999999403953552
    scale = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where(tl.abs(x) < 87.0, (1.0 + (r + r * r * p)) * scale, tl.exp(x))


@triton.jit
def _exp(x, ACCURATE: tl.constexpr):
    if ACCURATE:
        return exp(x)
    else:
        return tl.exp(x)


@triton.jit
def sigmoid(x, ACCURATE: tl.constexpr):
    """The sigmoid s and its slope s (1 - s), whose second factor is not made by subtraction where s is near 1."""
    e = _exp(-x, ACCURATE)
    s = 1.0 / (1.0 + e)
    return s, s * tl.where(e < 0.25, e * s, 1.0 - s)


@triton.jit
def tanh(x, ACCURATE: tl.constexpr):
    """tanh to 1 ulp, by an odd polynomial near 0 where 1 - 2 / (exp(2x) + 1) loses its digits; and its slope."""
    z = x * x
    p = -0.00045545832836069167 * z + 0.0025826632045209408
    p = p * z - 0.008264538832008839
    p = p * z + 0.021663539111614227
    p = p * z - 0.053929299116134644
    p = p * z + 0.13332977890968323
    p = p * z - 0.33333322405815125
    near = x + x * (z * p)
    r = 1.0 / (_exp(2.0 * tl.abs(x), ACCURATE) + 1.0)
    far = 1.0 - 2.0 * r
    far = tl.where(x < 0, -far, far)
    is_near = tl.abs(x) < 0.9
    return tl.where(is_near, near, far), tl.where(is_near, 1.0 - near * near, 4.0 * r * (1.0 - r))


@triton.jit
def dot(a, b, acc):
    """acc + a @ b with float32 products of float32 operands (never TF32); the interpreter knows no bfloat16 product."""
    if _INTERPRETED and a.dtype == tl.bfloat16:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


IMAGES_GRID = Grid("images * (pixels / PIXELS) * (channels / CHANNELS)")


@triton.jit
def tile_of_image(channels, pixels, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """This program's image, channels [1, CHANNELS] and pixels [PIXELS, 1], and which of them exist."""
    channel_blocks = tl.cdiv(channels, CHANNELS)
    pixel_blocks = tl.cdiv(pixels, PIXELS)
    program = tl.program_id(0)
    channel = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    program = program // channel_blocks
    pixel = (program % pixel_blocks).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)[:, None]
    image = (program // pixel_blocks).to(tl.int64)
    return image, channel.to(tl.int64), pixel, (channel < channels) & (pixel < pixels)


SUM_GRID = Grid("columns / COLUMNS")


@triton.jit
def sum_rows_kernel(source_ptr, out_ptr, rows, columns, divisor, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    acc = tl.zeros((ROWS, COLUMNS), tl.float32)
    start = tl.cast(0, tl.int64)
    while start < rows:
        row = start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        acc += tl.load(source_ptr + row[:, None] * columns + column[None, :], mask=inside, other=0.0)
        start += ROWS
    total = tl.div_rn(tl.sum(acc, 0), tl.cast(divisor, tl.float32))
    tl.store(out_ptr + column, total.to(out_ptr.dtype.element_ty), mask=column < columns)


def sum_rows(source: torch.Tensor, out: torch.Tensor, divisor: float = 1.0) -> None:
    """The second pass of a reduction: out = sum of the rows of a float32 [rows, columns] / divisor, in fixed order."""
    rows, columns = source.shape
    blocks = sum_rows_blocks(columns)
    grid = SUM_GRID(columns=columns, COLUMNS=blocks["COLUMNS"])
    sum_rows_kernel[grid](source, out, rows, columns, float(divisor), **blocks, num_warps=4)


def sum_rows_blocks(columns: int) -> dict[str, int]:
    return {"ROWS": 1024, "COLUMNS": 1} if columns == 1 else {"ROWS": 32, "COLUMNS": 32}


def sum_rows_specs(op: str, columns: int) -> list[KernelSpec]:
    """The second pass as `op` uses it."""
    found = []
    for name in NAMES.values():
        types = {"source_ptr": "*fp32:16", "out_ptr": f"*{name}:16", "rows": "i32", "columns": "i32", "divisor": "fp32"}
        constants = sum_rows_blocks(columns) | ({"columns": 1} if columns == 1 else {})
        found.append(KernelSpec.of(f"{op}_sum_rows_{name}", op, sum_rows_kernel, SUM_GRID, types, constants, 4))
    return found
