"""`memory_read` in C++ (csrc/kernels/memory_read.h): float32 and bfloat16."""

from __future__ import annotations

import torch

from .. import native
from ..native import available
from ..registry import Call

__all__ = ["available", "backward", "can_run", "fields", "forward"]

Tensor = torch.Tensor


def can_run(call: Call) -> str | None:
    return native.needs_cpu(call, torch.float32, torch.bfloat16)


def forward(out: tuple[Tensor, Tensor | None], query: Tensor, items: Tensor, want_weights: bool) -> None:
    native.run("memory_read", read=out[0], weights=out[1], **fields(query, items))


def backward(
    out: tuple[Tensor, Tensor], grad_read: Tensor, grad_weights: Tensor | None, query: Tensor, items: Tensor
) -> None:
    grads = {"grad_read": grad_read, "grad_weights": grad_weights, "grad_query": out[0], "grad_items": out[1]}
    native.run("memory_read", True, **grads, **fields(query, items))


def fields(query: Tensor, items: Tensor) -> dict[str, object]:
    """What the structs of both memory ops in csrc/ops.h have in common."""
    return {
        "query": query,
        "items": items,
        "queries": query.shape[0],
        "items_count": items.shape[0],
        "columns": items.shape[1],
        "dtype": query.dtype,
    }
