"""Updating a memory in plain PyTorch: each item takes in the queries, weighted by a softmax over the queries.

"soft" is equations (5) and (6) of the time-lapse memory network. "hard" is the rule of its published code: a query goes
to its nearest item alone, and the weights of an item are divided by their maximum over all queries.
"""

import torch

from ..library import accumulator
from ..memory_read.reference import cosine, cosine_backward, unit, unit_backward

Tensor = torch.Tensor
RULES = ("soft", "hard")


def forward(query: Tensor, items: Tensor, rule: str = "soft") -> Tensor:
    """query [N,C], items [M,C] -> the new items [M,C], of length one."""
    wide = accumulator(query.dtype)
    q, m = query.to(wide), items.to(wide)
    return unit(m + _weights(cosine(q, m), rule).t() @ q).to(items.dtype)


def backward(grad: Tensor, query: Tensor, items: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    wide = accumulator(query.dtype)
    q, m = query.to(wide), items.to(wide)
    score = cosine(q, m)
    weights = _weights(score, rule)
    grad_sum = unit_backward(grad.to(wide), m + weights.t() @ q)
    grad_w = q @ grad_sum.t()
    if rule == "soft":
        grad_score = weights * (grad_w - (weights * grad_w).sum(0, keepdim=True))
    elif q.shape[0]:
        # weight = exp(score - highest score of the item): the nearest query itself pays for every other's weight
        grad_score = weights * grad_w
        grad_score = grad_score.scatter_add(0, score.argmax(0, keepdim=True), -grad_score.sum(0, keepdim=True))
    else:
        grad_score = grad_w
    grad_q, grad_m = cosine_backward(grad_score, q, m)
    return (grad_q + weights @ grad_sum).to(query.dtype), (grad_m + grad_sum).to(items.dtype)


def _weights(score: Tensor, rule: str) -> Tensor:
    """The [N,M] weights of the queries in each item."""
    if rule == "soft" or not score.shape[0]:
        return score.softmax(0)
    relative = (score - score.max(0, keepdim=True).values).exp()  # the softmax over its maximum: the sums cancel
    mine = torch.zeros_like(score).scatter(1, score.argmax(1, keepdim=True), 1.0)
    return relative * mine
