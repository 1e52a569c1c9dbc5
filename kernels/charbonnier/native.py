"""`charbonnier` in C++ (csrc/kernels/charbonnier.h): float32 and bfloat16, any layout."""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call

__all__ = ["available", "backward", "can_run", "forward"]

Tensor = torch.Tensor

REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}  # enum Reduction in csrc/ops.h


def can_run(call: Call) -> str | None:
    return native.needs_cpu(call, torch.float32, torch.bfloat16)


def forward(out: tuple[Tensor], pred: Tensor, target: Tensor, eps: float, reduction: str) -> None:
    native.run("charbonnier", loss=out[0], **_fields(pred, target, eps, reduction))


def backward(out: tuple[Tensor], grad: Tensor, pred: Tensor, target: Tensor, eps: float, reduction: str) -> None:
    native.run("charbonnier", True, grad_loss=grad, grad_pred=out[0], **_fields(pred, target, eps, reduction))


def _fields(pred: Tensor, target: Tensor, eps: float, reduction: str) -> dict[str, object]:
    return {
        "pred": pred,
        "target": target,
        "count": pred.numel(),
        "dtype": pred.dtype,
        "eps": eps,
        "reduction": REDUCTIONS[reduction],
    }
