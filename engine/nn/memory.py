"""A memory of prototypes, read by cosine attention and updated by its queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import memory_read, memory_update


class MemoryBank(nn.Module):
    """M items of C numbers over `kernels.memory_read` and `kernels.memory_update`.

        read = bank(query)                            # softmax over the items of the cosine, weighted sum of the items
        bank.items = bank.update(query.detach())      # explicit: nothing changes unless you store it

    Queries are [B,C,H,W] or rows [N,C]; what is read has the same shape. Gradients flow to both arguments of either op;
    detach what should not learn that way. State dict: the buffer `items` [M,C], which starts random at unit length.
    `rule` is that of `kernels.memory_update`: "soft", equation (6) of the time-lapse paper, or "hard", its code.
    """

    items: Tensor

    def __init__(self, items: int = 20, channels: int = 64, rule: str = "soft"):
        super().__init__()
        self.rule = rule
        self.register_buffer("items", F.normalize(torch.rand(items, channels), dim=1))

    def forward(self, query: Tensor) -> Tensor:
        return self.read(query)

    def read(self, query: Tensor, items: Tensor | None = None) -> Tensor:
        """`items` stand in for the stored ones."""
        read = memory_read(self._rows(query), self._items(items))
        if query.dim() == 2:
            return read
        batch, channels, height, width = query.shape
        return read.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def weights(self, query: Tensor, items: Tensor | None = None) -> Tensor:
        """The attention weights: [B,M,H,W], or [N,M] for rows."""
        _, weights = memory_read(self._rows(query), self._items(items), return_weights=True)
        if query.dim() == 2:
            return weights
        return weights.view(query.shape[0], *query.shape[2:], -1).permute(0, 3, 1, 2)

    def update(self, query: Tensor, items: Tensor | None = None) -> Tensor:
        """The items after `query`, as a new tensor; the stored ones stay as they are."""
        return memory_update(self._rows(query), self._items(items), rule=self.rule)

    def _items(self, items: Tensor | None) -> Tensor:
        return self.items if items is None else items

    @staticmethod
    def _rows(query: Tensor) -> Tensor:
        """One row per place; no copy where the channels lie innermost."""
        if query.dim() not in (2, 4):
            raise ValueError(f"query must be [B,C,H,W] or [N,C], got shape {tuple(query.shape)}")
        return query if query.dim() == 2 else query.permute(0, 2, 3, 1).flatten(0, 2)

    def extra_repr(self) -> str:
        return f"{self.items.shape[0]}, {self.items.shape[1]}, rule={self.rule!r}"
