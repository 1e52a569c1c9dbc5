"""`memory_update` in C++ (csrc/kernels/memory_update.h): float32 and bfloat16, both rules."""

from __future__ import annotations

import torch

from .. import native
from ..memory_read.native import available, can_run, fields

__all__ = ["available", "backward", "can_run", "forward"]

Tensor = torch.Tensor


def forward(out: tuple[Tensor], query: Tensor, items: Tensor, rule: str) -> None:
    native.run("memory_update", hard=rule == "hard", result=out[0], **fields(query, items))


def backward(out: tuple[Tensor, Tensor], grad: Tensor, query: Tensor, items: Tensor, rule: str) -> None:
    grads = {"grad": grad, "grad_query": out[0], "grad_items": out[1]}
    native.run("memory_update", True, hard=rule == "hard", **grads, **fields(query, items))
