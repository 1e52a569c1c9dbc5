"""Background selective whitening, the loss of the time-lapse memory network, and the exact 1-D k-means it needs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class BackgroundWhiteningLoss(nn.Module):
    """Suppresses the feature covariances that two views of one scene share, so that the memory keeps only what changes:
    rain.

    `query1`, `query2`: the instance-normalised queries [B, C, H, W] of two views, before they are scaled to unit
    length. Per picture, both covariances S = q q^T / (HW - 1) + 1e-5 I and their element-wise variance V = (S1 - S2)^2
    / 4; the variances of the whole batch are clustered by exact 1-D k-means and the lowest clusters form the mask
    (equations 10 to 13):

        loss = (sum |S1 M| + sum |S2 M|) / (number of masked elements)

    The default is the paper's 4 clusters, of which the lowest 2; `BackgroundWhiteningLoss(50, 1)` is what the authors'
    code runs. As in their code M is an upper triangle *with* the diagonal (a diagonal element of a normalised query is
    one in both views, so it adds a constant to the loss and nothing to the gradient), and the paper's plain sum is
    divided by the number of elements. Equal variances always share a cluster, so the mask never depends on the order
    within the batch.
    """

    def __init__(self, clusters: int = 4, lowest: int = 2):
        super().__init__()
        if not 0 < lowest <= clusters:
            raise ValueError(f"lowest must lie between 1 and clusters={clusters}, not {lowest}")
        self.clusters = clusters
        self.lowest = lowest

    def forward(self, query1: Tensor, query2: Tensor) -> Tensor:
        if query1.shape != query2.shape or query1.dim() != 4:
            raise ValueError(f"two queries [B, C, H, W] of one shape: {list(query1.shape)}, {list(query2.shape)}")
        with torch.autocast(query1.device.type, enabled=False):
            covariance1, covariance2 = covariance(query1), covariance(query2)
            mask = self.mask(covariance1.detach(), covariance2.detach())
            masked = (covariance1.abs() + covariance2.abs()) * mask
            return masked.sum() / mask.sum().clamp_min(1)

    def mask(self, covariance1: Tensor, covariance2: Tensor) -> Tensor:
        """Which covariances [B, C, C] hold background: ones in the upper triangle where the variance is low."""
        variance = (covariance1 - covariance2).square() / 4
        triangle = torch.ones_like(variance[0]).triu().bool()
        # Clustering is over the full symmetric matrices: each off-diagonal element stands for two.
        weights = (torch.ones_like(variance[0]) * 2).fill_diagonal_(1)[triangle].repeat(len(variance))
        values = variance[:, triangle].flatten().double().cpu().numpy()
        if not np.isfinite(values).all():
            return triangle.to(variance.dtype).expand_as(variance)  # lets the NaN or Inf through to the loss
        highest = _top_of_lowest(values, weights.double().cpu().numpy(), self.clusters, self.lowest)
        return ((variance.double() <= highest) & triangle).to(variance.dtype)

    def extra_repr(self) -> str:
        return f"clusters={self.clusters}, lowest={self.lowest}"


def covariance(query: Tensor) -> Tensor:
    """The channel covariances [B, C, C] of queries [B, C, H, W] with zero mean, in float32 or better."""
    flat = query.flatten(2)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    eye = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
    return flat @ flat.transpose(1, 2) / max(flat.shape[2] - 1, 1) + 1e-5 * eye


def kmeans_1d(values: np.ndarray, clusters: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Optimal 1-D k-means: the cluster of each value, 0 for the lowest; clusters are never empty, so there may be
    fewer.

    Minimises the weighted sum of squared distances to the cluster means exactly, by dynamic programming over the sorted
    distinct values. The best start of the last cluster grows with its end, so each row of the table is solved by
    halving: all the middle entries of one depth at once, O(k n log n) in all.
    """
    distinct, inverse = np.unique(np.asarray(values, dtype=np.float64).ravel(), return_inverse=True)
    counts = np.bincount(inverse, weights=None if weights is None else np.ravel(weights)).astype(np.float64)
    starts = _best_starts(distinct, counts, min(clusters, len(distinct)))
    return (np.searchsorted(starts, np.arange(len(distinct)), side="right") - 1)[inverse]


def _top_of_lowest(values: np.ndarray, weights: np.ndarray, clusters: int, lowest: int) -> float:
    """The highest value within the lowest clusters."""
    return float(values[kmeans_1d(values, clusters, weights) < lowest].max())


def _best_starts(values: np.ndarray, weights: np.ndarray, clusters: int) -> np.ndarray:
    """The index at which each cluster of the sorted values begins."""
    count = len(values)
    # Prefix sums of centred, scaled values: differences of squares then keep their digits.
    centred = values - np.average(values, weights=weights)
    centred /= max(np.abs(centred).max(), np.finfo(np.float64).tiny)
    mass = np.concatenate([[0.0], np.cumsum(weights)])
    first = np.concatenate([[0.0], np.cumsum(weights * centred)])
    second = np.concatenate([[0.0], np.cumsum(weights * centred**2)])

    def cost(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Sum of squares about the mean of values[start..end], both ends inside."""
        total = first[end + 1] - first[start]
        return second[end + 1] - second[start] - total * total / (mass[end + 1] - mass[start])

    ends = np.arange(count)
    best = cost(np.zeros(count, dtype=np.int64), ends)
    choices = []
    for row in range(1, clusters):
        # The last row is only needed for the last end.
        wanted = ends[-1:] if row == clusters - 1 else ends[row:]
        best, choice = _next_row(best, cost, wanted, row)
        choices.append(choice)
    starts, end = [], count - 1
    for choice in reversed(choices):
        starts.append(choice[end])
        end = choice[end] - 1
    return np.array([0, *reversed(starts)])


def _next_row(best: np.ndarray, cost, wanted: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
    """For each wanted end: the least cost with one cluster more, and where that last cluster starts."""
    count = len(best)
    result, choice = np.full(count, np.inf), np.zeros(count, dtype=np.int64)
    low, high = np.array([wanted[0]]), np.array([wanted[-1]])  # blocks of ends still to solve
    left, right = np.array([row]), np.array([wanted[-1]])  # and the starts that can be best for them
    while len(low):
        middle = (low + high) // 2
        last = np.minimum(right, middle)
        sizes = last - left + 1
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        block = np.repeat(np.arange(len(low)), sizes)
        start = np.arange(sizes.sum()) - offsets[block] + left[block]
        totals = best[start - 1] + cost(start, middle[block])
        least = np.minimum.reduceat(totals, offsets)
        # The first start that reaches the minimum of its block.
        hits = np.flatnonzero(totals == least[block])
        _, where = np.unique(block[hits], return_index=True)
        chosen = start[hits[where]]
        result[middle], choice[middle] = least, chosen
        before, after = low < middle, middle < high
        low, high, left, right = (
            np.concatenate([low[before], middle[after] + 1]),
            np.concatenate([middle[before] - 1, high[after]]),
            np.concatenate([left[before], chosen[after]]),
            np.concatenate([chosen[before], right[after]]),
        )
    return result, choice
