"""3x3 convolutions by Winograd: only where that was asked for, in inference, with what follows them."""

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
    assert ran(model, x) == {}  # with gradients


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
