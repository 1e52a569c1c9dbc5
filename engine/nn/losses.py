"""Picture losses: Charbonnier, edge, SSIM and deep supervision by mean squared error. All take [B, C, H, W]."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import charbonnier, ssim


class CharbonnierLoss(nn.Module):
    """The mean of sqrt((prediction - target)^2 + eps^2): L1 with a round bottom.

    MSPFN and MLMCN take eps = 1e-3 on images in [-1, 1]. On images in [0, 1] the same loss, halved, is eps = 5e-4.
    """

    def __init__(self, eps: float = 1e-3, reduction: str = "mean"):
        super().__init__()
        self.eps = eps
        self.reduction = reduction

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return charbonnier(prediction, target, eps=self.eps, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"eps={self.eps:g}, reduction={self.reduction!r}"


class EdgeLoss(CharbonnierLoss):
    """Charbonnier between the 8-neighbour Laplacians (centre 8, others -1, each channel, zero borders) of the two
    images.

    MSPFN adds it with a weight of 0.05; the weight is the caller's.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return super().forward(laplacian(prediction), laplacian(target))


def laplacian(x: Tensor) -> Tensor:
    """The 8-neighbour Laplacian of each channel: nine times the pixel less the sum of its 3 x 3 block."""
    return 9 * (x - F.avg_pool2d(x, 3, stride=1, padding=1))


class SSIMLoss(nn.Module):
    """1 - SSIM, the training loss of SRN and BRN: zero for equal images.

    The papers minimise -SSIM; one minus it has the same gradient and reads as a loss. This is the training SSIM: values
    in [0, 1], an 11 x 11 Gaussian of sigma 1.5 with zero borders ("same"), each channel, averaged over the whole map.
    The metric `ssim_y` is another definition (luminance, only whole windows).
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return 1 - ssim(prediction, target)


class MultiStageMSELoss(nn.Module):
    """The sum over stages of the mean squared error, equation (6) of the stage-wise network.

    `stages` are the T predictions; `target` is one tensor for all of them or one for each. `weights` scales the stages,
    for example SRN's recursive supervision, 0.5 for all stages but 1.5 for the last: `weights=[0.5] * 5 + [1.5]`.
    """

    def __init__(self, weights: Sequence[float] | None = None):
        super().__init__()
        self.weights = None if weights is None else tuple(weights)

    def forward(self, stages: Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        targets = [target] * len(stages) if isinstance(target, Tensor) else list(target)
        weights = self.weights or (1.0,) * len(stages)
        if not stages or len(targets) != len(stages) or len(weights) != len(stages):
            raise ValueError(
                f"{len(stages)} stages, {len(targets)} targets and {len(weights)} weights do not go together"
            )
        terms = [w * F.mse_loss(stage, truth) for w, stage, truth in zip(weights, stages, targets, strict=True)]
        return sum(terms[1:], start=terms[0])

    def extra_repr(self) -> str:
        return "" if self.weights is None else f"weights={list(self.weights)}"
