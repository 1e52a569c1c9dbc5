"""Losses, memory and pyramids as functions and modules: fused, within the rule; what only looks like them is not."""

import pytest
import torch
import torch.nn.functional as F
from layouts import Charbonnier, Edges, PlacesMemory, SeparableSSIM, splatting_ssim


def pictures(*shape):
    x = torch.rand(shape)
    return x, (x + 0.1 * torch.randn(shape)).clamp(0, 1)


def charbonnier_sum(x, y):
    return torch.sqrt(torch.add(x, -y) ** 2 + 1e-6).sum()


def charbonnier_map(x, y):
    return (((x - y).square() + 1e-4) ** 0.5) * 2


def read(query, items):
    scores = F.normalize(query, dim=1) @ F.normalize(items, dim=1).t()
    return F.softmax(scores, dim=1) @ items


def read_places(query, items):
    """MNAD's way: rows are places of a map, normalised over its channels; the weights are asked for too."""
    query, items = F.normalize(query, dim=1).permute(0, 2, 3, 1), F.normalize(items, dim=1)
    scores = torch.matmul(query, torch.t(items)).view(-1, items.shape[0])
    weights = F.softmax(scores, dim=1)
    return torch.matmul(weights, items), weights.square()


def update(query, items):
    scores = F.normalize(query, dim=1) @ F.normalize(items, dim=1).t()
    return F.normalize(F.softmax(scores, dim=0).t() @ query + items, dim=1)


def pyramid(x):
    return F.avg_pool2d(x, 2), F.avg_pool2d(x, 4), F.avg_pool2d(x, 3, ceil_mode=True)


KNOWN = {
    "MPRNet's Charbonnier": (Charbonnier(), pictures(2, 3, 8, 9), "charbonnier"),
    "MPRNet's edges": (Edges(), pictures(2, 3, 8, 9), "charbonnier"),
    "sum": (charbonnier_sum, pictures(3, 40), "charbonnier"),
    "map": (charbonnier_map, pictures(2, 4, 5, 6, 7), "charbonnier"),
    "gaussian-splatting": (splatting_ssim, pictures(3, 24, 20), "ssim"),
    "gaussian-splatting, a batch": (splatting_ssim, pictures(2, 3, 24, 20), "ssim"),
    "pytorch-msssim": (SeparableSSIM(255.0), tuple(255 * each for each in pictures(2, 3, 24, 20)), "ssim"),
    "read": (read, (torch.randn(30, 8), torch.randn(5, 8)), "memory_read"),
    "read of places": (read_places, (torch.randn(2, 8, 4, 5), torch.randn(5, 8)), "memory_read"),
    "update": (update, (torch.randn(30, 8), torch.randn(5, 8)), "memory_update"),
    "pyramid": (pyramid, (torch.rand(1, 3, 12, 16),), "gaussian_pyramid"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_ones(name, compared, ran):
    function, inputs, op = KNOWN[name]
    ours = compared(function, inputs)
    assert ran(ours, *inputs) == {op: 1}, ours.report
    (entry,) = ours.report.fused
    assert entry.op == op and entry.line


def channel_sum(x, y):
    return torch.sqrt(((x - y) ** 2).sum(1) + 1e-6).mean()


def cubed(x, y):
    return torch.sqrt((x - y) ** 3 + 1.0).mean()


def negative(x, y):
    return torch.sqrt((x - y) ** 2 - 1e-9).isnan().sum()


def wide_window(x, y):
    return splatting_ssim(x, y, window_size=13)


def contrast_alone(x, y):
    def mean(image):
        return F.conv2d(image, window, padding=5, groups=3)

    window = torch.ones(3, 1, 11, 11) / 121
    a, b = mean(x), mean(y)
    return ((2 * (mean(x * y) - a * b) + 1e-3) / (mean(x * x) + mean(y * y) - a * a - b * b + 1e-3)).mean()


def unnormalised(x, y):
    rows, items = x.flatten(1), y.flatten(1)
    return F.softmax(rows @ items.t(), dim=1) @ items


TRAPS = [channel_sum, cubed, negative, wide_window, contrast_alone, unnormalised, SeparableSSIM(nonnegative=True)]


@pytest.mark.parametrize("function", TRAPS, ids=lambda each: getattr(each, "__name__", type(each).__name__))
def test_traps_are_left_alone(function, quick, ran):
    x, y = pictures(2, 3, 24, 20)
    expected = function(x, 1 - y)
    ours = quick(function)
    assert torch.equal(ours(x, 1 - y), expected)
    assert ran(ours, x, 1 - y) == {}


def test_items_that_come_in_normalised_stay(quick, ran):
    """MNAD's: nothing in the graph says that they are, and reading would normalise them."""
    memory, query = quick(PlacesMemory()), torch.randn(2, 8, 4, 5)
    for items in (F.normalize(torch.randn(5, 8), dim=1), torch.randn(5, 8)):
        for mine, theirs in zip(memory(query, items), PlacesMemory()(query, items), strict=True):
            assert torch.equal(mine, theirs)
        assert ran(memory, query, items) == {}


def test_a_window_that_changes_is_asked_for_at_every_call(quick, ran):
    """It is no parameter, and Dynamo guards no numbers."""
    loss = quick(SeparableSSIM())
    x, y = pictures(1, 3, 16, 16)
    assert ran(loss, x, y) == {"ssim": 1}
    loss.win.data.fill_(1 / 11)
    other = SeparableSSIM()
    other.win.fill_(1 / 11)
    assert torch.equal(loss(x, y), other(x, y))


def test_broadcasting_stays_the_originals(quick):
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(quick(Charbonnier())(x, x[:1]), Charbonnier()(x, x[:1]))
