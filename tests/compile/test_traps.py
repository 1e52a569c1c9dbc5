"""Cells that look like an LSTM and are none, and settings that change: what runs is what the original computes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from layouts import OptionalStateCell, StackedCell, TwoSumsCell
from torch import nn


class Clamped(StackedCell):
    """Large states are cut: a probe with small ones would not see it."""

    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = (f.sigmoid() * c + i.sigmoid() * g.tanh()).clamp(-10, 10)
        return o.sigmoid() * c.tanh(), c


class OtherActivation(StackedCell):
    """A callable as a setting."""

    act = staticmethod(torch.tanh)

    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * self.act(g)
        return o.sigmoid() * c.tanh(), c


class SettingsInADict(StackedCell):
    def __init__(self):
        super().__init__()
        self.settings = {"forget": 1.0}

    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = (f + self.settings["forget"]).sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class InPlace(StackedCell):
    """The state is written over; whoever holds it sees that."""

    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c.mul_(f.sigmoid()).add_(i.sigmoid() * g.tanh())
        return o.sigmoid() * c.tanh(), c


class ReadTwice(StackedCell):
    """A gate that is a result too."""

    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        f = f.sigmoid()
        c = f * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c, f


class PreActivationReadTwice(StackedCell):
    def forward(self, x, state):
        h, c = state
        pre = self.conv(torch.cat([x, h], 1))
        i, f, o, g = pre.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c, pre.mean()


class MixedGradMode(StackedCell):
    """Its forget gate learns nothing."""

    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        with torch.no_grad():
            f = f.sigmoid()
        c = f * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Inputs:
    def __init__(self, scale=1.0, hidden=8):
        self.x, self.h, self.c = (scale * torch.randn(2, n, 6, 7) for n in (3, hidden, hidden))

    def __iter__(self):
        return iter((self.x.clone(), (self.h.clone(), self.c.clone())))


@pytest.mark.parametrize("kind", [Clamped, ReadTwice, PreActivationReadTwice, MixedGradMode, InPlace])
def test_left_alone(kind, quick, ran):
    plain, inputs = kind(), Inputs(scale=200.0)
    model = quick(copy.deepcopy(plain))
    for mine, theirs in zip(model(*inputs), plain(*inputs), strict=True):
        assert torch.equal(mine, theirs)
    assert ran(model, *inputs) == {}

    def gradients(module):
        total = sum(each.sum() for each in module(*inputs))
        return torch.autograd.grad(total, module.parameters())

    for mine, theirs in zip(gradients(model), gradients(plain), strict=True):
        assert torch.equal(mine, theirs)


def test_a_changed_callable(quick, ran):
    plain, inputs = OtherActivation(), Inputs()
    model = quick(copy.deepcopy(plain))
    assert ran(model, *inputs) == {"lstm_gates": 1}
    plain.act = model.act = F.softsign
    torch.testing.assert_close(model(*inputs), plain(*inputs))
    assert ran(model, *inputs) == {}


def test_a_changed_dict(quick, ran):
    plain, inputs = SettingsInADict(), Inputs()
    model = quick(copy.deepcopy(plain))
    assert ran(model, *inputs) == {"lstm_gates": 1}
    plain.settings["forget"] = model.settings["forget"] = 3.0
    torch.testing.assert_close(model(*inputs), plain(*inputs))


def test_a_changed_forget_bias(quick):
    plain = TwoSumsCell()
    x, (h, c) = Inputs()
    model = quick(copy.deepcopy(plain))
    for bias in (1.0, 3.0):
        plain.forget_bias = model.forget_bias = bias
        torch.testing.assert_close(model(x, h, c), plain(x, h, c))


@pytest.mark.parametrize("change", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_parametrized_convolutions(change, compared):
    """Their weight is computed; where it is, its gates are brought into order too."""
    cell = StackedCell()
    change(cell.conv)
    ours = compared(cell.eval(), tuple(Inputs()))
    assert len(ours.report.fused) == 1


def test_inplace_activations_before_the_cell(compared, ran):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.cell = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)), StackedCell()

        def forward(self, x, state):
            return self.cell(self.head(x), state)

    ours = compared(Model(), tuple(Inputs()))
    assert len(ours.report.fused) == 1


def test_training_and_inference_in_turns(quick, ran):
    """The optional state, gradients on and off, other sizes: each its own graph, each right."""
    plain = OptionalStateCell().eval()
    model = quick(copy.deepcopy(plain))
    for size in ((6, 7), (9, 5), (12, 16)):
        x = torch.randn(2, 3, *size)
        for grad in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with grad():
                state = theirs = None
                for _ in range(2):
                    mine, theirs = model(x, state), plain(x, theirs)
                    torch.testing.assert_close(mine, theirs)
                    state = mine
