"""ConvLSTMCell and ConvGRUCell: their equations, their explicit state, their state dict."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from unrain import ConvGRUCell, ConvLSTMCell
from unrain.engine.nn import ConvLSTMState

CELLS = [
    ("lstm", lambda: ConvLSTMCell(3, 4)),
    ("lstm 5x5", lambda: ConvLSTMCell(3, 4, kernel_size=5)),
    ("lstm 1x1, no bias", lambda: ConvLSTMCell(3, 4, kernel_size=1, bias=False)),
    ("lstm with peepholes", lambda: ConvLSTMCell(3, 4, peephole=True)),
    ("gru", lambda: ConvGRUCell(3, 4)),
    ("gru 1x5", lambda: ConvGRUCell(3, 4, kernel_size=(1, 5))),
    ("gru, no bias", lambda: ConvGRUCell(3, 4, kernel_size=5, bias=False)),
]
each_cell = pytest.mark.parametrize("make", [make for _, make in CELLS], ids=[name for name, _ in CELLS])


def _zero(cell, x):
    zero = torch.zeros(x.shape[0], 4, *x.shape[2:], dtype=x.dtype)
    return (zero, zero) if isinstance(cell, ConvLSTMCell) else (zero,)


@each_cell
def test_no_state_is_a_state_of_zeros(make):
    cell, x = make().double(), torch.randn(2, 3, 7, 5, dtype=torch.float64)
    out, state = cell(x)
    expected, expected_state = cell(x, _zero(cell, x))
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(tuple(state), tuple(expected_state))
    assert state.h is out


@each_cell
def test_gradients_through_two_steps(make):
    cell = make().double()
    x = torch.randn(1, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: cell(x, cell(x)[1])[0], x, fast_mode=True)
    cell(x, cell(x)[1])[0].sum().backward()
    assert all(parameter.grad is not None for parameter in cell.parameters())


@each_cell
def test_copies_and_dtypes(make):
    cell, x = make(), torch.randn(2, 3, 7, 5)
    again = make()
    again.load_state_dict(cell.state_dict())
    for other in (again, copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert torch.equal(other(x)[0], cell(x)[0])
    assert cell.to(torch.bfloat16)(x.bfloat16())[0].dtype == torch.bfloat16


@each_cell
def test_compiles_in_one_graph(make):
    torch._dynamo.reset()
    cell, x = make(), torch.randn(2, 3, 7, 5)

    def two_steps(x):
        return cell(x, cell(x)[1])[0]

    torch.testing.assert_close(torch.compile(two_steps, fullgraph=True, backend="aot_eager")(x), two_steps(x))


def test_detached_state_carries_numbers_but_no_history():
    cell, x = ConvLSTMCell(3, 4), torch.randn(2, 3, 7, 5)
    _, state = cell(x)
    cut = state.detach()
    assert isinstance(cut, ConvLSTMState) and torch.equal(cut.c, state.c)
    assert state.c.requires_grad and not cut.c.requires_grad and not cut.h.requires_grad


def test_lstm_equations():
    cell = ConvLSTMCell(3, 4, peephole=True).double()
    with torch.no_grad():
        cell.peephole.normal_()
    x, h, c = (torch.randn(2, n, 7, 5, dtype=torch.float64) for n in (3, 4, 4))
    i, f, g, o = F.conv2d(torch.cat([x, h], 1), cell.weight, cell.bias, padding=1).chunk(4, 1)
    p = cell.peephole
    new = (f + p[1] * c).sigmoid() * c + (i + p[0] * c).sigmoid() * g.tanh()
    out, state = cell(x, (h, c))
    torch.testing.assert_close(state.c, new)
    torch.testing.assert_close(out, (o + p[2] * new).sigmoid() * new.tanh())


def test_gru_equations():
    cell = ConvGRUCell(3, 4).double()
    x, h = torch.randn(2, 3, 7, 5, dtype=torch.float64), torch.randn(2, 4, 7, 5, dtype=torch.float64)
    z, r = cell.gates(torch.cat([x, h], 1)).sigmoid().chunk(2, 1)
    g = cell.candidate(torch.cat([x, r * h], 1)).tanh()
    torch.testing.assert_close(cell(x, (h,))[0], (1 - z) * h + z * g)


def test_documented_state_dicts():
    def shapes(cell):
        return {name: tuple(value.shape) for name, value in cell.state_dict().items()}

    assert shapes(ConvLSTMCell(3, 4)) == {"weight": (16, 7, 3, 3), "bias": (16,)}
    assert shapes(ConvLSTMCell(3, 4, bias=False, peephole=True)) == {"weight": (16, 7, 3, 3), "peephole": (3, 4, 1, 1)}
    assert shapes(ConvGRUCell(3, 4, bias=False)) == {
        "gates.weight": (8, 7, 3, 3),
        "candidate.weight": (4, 7, 3, 3),
    }


def test_autocast_keeps_the_cell_in_float32():
    for cell in (ConvLSTMCell(3, 4), ConvLSTMCell(3, 4, peephole=True)):
        x = torch.randn(2, 3, 7, 5)
        with torch.autocast("cpu", torch.bfloat16):
            out, state = cell(x)
            out, state = cell(x, state)
        assert (out.dtype, state.c.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("kind", [ConvLSTMCell, ConvGRUCell])
def test_sizes_that_make_no_sense(kind):
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        kind(3, 4, kernel_size=4)
    with pytest.raises(ValueError, match=r"kernel_size must be odd.*got 3 x 2"):
        ConvGRUCell(3, 4, kernel_size=(3, 2))
    with pytest.raises(ValueError, match="must be positive"):
        kind(0, 4)
    with pytest.raises((ValueError, RuntimeError), match=r"weight must have 2|expected input"):
        kind(3, 4)(torch.zeros(1, 2, 8, 8))
