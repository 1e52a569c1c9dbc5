"""The unsupervised losses of the time-lapse memory network, on two views of one scene in different rain.

I1, I2 are the rainy views, B1, B2 the backgrounds and R1, R2 the streaks estimated from them, all [B, 3, H, W] on one
scale. Each is a mean over pixels and channels; the weights are the caller's:

    paper: 1 background + 0.001 cross + 0.1 consistency + lambda_w whitening (left blank; the authors' code has 0.01)
    code:  1 background + 1 cross + 1 consistency + 0.01 whitening + 0.01 memory compactness - 0.5 SSIM(B1, B2)

The whitening loss is in whitening.py.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BackgroundPredictionLoss(nn.Module):
    """L1(B1, B2), equation (7): the scene stands still, so both views must give one background."""

    def forward(self, background1: Tensor, background2: Tensor) -> Tensor:
        return F.l1_loss(background1, background2)


class CrossInformationLoss(nn.Module):
    """L1(B1, I2) + L1(I1, B2), equation (8): a background resembles the other view, whose rain it cannot know."""

    def forward(self, image1: Tensor, image2: Tensor, background1: Tensor, background2: Tensor) -> Tensor:
        return F.l1_loss(background1, image2) + F.l1_loss(background2, image1)


class CrossedSelfConsistencyLoss(nn.Module):
    """L1(B2 + R1, I1) + L1(B1 + R2, I2): the other view's background with this view's rain gives this view.

    Equation (9) as printed, I - (B + R) within one view, is identically zero, since B is computed as I - R; the
    authors' code crosses the views as here.
    """

    def forward(
        self,
        image1: Tensor,
        image2: Tensor,
        background1: Tensor,
        background2: Tensor,
        streaks1: Tensor,
        streaks2: Tensor,
    ) -> Tensor:
        return F.l1_loss(background2 + streaks1, image1) + F.l1_loss(background1 + streaks2, image2)
