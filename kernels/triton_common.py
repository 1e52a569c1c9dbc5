"""What the Triton kernels share: activations, the exact dot, the second pass of every reduction, and the refusals.

Imports triton at its top, so only kernels/<op>/triton.py may import it. Loops whose length is known only at run time
are written with `while`: the interpreter of triton 3.6 cannot take `range` of an argument with numpy 2.4.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .registry import Call
from .triton_aot import KernelSpec

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


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """To about 2 ulp everywhere: an odd polynomial near 0, where the other form loses its digits."""
    z = x * x
    p = -0.006282460410147905 * z + 0.021077748388051987
    p = p * z - 0.05385385453701019
    p = p * z + 0.13332602381706238
    p = p * z - 0.33333319425582886
    return tl.where(tl.abs(x) < 0.55, x + x * (z * p), 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0))


@triton.jit
def dot(a, b, acc):
    """acc + a @ b with float32 products of float32 operands (never TF32); the interpreter knows no bfloat16 product."""
    if _INTERPRETED and a.dtype == tl.bfloat16:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


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
    grid = (triton.cdiv(columns, blocks["COLUMNS"]),)
    sum_rows_kernel[grid](source, out, rows, columns, float(divisor), **blocks, num_warps=4)


def sum_rows_blocks(columns: int) -> dict[str, int]:
    return {"ROWS": 1024, "COLUMNS": 1} if columns == 1 else {"ROWS": 32, "COLUMNS": 32}


def sum_rows_specs(op: str, columns: int) -> list[KernelSpec]:
    """The second pass as `op` uses it."""
    found = []
    for name in NAMES.values():
        types = {"source_ptr": "*fp32:16", "out_ptr": f"*{name}:16", "rows": "i32", "columns": "i32", "divisor": "fp32"}
        constants = sum_rows_blocks(columns) | ({"columns": 1} if columns == 1 else {})
        found.append(KernelSpec.of(f"{op}_sum_rows_{name}", op, sum_rows_kernel, types, constants, 4))
    return found
