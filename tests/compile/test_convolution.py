"""3x3 convolutions by Winograd: only where that was asked for; in inference with what follows them."""

import copy

import pytest
import torch
from torch import nn


class Block(nn.Module):
    """A residual block, its activations in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.last, self.relu = nn.Conv2d(16, 4, 3, stride=2), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.first(x))
        return self.last(self.relu(self.second(y) + x))


@pytest.fixture
def x():
    return torch.randn(1, 16, 20, 24)


def test_when_asked_for(quick, ran, x):
    plain = Block()
    model = quick(copy.deepcopy(plain), options={"winograd": True})
    with torch.no_grad():
        assert ran(model, x) == {"conv3x3": 2}
        torch.testing.assert_close(model(x), plain(x))
    assert [entry.op for entry in model.report.fused] == ["conv3x3"] * 2


def test_in_training(quick, ran, x):
    plain = Block()
    model = quick(copy.deepcopy(plain), options={"winograd": True})
    assert ran(lambda: model(x).square().sum().backward()) == {"conv3x3": 2, "conv3x3_backward": 2}
    plain(x).square().sum().backward()
    model.zero_grad()
    model(x).square().sum().backward()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_thin_ones_are_left_alone_in_training(quick, ran):
    model = quick(Picture(), options={"winograd": True})
    assert ran(model, torch.rand(1, 3, 20, 24)) == {}
    assert any("less than 16 channels" in entry.reason for entry in model.report.left_alone)


def test_not_otherwise(quick, ran, x):
    model = quick(Block())
    with torch.no_grad():
        assert ran(model, x) == {}


def test_a_map_that_is_changed_for_others_too(quick, x):
    class Shared(Block):
        def forward(self, x):
            y = self.first(x)
            z = self.relu(y)
            return y + z

    plain = Shared()
    model = quick(copy.deepcopy(plain), options={"winograd": True})
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))


class Picture(nn.Module):
    """From a picture to a picture, with running means to fold."""

    def __init__(self):
        super().__init__()
        self.begin, self.norm, self.end = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 3, 3, padding=1),
        )

    def forward(self, x):
        return x - self.end(self.norm(self.begin(x)).relu_())


def test_a_whole_network_becomes_a_program(quick):
    plain = Picture().eval()
    model = quick(copy.deepcopy(plain), options={"winograd": True})
    x = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        for given in (x, torch.rand(1, 3, 33, 18), torch.rand(2, 3, 40, 24)):
            torch.testing.assert_close(model(given), plain(given))
        assert [entry.op for entry in model.report.fused] == ["program"]
        for each in (plain, model):
            each.load_state_dict({name: 2 * value for name, value in each.state_dict().items()})
        torch.testing.assert_close(model(x), plain(x))
        y = model(x)
    (y * torch.ones(1, requires_grad=True)).sum().backward()  # the result is an ordinary tensor
    torch.testing.assert_close(model(x), plain(x))  # with gradients


def test_what_a_program_refuses_goes_by_the_rules(quick, ran):
    class Warped(Picture):
        def forward(self, x):
            return super().forward(x).roll(1, 2)

    plain = Warped().eval()
    model = quick(copy.deepcopy(plain), options={"winograd": True})
    x = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))
        assert "conv3x3" in ran(model, x)
    assert any("roll" in entry.reason for entry in model.report.left_alone)
