"""The picture losses against their formulas written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import signal

from unrain.engine.nn.losses import CharbonnierLoss, EdgeLoss, MultiStageMSELoss, SSIMLoss, laplacian

SIZES = [(1, 3, 16, 16), (2, 3, 7, 5), (1, 1, 1, 1), (2, 4, 33, 12)]


def pair(size, dtype=torch.float64):
    return torch.rand(size, dtype=dtype), torch.rand(size, dtype=dtype)


@pytest.mark.parametrize("size", SIZES)
def test_charbonnier_is_its_formula(size):
    x, y = pair(size)
    expected = sum(math.sqrt(d**2 + 1e-6) for d in (x - y).flatten().tolist()) / x.numel()
    assert CharbonnierLoss()(x, y).item() == pytest.approx(expected, rel=1e-12)
    assert CharbonnierLoss(reduction="sum")(x, y).item() == pytest.approx(expected * x.numel(), rel=1e-12)
    assert CharbonnierLoss(reduction="none")(x, y).shape == x.shape


def test_charbonnier_eps_scales_with_the_range():
    x, y = pair((1, 3, 9, 9))
    assert CharbonnierLoss(5e-4)(x, y) * 2 == pytest.approx(CharbonnierLoss(1e-3)(2 * x - 1, 2 * y - 1).item())


@pytest.mark.parametrize("size", SIZES)
def test_laplacian_is_the_eight_neighbour_kernel(size):
    x = torch.randn(size, dtype=torch.float64)
    kernel = [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]
    for image, found in zip(x.flatten(0, 1), laplacian(x).flatten(0, 1), strict=True):
        assert torch.allclose(found, torch.from_numpy(signal.convolve2d(image, kernel, mode="same")), atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_edge_loss_is_charbonnier_of_laplacians(size):
    x, y = pair(size)
    kernel = torch.full((size[1], 1, 3, 3), -1.0, dtype=torch.float64)
    kernel[:, :, 1, 1] = 8
    edges = [F.conv2d(image, kernel, padding=1, groups=size[1]) for image in (x, y)]
    expected = ((edges[0] - edges[1]).square() + 1e-6).sqrt().mean()
    assert EdgeLoss()(x, y).item() == pytest.approx(expected.item(), rel=1e-12)


def test_edge_loss_ignores_a_constant_offset_inside():
    x = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    inside = laplacian(x + 0.3) - laplacian(x)
    assert inside[..., 1:-1, 1:-1].abs().max() < 1e-12
    assert inside[..., 0, 0].abs().min() > 1  # zero borders see the offset


def ssim_same(x, y):
    """Zero-padded SSIM with a two-dimensional window, channel by channel."""
    axis = torch.exp(-(torch.arange(-5.0, 6.0, dtype=torch.float64) ** 2) / 4.5)
    window = torch.outer(axis, axis) / axis.sum() ** 2

    def mean(image):
        return F.conv2d(image.flatten(0, 1)[:, None], window[None, None], padding=5)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    return ((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))).mean()


@pytest.mark.parametrize("size", SIZES)
def test_ssim_loss_is_one_minus_the_zero_padded_ssim(size):
    x, y = pair(size)
    assert SSIMLoss()(x, y).item() == pytest.approx(1 - ssim_same(x, y).item(), abs=1e-12)
    assert SSIMLoss()(x, x).item() == pytest.approx(0, abs=1e-12)


def test_ssim_loss_has_the_gradient_of_the_papers_negative_ssim():
    x, y = pair((1, 3, 20, 17))
    x.requires_grad_()
    (ours,) = torch.autograd.grad(SSIMLoss()(x, y), x)
    (papers,) = torch.autograd.grad(-ssim_same(x, y), x)
    assert torch.allclose(ours, papers, atol=1e-12)


@pytest.mark.parametrize("loss", [CharbonnierLoss(), EdgeLoss(), SSIMLoss()])
def test_gradcheck(loss):
    x, y = (image.requires_grad_() for image in pair((1, 2, 6, 5)))
    assert torch.autograd.gradcheck(loss, (x, y))


def test_multi_stage_sums_the_stages():
    stages = [torch.rand(2, 3, 8, 8) for _ in range(3)]
    target = torch.rand(2, 3, 8, 8)
    expected = sum(((stage - target) ** 2).mean() for stage in stages)
    assert torch.allclose(MultiStageMSELoss()(stages, target), expected)
    targets = [torch.rand(2, 3, 8, 8) for _ in range(3)]
    weighted = sum(w * ((s - t) ** 2).mean() for w, s, t in zip((0.5, 0.5, 1.5), stages, targets, strict=True))
    assert torch.allclose(MultiStageMSELoss([0.5, 0.5, 1.5])(stages, targets), weighted)


@pytest.mark.parametrize(
    ("weights", "stages", "targets"),
    [(None, 0, 1), (None, 3, 2), ([1.0, 2.0], 3, 3)],
    ids=["none", "targets", "weights"],
)
def test_multi_stage_refuses_what_does_not_go_together(weights, stages, targets):
    with pytest.raises(ValueError, match="do not go together"):
        MultiStageMSELoss(weights)([torch.zeros(1, 3, 8, 8)] * stages, [torch.zeros(1, 3, 8, 8)] * targets)
