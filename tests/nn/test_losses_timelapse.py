"""The time-lapse losses on two views of one scene."""

import pytest
import torch

from unrain.engine.nn.timelapse_losses import (
    BackgroundPredictionLoss,
    CrossedSelfConsistencyLoss,
    CrossInformationLoss,
)

SIZE = (2, 3, 6, 5)


@pytest.fixture
def scene():
    """One background, two rains: what a perfect network finds."""
    background = torch.rand(SIZE) * 0.5
    streaks = [torch.rand(SIZE) * 0.3 for _ in range(2)]
    return background, streaks, [background + rain for rain in streaks]


def test_a_perfect_decomposition_costs_only_the_cross_information(scene):
    background, streaks, images = scene
    assert BackgroundPredictionLoss()(background, background) == 0
    assert CrossedSelfConsistencyLoss()(*images, background, background, *streaks) < 1e-6
    # What is left is the rain of both views.
    expected = streaks[0].mean() + streaks[1].mean()
    assert torch.allclose(CrossInformationLoss()(*images, background, background), expected)


def test_background_prediction_is_the_mean_distance():
    assert BackgroundPredictionLoss()(torch.zeros(SIZE), torch.full(SIZE, 0.25)).item() == pytest.approx(0.25)


def test_cross_information_compares_with_the_other_view():
    image1, image2, background1, background2 = (torch.rand(SIZE) for _ in range(4))
    expected = (background1 - image2).abs().mean() + (background2 - image1).abs().mean()
    assert torch.allclose(CrossInformationLoss()(image1, image2, background1, background2), expected)


def test_consistency_crosses_the_views(scene):
    background, streaks, images = scene
    # Each view explains itself, B = I - R, but the backgrounds differ: the printed equation (9) would be zero.
    wrong = background + 0.1
    loss = CrossedSelfConsistencyLoss()(*images, wrong, background, images[0] - wrong, streaks[1])
    assert loss.item() == pytest.approx(0.2, abs=1e-6)
    assert (images[0] - (wrong + (images[0] - wrong))).abs().max() < 1e-6


def test_gradients_reach_every_estimate():
    images = [torch.rand(SIZE) for _ in range(2)]
    estimates = [torch.rand(SIZE, requires_grad=True) for _ in range(4)]
    CrossedSelfConsistencyLoss()(*images, *estimates).backward()
    assert all(estimate.grad.abs().sum() > 0 for estimate in estimates)
