"""`charbonnier` in Triton: sqrt((pred - target)^2 + eps^2) and its reduction.

Layout    flat: both tensors are dense with the same strides, so memory order is as good as any.
Tiling    2048 elements a program; one float32 partial sum each, which a second kernel of one program adds up in a fixed
          order: the same bits on every run, no atomics.
Bytes     forward 2s read an element (s bytes of storage) and 4 / 2048 written; "none" writes s more; backward 2s read
          and s written, the difference is computed again.
Bound     memory in both passes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..registry import Call
from ..triton_aot import Grid, KernelSpec
from ..triton_common import NAMES, available, on_its_device, refuse, sum_rows, sum_rows_specs
from .reference import eps_squared

__all__ = ["available", "backward", "can_run", "forward", "specs"]

BLOCK = 2048
WARPS = 8
GRID = Grid("count / BLOCK")


def can_run(call: Call) -> str | None:
    return refuse(call)


@triton.jit
def _difference(pred_ptr, target_ptr, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    pred = tl.load(pred_ptr + at, mask=inside, other=0.0).to(tl.float32)
    return at, inside, pred - tl.load(target_ptr + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def charbonnier_forward(
    pred_ptr, target_ptr, out_ptr, count, eps_squared, REDUCE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    at, inside, difference = _difference(pred_ptr, target_ptr, count, BLOCK)
    penalty = tl.sqrt_rn(difference * difference + tl.cast(eps_squared, tl.float32))
    if REDUCE:
        tl.store(out_ptr + tl.program_id(0), tl.sum(tl.where(inside, penalty, 0.0), 0))
    else:
        tl.store(out_ptr + at, penalty.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def charbonnier_backward(
    grad_ptr, pred_ptr, target_ptr, d_pred_ptr, count, eps_squared, divisor, REDUCE: tl.constexpr, BLOCK: tl.constexpr
):
    at, inside, difference = _difference(pred_ptr, target_ptr, count, BLOCK)
    grad = tl.load(grad_ptr if REDUCE else grad_ptr + at, mask=None if REDUCE else inside).to(tl.float32)
    length = tl.sqrt_rn(difference * difference + tl.cast(eps_squared, tl.float32))
    slope = tl.div_rn(tl.div_rn(difference, length), tl.cast(divisor, tl.float32)) * grad
    tl.store(d_pred_ptr + at, slope.to(d_pred_ptr.dtype.element_ty), mask=inside)


@on_its_device
def forward(out, pred, target, eps, reduction) -> None:
    (result,) = out
    count = pred.numel()
    if count == 0:
        if reduction != "none":
            result.fill_(float("nan") if reduction == "mean" else 0.0)
        return
    reduce = reduction != "none"
    grid = GRID(count=count, BLOCK=BLOCK)
    target_of_pass = torch.empty(*grid, 1, dtype=torch.float32, device=pred.device) if reduce else result
    charbonnier_forward[grid](
        pred, target, target_of_pass, count, eps_squared(eps, torch.float32),
        REDUCE=reduce, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    if reduce:
        sum_rows(target_of_pass, result, count if reduction == "mean" else 1)


@on_its_device
def backward(out, grad, pred, target, eps, reduction) -> None:
    (d_pred,) = out
    count = pred.numel()
    if count:
        divisor = float(count) if reduction == "mean" else 1.0
        charbonnier_backward[GRID(count=count, BLOCK=BLOCK)](
            grad, pred, target, d_pred, count, eps_squared(eps, torch.float32), divisor,
            REDUCE=reduction != "none", BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip


def specs(arch: int) -> list[KernelSpec]:
    """Both passes over both kinds of result; the same on every architecture."""
    found = sum_rows_specs("charbonnier", columns=1)
    for fn in (charbonnier_forward, charbonnier_backward):
        for name in NAMES.values():
            for reduce in (True, False):
                types = dict.fromkeys(fn.arg_names, f"*{name}:16")
                types |= {"count": "i32", "eps_squared": "fp32", "divisor": "fp32"}
                if reduce:
                    types["out_ptr"] = "*fp32:16"
                constants = {"REDUCE": reduce, "BLOCK": BLOCK}
                title = f"{fn.__name__}_{'sum' if reduce else 'none'}_{name}"
                found.append(KernelSpec.of(title, "charbonnier", fn, GRID, types, constants, WARPS))
    return found
