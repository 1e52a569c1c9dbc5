"""What no rule knows goes to Inductor; our operations run beside its code."""

from functools import partial

import pytest
import torch
from layouts import Charbonnier, StackedCell
from torch._inductor import config
from torch._inductor.graph import GraphLowering
from torch._inductor.utils import fresh_cache, run_and_get_code

from unrain.engine.compile import Report, backend
from unrain.engine.compile.backend import _has_cpp

pytestmark = pytest.mark.skipif(not _has_cpp(), reason="no C++ compiler for Inductor")


class Model(torch.nn.Module):
    """A cell, and around it what a compiler fuses."""

    def __init__(self):
        super().__init__()
        self.cell = StackedCell(3, 4)

    def forward(self, x, h, c):
        h, c = self.cell(x * 2 - 1, (h, c))
        return (h + x.mean(1, keepdim=True)).sigmoid() * 3, c


@pytest.fixture
def given():
    return torch.randn(1, 3, 6, 7), torch.randn(1, 4, 6, 7), torch.randn(1, 4, 6, 7)


def test_inductor_takes_the_rest(given, ran):
    model = Model()
    compiled = torch.compile(model, backend="unrain", options={"rest": "inductor"})
    with torch.no_grad():
        found, code = run_and_get_code(compiled, *given)
        assert len(code) == 1 and "unrain.conv_lstm" in code[0] and "cpp_fused" in code[0]
        torch.testing.assert_close(found, model(*given))
        assert ran(compiled, *given) == {"conv_lstm": 1}


def test_what_inductor_fuses_as_well_is_left_to_it(ran):
    report = Report()
    loss = torch.compile(Charbonnier(), backend=partial(backend, report=report), options={"rest": "inductor"})
    x, y = torch.rand(2, 3, 40)
    torch.testing.assert_close(loss(x, y), Charbonnier()(x, y))
    assert ran(loss, x, y) == {}
    assert "Inductor fuses it as well" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_training_with_inductor(given, compared, dynamic):
    model = Model()
    compiled = torch.compile(model, backend=backend, dynamic=dynamic)
    compared(model, given, compiled=compiled)


@pytest.mark.slow
def test_modes_are_inductors(given):
    model = Model()
    compiled = torch.compile(model, backend="unrain", mode="reduce-overhead")
    torch.testing.assert_close(compiled(*given), model(*given))


@pytest.mark.slow
@pytest.mark.parametrize("asked", [False, True])
def test_convolutions_keep_their_layout_on_a_cpu(given, monkeypatch, asked):
    """Forward and backward, where nobody asks for Inductor's own way."""
    seen = []
    monkeypatch.setattr(
        GraphLowering, "decide_layout_opt", staticmethod(lambda *_, **__: seen.append(config.layout_optimization))
    )
    options = {"layout_optimization": True} if asked else {}
    with fresh_cache():
        sum(torch.compile(Model(), backend="unrain", options=options)(*given)).sum().backward()
    assert seen == [asked, asked]
