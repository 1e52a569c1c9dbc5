"""`memory_update`: the softmax over all queries by an online pass, the weighted sum and the normalisation.

Call.detail is (C, M, rule). Under autocast it runs in float32.
"""

from __future__ import annotations

import torch

from .. import library
from ..memory_read import check as check_pair
from ..registry import Call
from . import reference

Tensor = torch.Tensor


def memory_update(query: Tensor, items: Tensor, rule: str = "soft") -> Tensor:
    """New memory items from old ones and from queries; the old ones are left as they are.

    query  [N,C]
    items  [M,C]
    rule   "soft": every item takes in every query, weighted by a softmax over the queries (eq. 5 and 6 of the paper);
           "hard": a query goes to its nearest item alone, with weights divided by their maximum (the published code)

    Returns [M,C], each row of length one. Gradients flow; detach what should not learn this way.
    """
    query, items = library.autocast_to(torch.float32, query, items)
    check(query, items, rule)
    if library.takes_plain_path(describe(query, items, rule, library.wants_grad(query, items))):
        return reference.forward(query, items, rule)
    return _op(query, items, rule)


def check(query: Tensor, items: Tensor, rule: str) -> None:
    check_pair(query, items)
    if rule not in reference.RULES:
        raise ValueError(f"rule must be one of {', '.join(reference.RULES)}; got {rule!r}")


def describe(query: Tensor, items: Tensor, rule: str, grad: bool = False) -> Call:
    return Call("memory_update", query.device, query.dtype, "rows", grad, (*items.shape[::-1], rule))


def arrange(query: Tensor, items: Tensor, rule: str):
    check(query, items, rule)
    return query.contiguous(), items.contiguous(), rule


def allocate(query: Tensor, items: Tensor, rule: str):
    return (torch.empty_like(items),)


def arrange_backward(grad: Tensor, query: Tensor, items: Tensor, rule: str):
    return grad.contiguous(), *arrange(query, items, rule)


def allocate_backward(grad: Tensor, query: Tensor, items: Tensor, rule: str):
    return torch.empty_like(query), torch.empty_like(items)


def _save(ctx, inputs):
    ctx.save_for_backward(*inputs[:2])
    ctx.rule = inputs[2]


_op = library.define(
    "memory_update",
    "(Tensor query, Tensor items, str rule) -> Tensor",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)
_backward = library.define(
    "memory_update",
    "(Tensor grad, Tensor query, Tensor items, str rule) -> (Tensor, Tensor)",
    arrange=arrange_backward,
    describe=lambda grad, *inputs: describe(*inputs, grad=True),
    allocate=allocate_backward,
    backward=True,
)
library.differentiate("memory_update", _save, lambda ctx, grad: (*_backward(grad, *ctx.saved_tensors, ctx.rule), None))
