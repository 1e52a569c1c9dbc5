"""`memory_read`: both norms, the cosines, the softmax and the weighted sum in one pass over the queries.

Call.detail is (C, M, weights wanted). Under autocast it runs in float32, as norms and softmax do in PyTorch.
"""

from __future__ import annotations

import torch

from .. import library
from ..registry import Call
from . import reference

Tensor = torch.Tensor


def memory_read(query: Tensor, items: Tensor, return_weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """For each query the softmax-weighted sum of the memory items, weighted by cosine similarity.

    query  [N,C], one row per place; need not be normalised
    items  [M,C]

    Returns read [N,C], or (read, weights [N,M]) with return_weights: the softmax over the items, which then costs its
    own memory. Dtype of query.
    """
    query, items = library.autocast_to(torch.float32, query, items)
    check(query, items)
    if library.takes_plain_path(describe(query, items, return_weights, library.wants_grad(query, items))):
        read, weights = reference.forward(query, items, return_weights)
    else:
        read, weights = _op(query, items, return_weights)
    return (read, weights) if return_weights else read


def check(query: Tensor, items: Tensor, want_weights: bool = False) -> None:
    library.check_tensor("query", query, 2)
    library.check_tensor("items", items, 2)
    library.check_like("items", items, "query", query)
    if items.shape[1] != query.shape[1]:
        raise ValueError(f"items must have {query.shape[1]} columns to go with query, got {items.shape[1]}")
    if not items.shape[0] or not items.shape[1]:
        raise ValueError(f"items must hold at least one item of at least one number, got shape {tuple(items.shape)}")


def describe(query: Tensor, items: Tensor, want_weights: bool = False, grad: bool = False) -> Call:
    return Call("memory_read", query.device, query.dtype, "rows", grad, (*items.shape[::-1], want_weights))


def arrange(query: Tensor, items: Tensor, want_weights: bool):
    check(query, items)
    return query.contiguous(), items.contiguous(), want_weights


def allocate(query: Tensor, items: Tensor, want_weights: bool):
    weights = None
    if want_weights:
        weights = torch.empty(query.shape[0], items.shape[0], dtype=query.dtype, device=query.device)
    return torch.empty_like(query), weights


def arrange_backward(grad_read: Tensor, grad_weights: Tensor | None, query: Tensor, items: Tensor):
    check(query, items)
    weights = None if grad_weights is None else grad_weights.contiguous()
    return grad_read.contiguous(), weights, query.contiguous(), items.contiguous()


def allocate_backward(grad_read: Tensor, grad_weights: Tensor | None, query: Tensor, items: Tensor):
    return torch.empty_like(query), torch.empty_like(items)


def _save(ctx, inputs):
    ctx.save_for_backward(*inputs[:2])
    ctx.want_weights = inputs[2]


def _gradients(ctx, grad_read, grad_weights):
    return *_backward(grad_read, grad_weights if ctx.want_weights else None, *ctx.saved_tensors), None


_op = library.define(
    "memory_read",
    "(Tensor query, Tensor items, bool want_weights) -> (Tensor, Tensor)",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)
_backward = library.define(
    "memory_read",
    "(Tensor grad_read, Tensor? grad_weights, Tensor query, Tensor items) -> (Tensor, Tensor)",
    arrange=arrange_backward,
    describe=lambda grad_read, grad_weights, *inputs: describe(*inputs, grad_weights is not None, True),
    allocate=allocate_backward,
    backward=True,
)
library.differentiate("memory_read", _save, _gradients)
