"""accelerate(): the same object, compiled, with a report of what was fused and what was not."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from layouts import Charbonnier, StackedCell
from torch import nn

import unrain


class Network(nn.Module):
    """Someone's model: an encoder, two stacked cells in a loop over time, one that is no LSTM, a head."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True))
        self.cells = nn.ModuleList([StackedCell(3, 4), StackedCell(4, 6, kernel=5, bias=False)])
        self.odd = HardTanhCell(6, 6)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, clip):
        states = [self.zeros(clip, cell) for cell in (*self.cells, self.odd)]
        for t in range(clip.shape[1]):
            x = self.encoder(clip[:, t])
            for index, cell in enumerate((*self.cells, self.odd)):
                x, c = cell(x, state=states[index])
                states[index] = (x, c)
        return self.head(x)

    def zeros(self, clip, cell):
        zero = torch.zeros(clip.shape[0], cell.hidden, *clip.shape[-2:], dtype=clip.dtype)
        return zero, zero


class HardTanhCell(StackedCell):
    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * F.hardtanh(c), c


@pytest.fixture
def clip():
    return torch.rand(1, 2, 3, 9, 8)


def test_a_whole_model(clip, quick):
    model = Network()
    expected, keys = model(clip), list(model.state_dict())
    assert quick(model) is model and type(model) is Network
    assert "first call" in str(model.report)
    torch.testing.assert_close(model(clip), expected)
    assert list(model.state_dict()) == keys
    assert [(entry.where, entry.op) for entry in model.report.fused] == [
        ("cells.0", "lstm_gates"),
        ("cells.1", "lstm_gates"),
    ]
    assert all(entry.line.startswith("layouts.py:") for entry in model.report.fused)
    (odd,) = model.report.left_alone
    assert odd.where == "odd" and odd.line.startswith("test_accelerate.py:") and odd.reason
    assert "cells.1" in str(model.report) and odd.reason in str(model.report)


def test_life_after(clip, quick):
    """State dicts both ways, weights loaded after compiling, train and eval, dtypes; copies are the plain model."""
    plain = Network()
    model = quick(copy.deepcopy(plain))
    model(clip)
    plain.load_state_dict({name: torch.randn_like(value) * 0.1 for name, value in plain.state_dict().items()})
    model.load_state_dict(plain.state_dict())
    expected = plain(clip)
    torch.testing.assert_close(model(clip), expected)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(clip), expected) and other.report.fused
        nn.init.zeros_(other.cells[0].conv.weight)  # a copy has weights of its own
    torch.testing.assert_close(model(clip), expected)
    torch.testing.assert_close(model.eval()(clip), model.train()(clip))
    torch.testing.assert_close(model.double()(clip.double()), plain.double()(clip.double()))


def test_compiled_again_after_a_copy(clip, quick):
    model = quick(Network())
    other = quick(copy.deepcopy(model))
    torch.testing.assert_close(other(clip), model(clip))
    assert len(other.report.fused) == 2


def test_hooks_are_called(quick):
    cell, seen = quick(StackedCell()), []
    x, state = torch.rand(1, 3, 6, 5), (torch.rand(1, 8, 6, 5), torch.rand(1, 8, 6, 5))
    expected = cell(x, state)
    cell.register_forward_hook(lambda *_: seen.append("cell"))
    cell.conv.register_forward_hook(lambda module, inputs, y: 2 * y)
    changed = cell(x, state)
    plain = copy.deepcopy(cell)
    torch.testing.assert_close(changed, plain(x, state))
    assert seen and not torch.allclose(changed[0], expected[0])


def test_a_model_with_a_report_of_its_own_keeps_it(quick):
    class Model(Charbonnier):
        def report(self):
            return "mine"

    assert quick(Model()).report() == "mine"


def test_modules_of_ours_stay_as_they_are(quick, ran):
    model = quick(unrain.CharbonnierLoss())
    assert ran(model, torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)) == {"charbonnier": 1}


def test_only_modules():
    with pytest.raises(TypeError, match="module must be"):
        unrain.accelerate(lambda x: x)


def test_an_unknown_rest_is_one_clear_line():
    model = unrain.accelerate(Charbonnier(), options={"rest": "fast"})
    with pytest.raises(Exception, match=r'"rest".* must be one of inductor, eager'):
        model(torch.rand(3), torch.rand(3))


def test_by_its_name():
    """Registered by entry point: no import of unrain is needed."""
    from torch._dynamo.backends.registry import list_backends

    assert "unrain" in list_backends(exclude_tags=())
    loss = torch.compile(Charbonnier(), backend="unrain", options={"rest": "eager"})
    x = torch.rand(4, 5)
    assert loss(x, x).item() == pytest.approx(1e-3)
