"""Reading a memory in plain PyTorch: cosine scores against the items, softmax over the items, weighted sum of them.

Equations (2) to (4) of the time-lapse memory network.
"""

import torch

from ..library import accumulator

Tensor = torch.Tensor
SMALLEST_NORM = 1e-12


def forward(query: Tensor, items: Tensor, want_weights: bool = False) -> tuple[Tensor, Tensor | None]:
    """query [N,C], items [M,C] -> (read [N,C], weights [N,M] or None)."""
    wide = accumulator(query.dtype)
    rows = items.to(wide)
    weights = cosine(query.to(wide), rows).softmax(1)
    return (weights @ rows).to(query.dtype), weights.to(query.dtype) if want_weights else None


def backward(grad_read: Tensor, grad_weights: Tensor | None, query: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    wide = accumulator(query.dtype)
    q, m, grad_read = query.to(wide), items.to(wide), grad_read.to(wide)
    weights = cosine(q, m).softmax(1)
    grad_w = grad_read @ m.t()
    if grad_weights is not None:
        grad_w = grad_w + grad_weights.to(wide)
    grad_score = weights * (grad_w - (weights * grad_w).sum(1, keepdim=True))
    grad_q, grad_m = cosine_backward(grad_score, q, m)
    return grad_q.to(query.dtype), (grad_m + weights.t() @ grad_read).to(items.dtype)


def unit(rows: Tensor) -> Tensor:
    """Each row over its length; a row of zeros stays one."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(SMALLEST_NORM)


def unit_backward(grad: Tensor, rows: Tensor) -> Tensor:
    length = rows.norm(dim=1, keepdim=True)
    direction = rows / length.clamp_min(SMALLEST_NORM)
    along = torch.where(length > SMALLEST_NORM, (grad * direction).sum(1, keepdim=True), 0)
    return (grad - direction * along) / length.clamp_min(SMALLEST_NORM)


def cosine(query: Tensor, items: Tensor) -> Tensor:
    """[N,C], [M,C] -> the cosines [N,M]."""
    return unit(query) @ unit(items).t()


def cosine_backward(grad: Tensor, query: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    return unit_backward(grad @ unit(items), query), unit_backward(grad.t() @ unit(query), items)
